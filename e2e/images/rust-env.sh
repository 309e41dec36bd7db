# shellcheck shell=bash
# How everything in Rust is built here, images and tests alike, so that nothing compiles twice:
# release, for this machine's own target, linked statically (glibc included). Sourced.
COFFER_CACHE=${COFFER_CACHE:-$HOME/.cache/coffer}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$COFFER_CACHE/target}
RUST_HOST=$(rustc -vV | sed -n 's/^host: //p')
rustflags_name=CARGO_TARGET_$(echo "$RUST_HOST" | tr 'a-z-' 'A-Z_')_RUSTFLAGS
export "$rustflags_name=-C target-feature=+crt-static"
# shellcheck disable=SC2034 # for the scripts that source this
RUST_ARGS=(--release --locked --target "$RUST_HOST")
# shellcheck disable=SC2034
RUST_OUT=$CARGO_TARGET_DIR/$RUST_HOST/release
