//! Passwords rotate, the server dies in the midst of it, and no client of the database notices.
//!
//! Clients without any retry run queries at a steady rate against a real PostgreSQL. They have a new login when they are
//! told that there is one, and give the old one up once the new one is in use. `COFFER_ROTATIONS` says how many
//! rotations there are (100 in `make soak`), `COFFER_ROTATION_SEED` where the server dies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coffer_client::wire::{Disclose, Envelope};
use coffer_client::{Call, Client, ClientError};
use coffer_core::failpoint::Step;
use coffer_core::time::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};

use crate::claims::ask;
use crate::common::Server;
use crate::order::Order;
use crate::servers::postgres::{ADMIN, ADMIN_PASSWORD, Postgres};
use crate::story::number;
use crate::vault::Vault;

/// Clients, and how often each asks its database something: 200 queries a second in all.
const CLIENTS: usize = 4;
const PACE: Duration = Duration::from_millis(20);
/// How long anything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(180);
/// So long that no grace of the clients' role ends by itself while they live.
const GRACE: &str = "59m";
const STEPS: [Step; 8] = [
    Step::IntentWritten,
    Step::Begun,
    Step::BeforeCommit,
    Step::CommitterDurable,
    Step::Committed,
    Step::BeforeCompletion,
    Step::CompletionWritten,
    Step::BeforeReply,
];
const STATUS: &str = "sys/rotations/database/static-creds/app";

/// A login at the database, and its version.
#[derive(Clone)]
struct Login {
    user: String,
    password: String,
    version: u64,
}

async fn read_login(client: &Client, role: &str, declared: bool) -> Result<Login, ClientError> {
    let path = format!("database/static-creds/{role}");
    let query: &[(&str, &str)] = if declared { &[("consumer", "1")] } else { &[] };
    let call = Call { method: "GET", path: &path, query, any_status: false };
    let reply: Envelope<Disclose<Map<String, Value>>> = client.exchange(call, None::<&()>).await?;
    let data = reply.data.unwrap();
    let text = |name: &str| data.expose()[name].as_str().unwrap().to_owned();
    let version = data.expose()["version"].as_u64().unwrap();
    Ok(Login { user: text("username"), password: text("password"), version })
}

async fn acknowledge(client: &Client, role: &str, version: u64) -> Result<(), ClientError> {
    let path = format!("database/static-creds/{role}");
    client.write("sys/rotations/ack", &json!({ "path": path, "version": version })).await
}

/// An application: asks the vault again and again, since it may be down, and its database never twice.
struct App {
    vault: watch::Receiver<Client>,
    database: Arc<Postgres>,
    stop: watch::Receiver<bool>,
    queries: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    has: watch::Sender<u64>,
}

impl App {
    fn fail(&self, what: &str, error: &tokio_postgres::Error) {
        // By its cause: the text of the error itself says little.
        self.failures.lock().unwrap().push(format!("{what}: {error}: {:?}", error.as_db_error()));
    }

    /// The login that is handed out now, asked for until the vault answers.
    async fn login(vault: watch::Receiver<Client>) -> Login {
        loop {
            let client = vault.borrow().clone();
            match read_login(&client, "app", true).await {
                Ok(login) => return login,
                Err(_) => tokio::time::sleep(PACE).await,
            }
        }
    }

    async fn connect(&self, login: &Login) -> Option<tokio_postgres::Client> {
        match self.database.connect(&login.user, &login.password).await {
            Ok(session) => Some(session),
            Err(error) => {
                self.fail(&format!("version {}, connecting", login.version), &error);
                None
            }
        }
    }

