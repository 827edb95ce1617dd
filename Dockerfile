# The three images: docker build --target namesrv|broker|operator .
#
# Static binaries on an empty root: no shell, no libraries, not root. The binaries are compiled here,
# or, with --build-arg BINARIES=prebuilt, taken from dist/bin, where `scripts/image` puts them.
ARG BINARIES=compile

FROM rust:1.95-bookworm AS compile
WORKDIR /src
COPY . .
# crt-static links glibc in, its resolver too (2.36 and later need no libnss_dns.so beside them).
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    triple=$(rustc -vV | sed -n 's/^host: //p') && \
    RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_STRIP=debuginfo \
      cargo build --release --locked --target "$triple" \
      -p rocketmq-namesrv -p rocketmq-broker -p rocketmq-operator -p rocketmq-cli && \
    mkdir -p /out/bin /out/home && \
    cd "target/$triple/release" && cp mqnamesrv mqbroker mqadmin rocketmq-operator /out/bin/

FROM scratch AS prebuilt
COPY dist/bin /out/bin
WORKDIR /out/home

FROM ${BINARIES} AS binaries

FROM scratch AS namesrv
COPY --from=binaries --chown=3000:3000 /out/home /home/rocketmq
COPY --from=binaries /out/bin/mqnamesrv /usr/bin/
ENV PATH=/usr/bin HOME=/home/rocketmq
USER 3000:3000
EXPOSE 9876
ENTRYPOINT ["/usr/bin/mqnamesrv"]

FROM scratch AS broker
COPY --from=binaries --chown=3000:3000 /out/home /home/rocketmq
COPY --from=binaries /out/bin/mqbroker /out/bin/mqadmin /usr/bin/
ENV PATH=/usr/bin HOME=/home/rocketmq
USER 3000:3000
EXPOSE 10909 10911 10912
ENTRYPOINT ["/usr/bin/mqbroker"]

FROM scratch AS operator
COPY --from=binaries /out/bin/rocketmq-operator /usr/bin/
ENV PATH=/usr/bin
USER 3000:3000
EXPOSE 8080
ENTRYPOINT ["/usr/bin/rocketmq-operator"]
