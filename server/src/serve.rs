//! `coffer server`: from the configuration to a running server, and its orderly end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use coffer_api::{Api, Limits};
use coffer_core::token::Token;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::assemble::{Assembled, assemble};
use crate::config::{CONNECTIONS_MAX, Config, Listener, Storage};
use crate::listen::Bound;
use crate::logs::Logs;
use crate::tls::Certificate;

/// Options of `server`.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The configuration, HCL or JSON.
    #[arg(long, value_name = "FILE", required_unless_present = "dev", conflicts_with = "dev")]
    config: Option<PathBuf>,
    /// For trying things out: in memory, unsealed, plain HTTP on loopback. Everything is gone at the end.
    #[arg(long)]
    dev: bool,
    /// Where a development server listens.
    #[arg(long, value_name = "ADDRESS", requires = "dev", default_value = "127.0.0.1:8200")]
    dev_listen_address: SocketAddr,
    /// A development server's root token. Also from COFFER_DEV_ROOT_TOKEN_ID, VAULT_... or BAO_...
    #[arg(long, value_name = "TOKEN", requires = "dev")]
    dev_root_token_id: Option<String>,
}

/// Runs the server until it is told to end.
pub(crate) fn run(args: ServerArgs) -> anyhow::Result<ExitCode> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("a TLS provider was installed twice");
    }
    if args.dev {
        return dev(&args);
    }
    let path = args.config.context("--config is missing")?;
    let config = Config::load(&path)?;
    let logs = Logs::start(config.log_level.as_deref())?;
    // No core dump, no debugger of another process: the keys are in this memory.
    nix::sys::prctl::set_dumpable(false).context("protecting the process's memory")?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    runtime()?.block_on(async {
        let running = Running::start(&config, Some(Reload { path, logs })).await?;
        running.until_told().await
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting")
}

fn dev(args: &ServerArgs) -> anyhow::Result<ExitCode> {
    let address = args.dev_listen_address;
    if !address.ip().is_loopback() {
        anyhow::bail!("--dev-listen-address {address}: a development server listens on loopback only");
    }
    let chosen = dev_root_token(args)?;
    let _logs = Logs::start(None)?;
    let dir =
        tempfile::Builder::new().prefix("coffer-dev-").tempdir().context("a directory for the audit log")?;
    let config = Config {
        listeners: vec![Listener { address, tls: None, connections_max: CONNECTIONS_MAX }],
        storage: Storage::Memory,
        audit_dir: dir.path().to_owned(),
        audit: coffer_vault::AuditSettings::default(),
        audit_devices: Vec::new(),
        audit_directories: Vec::new(),
        default_lease_ttl: None,
        max_lease_ttl: None,
        api_addr: None,
        cluster_name: None,
        log_level: None,
        ca_file: None,
        warnings: Vec::new(),
    };
    runtime()?.block_on(async {
        let running = Running::start(&config, None).await?;
        let mut made = running.assembled.vault.dev_init().await.context("initialising")?;
        if let Some(token) = chosen {
            running.assembled.vault.dev_root(&mut made, token).await.context("the chosen root token")?;
        }
        greet(&running, &config, made.unseal_key.expose(), made.root_token.expose())?;
        running.until_told().await
    })
}

/// The root token that a developer wants, if any: known tokens are for throw-away data.
fn dev_root_token(args: &ServerArgs) -> anyhow::Result<Option<Token>> {
    let named = ["COFFER", "VAULT", "BAO"].map(|whose| format!("{whose}_DEV_ROOT_TOKEN_ID"));
    let given = args.dev_root_token_id.clone();
    let given = given.or_else(|| named.iter().find_map(|name| std::env::var(name).ok()));
    let parsed = given.filter(|text| !text.is_empty()).map(|text| Token::parse(&text)).transpose();
    parsed.context("--dev-root-token-id: expected up to 8192 visible ASCII characters")
}

/// What a developer needs to go on, in Vault's words where tools look for them.
fn greet(running: &Running, config: &Config, unseal_key: &str, root_token: &str) -> anyhow::Result<()> {
    use std::io::Write;
    let address = running.addresses.first().context("no listener")?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "==> Coffer development server\n\n\
         WARNING! Everything is in memory and gone when this process ends. Whoever is on this machine can\n\
         read the traffic. Never keep a real secret here.\n\n\
         In another shell:\n\n    \
         export COFFER_ADDR='http://{address}'\n    \
         coffer login -\n\n\
         Unseal Key: {unseal_key}\n\
         Root Token: {root_token}\n\n\
         Audit log: {}\n",
        config.audit_dir.join("audit.log").display()
    )?;
    Ok(out.flush()?)
}

/// How often the certificates' files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What SIGHUP reads again.
struct Reload {
    path: PathBuf,
    logs: Logs,
}

/// A server that answers.
struct Running {
    assembled: Assembled,
    addresses: Vec<SocketAddr>,
    certificates: Vec<Arc<Certificate>>,
    listeners: JoinSet<()>,
    closing: watch::Sender<bool>,
    shutdown: CancellationToken,
    background: tokio::task::JoinHandle<()>,
    reload: Option<Reload>,
    signals: Signals,
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
    async fn start(config: &Config, reload: Option<Reload>) -> anyhow::Result<Self> {
        // Before anything else: a signal that comes early is not lost.
        let signals = Signals::listen().context("listening for signals")?;
        let mut certificates = Vec::new();
        let mut bound = Vec::new();
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
            limits: Limits::default(),
        };
        let router = coffer_api::router(api);
        let shutdown = CancellationToken::new();
        let background = tokio::spawn(Arc::clone(&assembled.vault).run_background(shutdown.clone()));
        let mut listeners = JoinSet::new();
        let mut addresses = Vec::new();
        for listener in bound {
            let address = listener.address()?;
            tracing::info!(%address, tls = listener.is_tls(), "listening");
            addresses.push(address);
            listeners.spawn(listener.serve(router.clone(), closed.clone()));
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
        })
    }

    /// Serves until SIGTERM or SIGINT; then no new requests, those in flight finish, the audit log is closed.
    async fn until_told(mut self) -> anyhow::Result<ExitCode> {
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
        tokio::select! {
            () = async { while self.listeners.join_next().await.is_some() {} } => {}
            _ = self.signals.interrupt.recv() => tracing::warn!("told twice: requests in flight are cut"),
        }
        self.shutdown.cancel();
        self.background.await.context("ending background work")?;
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
        let Some(Reload { path, logs }) = &self.reload else { return };
        let level = Config::load(path).map_err(anyhow::Error::from);
        match level.and_then(|config| logs.set_level(config.log_level.as_deref())) {
            Ok(()) => tracing::info!("log level reloaded"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "log level not reloaded"),
        }
    }
}
