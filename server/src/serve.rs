//! `coffer server`: from the configuration to a running server, and its orderly end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use coffer_api::Api;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::assemble::{Assembled, assemble, ca_bundle};
use crate::cli::{complain, env};
use crate::config::{Config, Limits};
use crate::descriptors;
use crate::dev;
use crate::listen::Bound;
use crate::logs::Logs;
use crate::tls::Certificate;

/// Options of `server`.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The configuration, HCL or JSON: files, or directories of them. Can be given several times. Also from
    /// COFFER_CONFIG_PATH, VAULT_... or BAO_...
    #[arg(long, value_name = "PATH", conflicts_with = "dev")]
    config: Vec<PathBuf>,
    /// Read the configuration and the certificates, say what is wrong with them, and end.
    #[arg(long, conflicts_with = "dev")]
    test: bool,
    /// trace, debug, info, warn or error; goes before the configuration's.
    #[arg(long, value_name = "LEVEL", value_parser = ["trace", "debug", "info", "warn", "error"])]
    pub(crate) log_level: Option<String>,
    /// For trying things out: in memory, unsealed, plain HTTP on loopback. Everything is gone at the end.
    #[arg(long)]
    pub(crate) dev: bool,
    /// Where a development server listens.
    #[arg(long, value_name = "ADDRESS", requires = "dev", default_value = "127.0.0.1:8200")]
    pub(crate) dev_listen_address: SocketAddr,
    /// A development server's root token. Also from COFFER_DEV_ROOT_TOKEN_ID, VAULT_... or BAO_...
    #[arg(long, value_name = "TOKEN", requires = "dev")]
    pub(crate) dev_root_token_id: Option<String>,
}

/// Runs the server until it is told to end.
pub(crate) fn run(args: ServerArgs) -> anyhow::Result<ExitCode> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("a TLS provider was installed twice");
    }
    if args.dev {
        return dev::run(&args);
    }
    let ServerArgs { config: mut paths, test, log_level, .. } = args;
    if paths.is_empty() {
        let named = env(&["COFFER_CONFIG_PATH", "VAULT_CONFIG_PATH", "BAO_CONFIG_PATH"]);
        let (_, path) = named.context("expected --config or --dev")?;
        paths.push(path.into());
    }
    let config = Config::load(&paths)?;
    if test {
        return check(&config);
    }
    let logs = Logs::start(log_level.as_deref().or(config.log_level.as_deref()), config.log_format)?;
    // No core dump, no debugger of another process: the keys are in this memory.
    nix::sys::prctl::set_dumpable(false).context("protecting the process's memory")?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    runtime()?.block_on(async {
        let running = Running::start(&config, Some(Reload { paths, log_level, logs })).await?;
        running.until_told().await
    })
}

/// Everything that can be found out about a configuration without beginning to serve.
fn check(config: &Config) -> anyhow::Result<ExitCode> {
    for tls in config.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        Certificate::load(tls)?.server_config()?;
    }
    config.ca_file.as_deref().map(ca_bundle).transpose()?;
    for warning in &config.warnings {
        complain(&format!("Warning: {warning}"));
    }
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "The configuration is good.")?;
    Ok(ExitCode::SUCCESS)
}

/// The file that tells others this process's id. Gone with the process, unless that is killed.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> anyhow::Result<Self> {
        let text = format!("{}\n", std::process::id());
        std::fs::write(path, text).with_context(|| format!("pid_file {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "pid_file not removed");
        }
    }
}

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting")
}

/// For the last steps, after the listeners have drained; Kubernetes kills 30 s after SIGTERM.
const CLOSE: Duration = Duration::from_secs(8);

/// How often the certificates' files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What SIGHUP reads again.
struct Reload {
    paths: Vec<PathBuf>,
    /// From the command line.
    log_level: Option<String>,
    logs: Logs,
}

/// A server that answers.
pub(crate) struct Running {
    pub(crate) assembled: Assembled,
    pub(crate) addresses: Vec<SocketAddr>,
    certificates: Vec<Arc<Certificate>>,
    listeners: JoinSet<()>,
    closing: watch::Sender<bool>,
    shutdown: CancellationToken,
    background: tokio::task::JoinHandle<()>,
    reload: Option<Reload>,
    signals: Signals,
    _pid_file: Option<PidFile>,
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

impl Running {
    /// A server without a configuration to read again.
    pub(crate) async fn start_fixed(config: &Config) -> anyhow::Result<Self> {
        Self::start(config, None).await
    }

