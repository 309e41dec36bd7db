//! The two servers: `bao` from its Python package, and the binary under test. Both in memory, on loopback.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::http::{Sent, exchange};
use crate::openbao::bao;

/// The root token both are given.
pub(crate) const ROOT: &str = "peer-root";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bao,
    Coffer,
}

/// In what state it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Start {
    /// Initialised, unsealed, `secret/` mounted, with a known root token.
    #[default]
    Dev,
    /// Nothing initialised.
    Blank,
}

/// A running server, killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) home: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

impl Running {
    /// Starts one and waits until it answers.
    pub(crate) fn start(kind: Kind, start: Start) -> Self {
        // The port is free when it is chosen and may be taken when it is used; then another one is tried.
        for _ in 0..20 {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = socket.local_addr().unwrap();
            drop(socket);
            if let Some(running) = Self::at(kind, start, address) {
                return running;
            }
        }
        panic!("{kind:?} does not start");
    }

    fn at(kind: Kind, start: Start, address: SocketAddr) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let mut command = match kind {
            Kind::Bao => Command::new(bao()),
            Kind::Coffer => Command::new(env!("CARGO_BIN_EXE_coffer")),
        };
        command.arg("server");
        match start {
            Start::Dev => {
                command.arg("-dev").arg(format!("-dev-listen-address={address}"));
                command.arg(format!("-dev-root-token-id={ROOT}"));
                if kind == Kind::Bao {
                    command.arg("-dev-no-store-token");
                }
            }
            Start::Blank => {
                let config = home.path().join("config.hcl");
                std::fs::write(&config, configuration(kind, address, home.path())).unwrap();
                command.arg(format!("-config={}", config.display()));
            }
        }
        command.env_remove("RUST_LOG").env("HOME", home.path()).env("TMPDIR", home.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        // Read to the end by a thread: a full pipe would stop the server.
        let mut said = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _cut_off = said.read_to_string(&mut text);
            text
        });
        let mut running = Self { child, address, home };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            if let Some(status) = running.child.try_wait().unwrap() {
                let log = log.join().unwrap();
                assert!(
                    log.contains("address already in use") || log.contains("Address already in use"),
                    "{kind:?} ended with {status}: {log}"
                );
                return None;
            }
            if running.answers(start) {
                return Some(running);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{kind:?} does not answer at {address}");
    }

    fn answers(&self, start: Start) -> bool {
        let target = match start {
            Start::Dev => "/v1/secret/config",
            Start::Blank => "/v1/sys/seal-status",
        };
        let sent = Sent {
            method: "GET".into(),
            target: target.into(),
            headers: vec![("x-vault-token".into(), ROOT.into())],
            body: Vec::new(),
        };
        // Both prepare a KV v2 mount in the background, or not at all: the stories begin when it is there.
        exchange(self.address, &sent).is_ok_and(|answer| answer.status == 200)
    }
}

/// What both understand: Vault's own form.
fn configuration(kind: Kind, address: SocketAddr, home: &std::path::Path) -> String {
    let (listener, more) = match kind {
        // Its audit log is always on, and must be somewhere.
        Kind::Coffer => {
            let log = home.join("built-in/audit.log");
            (
                "",
                format!(
                    "audit \"file\" {{ file_path = \"{}\" }}\naudit_directories = [\"{}\"]\n",
                    log.display(),
                    home.display()
                ),
            )
        }
        // Vault's names for what changes the keys, and audit devices by API, are off there unless asked for.
        Kind::Bao => (
            "  disable_unauthed_rekey_endpoints = false\n  disable_unauthed_generate_root_endpoints = false\n",
            "unsafe_allow_api_audit_creation = true\n".to_owned(),
        ),
    };
    format!(
        "listener \"tcp\" {{\n  address = \"{address}\"\n  tls_disable = true\n{listener}}}\n\
         storage \"inmem\" {{}}\ndisable_mlock = true\napi_addr = \"http://{address}\"\n{more}"
    )
}
