//! The servers that are measured: their configuration, their start, and what they must hold before they are asked.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ceiling;
use crate::connection::Connection;
use crate::load::{Target, local};
use crate::pki::{CERT, KEY, Pki};
use crate::process::Process;
use crate::requests::{MOUNT, request};
use crate::settings::Settings;

/// How long a server may take to answer after its start.
const START: Duration = Duration::from_secs(120);
/// The policy of everybody who asks.
const POLICY: &str = r#"
path "secret/data/*" { capabilities = ["create", "read", "update"] }
path "auth/token/create" { capabilities = ["update"] }
"#;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    OpenBao,
    /// With records that survive the process; flushed to the disk within 100 ms.
    Coffer,
    /// With records that are on the disk before the reply.
    CofferDisk,
    Ceiling,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Ceiling, Self::OpenBao, Self::Coffer, Self::CofferDisk];

    /// The name in settings and results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OpenBao => "openbao",
            Self::Coffer => "coffer",
            Self::CofferDisk => "coffer-disk",
            Self::Ceiling => "ceiling",
        }
    }
}

/// One server, with a directory of its own, gone with the value.
pub(crate) struct Service {
    pub(crate) kind: Kind,
    pub(crate) process: Process,
    pub(crate) target: Target,
    pub(crate) tokens: Arc<Vec<String>>,
    dir: TempDir,
    binary: PathBuf,
    unseal_key: String,
    root: String,
}

