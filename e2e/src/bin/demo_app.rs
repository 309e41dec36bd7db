//! The demo's application: an ordinary program that knows nothing of Coffer. It reads a user name and
//! a password from two files, queries Postgres, and reads the files again for every new connection, as
//! a connection pool should. It never prints a secret.
//!
//! `demo_app read FILE` prints a file, `demo_app stat FILE` its mode, owner and group: what somebody with `exec`
//! rights in the pod can see.
#![expect(clippy::print_stdout, reason = "its output is what the demo shows")]

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use coffer_e2e::{Login, connect};
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::Client;

struct Settings {
    dir: PathBuf,
    host: String,
    port: u16,
    database: String,
    ca_pem: String,
}

impl Settings {
    fn from_env() -> Result<Self> {
        let var = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        Ok(Self {
            dir: var("CREDENTIALS_DIR")?.into(),
            host: var("PGHOST")?,
            port: std::env::var("PGPORT").map_or(Ok(5432), |port| port.parse())?,
            database: var("PGDATABASE")?,
            ca_pem: var("PGCA")?,
        })
    }

    fn login(&self) -> Result<Login> {
        let read = |name: &str| {
            let path = self.dir.join(name);
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("{} is missing", path.display()))?;
            Ok::<_, anyhow::Error>(text.trim_end_matches('\n').to_owned())
        };
        Ok(Login { username: read("username")?, password: read("password")? })
    }

    async fn session(&self, login: &Login) -> Result<Client> {
        connect(&self.host, self.port, &self.database, login, &self.ca_pem).await
    }
}

/// The session that a pool would hold: opened once per login, used every second.
struct Held {
    username: String,
    client: Client,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    coffer_e2e::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve().await,
        ["read", file] => {
            print!("{}", std::fs::read_to_string(file).with_context(|| file.to_owned())?);
            Ok(())
        }
        ["stat", file] => {
            let meta = std::fs::metadata(file).with_context(|| file.to_owned())?;
            println!("{:04o} {} {}", meta.mode() & 0o7777, meta.uid(), meta.gid());
            Ok(())
        }
        _ => bail!("usage: demo_app | demo_app read FILE | demo_app stat FILE"),
    }
}

async fn serve() -> Result<()> {
    let settings = Settings::from_env()?;
    // The promise under test: the files are there before this process starts. So it does not wait for them.
    let first = settings.login().context("the credentials were not there when the application started")?;
    println!("started with login {}", first.username);
    let mut term = signal(SignalKind::terminate())?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut held: Option<Held> = None;
    let (mut queries, mut failures) = (0_u64, 0_u64);
    loop {
        tokio::select! {
            _ = term.recv() => {
                println!("asked to end: {queries} queries answered, {failures} failed");
                return Ok(());
            }
            _ = tick.tick() => {}
        }
        match round(&settings, &mut held).await {
            Ok(account) => {
                queries += 1;
                println!("query {queries} answered as {account}, {failures} failed so far");
            }
            Err(why) => {
                failures += 1;
                println!("query failed: {why:#}");
            }
        }
    }
}

/// One query on the held session and one on a new one; who the database thinks we are.
async fn round(settings: &Settings, held: &mut Option<Held>) -> Result<String> {
    let login = settings.login()?;
    let fresh = settings.session(&login).await.context("new session")?;
    let account = who(&fresh).await.context("new session")?;
    let held = match held.take() {
        Some(open) if open.username == login.username => held.insert(open),
        // A new login is in the files: the pool moves over to it.
        _ => held.insert(Held { username: login.username.clone(), client: fresh }),
    };
    who(&held.client).await.context("held session")?;
    Ok(account)
}

async fn who(client: &Client) -> Result<String> {
    client.query_one("SELECT count(*) FROM orders", &[]).await?;
    Ok(client.query_one("SELECT current_user::text", &[]).await?.get(0))
}
