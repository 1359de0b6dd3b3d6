// Nothing is written to the page's address, and only where it lies and its language are read from it; a token is kept in the page alone and
// ends with it.
// Below a proxy's prefix the API lies there too.
const here = new URL(".", location.href).href;
const there = new URL("/api/v1/im/", location.href).href;
// Without one the browser's own languages decide.
const lang = new URLSearchParams(location.search).get("lang");
SwaggerUIBundle({
  url: lang === "en" || lang === "zh" ? `openapi.json?lang=${lang}` : "openapi.json",
  dom_id: "#swagger-ui",
  queryConfigEnabled: false,
  deepLinking: false,
  persistAuthorization: false,
  // Otherwise the document's address is sent to a server of Swagger's.
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
  requestInterceptor(request) {
    request.url = request.url.replace(there, here);
    return request;
  },
});
