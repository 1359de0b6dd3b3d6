# Both base images are arguments, for where Docker Hub or gcr.io cannot be reached: any Debian image with this Rust, and any with the
# C library of Debian 12 or newer and CA certificates.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
# Cargo features, separated by commas: `otel` sends traces.
ARG FEATURES=
# Built twice: the second time by what the first one did under load (a sixth less CPU for a send; docs/PERFORMANCE.md). That needs
# two cores and twice the time: `--build-arg PROFILE_GUIDED=false` builds once.
ARG PROFILE_GUIDED=true
WORKDIR /build
# For the training: a load generator, what it compares with, and the tool that reads profiles.
RUN if [ "$PROFILE_GUIDED" = true ]; then \
        apt-get update \
        && apt-get install -y --no-install-recommends curl llvm-22 mawk nginx-light procps wrk \
        && rm -rf /var/lib/apt/lists/*; \
    fi
# First the dependencies, with empty sources in place of ours: a layer that stays until a manifest changes. With PROFILE_GUIDED it has those
# of the build that counts; the other build depends on what was counted, so nothing of it can be kept.
COPY Cargo.toml Cargo.lock ./
COPY crates/dev-upstream/Cargo.toml crates/dev-upstream/Cargo.toml
COPY crates/wkproto/Cargo.toml crates/wkproto/Cargo.toml
COPY bench/rig/Cargo.toml bench/rig/Cargo.lock bench/rig/
COPY bench/pgo bench/pgo
RUN for crate in . crates/dev-upstream crates/wkproto bench/rig; do mkdir -p $crate/src && touch $crate/src/lib.rs && echo 'fn main() {}' >$crate/src/main.rs; done \
    && if [ "$PROFILE_GUIDED" = true ]; then \
        bench/pgo --dependencies --features "$FEATURES" \
        && cargo build --release --locked --manifest-path bench/rig/Cargo.toml --target-dir target/bench; \
    else cargo build --profile dist --locked --features "$FEATURES"; fi \
    && rm -r src crates/dev-upstream/src crates/wkproto/src bench/rig/src
COPY config/default.toml config/default.toml
COPY bench bench
COPY crates crates
COPY src src
# Newer than the empty ones: Cargo compares times.
RUN find src crates bench -name '*.rs' -exec touch {} + \
    && if [ "$PROFILE_GUIDED" = true ]; then bench/pgo --features "$FEATURES"; \
    else cargo build --profile dist --locked --features "$FEATURES" && mkdir -p target/pgo && cp target/dist/wukongim-gateway target/pgo/; fi \
    && mkdir data

# No shell, no package manager; CA certificates are in it, for https upstreams. Its user `nonroot` is 65532.
FROM ${RUNTIME_IMAGE}
COPY --from=build /build/target/pgo/wukongim-gateway /usr/local/bin/wukongim-gateway
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
