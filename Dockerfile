# The service: one static binary, nothing else.
FROM golang:1.26-trixie AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY db db
COPY internal internal
# The image's sources have no version control. The file VERSION need not exist: `go.mod` is copied with it
# because COPY fails when nothing matches.
COPY go.mod VERSION* ./
ARG COMMIT=
RUN version=$(cat VERSION 2>/dev/null || true) \
    && CGO_ENABLED=0 go build -trimpath -ldflags="-s -w -X main.version=$version -X main.commit=$COMMIT" -o /out/server ./cmd/server \
    && install -d -m 1777 /out/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# An upload waits in /tmp. Its mode must survive where the file system is not read-only, too.
COPY --from=build /out /
USER 65532:65532
EXPOSE 8002
ENTRYPOINT ["/server"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/server", "healthcheck"]
