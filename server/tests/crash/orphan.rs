//! No credential without a lease, whatever stops the server: it is killed, or stands still between the intent and the
//! statement while a successor takes over, and then goes on.
//!
//! At a real PostgreSQL and a real MariaDB. `COFFER_ORPHAN_KILLS` and `COFFER_ORPHAN_STOPS` say how many rounds there are of
//! each kind, `COFFER_ORPHAN_SEED` where they begin. A stopped server keeps its store and its successor has a copy: as
//! when a volume is attached elsewhere, and worse for it, since nothing in its store tells it of the successor.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use coffer_client::{Call, Client};
use coffer_core::failpoint::Step;
use mysql_async::prelude::Queryable as _;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::claims::ask;
use crate::common::Server;
use crate::order::Order;
use crate::servers::mariadb::{self, MariaDb};
use crate::servers::postgres::{self, Postgres};
use crate::story::number;
use crate::vault::Vault;

/// How long anything may take on a machine that does much else; an issue that was cut off is cleaned after two minutes.
const PATIENCE: Duration = Duration::from_secs(400);
/// Where it dies: on the way of an intent, at the target, and on the way back.
pub(crate) const STEPS: [Step; 9] = [
    Step::TargetBeforeCreate,
    Step::TargetCreated,
    Step::TargetBeforeAlter,
    Step::Committed,
    Step::CommitterDurable,
    Step::BeforeCommit,
    Step::BeforeCompletion,
    Step::CompletionWritten,
    Step::BeforeReply,
];
const DATABASES: [&str; 2] = ["pg", "maria"];

/// What a client was given and has not given back.
type Held = BTreeSet<(String, String)>;

struct World {
    vault: Vault,
    server: Server,
    pg: Postgres,
    maria: MariaDb,
    held: Held,
}

