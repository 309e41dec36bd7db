//! What can be chosen from outside, by environment variables. Each has a default for a full and for a quick run.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Everything that can be chosen.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `quick` or `full`.
    pub(crate) mode: String,
    /// How long each row is measured, after its warm-up.
    pub(crate) measure: Duration,
    /// How long a row runs before it is measured.
    pub(crate) warm_up: Duration,
    /// Secrets in the small set.
    pub(crate) secrets: u64,
    /// Secrets in the large set; 0 leaves it out.
    pub(crate) many: u64,
    /// How long loading the large set may take; what is there then is measured.
    pub(crate) load_limit: Duration,
    /// The same for OpenBao, which would need a quarter of an hour for a million.
    pub(crate) load_limit_openbao: Duration,
    /// Connections that ask at once, one request at a time each.
    pub(crate) connections: usize,
    /// Threads of the load generator.
    pub(crate) threads: usize,
    /// Arrivals a second in the mix; one in twenty is a write.
    pub(crate) mix_rate: u64,
    /// Measured only if named here; empty for all.
    pub(crate) only: Vec<String>,
    /// Rows are measured only if named here; empty for all.
    pub(crate) rows: Vec<String>,
    /// Further lines for Coffer's configuration, to try what a setting does.
    pub(crate) coffer_config: String,
    /// The binaries.
    pub(crate) coffer: PathBuf,
    pub(crate) bao: PathBuf,
    /// Where JSON and plot go.
    pub(crate) out: PathBuf,
    /// Where the servers keep their data meanwhile; a disk, not memory.
    pub(crate) scratch: PathBuf,
}

impl Settings {
    /// Reads the environment.
    pub(crate) fn from_env() -> Result<Self> {
        let mode = std::env::var("COFFER_BENCH_MODE").unwrap_or_else(|_| "full".to_owned());
        let quick = match mode.as_str() {
            "quick" => true,
            "full" => false,
            other => bail!("COFFER_BENCH_MODE={other}: expected quick or full"),
        };
        let pick = |short: u64, long: u64| if quick { short } else { long };
        let seconds = |name: &str, default: u64| number(name, default).map(Duration::from_secs);
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Self {
            measure: seconds("COFFER_BENCH_SECONDS", pick(3, 10))?,
            warm_up: seconds("COFFER_BENCH_WARM_UP", pick(1, 3))?,
            secrets: number("COFFER_BENCH_SECRETS", 10_000)?,
            many: number("COFFER_BENCH_MANY", pick(50_000, 1_000_000))?,
            load_limit: seconds("COFFER_BENCH_LOAD_LIMIT", pick(10, 400))?,
            load_limit_openbao: seconds("COFFER_BENCH_LOAD_LIMIT_OPENBAO", pick(10, 90))?,
            connections: number("COFFER_BENCH_CONNECTIONS", 64)?,
            threads: number("COFFER_BENCH_THREADS", cores)?,
            mix_rate: number("COFFER_BENCH_MIX_RATE", 10_000)?,
            only: words("COFFER_BENCH_ONLY"),
            rows: words("COFFER_BENCH_ROWS"),
            coffer_config: std::env::var("COFFER_BENCH_COFFER_CONFIG").unwrap_or_default(),
            coffer: path("COFFER_BENCH_COFFER")?,
            bao: path("COFFER_BENCH_BAO")?,
            out: path("COFFER_BENCH_OUT")?,
            scratch: std::env::var_os("COFFER_BENCH_SCRATCH").map_or_else(std::env::temp_dir, PathBuf::from),
            mode,
        })
    }

    /// Whether something is to be measured.
    pub(crate) fn wants(&self, service: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == service)
    }

    /// Whether a row is to be measured.
    pub(crate) fn wants_row(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|name| name == row)
    }
}

fn number<T: FromStr>(name: &str, default: T) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}: expected a whole number")),
        Err(_) => Ok(default),
    }
}

fn words(name: &str) -> Vec<String> {
    let text = std::env::var(name).unwrap_or_default();
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn path(name: &str) -> Result<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set; run `make bench`"))
}
