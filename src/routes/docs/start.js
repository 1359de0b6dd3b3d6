// Nothing is read from the page's address and nothing written to it; a token is kept in the page alone and ends with it.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  queryConfigEnabled: false,
  deepLinking: false,
  persistAuthorization: false,
  // Else the document's address is told to a server of Swagger's.
  validatorUrl: null,
  defaultModelsExpandDepth: 0,
});
