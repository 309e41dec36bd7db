//! What the agent says about itself: one line for people and one marker for the startup probe. The
//! probe's output ends up in an Event of the pod, so a waiting pod explains itself. Never a secret.

use std::fs;
use std::path::{Path, PathBuf};

/// The agent's word in its state directory.
#[derive(Debug)]
pub struct Status {
    ready: PathBuf,
    line: PathBuf,
}

impl Status {
    /// The status kept in this directory.
    pub fn new(dir: &Path) -> Self {
        Self { ready: dir.join("ready"), line: dir.join("status") }
    }

    /// Replaces the line.
    pub fn say(&self, line: &str) {
        // The line is a courtesy: that it cannot be written must not stop what it is about.
        if let Err(error) = fs::write(&self.line, line) {
            tracing::debug!(%error, "status not written");
        }
    }

    /// Every file is in place: lets the pod's other containers start.
    pub fn set_ready(&self) {
        if let Err(error) = fs::write(&self.ready, b"") {
            tracing::error!(%error, "readiness not written");
        }
    }

    /// Whether every file has been in place.
    pub fn is_ready(&self) -> bool {
        self.ready.exists()
    }

    /// The line as last said.
    pub fn line(&self) -> String {
        fs::read_to_string(&self.line).unwrap_or_else(|_| "the agent has not said anything yet".to_owned())
    }
}
