//! A PostgreSQL of a test's own, from Debian's programs: with TLS, on a free port, in a directory that goes with
//! it. Never uses a server that it did not start.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const MISSING: &str = "PostgreSQL 15 is not installed: apt-get install postgresql-15";
/// The login that the engine is given: no superuser.
pub(crate) const ADMIN: &str = "coffer_admin";
/// Its first password.
pub(crate) const ADMIN_PASSWORD: &str = "Admin-first-1";
const SUPERUSER_PASSWORD: &str = "Superuser-1";

/// A running server.
pub(crate) struct Postgres {
    dir: tempfile::TempDir,
    server: Child,
    pub(crate) port: u16,
    pub(crate) ca: String,
}

impl Postgres {
    /// A server with a database `app`, a group `app_rw` that may make tables, and [`ADMIN`].
    pub(crate) async fn start() -> Self {
        assert!(Path::new(PROGRAMS).join("postgres").exists(), "{MISSING}");
        let dir = tempfile::Builder::new().prefix("coffer-pg").tempdir_in("/tmp").unwrap();
        let (ca, certificate, key) = super::certificates();
        let root = dir.path();
        std::fs::write(root.join("server.crt"), certificate).unwrap();
        std::fs::write(root.join("server.key"), key).unwrap();
        std::fs::write(root.join("password"), SUPERUSER_PASSWORD).unwrap();
        own(root);
        let mut initdb = program("initdb");
        initdb.args(["--username=postgres", "--auth=scram-sha-256", "--no-sync", "--locale=C", "-E", "UTF8"]);
        initdb.arg("--pwfile").arg(root.join("password")).arg("-D").arg(root.join("data"));
        let done = initdb.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        std::fs::write(root.join("data/pg_hba.conf"), "hostssl all all all scram-sha-256\n").unwrap();
        let port = free_port();
        let server = launch(root, port);
        let this = Self { dir, server, port, ca };
        this.prepare().await;
        this
    }

    async fn prepare(&self) {
        let su = self.wait().await;
        su.batch_execute("CREATE DATABASE app").await.unwrap();
        su.batch_execute(&format!(
            "CREATE ROLE app_rw NOLOGIN; CREATE ROLE {ADMIN} LOGIN CREATEROLE PASSWORD '{ADMIN_PASSWORD}'; \
             CREATE ROLE plain LOGIN PASSWORD 'Plain-1'; GRANT app_rw TO {ADMIN} WITH ADMIN OPTION"
        ))
        .await
        .unwrap();
        let app = self.superuser().await;
        app.batch_execute("CREATE SCHEMA work; GRANT USAGE, CREATE ON SCHEMA work TO app_rw").await.unwrap();
    }

    async fn wait(&self) -> Client {
        let start = Instant::now();
        loop {
            match self.connect_to("postgres", "postgres", SUPERUSER_PASSWORD).await {
                Ok(client) => return client,
                Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}: {}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a stopped server again, where it was.
    pub(crate) async fn restart(&mut self) {
        self.server = launch(self.dir.path(), self.port);
        drop(self.wait().await);
    }

    /// A session in `app` with every right.
    pub(crate) async fn superuser(&self) -> Client {
        self.connect("postgres", SUPERUSER_PASSWORD).await.unwrap()
    }

    /// A session in `app`.
    pub(crate) async fn connect(&self, user: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
        self.connect_to("app", user, password).await
    }

    async fn connect_to(
        &self,
        database: &str,
        user: &str,
        password: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).dbname(database).user(user).password(password);
        config.ssl_mode(SslMode::Require).connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Stops the server; the data stays.
    pub(crate) fn stop(&mut self) {
        // The child is setpriv turned into the postmaster. An immediate shutdown takes its shared memory along,
        // which a kill leaves behind.
        let _ = Command::new("kill").arg("-QUIT").arg(self.server.id().to_string()).status();
        let start = Instant::now();
        while matches!(self.server.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// What the server wrote.
    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        let _ =
            std::fs::File::open(self.dir.path().join("log")).and_then(|mut f| f.read_to_string(&mut text));
        text
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// Somebody else may take the port between this look and the server's: the test then fails, saying so.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn launch(root: &Path, port: u16) -> Child {
    let log = std::fs::File::create(root.join("log")).unwrap();
    let mut server = program("postgres");
    server.arg("-D").arg(root.join("data"));
    let dir = root.display();
    for setting in [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        format!("unix_socket_directories={dir}"),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={dir}/server.crt"),
        format!("ssl_key_file={dir}/server.key"),
        "ssl_min_protocol_version=TLSv1.3".to_owned(),
        "log_statement=all".to_owned(),
        "fsync=off".to_owned(),
        "shared_buffers=16MB".to_owned(),
        "max_connections=40".to_owned(),
    ] {
        server.arg("-c").arg(setting);
    }
    server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    server.spawn().unwrap()
}

fn root_user() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// PostgreSQL refuses to run as root.
fn program(name: &str) -> Command {
    let path: PathBuf = Path::new(PROGRAMS).join(name);
    let mut command = Command::new("setpriv");
    if root_user() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg("--pdeathsig=KILL").arg(path).current_dir("/");
    command
}

fn own(root: &Path) {
    let mut steps = vec![vec!["chmod", "600", "server.key", "password"], vec!["chmod", "700", "."]];
    if root_user() {
        steps.push(vec!["chown", "-R", "postgres:postgres", "."]);
    }
    for step in steps {
        let done = Command::new(step[0]).args(&step[1..]).current_dir(root).status().unwrap();
        assert!(done.success(), "{step:?}");
    }
}
