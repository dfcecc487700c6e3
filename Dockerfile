# syntax=docker/dockerfile:1
#
# The gateway as an image, for linux/amd64 and linux/arm64. Either machine builds both:
#
#     docker buildx build --platform linux/amd64,linux/arm64 --tag jobwatch \
#         --build-arg REVISION="$(git rev-parse --short=12 HEAD)" .
#
# It runs as user 65532, needs no writable file system and no capability, and expects a
# configuration at /etc/jobwatch/jobwatch.toml. Another --build-arg FEATURES= includes the
# simulators: `jemalloc,demo`. tests/integration/image.rs runs what is written here.

ARG RUST_VERSION=1.95.0

FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-bookworm AS build
ARG TARGETARCH
ARG FEATURES=jemalloc
ARG REVISION=unknown
ARG SOURCE_DATE_EPOCH=0
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src

# The compiler for the image's architecture: aws-lc and jemalloc are written in C. Its
# version is that of the Debian release.
# hadolint ignore=DL3008
RUN case "$TARGETARCH" in \
        amd64) cpu=x86_64 package=x86-64 ;; \
        arm64) cpu=aarch64 package=aarch64 ;; \
        *) echo "no image for the architecture $TARGETARCH" >&2; exit 1 ;; \
    esac; \
    target=$cpu-unknown-linux-gnu; \
    rustup target add "$target"; \
    { \
        echo "export CARGO_BUILD_TARGET=$target"; \
        if [ "$(dpkg --print-architecture)" != "$TARGETARCH" ]; then \
            echo "export CC_${target//-/_}=$cpu-linux-gnu-gcc"; \
            cargo_target=${target//-/_}; \
            echo "export CARGO_TARGET_${cargo_target^^}_LINKER=$cpu-linux-gnu-gcc"; \
        fi; \
        # Kernels for arm64 have pages of 4 to 64 KiB; a program for 64 KiB runs on all.
        if [ "$TARGETARCH" = arm64 ]; then echo "export JEMALLOC_SYS_WITH_LG_PAGE=16"; fi; \
    } > /target.env; \
    if [ "$(dpkg --print-architecture)" != "$TARGETARCH" ]; then \
        apt-get update; \
        apt-get install -y --no-install-recommends "gcc-$package-linux-gnu" "libc6-dev-$TARGETARCH-cross"; \
        rm -rf /var/lib/apt/lists/*; \
    fi

COPY . .
# shellcheck disable=SC1091
RUN source /target.env; \
    export SOURCE_DATE_EPOCH JOBWATCH_COMMIT="$REVISION"; \
    export RUSTFLAGS="--remap-path-prefix=$CARGO_HOME=/cargo --remap-path-prefix=/src=/jobwatch"; \
    cargo build --locked --release --no-default-features --features "$FEATURES"; \
    install -D "target/$CARGO_BUILD_TARGET/release/jobwatch" /out/jobwatch

# The C library, libgcc, certificates and time zones. No shell.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG REVISION=unknown
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="jobwatch" \
      org.opencontainers.image.description="One gRPC contract over every vendor's asynchronous-job API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
COPY --from=build /out/jobwatch /usr/local/bin/jobwatch
COPY LICENSE /usr/share/doc/jobwatch/LICENSE
USER 65532:65532
# Callers; probes and metrics.
EXPOSE 50051 9090
STOPSIGNAL SIGTERM
# With TLS: jobwatch healthcheck --server https://NAME:50051 --ca FILE
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/jobwatch", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/jobwatch"]
CMD ["serve", "--config", "/etc/jobwatch/jobwatch.toml", "--log-format", "json"]