impl Service {
    /// Starts it, initialises it and gives it mounts, a policy and tokens.
    pub(crate) fn start(kind: Kind, settings: &Settings, pki: &Pki) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("coffer-bench-").tempdir_in(&settings.scratch)?;
        pki.write(dir.path())?;
        let address = free_address()?;
        configure(kind, dir.path(), address, settings)?;
        let binary = match kind {
            Kind::OpenBao => settings.bao.clone(),
            Kind::Coffer | Kind::CofferDisk => settings.coffer.clone(),
            Kind::Ceiling => std::env::current_exe()?,
        };
        let target = Target {
            address,
            tls: Arc::clone(&pki.client),
            connections: settings.connections,
            threads: settings.threads.min(settings.connections),
        };
        let process = launch(kind, &binary, dir.path())?;
        let mut service = Self {
            kind,
            process,
            target,
            tokens: Arc::new(vec!["none".to_owned()]),
            dir,
            binary,
            unseal_key: String::new(),
            root: String::new(),
        };
        let prepared = if kind == Kind::Ceiling { service.await_listening() } else { service.prepare() };
        prepared.with_context(|| format!("{}: {}", kind.name(), service.last_words()))?;
        Ok(service)
    }

    fn prepare(&mut self) -> Result<()> {
        let shares = json!({ "secret_shares": 1, "secret_threshold": 1 });
        let made = self.eventually("PUT", "sys/init", None, Some(&shares))?;
        self.unseal_key = text(&made, &["keys", "0"])?;
        self.root = text(&made, &["root_token"])?;
        self.eventually("PUT", "sys/unseal", None, Some(&json!({ "key": self.unseal_key })))?;
        let root = self.root.clone();
        let kv = json!({ "type": "kv", "options": { "version": "2" } });
        self.eventually("POST", &format!("sys/mounts/{MOUNT}"), Some(&root), Some(&kv))?;
        self.eventually("PUT", "sys/policies/acl/bench", Some(&root), Some(&json!({ "policy": POLICY })))?;
        let mut tokens = Vec::new();
        for _ in 0..self.target.connections {
            let asked = json!({ "policies": ["bench"], "ttl": "24h" });
            let made = self.eventually("POST", "auth/token/create", Some(&root), Some(&asked))?;
            tokens.push(text(&made, &["auth", "client_token"])?);
        }
        self.tokens = Arc::new(tokens);
        // OpenBao upgrades a fresh kv mount behind the scenes and refuses writes meanwhile.
        let probe = json!({ "data": { "value": "probe" } });
        self.eventually("POST", &format!("{MOUNT}/data/probe"), Some(&root), Some(&probe))?;
        Ok(())
    }

    /// A role and a secret id to log in with; none if this server has no AppRole.
    pub(crate) fn approle(&mut self) -> Result<Option<(String, String)>> {
        let root = self.root.clone();
        let root = Some(root.as_str());
        let (status, _) = self.ask("POST", "sys/auth/approle", root, Some(&json!({ "type": "approle" })))?;
        if !(200..300).contains(&status) {
            return Ok(None);
        }
        let role = json!({ "token_policies": ["bench"], "token_ttl": "1h", "secret_id_num_uses": 0 });
        self.eventually("POST", "auth/approle/role/bench", root, Some(&role))?;
        let id = self.eventually("GET", "auth/approle/role/bench/role-id", root, None)?;
        let secret = self.eventually("POST", "auth/approle/role/bench/secret-id", root, Some(&json!({})))?;
        Ok(Some((text(&id, &["data", "role_id"])?, text(&secret, &["data", "secret_id"])?)))
    }

    /// Ends the process, in order or not, starts it again and unseals it. Gives the time from the start of the process
    /// to the first secret read.
    pub(crate) fn restart(&mut self, crash: bool) -> Result<Duration> {
        if crash {
            self.process.kill()?
        } else {
            self.process.stop()?
        }
        let since = Instant::now();
        self.process = launch(self.kind, &self.binary, self.dir.path())?;
        self.eventually("PUT", "sys/unseal", None, Some(&json!({ "key": self.unseal_key })))?;
        let token = self.tokens.first().context("a token")?.clone();
        self.eventually("GET", &format!("{MOUNT}/data/b/0/0"), Some(&token), None)?;
        Ok(since.elapsed())
    }

    /// The bytes of a reply to a read, for the ceiling to give.
    pub(crate) fn sample_reply() -> Vec<u8> {
        let value = "x".repeat(1024);
        let metadata = json!({
            "created_time": "2026-01-01T00:00:00.000Z", "custom_metadata": null, "deletion_time": "",
            "destroyed": false, "version": 1,
        });
        let mut bytes = json!({
            "request_id": "00000000-0000-4000-8000-000000000000", "lease_id": "", "renewable": false,
            "lease_duration": 0, "data": { "data": { "value": value }, "metadata": metadata },
            "wrap_info": null, "warnings": null, "auth": null,
        })
        .to_string()
        .into_bytes();
        bytes.push(b'\n');
        bytes
    }

    fn await_listening(&mut self) -> Result<()> {
        self.eventually("GET", "anything", None, None).map(|_| ())
    }

    /// Asks until the answer is a success.
    fn eventually(
        &mut self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Value> {
        let since = Instant::now();
        loop {
            let answer = self.ask(method, path, token, body);
            match answer {
                Ok((status, body)) if (200..300).contains(&status) => return Ok(body),
                other if since.elapsed() > START => {
                    let (status, body) = other.with_context(|| format!("{method} {path}"))?;
                    bail!("{method} {path}: {status} {body}");
                }
                _ => self.process.check()?,
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks once, on a connection of its own.
    fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut bytes = Vec::new();
        request(&mut bytes, method, path, token, body.as_bytes());
        let (status, reply) = local(async {
            let mut connection = Connection::open(self.target.address, &self.target.tls).await?;
            connection.ask(&bytes).await
        })?;
        Ok((status, serde_json::from_slice(&reply).unwrap_or(Value::Null)))
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

fn text(value: &Value, path: &[&str]) -> Result<String> {
    let found = path.iter().try_fold(value, |at, key| match key.parse::<usize>() {
        Ok(index) => at.get(index),
        Err(_) => at.get(key),
    });
    found
        .and_then(Value::as_str)
        .map(str::to_owned)
        .with_context(|| format!("no {} in a reply", path.join(".")))
}

fn free_address() -> Result<SocketAddr> {
    // Taken again at once by who listens there; whoever is faster makes the start fail, loudly.
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn configure(kind: Kind, dir: &Path, address: SocketAddr, settings: &Settings) -> Result<()> {
    let at = dir.display();
    let listener = format!(
        "listener \"tcp\" {{\n  address = \"{address}\"\n  tls_cert_file = \"{at}/{CERT}\"\n  \
         tls_key_file = \"{at}/{KEY}\"\n  tls_min_version = \"tls13\"\n}}\n"
    );
    let text = match kind {
        Kind::Ceiling => {
            std::fs::write(dir.join(ceiling::REPLY), Service::sample_reply())?;
            return Ok(std::fs::write(dir.join(ceiling::ADDRESS), address.to_string())?);
        }
        Kind::OpenBao => {
            std::fs::create_dir(dir.join("raft"))?;
            let cluster = free_address()?;
            format!(
                "{listener}disable_mlock = true\nlog_level = \"error\"\napi_addr = \"https://{address}\"\n\
                 cluster_addr = \"https://{cluster}\"\nstorage \"raft\" {{\n  path = \"{at}/raft\"\n  \
                 node_id = \"bench\"\n}}\naudit \"file\" \"bench\" {{\n  options {{\n    \
                 file_path = \"{at}/audit.log\"\n  }}\n}}\n"
            )
        }
        Kind::Coffer | Kind::CofferDisk => {
            let durability = if kind == Kind::CofferDisk { "disk" } else { "process" };
            format!(
                "{listener}log_level = \"error\"\nstorage \"embedded\" {{\n  path = \"{at}/store\"\n}}\n\
                 audit \"file\" {{\n  file_path = \"{at}/audit/audit.log\"\n  durability = \"{durability}\"\n}}\n{}\n",
                settings.coffer_config
            )
        }
    };
    Ok(std::fs::write(dir.join("config.hcl"), text)?)
}

fn launch(kind: Kind, binary: &Path, dir: &Path) -> Result<Process> {
    let mut command = Command::new(binary);
    match kind {
        Kind::Ceiling => command.arg(ceiling::COMMAND).arg(dir),
        Kind::OpenBao => command.args(["server", "-config"]).arg(dir.join("config.hcl")),
        Kind::Coffer | Kind::CofferDisk => command.args(["server", "--config"]).arg(dir.join("config.hcl")),
    };
    // Its own certificate and nobody's settings.
    for name in ["BAO_ADDR", "VAULT_ADDR", "BAO_TOKEN", "VAULT_TOKEN", "RUST_LOG"] {
        command.env_remove(name);
    }
    Process::start(kind.name(), &mut command, &dir.join("log"))
}
