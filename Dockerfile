# syntax=docker/dockerfile:1
# certlet's image: the binary, the libraries that it is linked to, CA roots, and nothing else. Two ways to make it:
#
#   make image               with a binary that was built outside (target `prebuilt`); needs no container registry and no Docker
#   docker build .           compiles the binary in the build
#
# All stages use the same Debian release, so that build and run have the same libc. A release names the base images by digest:
# --build-arg RUST_IMAGE=docker.io/library/rust@sha256:... --build-arg DEBIAN_IMAGE=docker.io/library/debian@sha256:...
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim

# Takes the files that the binary needs out of Debian's packages for the image's architecture. Nothing of that architecture runs.
FROM --platform=$BUILDPLATFORM ${DEBIAN_IMAGE} AS libraries
ARG TARGETARCH
COPY scripts/image-root /usr/local/bin/image-root
RUN image-root "$TARGETARCH" /image

FROM scratch AS base
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="certlet" \
      org.opencontainers.image.description="Gives every Kubernetes pod its own short-lived X.509 certificate" \
      org.opencontainers.image.source="https://github.com/certlet/certlet" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=libraries /image /
# Runtimes search PATH for `certlet` in `kubectl exec` and in probes.
ENV PATH=/usr/bin
# Only root can mount. The chart sets the same user.
# hadolint ignore=DL3002
USER 0:0
ENTRYPOINT ["/usr/bin/certlet"]

# The image with the binary in dist/linux/ARCHITECTURE, which scripts/dist puts there.
FROM base AS prebuilt
ARG TARGETARCH
COPY dist/linux/${TARGETARCH}/certlet /usr/bin/certlet

# Builds on the machine's own architecture and cross-compiles for the other, because emulation would take an hour.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS build
ARG TARGETARCH
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# The Debian packages follow the base image's release.
# hadolint ignore=DL3008
RUN case "$TARGETARCH" in \
      amd64) triple=x86_64-unknown-linux-gnu cross=x86-64-linux-gnu ;; \
      arm64) triple=aarch64-unknown-linux-gnu cross=aarch64-linux-gnu ;; \
      *) echo "TARGETARCH: $TARGETARCH; accepted: amd64, arm64" >&2; exit 1 ;; \
    esac; \
    packages=(gcc libc6-dev); \
    if [ "$(dpkg --print-architecture)" != "$TARGETARCH" ]; then packages+=("gcc-$cross" "libc6-dev-$TARGETARCH-cross"); fi; \
    apt-get update; \
    apt-get install --yes --no-install-recommends "${packages[@]}"; \
    rm -rf /var/lib/apt/lists/*; \
    rustup target add "$triple"; \
    echo "$triple" > /triple

# cargo-auditable puts the list of crates, with versions, into the binary. Scanners (Trivy, Grype, Syft, BuildKit's --sbom) read it
# there, so the list always belongs to this build.
RUN cargo install --locked cargo-auditable@0.7.7

WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
COPY kubelet kubelet
COPY demo demo
# Cargo reads every member of the workspace, even those that it does not build.
COPY bench bench
COPY kubectl kubectl
COPY e2e/bench e2e/bench
# Cargo also looks for every test and example that Cargo.toml names.
COPY tests tests
COPY examples examples
ENV CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/target \
    triple=$(cat /triple); \
    CARGO_TARGET_DIR=/target cargo auditable build --locked --release --bin certlet --target "$triple"; \
    install -D -m 0755 "/target/$triple/release/certlet" /out/usr/bin/certlet

# The image with the binary that the stage before compiled.
FROM base
COPY --from=build /out/usr/bin/certlet /usr/bin/certlet
