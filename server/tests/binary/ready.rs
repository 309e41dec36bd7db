//! A server that is unsealed and holds a secret: what bad input and bad disks are tried on, and what must be left of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::Value;

use crate::bed::Bed;
use crate::common::{Server, Shell};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client of a bed's servers believes; it offers just this version.
pub(crate) fn client_config(bed: &Bed, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(bed.path("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A TLS connection to a server of a bed, by this version only.
pub(crate) fn connect(
    bed: &Bed,
    server: &Server,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(client_config(bed, version), name).unwrap();
    let socket = TcpStream::connect(server.address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(client, socket);
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(stream)
}

/// An HTTP/1.1 request, byte for byte.
pub(crate) struct Raw(Vec<u8>);

impl Raw {
    pub(crate) fn new(method: &str, target: impl AsRef<[u8]>) -> Self {
        Self(
            [method.as_bytes(), b" ", target.as_ref(), b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"]
                .concat(),
        )
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), b": ", value.as_ref(), b"\r\n"] {
            self.0.extend_from_slice(part);
        }
        self
    }

    /// The end of the head, and a body of this length.
    pub(crate) fn body(self, body: impl AsRef<[u8]>) -> Vec<u8> {
        let length = body.as_ref().len().to_string();
        let mut bytes = self.header("content-length", length).0;
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body.as_ref());
        bytes
    }

    /// The end of the head, and these bytes, whatever the head said.
    pub(crate) fn end(mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(b"\r\n");
        self.0.extend_from_slice(bytes);
        self.0
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self { status: status.unwrap_or_else(|| panic!("no answer: {text:?}")), body: body.to_owned() }
    }

    /// The one sentence of a refusal in Vault's form.
    pub(crate) fn error(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        let errors = body["errors"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        errors.iter().map(|error| error.as_str().unwrap()).collect::<Vec<_>>().join("; ")
    }
}

/// See the module.
pub(crate) struct Ready {
    pub(crate) bed: Bed,
    pub(crate) server: Server,
    pub(crate) shell: Shell,
    pub(crate) key: String,
    pub(crate) root: String,
}

impl Ready {
    pub(crate) fn new() -> Self {
        let bed = Bed::new();
        let server = Server::with_config(&bed.path("coffer.hcl"));
        Self::of(bed, server)
    }

    /// Initialises a server of this bed that was just started for the first time.
    pub(crate) fn of(bed: Bed, server: Server) -> Self {
        let shell = shell(&bed, &server);
        let made = shell.json(&["operator", "init", "--key-shares", "1", "--key-threshold", "1"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (key, root) = (text(&made["unseal_keys_b64"][0]), text(&made["root_token"]));
        shell.ok_with(&["operator", "unseal"], &key);
        shell.ok_with(&["login"], &root);
        shell.ok(&["secrets", "enable", "--path", "secret", "--version", "2", "kv"]);
        shell.ok(&["kv", "put", "secret/app", "password=hunter2"]);
        Self { bed, server, shell, key, root }
    }

    /// Another server of the same bed in the place of one that has ended; unsealed.
    pub(crate) fn again(&mut self, server: Server) {
        self.server = server;
        self.shell = shell(&self.bed, &self.server);
        self.shell.ok_with(&["operator", "unseal"], &self.key);
        self.shell.ok_with(&["login"], &self.root);
    }

    /// A request with the root token.
    pub(crate) fn request(&self, method: &str, path: impl AsRef<[u8]>) -> Raw {
        Raw::new(method, [b"/v1/", path.as_ref()].concat()).header("x-vault-token", &self.root)
    }

    /// Sends bytes over a connection of their own; everything that comes back until its end.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = connect(&self.bed, &self.server, &rustls::version::TLS13).unwrap();
        stream.write_all(bytes).unwrap();
        stream.flush().unwrap();
        let mut answer = Vec::new();
        // An end without a farewell is one as well.
        let _cut = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Answer {
        Answer::parse(&self.exchange(bytes))
    }

    /// A request that is refused with this status and a sentence that has these words.
    pub(crate) fn refused(&self, bytes: &[u8], status: u16, words: &str) {
        let answer = self.send(bytes);
        assert!(answer.status == status && answer.error().contains(words), "{words:?}: {answer:?}");
        assert!(!answer.body.contains("hunter2"), "{answer:?}");
    }

    pub(crate) fn audit_log(&self) -> String {
        std::fs::read_to_string(self.bed.path("audit/audit.log")).unwrap()
    }

    /// Nothing is lost: what [`Ready::well`] says, and the audit log is whole.
    pub(crate) fn unharmed(self) {
        let dir = self.bed.path("audit");
        let verified = self.shell.ok(&["audit", "verify", dir.to_str().unwrap()]);
        assert!(verified.contains(": intact, "), "{verified}");
        assert!(!self.audit_log().contains("hunter2"));
        self.well();
    }

    /// The secret is there, the server answers and ends in order, and nothing in it panicked.
    pub(crate) fn well(mut self) {
        assert_eq!(self.shell.ok(&["kv", "get", "--field", "password", "secret/app"]), "hunter2");
        self.server.signal(Signal::SIGTERM);
        let (code, said) = self.server.end();
        assert_eq!(code, Some(0), "{said:#?}");
        let told = said.iter().any(|line| line.contains("panicked") || line.contains("hunter2"));
        assert!(!told, "{said:#?}");
    }
}

fn shell(bed: &Bed, server: &Server) -> Shell {
    Shell::new(format!("https://{}", server.address), Some(bed.path("ca.crt")))
}
