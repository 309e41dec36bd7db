# The same images as `e2e/images/build` makes, for people with Docker:
#
#   docker build --target server -t localhost/coffer/server:0.1.0 .
#
# and likewise operator, injector, agent and demo-app. Where this project's tests run there is no
# Docker: they use e2e/images/build, and this file has not been built there.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# `--target` keeps the static linking away from build scripts and macros, which must stay dynamic.
RUN host=$(rustc -vV | sed -n 's/^host: //p') \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$host" \
      -p coffer -p coffer-operator -p coffer-injector -p coffer-agent -p coffer-e2e --bins \
 && mkdir /out \
 && cp target/$host/release/coffer target/$host/release/coffer-operator target/$host/release/coffer-injector \
       target/$host/release/coffer-agent target/$host/release/demo_app /out/

FROM scratch AS server
COPY --from=build /out/coffer /usr/bin/coffer
USER 65532:65532
ENTRYPOINT ["/usr/bin/coffer"]

FROM scratch AS operator
COPY --from=build /out/coffer-operator /coffer-operator
USER 65532:65532
ENTRYPOINT ["/coffer-operator"]

FROM scratch AS injector
COPY --from=build /out/coffer-injector /coffer-injector
USER 65532:65532
ENTRYPOINT ["/coffer-injector"]

FROM scratch AS agent
COPY --from=build /out/coffer-agent /coffer-agent
USER 65532:65532
ENTRYPOINT ["/coffer-agent"]

FROM scratch AS demo-app
COPY --from=build /out/demo_app /demo_app
USER 65532:65532
ENTRYPOINT ["/demo_app"]
