//! What the server tells whoever runs it: lines on standard error, text or JSON. Secrets are never in them, because no
//! type that holds one can be formatted.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::LogFormat;

/// What is said without RUST_LOG and without a level in the configuration.
const DEFAULT: &str = "info";

/// The filter in force, to change it while running.
#[derive(Debug)]
pub(crate) struct Logs {
    handle: Handle<EnvFilter, Registry>,
    from_environment: bool,
}

impl Logs {
    /// Begins logging; RUST_LOG goes before the configuration's level.
    pub(crate) fn start(level: Option<&str>, format: LogFormat) -> anyhow::Result<Self> {
        let (filter, from_environment) = match EnvFilter::try_from_default_env() {
            Ok(filter) if std::env::var_os("RUST_LOG").is_some() => (filter, true),
            _ => (EnvFilter::try_new(level.unwrap_or(DEFAULT))?, false),
        };
        let (filter, handle) = reload::Layer::new(filter);
        let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        let lines = match format {
            LogFormat::Standard => lines.boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init()?;
        Ok(Self { handle, from_environment })
    }

    /// Takes a new level from the configuration; RUST_LOG still goes before it.
    pub(crate) fn set_level(&self, level: Option<&str>) -> anyhow::Result<()> {
        if !self.from_environment {
            self.handle.reload(EnvFilter::try_new(level.unwrap_or(DEFAULT))?)?;
        }
        Ok(())
    }
}
