//! A real Postgres with TLS, from Debian's programs, for one test or one demo. Its server runs as an
//! unprivileged user and ends with its owner. Never uses a server that it did not start.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::shell::run;
use crate::wait::eventually;

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const ADMIN: &str = "coffer_admin";

/// A user name and a password.
#[derive(Clone)]
pub struct Login {
    /// Account name.
    pub username: String,
    /// Password.
    pub password: String,
}

/// A running Postgres with the database `orders`, the role `orders_rw` and an admin who may make logins.
pub struct Postgres {
    dir: Dir,
    server: Option<Child>,
    port: u16,
    ca_pem: String,
    admin: Login,
    superuser: Login,
}

enum Dir {
    Temp(TempDir),
    Kept(PathBuf),
}

impl Dir {
    fn path(&self) -> &Path {
        match self {
            Self::Temp(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }
}

impl Postgres {
    /// Starts one that listens on `addresses` and whose certificate is good for `names`. It ends when the
    /// value is dropped, and when this process dies.
    pub async fn start(addresses: &[&str], names: &[&str]) -> Result<Self> {
        Self::launch(Dir::Temp(tempfile::tempdir()?), addresses, names).await
    }

    /// As [`Postgres::start`], but it goes on when this process ends, until [`Postgres::stop_kept`].
    pub async fn start_kept(dir: &Path, addresses: &[&str], names: &[&str]) -> Result<Self> {
        Self::stop_kept(dir).await?;
        std::fs::create_dir(dir).with_context(|| dir.display().to_string())?;
        Self::launch(Dir::Kept(dir.to_owned()), addresses, names).await
    }

    /// Ends a kept one and deletes its data.
    pub async fn stop_kept(dir: &Path) -> Result<()> {
        if let Some(pid) = postmaster_pid(dir) {
            end(pid, Duration::from_secs(10))?;
        }
        if dir.exists() {
            std::fs::remove_dir_all(dir)?;
        }
        Ok(())
    }

    async fn launch(dir: Dir, addresses: &[&str], names: &[&str]) -> Result<Self> {
        let bind = addresses.first().context("Postgres needs an address to listen on")?;
        let port = free_port(bind)?;
        let superuser = Login { username: "postgres".to_owned(), password: random_password() };
        let admin = Login { username: ADMIN.to_owned(), password: random_password() };
        let (ca_pem, cert_pem, key_pem) = certificates(names)?;
        let root = dir.path();
        std::fs::write(root.join("pw"), &superuser.password)?;
        std::fs::write(root.join("server.crt"), cert_pem)?;
        std::fs::write(root.join("server.key"), key_pem)?;
        if Uid::effective().is_root() {
            run(tokio::process::Command::new("chown").arg("-R").arg("postgres:postgres").arg(root)).await?;
        }
        run(tokio::process::Command::new("chmod").arg("700").arg(root)).await?;
        run(tokio::process::Command::new("chmod")
            .arg("600")
            .arg(root.join("server.key"))
            .arg(root.join("pw")))
        .await?;
        initdb(root).await?;
        std::fs::remove_file(root.join("pw"))?;
        configure(root, addresses, port)?;
        let log = std::fs::File::create(root.join("log"))?;
        let server = as_postgres(!matches!(dir, Dir::Kept(_)), "postgres")
            .arg("-D")
            .arg(root.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {PROGRAMS}/postgres; is postgresql-15 installed?"))?;
        let this = Self { dir, server: Some(server), port, ca_pem, admin, superuser };
        this.prepare().await?;
        Ok(this)
    }

    async fn prepare(&self) -> Result<()> {
        let su = eventually("Postgres answers", Duration::from_secs(30), || async {
            self.connect_to("postgres", &self.superuser).await
        })
        .await
        .with_context(|| std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default())?;
        let log = std::fs::read_to_string(self.dir.path().join("log"))?;
        if let Some(line) = log.lines().find(|line| line.contains("could not bind")) {
            bail!("Postgres: {line}");
        }
        let password = &self.admin.password;
        su.batch_execute("CREATE DATABASE orders").await?;
        su.batch_execute(&format!(
            "CREATE ROLE orders_rw NOLOGIN; \
             CREATE ROLE {ADMIN} LOGIN CREATEROLE PASSWORD '{password}'; \
             GRANT pg_signal_backend TO {ADMIN}; GRANT orders_rw TO {ADMIN} WITH ADMIN OPTION"
        ))
        .await?;
        let orders = self.connect(&self.superuser).await?;
        let table = "CREATE TABLE orders (id int PRIMARY KEY, item text); \
                     INSERT INTO orders VALUES (1, 'lamp'), (2, 'chair'); \
                     GRANT SELECT, INSERT ON orders TO orders_rw";
        Ok(orders.batch_execute(table).await?)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The CA of its certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The login that may make logins.
    pub fn admin(&self) -> &Login {
        &self.admin
    }

    /// A session in the database `orders`, over TLS.
    pub async fn connect(&self, login: &Login) -> Result<Client> {
        self.connect_to("orders", login).await
    }

    async fn connect_to(&self, database: &str, login: &Login) -> Result<Client> {
        connect("127.0.0.1", self.port, database, login, &self.ca_pem).await
    }

    /// Names of the accounts that Coffer made. One that may not log in any more is still there: its sessions may be too.
    pub async fn made_accounts(&self) -> Result<Vec<String>> {
        let su = self.connect(&self.superuser).await?;
        let sql = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY 1";
        Ok(su.query(sql, &[]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// How many sessions an account has open.
    pub async fn sessions(&self, account: &str) -> Result<i64> {
        let su = self.connect(&self.superuser).await?;
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename::text = $1";
        Ok(su.query_one(sql, &[&account]).await?.get(0))
    }

    /// Stops the server process for a while, as a hanging database does; [`Postgres::thaw`] lets it go on.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = postmaster_pid(self.dir.path()).context("Postgres is not running")?;
        Ok(kill(pid, signal)?)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if matches!(self.dir, Dir::Kept(_)) {
            return;
        }
        let Some(mut server) = self.server.take() else { return };
        if let Some(pid) = postmaster_pid(self.dir.path()) {
            let _ = kill(pid, Signal::SIGCONT);
            let _ = kill(pid, Signal::SIGQUIT);
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if matches!(server.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = server.kill();
        let _ = server.wait();
    }
}

/// A session over TLS; the server's certificate must be good for `host` under `ca_pem`.
pub async fn connect(host: &str, port: u16, database: &str, login: &Login, ca_pem: &str) -> Result<Client> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.map_err(|why| anyhow::anyhow!("the CA's PEM: {why}"))?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port).dbname(database).user(&login.username).password(&login.password);
    config.ssl_mode(tokio_postgres::config::SslMode::Require).connect_timeout(Duration::from_secs(3));
    let (client, connection) = config.connect(tokio_postgres_rustls::MakeRustlsConnect::new(tls)).await?;
    // The task ends with the session; its error reaches whoever uses the client.
    tokio::spawn(connection);
    Ok(client)
}

/// A program of Postgres, as the user `postgres` if we are root.
fn as_postgres(die_with_us: bool, program: &str) -> Command {
    let program = Path::new(PROGRAMS).join(program);
    if !Uid::effective().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    if die_with_us {
        command.arg("--pdeathsig=KILL");
    }
    command.arg(program).current_dir("/");
    command
}

async fn initdb(root: &Path) -> Result<()> {
    let mut command = as_postgres(true, "initdb");
    command.args([
        "--username=postgres",
        "--auth=scram-sha-256",
        "--no-sync",
        "--locale=C",
        "--encoding=UTF8",
    ]);
    command.arg("--pwfile").arg(root.join("pw")).arg("-D").arg(root.join("data"));
    run(&mut tokio::process::Command::from(command)).await.context("initdb").map(drop)
}

fn configure(root: &Path, addresses: &[&str], port: u16) -> Result<()> {
    let (dir, addresses) = (root.display(), addresses.join(","));
    let mut settings = std::fs::read_to_string(root.join("data/postgresql.conf"))?;
    settings.push_str(&format!(
        "\nlisten_addresses = '{addresses}'\nport = {port}\nunix_socket_directories = '{dir}'\n\
         ssl = on\nssl_cert_file = '{dir}/server.crt'\nssl_key_file = '{dir}/server.key'\n\
         ssl_min_protocol_version = 'TLSv1.3'\nfsync = off\nshared_buffers = 16MB\nmax_connections = 60\n"
    ));
    std::fs::write(root.join("data/postgresql.conf"), settings)?;
    std::fs::write(root.join("data/pg_hba.conf"), "hostssl all all all scram-sha-256\n")?;
    Ok(())
}

/// A port that is free now. Should another program take it before Postgres does, Postgres says so and the start fails.
fn free_port(address: &str) -> Result<u16> {
    let listener =
        TcpListener::bind((address, 0)).with_context(|| format!("{address} is not on this machine"))?;
    Ok(listener.local_addr()?.port())
}

/// A CA of its own and a certificate for `names`: the CA's PEM, the chain's PEM, the key's PEM.
fn certificates(names: &[&str]) -> Result<(String, String, String)> {
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "test database CA");
    let ca_key = rcgen::KeyPair::generate()?;
    let ca = params.self_signed(&ca_key)?;
    let issuer = rcgen::Issuer::new(params, ca_key);
    let mut all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    all.extend(["127.0.0.1".to_owned(), "localhost".to_owned()]);
    let key = rcgen::KeyPair::generate()?;
    let cert = rcgen::CertificateParams::new(all)?.signed_by(&key, &issuer)?;
    Ok((ca.pem(), cert.pem(), key.serialize_pem()))
}

fn random_password() -> String {
    let half = || rand::random::<u64>();
    format!("{:016x}{:016x}", half(), half())
}

/// The postmaster that owns a data directory, if it runs: its pid, checked against its command line.
fn postmaster_pid(root: &Path) -> Option<Pid> {
    let data = root.join("data");
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.parse().ok()?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let ours = line.split(|byte| *byte == 0).any(|arg| arg == data.as_os_str().as_encoded_bytes());
    ours.then(|| Pid::from_raw(pid))
}

fn end(pid: Pid, limit: Duration) -> Result<()> {
    let _ = kill(pid, Signal::SIGCONT);
    kill(pid, Signal::SIGQUIT)?;
    let start = Instant::now();
    while kill(pid, None).is_ok() {
        if start.elapsed() > limit {
            bail!("Postgres (pid {pid}) does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
