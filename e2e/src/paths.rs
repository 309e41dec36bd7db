//! Where things are: the checkout, and the cache outside of it. Never creates anything.

use std::path::{Path, PathBuf};

/// The checkout this crate was built from.
pub fn repo() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
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
