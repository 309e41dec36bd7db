//! Where things are: the checkout, and the cache outside of it. Never creates anything.

use std::path::{Path, PathBuf};

/// The checkout that is tested. Cargo says it at run time: checkouts share what is built, so it need not be the one
/// this was built in.
pub fn repo() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(here);
    here.parent().map(Path::to_owned).unwrap_or(here)
}

/// Where everything built or downloaded is kept: `COFFER_CACHE`, or `~/.cache/coffer`.
pub fn cache_dir() -> PathBuf {
    match std::env::var_os("COFFER_CACHE") {
        Some(dir) => dir.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/coffer"),
    }
}

/// The script that starts and ends the local cluster.
pub fn cluster_script() -> PathBuf {
    repo().join("e2e/cluster/cluster")
}

/// Where `e2e/images/build` puts the images.
pub fn images_dir() -> PathBuf {
    cache_dir().join("images/coffer")
}

/// The version the images are tagged with.
pub fn image_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
