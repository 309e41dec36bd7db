//! Many leases that end in the same moment, at a real database: all of their accounts go, as fast as is measured here,
//! and also when the server dies over it.
//!
//! `COFFER_LEASES=n` says how many. The time is printed and not judged: what else the machine does is not known.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coffer_client::wire::Disclose;
use coffer_client::{Call, Client};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::servers::postgres::{ADMIN, ADMIN_PASSWORD, Postgres};
use crate::vault::Vault;

/// How many ask for credentials at a time.
const CLIENTS: usize = 16;
/// How long everything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(1800);

const CREATE: &str = r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"#;

async fn prepare(client: &Client, database: &Postgres) {
    client.write("sys/mounts/database", &json!({ "type": "database" })).await.unwrap();
    let url = format!(
        "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/app?sslmode=verify-full",
        database.port
    );
    let config = json!({
        "plugin_name": "postgresql-database-plugin", "connection_url": url, "username": ADMIN,
        "password": ADMIN_PASSWORD, "root_ca": database.ca, "allowed_roles": "*", "max_open_connections": 8,
    });
    client.write("database/config/db", &config).await.unwrap();
    let role =
        json!({ "db_name": "db", "creation_statements": [CREATE], "default_ttl": "1h", "max_ttl": "24h" });
    client.write("database/roles/mass", &role).await.unwrap();
    let policy = json!({ "policy": "path \"database/creds/mass\" { capabilities = [\"read\"] }" });
    client.write("sys/policies/acl/mass", &policy).await.unwrap();
}

/// A token with so many leases.
async fn holder(root: &Client, leases: usize) -> Disclose {
    let body = json!({ "policies": ["mass"], "ttl": "24h", "no_parent": true });
    let made: Value = root.exchange(Call::new("POST", "auth/token/create"), Some(&body)).await.unwrap();
    let token = Disclose::new(made["auth"]["client_token"].as_str().unwrap().to_owned());
    let client = Arc::new(root.with_token(&token).unwrap());
    let mut asking = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Arc::clone(&client);
        let share = leases / CLIENTS + usize::from(number < leases % CLIENTS);
        asking.spawn(async move {
            for _ in 0..share {
                client.get::<Value>("database/creds/mass").await.unwrap();
            }
        });
    }
    asking.join_all().await;
    token
}

async fn accounts(superuser: &tokio_postgres::Client) -> usize {
    let count = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'";
    let row = superuser.query_one(count, &[]).await.unwrap();
    usize::try_from(row.get::<_, i64>(0)).unwrap()
}

async fn until(superuser: &tokio_postgres::Client, at_most: usize) {
    let end = Instant::now() + PATIENCE;
    while accounts(superuser).await > at_most {
        assert!(Instant::now() < end, "{} accounts are left", accounts(superuser).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn ended(token: &Disclose) -> Value {
    json!({ "token": token.expose() })
}

pub(crate) fn gone() {
    let leases = std::env::var("COFFER_LEASES").map_or(120, |text| text.parse().unwrap());
    let (vault, mut server) = Vault::new(&std::env::current_exe().unwrap());
    let database = vault.runtime.block_on(Postgres::start());
    let superuser = vault.runtime.block_on(database.superuser());
    let root = vault.client(&server);
    vault.runtime.block_on(async {
        prepare(&root, &database).await;
        let start = Instant::now();
        let token = holder(&root, leases).await;
        println!("{leases} leases were issued in {:.1} s", start.elapsed().as_secs_f64());
        assert_eq!(accounts(&superuser).await, leases);
        let start = Instant::now();
        root.write("auth/token/revoke", &ended(&token)).await.unwrap();
        until(&superuser, 0).await;
        println!(
            "{leases} leases that ended together were gone after {:.1} s",
            start.elapsed().as_secs_f64()
        );
    });
    // Once more, and the server dies when a part of them is gone.
    let leases = leases.min(400);
    vault.runtime.block_on(async {
        let token = holder(&root, leases).await;
        let ending = {
            let root = root.clone();
            tokio::spawn(async move { root.write("auth/token/revoke", &ended(&token)).await.is_ok() })
        };
        until(&superuser, leases - leases / 4).await;
        server.signal(Signal::SIGKILL);
        ending.await.unwrap();
    });
    server.end();
    println!("{} were left when it was dead", vault.runtime.block_on(accounts(&superuser)));
    let server = vault.start();
    vault.unseal(&server);
    vault.runtime.block_on(until(&superuser, 0));
    // And nothing is left here of what is gone there.
    let (root, end) = (vault.client(&server), Instant::now() + PATIENCE);
    while vault
        .runtime
        .block_on(root.list("sys/leases/lookup/database/creds/mass"))
        .is_ok_and(|left| !left.is_empty())
    {
        assert!(Instant::now() < end, "leases of accounts that are gone");
        std::thread::sleep(Duration::from_millis(50));
    }
    vault.verify_log(&server, "after all leases");
}