    async fn start(config: &Config, reload: Option<Reload>) -> anyhow::Result<Self> {
        // Before anything else: a signal that comes early is not lost.
        let signals = Signals::listen().context("listening for signals")?;
        let mut certificates = Vec::new();
        let mut bound = Vec::new();
        descriptors::make_room(config.listeners.iter().map(|listener| listener.connections_max).sum());
        for listener in &config.listeners {
            let tls = match &listener.tls {
                None => None,
                Some(files) => {
                    let certificate = Certificate::load(files)?;
                    let tls = certificate.server_config()?;
                    certificates.push(certificate);
                    Some(tls)
                }
            };
            bound.push(Bound::bind(listener, tls).await?);
        }
        let assembled = assemble(config)?;
        let (closing, closed) = watch::channel(false);
        let api = Api {
            vault: Arc::clone(&assembled.vault),
            clock: Arc::clone(&assembled.clock) as Arc<_>,
            closing: closed.clone(),
            limits: coffer_api::Limits::default(),
            bodies: coffer_api::Bodies::default(),
        };
        // Once everything is this process's, so that one that fails to start leaves another's file alone; and before it
        // is said that the server has started: whoever waits for that word finds the file.
        let pid_file = config.pid_file.as_deref().map(PidFile::write).transpose()?;
        let shutdown = CancellationToken::new();
        let background = tokio::spawn(Arc::clone(&assembled.vault).run_background(shutdown.clone()));
        let mut listeners = JoinSet::new();
        let mut addresses = Vec::new();
        for listener in bound {
            let address = listener.address()?;
            tracing::info!(%address, tls = listener.is_tls(), "listening");
            addresses.push(address);
            let Limits { body_bytes_max, body_time, .. } = listener.limits();
            let limits = coffer_api::Limits { body_bytes_max, body_time, ..api.limits };
            listeners.spawn(listener.serve(Api { limits, ..api.clone() }, closed.clone()));
        }
        let storage = config.storage.name();
        tracing::info!(storage, audit = %config.audit_dir.display(), version = env!("CARGO_PKG_VERSION"), "started");
        Ok(Self {
            assembled,
            addresses,
            certificates,
            listeners,
            closing,
            shutdown,
            background,
            reload,
            signals,
            _pid_file: pid_file,
        })
    }

    /// Serves until SIGTERM or SIGINT; then no new requests, those in flight finish, the vault is sealed, and the
    /// audit log is anchored and closed. All of it in bounded time.
    pub(crate) async fn until_told(mut self) -> anyhow::Result<ExitCode> {
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_EVERY, LOOK_EVERY);
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => break,
                _ = self.signals.interrupt.recv() => break,
                _ = self.signals.hangup.recv() => self.reload(),
                _ = look.tick() => self.refresh(),
                ended = self.listeners.join_next() => {
                    anyhow::bail!("a listener ended by itself: {ended:?}");
                }
            }
        }
        tracing::info!("draining");
        self.closing.send_replace(true);
        self.assembled.vault.end_waits();
        tokio::select! {
            () = async { while self.listeners.join_next().await.is_some() {} } => {}
            _ = self.signals.interrupt.recv() => tracing::warn!("told twice: requests in flight are cut"),
        }
        self.shutdown.cancel();
        let closed = async {
            self.background.await.context("ending background work")?;
            self.assembled.vault.close().await.context("sealing")
        };
        match tokio::time::timeout(CLOSE, closed).await {
            Ok(closed) => closed?,
            Err(_) => tracing::warn!("background work did not end in {CLOSE:?}; it is cut"),
        }
        tracing::info!("ended");
        Ok(ExitCode::SUCCESS)
    }

    /// Kubernetes replaces a mounted certificate without telling anybody. Half of a new pair is no pair; the
    /// next look finds both.
    fn refresh(&self) {
        for certificate in &self.certificates {
            match certificate.reload() {
                Ok(true) => tracing::info!("certificate reloaded: its file has changed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "certificate cannot be read, the present one stays"),
            }
        }
    }

    /// What can be changed while running: certificates and the log level. What cannot be read leaves
    /// things as they are.
    fn reload(&self) {
        for certificate in &self.certificates {
            match certificate.reload() {
                Ok(_) => tracing::info!("certificate reloaded"),
                Err(error) => tracing::error!(%error, "certificate not reloaded, the present one stays"),
            }
        }
        self.assembled.vault.reopen_audit_devices();
        let Some(Reload { paths, log_level, logs }) = &self.reload else { return };
        let level = Config::load(paths).map_err(anyhow::Error::from);
        let level = level.map(|config| log_level.clone().or(config.log_level));
        match level.and_then(|level| logs.set_level(level.as_deref())) {
            Ok(()) => tracing::info!("log level reloaded"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "log level not reloaded"),
        }
    }
}
