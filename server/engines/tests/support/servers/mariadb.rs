//! A MariaDB of a test's own, from Debian's programs: with TLS, on a free port, in a directory that goes with it.
//! Never uses a server that it did not start.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mysql_async::{Conn, OptsBuilder, SslOpts};

const SERVER: &str = "/usr/sbin/mariadbd";
const INSTALLER: &str = "/usr/bin/mariadb-install-db";
const MISSING: &str = "MariaDB is not installed: apt-get install mariadb-server-core mariadb-client-core";
/// The login that the engine is given: no superuser.
pub(crate) const ADMIN: &str = "coffer_admin";
/// Its first password.
pub(crate) const ADMIN_PASSWORD: &str = "Admin-first-1";
const SUPERUSER_PASSWORD: &str = "Superuser-1";

/// A running server.
pub(crate) struct MariaDb {
    dir: tempfile::TempDir,
    server: Child,
    pub(crate) port: u16,
    pub(crate) ca: String,
}

impl MariaDb {
    /// A server with a database `app`, [`ADMIN`], and a login `plain` that may do nothing.
    pub(crate) async fn start() -> Self {
        assert!(Path::new(SERVER).exists() && Path::new(INSTALLER).exists(), "{MISSING}");
        let dir = tempfile::Builder::new().prefix("coffer-maria").tempdir_in("/tmp").unwrap();
        let (ca, certificate, key) = super::certificates();
        let root = dir.path();
        std::fs::create_dir(root.join("data")).unwrap();
        // A server that starts removes the temporary tables it finds, also its neighbour's.
        std::fs::create_dir(root.join("tmp")).unwrap();
        std::fs::write(root.join("server.crt"), certificate).unwrap();
        std::fs::write(root.join("server.key"), key).unwrap();
        let init = [
            "CREATE DATABASE app".to_owned(),
            format!("CREATE USER su@'%' IDENTIFIED BY '{SUPERUSER_PASSWORD}'"),
            "GRANT ALL ON *.* TO su@'%' WITH GRANT OPTION".to_owned(),
            format!("CREATE USER {ADMIN}@'%' IDENTIFIED BY '{ADMIN_PASSWORD}'"),
            format!("GRANT CREATE USER, PROCESS, CONNECTION ADMIN ON *.* TO {ADMIN}@'%'"),
            format!("GRANT SELECT ON mysql.user TO {ADMIN}@'%'"),
            format!("GRANT ALL ON app.* TO {ADMIN}@'%' WITH GRANT OPTION"),
            "CREATE USER plain@'%' IDENTIFIED BY 'Plain-1'".to_owned(),
        ];
        // One statement a line: the server reads the file like that.
        std::fs::write(root.join("init.sql"), init.map(|statement| statement + ";\n").concat()).unwrap();
        own(root);
        let mut install = program(INSTALLER);
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.args(["--skip-name-resolve", "--innodb-log-file-size=4M"]);
        install.arg(format!("--datadir={}", root.join("data").display()));
        install.arg(format!("--tmpdir={}", root.join("tmp").display()));
        let done = install.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let port = free_port();
        let server = launch(root, port);
        let this = Self { dir, server, port, ca };
        this.wait().await;
        std::fs::remove_file(this.dir.path().join("init.sql")).unwrap();
        this
    }

    async fn wait(&self) {
        let start = Instant::now();
        while let Err(error) = self.connect("plain", "Plain-1").await {
            assert!(start.elapsed() < Duration::from_secs(60), "{error}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a stopped server again, where it was.
    pub(crate) async fn restart(&mut self) {
        self.server = launch(self.dir.path(), self.port);
        self.wait().await;
    }

    /// A session with every right.
    pub(crate) async fn superuser(&self) -> Conn {
        self.connect("su", SUPERUSER_PASSWORD).await.unwrap()
    }

    /// A session over TLS.
    pub(crate) async fn connect(&self, user: &str, password: &str) -> Result<Conn, mysql_async::Error> {
        let tls = SslOpts::default()
            .with_disable_built_in_roots(true)
            .with_root_certs(vec![self.ca.clone().into_bytes().into()]);
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some(user))
            .pass(Some(password))
            .ssl_opts(tls)
            .prefer_socket(false);
        Conn::new(options).await
    }

    /// Stops the server; the data stays.
    pub(crate) fn stop(&mut self) {
        let _ = Command::new("kill").arg("-TERM").arg(self.server.id().to_string()).status();
        let start = Instant::now();
        while matches!(self.server.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// What the server wrote.
    pub(crate) fn log(&self) -> String {
        let read = |name: &str| std::fs::read(self.dir.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&read("log")).into_owned()
    }
}

impl Drop for MariaDb {
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
    let mut server = program(SERVER);
    server.arg("--no-defaults");
    let dir = root.display();
    for setting in [
        format!("port={port}"),
        "bind-address=127.0.0.1".to_owned(),
        format!("datadir={dir}/data"),
        format!("tmpdir={dir}/tmp"),
        format!("socket={dir}/socket"),
        format!("pid-file={dir}/data/pid"),
        format!("ssl-cert={dir}/server.crt"),
        format!("ssl-key={dir}/server.key"),
        "tls-version=TLSv1.3".to_owned(),
        "require-secure-transport=ON".to_owned(),
        "skip-name-resolve".to_owned(),
        "innodb-log-file-size=4M".to_owned(),
        "innodb-buffer-pool-size=16M".to_owned(),
        "innodb-flush-log-at-trx-commit=0".to_owned(),
        "max-connections=40".to_owned(),
    ] {
        server.arg(format!("--{setting}"));
    }
    if root.join("init.sql").exists() {
        server.arg(format!("--init-file={dir}/init.sql"));
    }
    server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    server.spawn().unwrap()
}

fn root_user() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The server refuses to run as root.
fn program(path: &str) -> Command {
    let mut command = Command::new("setpriv");
    if root_user() {
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    }
    command.arg("--pdeathsig=KILL").arg(path).current_dir("/");
    command
}

fn own(root: &Path) {
    let mut steps = vec![vec!["chmod", "600", "server.key", "init.sql"], vec!["chmod", "700", "."]];
    if root_user() {
        steps.push(vec!["chown", "-R", "nobody:nogroup", "."]);
    }
    for step in steps {
        let done = Command::new(step[0]).args(&step[1..]).current_dir(root).status().unwrap();
        assert!(done.success(), "{step:?}");
    }
}
