//! `coffer server --dev`: everything in memory, unsealed, and given away to whoever reads the screen.
//!
//! Never listens on anything but loopback.

use std::process::ExitCode;

use anyhow::Context;
use coffer_core::token::Token;

use crate::cli::env;
use crate::config::{CONNECTIONS_MAX, Config, Listener, LogFormat, Storage};
use crate::logs::Logs;
use crate::serve::{Running, ServerArgs, runtime};

/// Runs a development server until it is told to end.
pub(crate) fn run(args: &ServerArgs) -> anyhow::Result<ExitCode> {
    let address = args.dev_listen_address;
    if !address.ip().is_loopback() {
        anyhow::bail!("--dev-listen-address {address}: a development server listens on loopback only");
    }
    let chosen = dev_root_token(args)?;
    let _logs = Logs::start(args.log_level.as_deref(), LogFormat::Standard)?;
    let dir =
        tempfile::Builder::new().prefix("coffer-dev-").tempdir().context("a directory for the audit log")?;
    let config = Config {
        listeners: vec![Listener {
            address,
            tls: None,
            connections_max: CONNECTIONS_MAX,
            connections_per_client_max: CONNECTIONS_MAX,
            limits: crate::config::Limits::default(),
            proxies: None,
        }],
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
        log_format: LogFormat::Standard,
        pid_file: None,
        client_request_rate: None,
        token_request_rate: None,
        ca_file: None,
        cache: coffer_vault::CacheSettings::default(),
        outbound: coffer_vault::Outbound::default(),
        unauthenticated_ceremonies: false,
        warnings: Vec::new(),
    };
    runtime()?.block_on(async {
        let running = Running::start_fixed(&config).await?;
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
    let named = env(&["COFFER_DEV_ROOT_TOKEN_ID", "VAULT_DEV_ROOT_TOKEN_ID", "BAO_DEV_ROOT_TOKEN_ID"]);
    let given = args.dev_root_token_id.clone().or(named.map(|(_, token)| token));
    let parsed = given.map(|text| Token::parse(&text)).transpose();
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