impl World {
    fn new() -> Self {
        let (vault, server) = Vault::new(&std::env::current_exe().unwrap());
        let (pg, maria) = vault.runtime.block_on(async { (Postgres::start().await, MariaDb::start().await) });
        let this = Self { vault, server, pg, maria, held: Held::new() };
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
        let pg = json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": format!(
                "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/app?sslmode=verify-full", self.pg.port
            ),
            "username": postgres::ADMIN, "password": postgres::ADMIN_PASSWORD, "root_ca": self.pg.ca,
            "allowed_roles": "*",
        });
        let maria = json!({
            "plugin_name": "mysql-database-plugin",
            "connection_url": format!("{{{{username}}}}:{{{{password}}}}@tcp(127.0.0.1:{})/", self.maria.port),
            "username": mariadb::ADMIN, "password": mariadb::ADMIN_PASSWORD, "tls_ca": self.maria.ca,
            "allowed_roles": "*",
        });
        let creating = [
            "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' IN ROLE app_rw",
            "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'",
        ];
        let superuser = self.pg.superuser().await;
        superuser.batch_execute("CREATE ROLE \"static\" LOGIN PASSWORD 'Before-1'").await.unwrap();
        let made = "CREATE USER 'static'@'%' IDENTIFIED BY 'Before-1'";
        self.maria.superuser().await.query_drop(made).await.unwrap();
        for ((name, config), creation) in DATABASES.iter().zip([pg, maria]).zip(creating) {
            client.write(&format!("database/config/{name}"), &config).await.unwrap();
            let role = json!({
                "db_name": name, "creation_statements": [creation], "default_ttl": "24h", "max_ttl": "48h",
            });
            client.write(&format!("database/roles/{name}"), &role).await.unwrap();
            let fixed = json!({ "db_name": name, "username": "static", "rotation_period": "24h" });
            client.write(&format!("database/static-roles/{name}"), &fixed).await.unwrap();
        }
    }

    /// The accounts that Coffer made, at both databases.
    async fn accounts(&self) -> BTreeSet<String> {
        let own = ["app_rw", "plain", "static", "su", "postgres", "root", "mariadb.sys", "PUBLIC", ""];
        let sql = "SELECT rolname::text FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%'";
        let rows = self.pg.superuser().await.query(sql, &[]).await.unwrap();
        let mut names: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let more: Vec<String> =
            self.maria.superuser().await.query("SELECT User FROM mysql.user").await.unwrap();
        names.extend(more);
        names.retain(|name| !own.contains(&name.as_str()) && name != postgres::ADMIN);
        names
    }

    /// Writers, until the server is gone.
    fn load(&mut self, seed: u64, most: Option<usize>) {
        let client = self.client();
        let held = std::mem::take(&mut self.held);
        let (half, rest): (Vec<_>, Vec<_>) = held.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
        let mut work = tokio::task::JoinSet::new();
        let _in_runtime = self.vault.runtime.enter();
        for (writer, part) in [half, rest].into_iter().enumerate() {
            let part: Held = part.into_iter().map(|(_, held)| held).collect();
            work.spawn(write(client.clone(), seed.wrapping_mul(2) + writer as u64, part, most));
        }
        for held in self.vault.runtime.block_on(work.join_all()) {
            self.held.extend(held);
        }
    }

    fn come_back(&mut self) {
        self.server = self.vault.start();
        self.vault.unseal(&self.server);
    }

    async fn leases(&self) -> usize {
        let mut count = 0;
        for name in DATABASES {
            let path = format!("sys/leases/lookup/database/creds/{name}");
            match self.client().all_names("LIST", &path).await {
                Ok(names) => count += names.len(),
                Err(error) => assert!(error.is_not_found(), "{error}"),
            }
        }
        count
    }

    /// Waits until accounts and leases are as many as each other, then takes everything back: nothing is left.
    fn settle(&self, what: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (accounts, leases) = self.run(async { (self.accounts().await, self.leases().await) });
            let missing: Vec<_> = self.held.iter().filter(|(user, _)| !accounts.contains(user)).collect();
            assert!(missing.is_empty(), "{what}: delivered, and gone: {missing:#?}");
            if accounts.len() == leases {
                println!("no orphan: {what}: {leases} leases, as many accounts, {} held", self.held.len());
                break;
            }
            assert!(Instant::now() < end, "{what}: {leases} leases, {accounts:#?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        let metrics = self.run(ask(&self.client(), "sys/metrics"));
        let counters = metrics["Counters"].as_array().unwrap();
        let dropped = counters.iter().find(|counter| counter["Name"] == "coffer_accounts_dropped_total");
        let dropped = dropped.map(|counter| counter["Count"].as_f64());
        assert_eq!(dropped, Some(Some(0.0)), "{what}: the reconciler had to help: {metrics}");
        self.run(async {
            let all = json!({});
            self.client().write("sys/leases/revoke-prefix/database/creds", &all).await.unwrap();
        });
        loop {
            let accounts = self.run(self.accounts());
            if accounts.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "{what}: without a lease: {accounts:#?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        self.vault.verify_log(&self.server, what);
    }
}

/// Issues, renews, revokes and rotates at both databases, until the server is gone or so often.
async fn write(client: Client, seed: u64, mut held: Held, most: Option<usize>) -> Held {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut done = 0;
    while most.is_none_or(|most| done < most) {
        done += 1;
        let database = DATABASES[rng.random_range(0..DATABASES.len())];
        let choice = rng.random_range(0..10);
        let some = held.iter().nth(rng.random_range(0..held.len().max(1))).cloned();
        let answer = match (choice, some) {
            (0..=1, Some((_, lease))) => {
                client.write("sys/leases/renew", &json!({ "lease_id": lease })).await
            }
            (2..=4, Some((user, lease))) => {
                // Whether it got through or not: it is not counted on any more.
                held.remove(&(user, lease.clone()));
                client.write("sys/leases/revoke", &json!({ "lease_id": lease })).await
            }
            (5, _) => client.write(&format!("database/rotate-role/{database}"), &json!({})).await,
            _ => issue(&client, database).await.map(|account| {
                held.insert(account);
            }),
        };
        if let Err(error) = answer
            && matches!(error, coffer_client::ClientError::Unreachable(_))
        {
            break;
        }
    }
    held
}

/// An account and its lease.
async fn issue(client: &Client, database: &str) -> Result<(String, String), coffer_client::ClientError> {
    let path = format!("database/creds/{database}");
    let reply: Value = client.exchange(Call::new("GET", &path), None::<&()>).await?;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Ok((text(&reply["data"]["username"]), text(&reply["lease_id"])))
}

/// The server is killed at a step, again and again, while both databases are worked at.
pub(crate) fn kills() {
    let mut world = World::new();
    let (first, rounds) =
        (number("COFFER_ORPHAN_SEED", 0), number("COFFER_ORPHAN_KILLS", STEPS.len() as u64));
    for seed in first..first + rounds {
        let step = STEPS[usize::try_from(seed).unwrap() % STEPS.len()];
        let most = match step {
            Step::TargetBeforeAlter => 3,
            Step::TargetBeforeCreate | Step::TargetCreated => 8,
            _ => 40,
        };
        let order = Order { step: Some(step), count: StdRng::seed_from_u64(seed).random_range(1..=most) };
        let place = format!("seed {seed}, {order}");
        order.give(&world.vault.order);
        world.load(seed, None);
        world.vault.died(&mut world.server, order, &place);
        world.come_back();
    }
    world.settle(&format!("{rounds} kills"));
}

/// The server stands still between intent and statement; a successor takes over; then it goes on.
pub(crate) fn stops() {
    let mut world = World::new();
    let (first, rounds) = (number("COFFER_ORPHAN_SEED", 0), number("COFFER_ORPHAN_STOPS", 4));
    for seed in first..first + rounds {
        let database = DATABASES[usize::try_from(seed % 2).unwrap()];
        let alter = seed / 2 % 2 == 1;
        let step = if alter { Step::TargetBeforeAlter } else { Step::TargetBeforeCreate };
        let place = format!("seed {seed}, {} at {database}", step.name());
        world.load(seed, Some(3));
        Order { step: Some(step), count: 1 }.give_to_stop(&world.vault.order);
        let client = world.client();
        let asked = world.vault.runtime.spawn(async move {
            match alter {
                true => client.write(&format!("database/rotate-role/{database}"), &json!({})).await.is_ok(),
                false => issue(&client, database).await.is_ok(),
            }
        });
        world.server.until(crate::order::STOPPING);
        let successor = world.vault.copy();
        let server = successor.start();
        successor.unseal(&server);
        let old_vault = std::mem::replace(&mut world.vault, successor);
        let old_server = std::mem::replace(&mut world.server, server);
        // Acts there once, as every successor does before anything else.
        for name in DATABASES {
            let given = world.run(issue(&world.client(), name)).unwrap();
            world.held.insert(given);
        }
        let before = world.run(world.accounts());
        let logins = world.run(fixed_logins(&world.client()));
        old_server.signal(Signal::SIGCONT);
        let through = old_vault.runtime.block_on(asked).unwrap();
        assert!(!through, "{place}: the predecessor was let through");
        assert_eq!(world.run(world.accounts()), before, "{place}");
        assert!(world.run(let_in(&world, &logins)), "{place}: a password was changed by the predecessor");
        drop(old_server);
    }
    world.settle(&format!("{rounds} stops"));
}

/// The passwords of the static roles.
async fn fixed_logins(client: &Client) -> Vec<String> {
    let mut passwords = Vec::new();
    for name in DATABASES {
        // A rotation that its predecessor began is ended by the successor.
        let end = Instant::now() + PATIENCE;
        loop {
            let path = format!("sys/rotations/database/static-creds/{name}");
            let phase = ask(client, &path).await["data"]["rotation_phase"].take();
            if phase == "settled" {
                break;
            }
            assert!(Instant::now() < end, "{name}: {phase}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let data = ask(client, &format!("database/static-creds/{name}")).await;
        passwords.push(data["data"]["password"].as_str().unwrap().to_owned());
    }
    passwords
}

async fn let_in(world: &World, passwords: &[String]) -> bool {
    world.pg.connect("static", &passwords[0]).await.is_ok()
        && world.maria.connect("static", &passwords[1]).await.is_ok()
}
