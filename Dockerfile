# One image with every binary; the command chooses: gateway, worker, simulator, gatewayctl.
# Needs BuildKit (DOCKER_BUILDKIT=1 with Docker older than 23). A vendor/ folder in the context is used when there is
# one, so that the image can be built where no module proxy is in reach.
FROM golang:1.26-bookworm AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOFLAGS=-buildvcs=false
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    go build -trimpath -ldflags="-s -w" -o /out/ ./cmd/... && mkdir /media

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="wagate" \
      org.opencontainers.image.description="Outbound gateway for the WhatsApp Cloud API" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ /usr/local/bin/
COPY LICENSE /usr/share/doc/wagate/LICENSE
# Where a volume for WAGATE_MEDIA is mounted: a new one takes its owner from here.
COPY --from=build --chown=65532:65532 /media /var/lib/wagate/media
USER 65532:65532
ENV WAGATE_LISTEN=:8080 WAGATE_WORKER_LISTEN=:8081
EXPOSE 8080 8081
# For the gateway; docker-compose.yml gives worker and simulator their own.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=6 CMD ["gateway", "healthcheck"]
CMD ["gateway", "serve"]