    async fn run(mut self) {
        let (tell, mut told) = mpsc::channel(1);
        let listener = tokio::spawn(listen(self.vault.clone(), tell));
        let login = Self::login(self.vault.clone()).await;
        let mut version = login.version;
        let Some(mut session) = self.connect(&login).await else { return };
        self.has.send_replace(version);
        let mut pace = tokio::time::interval(PACE);
        let mut reading = None;
        loop {
            tokio::select! {
                _ = self.stop.changed() => break,
                _ = pace.tick() => match session.simple_query("SELECT 1").await {
                    Ok(_) => drop(self.queries.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => {
                        self.fail(&format!("version {version}"), &error);
                        break;
                    }
                },
                Some(()) = told.recv(), if reading.is_none() => {
                    reading = Some(tokio::spawn(Self::login(self.vault.clone())));
                }
                Some(Ok(login)) = async { Some(reading.as_mut()?.await) }, if reading.is_some() => {
                    reading = None;
                    if login.version == version {
                        continue;
                    }
                    let Some(next) = self.connect(&login).await else { break };
                    // From here on nothing of the last version is in use.
                    session = next;
                    version = login.version;
                    self.has.send_replace(version);
                    tokio::spawn(say_so(self.vault.clone(), version));
                }
            }
        }
        listener.abort();
    }
}

/// Acknowledges until the vault has taken it, or has a later version.
async fn say_so(vault: watch::Receiver<Client>, version: u64) {
    loop {
        let client = vault.borrow().clone();
        match acknowledge(&client, "app", version).await {
            Ok(()) => return,
            Err(error) if error.status() == Some(400) => return,
            Err(_) => tokio::time::sleep(PACE).await,
        }
    }
}

/// Tells of rotations, wherever the vault is at the moment. After each subscription, too: something may have happened
/// before it.
async fn listen(vault: watch::Receiver<Client>, tell: mpsc::Sender<()>) {
    let mut after: Option<String> = None;
    loop {
        let client = vault.borrow().clone();
        let stream = client.subscribe("database/static-creds-rotate", after.as_deref()).await;
        if let Ok(mut stream) = stream {
            let _told_already = tell.try_send(());
            while let Ok(Some(event)) = stream.next().await {
                after = Some(event.data.event.metadata.position.clone());
                let _told_already = tell.try_send(());
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// The vault, its server of the moment, and where the clients find it.
struct World {
    vault: Vault,
    server: Server,
    road: watch::Sender<Client>,
    database: Arc<Postgres>,
}

impl World {
    fn new() -> Self {
        let (vault, server) = Vault::new(&std::env::current_exe().unwrap());
        let database = Arc::new(vault.runtime.block_on(Postgres::start()));
        let road = watch::Sender::new(vault.client(&server));
        let this = Self { vault, server, road, database };
        this.run(this.prepare());
        this
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.vault.runtime.block_on(work)
    }

    fn client(&self) -> Client {
        self.vault.client(&self.server)
    }

    async fn prepare(&self) {
        let client = self.client();
        client.write("sys/mounts/database", &json!({ "type": "database" })).await.unwrap();
        let port = self.database.port;
        let config = json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": format!(
                "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/app?sslmode=verify-full"
            ),
            "username": ADMIN, "password": ADMIN_PASSWORD, "root_ca": self.database.ca, "allowed_roles": "*",
        });
        client.write("database/config/db", &config).await.unwrap();
        let superuser = self.database.superuser().await;
        for (role, grace) in [("app", GRACE), ("graced", "6s")] {
            let names = [format!("{role}-a"), format!("{role}-b")];
            for name in &names {
                let made = format!("CREATE ROLE \"{name}\" LOGIN PASSWORD 'Before-1'");
                superuser.batch_execute(&made).await.unwrap();
            }
            let body = json!({
                "db_name": "db", "usernames": names, "rotation_period": "24h", "grace_period": grace,
            });
            client.write(&format!("database/static-roles/{role}"), &body).await.unwrap();
        }
        let policy = r#"path "sys/events/subscribe/*" { capabilities = ["read"] }
            path "sys/rotations/ack" { capabilities = ["update"] }
            path "database/static-creds/*" {
                capabilities = ["read", "subscribe"]
                subscribe_event_types = ["*"]
            }"#;
        client.write("sys/policies/acl/app", &json!({ "policy": policy })).await.unwrap();
    }

    /// A token of an application.
    async fn token(&self) -> Disclose {
        let body = json!({ "policies": ["app"], "period": "1000h", "no_parent": true });
        let call = Call::new("POST", "auth/token/create");
        let made: Value = self.client().exchange(call, Some(&body)).await.unwrap();
        Disclose::new(made["auth"]["client_token"].as_str().unwrap().to_owned())
    }

    async fn status(&self, path: &str) -> Value {
        ask(&self.client(), path).await["data"].take()
    }

    /// The server dies by its order, if need be of something else that it is asked for; and comes back.
    fn die(&mut self, order: Order, place: &str) -> String {
        let client = self.client();
        self.run(async {
            let end = Instant::now() + PATIENCE;
            let noise = json!({ "data": { "k": "v" } });
            while !matches!(client.write("secret/data/noise", &noise).await, Err(ClientError::Unreachable(_)))
            {
                assert!(Instant::now() < end, "{place}: it does not die");
            }
        });
        let step = self.vault.died(&mut self.server, order, place);
        self.server = self.vault.start();
        self.vault.unseal(&self.server);
        step
    }

    /// Until the clients' role is settled at `version` or later; gives back the version it is at. One that was asked for
    /// and is not begun has settled, too.
    fn settled(&self, place: &str) -> u64 {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.run(self.status(STATUS));
            if status["rotation_phase"] == "settled" {
                return status["version"].as_u64().unwrap();
            }
            assert!(Instant::now() < end, "{place}: {status}");
            std::thread::sleep(PACE);
        }
    }
}

pub(crate) fn no_failed_query() {
    let mut world = World::new();
    let (rotations, seed) = (number("COFFER_ROTATIONS", 4), number("COFFER_ROTATION_SEED", 1));
    let (stop, stopped) = watch::channel(false);
    let (queries, failures) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (mut apps, mut have) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS {
        let token = world.run(world.token());
        // Each by its own token, wherever the server is.
        let (own, vault) = watch::channel(world.client().with_token(&token).unwrap());
        let mut road = world.road.subscribe();
        apps.push(world.vault.runtime.spawn(async move {
            while road.changed().await.is_ok() {
                let client = road.borrow_and_update().with_token(&token).unwrap();
                own.send_replace(client);
            }
        }));
        let (has, sees) = watch::channel(0);
        have.push(sees);
        let app = App {
            vault,
            database: Arc::clone(&world.database),
            stop: stopped.clone(),
            queries: Arc::clone(&queries),
            failures: Arc::clone(&failures),
            has,
        };
        apps.push(world.vault.runtime.spawn(app.run()));
    }
    let arrived = |world: &World, version: u64, place: &str| {
        for (number, sees) in have.iter().enumerate() {
            let mut sees = sees.clone();
            let waits = async {
                let there = sees.wait_for(|has| *has >= version);
                matches!(tokio::time::timeout(PATIENCE, there).await, Ok(Ok(_)))
            };
            let there = world.run(waits);
            let failed = failures.lock().unwrap();
            assert!(there && failed.is_empty(), "{place}: client {number}: {failed:#?}");
        }
    };
    arrived(&world, 1, "at the beginning");
    let (mut version, mut kills) = (1, 0);
    for round in 0..rotations {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1000) + round);
        let step = STEPS[rng.random_range(0..STEPS.len())];
        // Two of three rotations are killed: on the way to the database, on the way back, while they are told of, while
        // the clients acknowledge.
        let kill = (round % 3 != 2).then(|| Order { step: Some(step), count: rng.random_range(1..=12) });
        let place =
            format!("round {round}: {}", kill.map_or_else(|| "no kill".to_owned(), |o| o.to_string()));
        if let Some(order) = kill {
            order.give(&world.vault.order);
            // It may die of it.
            let _answer = world.run(world.client().write("database/rotate-role/app", &json!({})));
            world.die(order, &place);
            world.road.send_replace(world.client());
            kills += 1;
        }
        let mut at = world.settled(&place);
        if at == version {
            world.run(world.client().write("database/rotate-role/app", &json!({}))).unwrap();
            at = world.settled(&place);
        }
        assert!(at > version, "{place}: version {at}");
        version = at;
        arrived(&world, version, &place);
    }
    stop.send_replace(true);
    let (queries, failed) = (queries.load(Ordering::Relaxed), failures.lock().unwrap().clone());
    println!("rotation: {rotations} rotations, {kills} kills, {queries} queries, {} failed", failed.len());
    assert!(failed.is_empty() && queries > 0, "{failed:#?}");
    apps.iter().for_each(|app| app.abort());
    world.vault.verify_log(&world.server, "after the rotations");
}

