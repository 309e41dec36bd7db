//! What can go wrong in a reconcile. No variant holds a secret.

use coffer_client::ClientError;

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server did not do what was asked.
    #[error("Kubernetes API: {0}")]
    Kube(#[from] Box<kube::Error>),
    /// An object came without a field that every stored object has.
    #[error("object has no {0}")]
    Incomplete(&'static str),
    /// A file of this pod cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A watch has not delivered its first list yet.
    #[error("still listing {0}")]
    NotListed(&'static str),
    /// The CofferConnection cannot be used.
    #[error("{}", .0.message)]
    Connection(NotConnected),
    /// Leases are being revoked but not gone yet.
    #[error("{left} leases under {prefix} are still being revoked; is the database up?")]
    Revoking {
        /// Their prefix.
        prefix: String,
        /// How many.
        left: usize,
    },
    /// The vault's server did not do what was asked.
    #[error("vault: {0}")]
    Vault(#[from] ClientError),
}

/// Why a CofferConnection cannot be used, in the words of a condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NotConnected {
    /// CamelCase reason.
    pub(crate) reason: &'static str,
    /// What a person can do about it.
    pub(crate) message: String,
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Kube(Box::new(error))
    }
}

/// Whether the API server said that we may not.
pub(crate) fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether the server said that it is sealed. A 503 alone may have other reasons, each with another remedy.
pub(crate) fn says_sealed(error: &ClientError) -> bool {
    match error {
        ClientError::Status { code: 503, errors } => errors.iter().any(|text| text.contains("sealed")),
        ClientError::Status { code, .. } => *code == 501,
        _ => false,
    }
}

/// Longest text of a condition that comes from elsewhere.
const MESSAGE_CHARS_MAX: usize = 512;

/// Text from elsewhere, cut to a condition's size and to one line.
pub(crate) fn brief(text: &str) -> String {
    let line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_CHARS_MAX).collect();
    line.trim().to_owned()
}
