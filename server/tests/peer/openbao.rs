//! Where the real OpenBao is.

use std::path::PathBuf;

/// Where `e2e/install-bao` puts it.
pub(crate) fn bao() -> PathBuf {
    if let Some(path) = std::env::var_os("COFFER_BAO") {
        return path.into();
    }
    let cache = std::env::var_os("COFFER_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/coffer"),
        PathBuf::from,
    );
    let path = cache.join("bao/bin/bao");
    assert!(
        path.exists(),
        "no OpenBao at {}: install it with e2e/install-bao (make test does), or name it in COFFER_BAO",
        path.display()
    );
    path
}