/// Whether the grace goes on; these logins and sessions work as long as it does.
async fn within_grace(world: &World, login: &Login, session: &tokio_postgres::Client) -> bool {
    let works = world.database.connect(&login.user, &login.password).await.is_ok()
        && session.simple_query("SELECT 1").await.is_ok();
    // What was asked a while before the end was asked before the end.
    let asked = now().plus(Duration::from_secs(1));
    let status = world.status("sys/rotations/database/static-creds/graced").await;
    let in_grace = status["rotation_phase"] == "grace";
    assert!(works || !in_grace || asked >= timestamp(&status["previous_valid_until"]), "{asked}: {status}");
    in_grace
}

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::ZERO.plus(now)
}

fn timestamp(value: &Value) -> Timestamp {
    Timestamp::parse_rfc3339(value.as_str().unwrap()).unwrap()
}

pub(crate) fn grace_to_its_end() {
    let world = World::new();
    world.run(async {
        let mut clients = Vec::new();
        for _ in 0..3 {
            let token = world.token().await;
            clients.push(world.client().with_token(&token).unwrap());
        }
        let (unknown, silent, good) = (&clients[0], &clients[1], &clients[2]);
        let status = "sys/rotations/database/static-creds/graced";
        for declares in [false, true] {
            // Somebody who never says who he is; then somebody who does, and never acknowledges.
            let reader = if declares { silent } else { unknown };
            let login = read_login(reader, "graced", declares).await.unwrap();
            let session = world.database.connect(&login.user, &login.password).await.unwrap();
            read_login(good, "graced", true).await.unwrap();
            world.client().write("database/rotate-role/graced", &json!({})).await.unwrap();
            let next = read_login(good, "graced", true).await.unwrap();
            assert_eq!(next.version, login.version + 1);
            acknowledge(good, "graced", next.version).await.unwrap();
            let told = world.status(status).await;
            let accessor = silent.lookup_self().await.unwrap().accessor;
            let pending = if declares { json!([accessor]) } else { json!([]) };
            let named: Vec<&Value> =
                told["pending"].as_array().unwrap().iter().map(|p| &p["accessor"]).collect();
            assert_eq!((json!(named), &told["undeclared_readers"]), (pending, &json!(!declares)), "{told}");
            let creds = world.status("database/static-roles/graced").await;
            let (since, until) =
                (timestamp(&creds["last_vault_rotation"]), timestamp(&told["previous_valid_until"]));
            assert_eq!(until.saturating_sub(since), Duration::from_secs(6), "to the end: {told}");
            let end = Instant::now() + PATIENCE;
            while within_grace(&world, &login, &session).await {
                assert!(Instant::now() < end, "the grace has no end");
                tokio::time::sleep(PACE).await;
            }
            // Cut: the session, and the login with it. Whoever has the next version goes on.
            assert!(session.simple_query("SELECT 1").await.is_err());
            assert!(world.database.connect(&login.user, &login.password).await.is_err());
            world.database.connect(&next.user, &next.password).await.unwrap();
        }
    });
}
