//! What can go wrong in the agent. No variant holds a token, a credential or rendered text.

use coffer_client::ClientError;
use std::path::PathBuf;
use thiserror::Error;

/// Why the agent could not do something.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The server, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The environment lacks something or has something unusable.
    #[error("{name}: {why}")]
    Config {
        /// The variable.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The delivery document cannot be used as it is.
    #[error("document {path}: {why}")]
    Document {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file or directory.
    #[error("{op} {path}: {source}")]
    File {
        /// What was tried.
        op: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The application could not be told that its files changed.
    #[error("notify {url}: {why}")]
    Notify {
        /// Whom.
        url: String,
        /// Why not.
        why: String,
    },
    /// A template does not fit the secret.
    #[error("file {file:?}: {why}")]
    Render {
        /// The file it belongs to.
        file: String,
        /// What is wrong; names keys, never values.
        why: String,
    },
    /// The state file cannot be read back.
    #[error("state file: {0}")]
    State(String),
    /// Something is not there yet that somebody else has to make.
    #[error("waiting: {0}")]
    Waiting(String),
}

impl AgentError {
    pub(crate) fn file(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { op, path, source }
    }

    /// The client's error, if it is one.
    pub fn client(&self) -> Option<&ClientError> {
        match self {
            Self::Client(error) => Some(error),
            _ => None,
        }
    }
}
