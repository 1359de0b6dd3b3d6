# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
# Cargo features, separated by commas: `otel` sends traces.
ARG FEATURES=
WORKDIR /build
# One layer for the dependencies: built again only when the manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --features "$FEATURES" \
    && cargo clean --release --locked --package wukongim-gateway \
    && rm -r src
COPY config/default.toml config/default.toml
COPY src src
RUN cargo build --release --locked --features "$FEATURES" && mkdir data

# No shell, no package manager; CA certificates are in it, for https upstreams. Its user `nonroot` is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/wukongim-gateway /usr/local/bin/wukongim-gateway
# The store's default path is data/gateway.db; a named volume takes its owner from here.
COPY --from=build --chown=65532:65532 /build/data /app/data
WORKDIR /app
USER 65532:65532
VOLUME ["/app/data"]
# 8080 is the API. 9464 is the operations port: on loopback unless GATEWAY__SERVER__OPS_LISTEN says otherwise.
EXPOSE 8080 9464
# Liveness, not readiness: an orchestrator kills what is unhealthy, and a gateway whose WuKongIM is down is well itself.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/wukongim-gateway", "healthcheck", "http://127.0.0.1:9464/livez"]
ENTRYPOINT ["/usr/local/bin/wukongim-gateway"]
