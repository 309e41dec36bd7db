//! `make demo`: the story of one pod, told while it happens. It shows and never asserts more than it needs to go
//! on; the same claims are asserted in `tests/main_job.rs`. Everything it needs is built by `e2e/demo` before.
#![expect(clippy::print_stdout, reason = "a story is told on stdout")]

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use coffer_e2e::orders::Orders;
use coffer_e2e::{Cluster, Coffer, Kind, Postgres, eventually, init, within};
use serde_json::Value;

const POD: &str = "orders-api";
const LONG: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> ExitCode {
    init();
    let result = match std::env::args().nth(1).as_deref() {
        None => demo().await,
        Some("down") => down().await,
        Some(other) => Err(anyhow!("unknown argument {other}; run `make demo` or `make demo-down`")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("\nThe demo stops here. {why:#}"));
            say("\nWhat it started still runs, to be looked at; `make demo-down` removes it.");
            ExitCode::FAILURE
        }
    }
}

/// Not in the cache: Postgres runs as a user of its own, who may not be able to go there.
fn postgres_dir() -> PathBuf {
    std::env::temp_dir().join("coffer-demo-postgres")
}

fn say(text: &str) {
    println!("{text}");
}

fn chapter(number: u8, title: &str) {
    println!("\n[{number}/8] {title}");
}

/// Does something that takes a while; says how long, and every ten seconds that it is still at it.
async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let start = Instant::now();
    let mut work = std::pin::pin!(work);
    let result = loop {
        match tokio::time::timeout(Duration::from_secs(10), &mut work).await {
            Ok(result) => break result,
            Err(_) => println!("      {what}: {} s so far ...", start.elapsed().as_secs()),
        }
    };
    let value = result.with_context(|| what.to_owned())?;
    println!("      {what}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(value)
}

async fn demo() -> Result<()> {
    chapter(1, "A Kubernetes cluster");
    let cluster = step("cluster up", Cluster::up()).await?;

    chapter(2, "Coffer, installed with Helm");
    say(
        "      A server with its own encrypted store, an operator, an injector. For this demo it initialises and",
    );
    say("      unseals itself (autoInit); in earnest, people hold the unseal key's shares.");
    let coffer = step("helm install coffer charts/coffer", Coffer::install(&cluster)).await?;

    chapter(3, "A Postgres database outside of the cluster, and what two teams write about it");
    let orders = scene(&cluster, &coffer).await?;

    chapter(4, "A pod whose annotation says: coffer.dev/inject: orders-db");
    step("orders-api ready", orders.start_pod()).await?;
    let uid = orders.pod_uid(POD).await?;
    let login = orders.login(POD).await?;
    say(&format!("      Its files hold a login nobody else has: {}", login.username));
    say(&format!("      Accounts in Postgres now: {}", orders.postgres.made_accounts().await?.join(", ")));
    app_says(&orders, 3).await?;

    chapter(5, "The login is leased for 15 seconds, and renewed while the pod lives");
    step("first renewal", until_audited(&orders, &uid, "sys/leases/renew")).await?;
    say("      After 40 seconds at most (maxTTL) a new login takes its place, without a failed query.");
    let next = step("new login in the files", another_login(&orders, &login.username)).await?;
    say(&format!("      The files now hold {next}. The application noticed:"));
    app_says(&orders, 3).await?;

    chapter(6, "Somebody copies the login out of the pod and opens a session of their own");
    let stolen = orders.login(POD).await?;
    let thief =
        orders.postgres.connect(&stolen).await.context("the copied login should work while the pod lives")?;
    let row = thief.query_one("SELECT item FROM orders WHERE id = 1", &[]).await?;
    say(&format!(
        "      It works, as it would with any password: first order is a {}.",
        row.get::<_, &str>(0)
    ));

    chapter(7, "The pod is deleted");
    orders.delete_pod(POD, false).await?;
    let gone = within("the account is gone", Duration::from_secs(30), || async {
        Ok(!orders.postgres.made_accounts().await?.contains(&stolen.username))
    })
    .await?;
    say(&format!(
        "      The account {} is gone from Postgres {} ms later.",
        stolen.username,
        gone.as_millis()
    ));
    match thief.query_one("SELECT 1", &[]).await {
        Ok(_) => bail!("the copied session still works"),
        Err(why) => say(&format!("      The copied login's open session: {why}.")),
    }
    let left = orders.postgres.made_accounts().await?;
    say(&format!(
        "      Accounts left in Postgres: {}",
        if left.is_empty() { "none".into() } else { left.join(", ") }
    ));

    chapter(8, "What the audit log says about this pod");
    let records = step("the pod's last words are written", ended(&orders, &uid)).await?;
    for record in records {
        say(&format!("      {}", audit_line(&record)));
    }
    say(
        "      (It is a hash chain: `coffer audit verify` finds any line that is changed, dropped or moved.)",
    );
    farewell(&cluster);
    Ok(())
}

async fn scene(cluster: &Cluster, coffer: &Coffer) -> Result<Orders> {
    for namespace in ["shop", "platform"] {
        cluster.kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--wait"]).await?;
    }
    let dir = postgres_dir();
    let open = Orders::open(cluster, coffer, "shop", "platform", Some(&dir));
    let orders = step("Postgres with TLS, and a Service orders-pg that leads to it", open).await?;
    say("      e2e/examples/database.yaml: the platform team says how logins are made (DatabaseConnection).");
    say("      e2e/examples/orders.yaml: the shop's team says that its pods get one each (DynamicSecret).");
    step("manifests applied, all Ready", orders.apply_examples()).await?;
    Ok(orders)
}

/// The records of a pod's life, once the agent has given its token back.
async fn ended(orders: &Orders, uid: &str) -> Result<Vec<Value>> {
    eventually("the pod's token is revoked", LONG, || async {
        let records = orders.audit_of(uid).await?;
        let last = |record: &Value| {
            let path = record["path"].as_str().unwrap_or_default();
            record["type"] == "completion"
                && (path == "auth/token/revoke-self" || path.ends_with("/revoke-pod"))
        };
        if records.iter().any(last) { Ok(records) } else { bail!("it is not in the audit log yet") }
    })
    .await
}

/// Shows the application's last lines.
async fn app_says(orders: &Orders, lines: usize) -> Result<()> {
    let log = eventually("the application answers queries", LONG, || async {
        let log = orders.app_log(POD).await?;
        let answered = log.iter().filter(|line| line.contains("answered")).count();
        if answered >= lines { Ok(log) } else { bail!("{}", log.join("\n")) }
    })
    .await?;
    for line in log.iter().rev().take(lines).rev() {
        say(&format!("      app | {line}"));
    }
    Ok(())
}

async fn until_audited(orders: &Orders, uid: &str, path: &str) -> Result<()> {
    within(path, LONG, || async {
        Ok(orders
            .audit_of(uid)
            .await?
            .iter()
            .any(|record| record["path"] == path && record["type"] == "completion"))
    })
    .await
    .map(drop)
}

async fn another_login(orders: &Orders, before: &str) -> Result<String> {
    eventually("a new login", LONG, || async {
        let now = orders.file(POD, "/coffer/secrets/orders-db/username").await?;
        if now == before { bail!("still {before}") } else { Ok(now) }
    })
    .await
}

fn audit_line(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let status = record["status"].as_u64().map(|status| format!(" {status}")).unwrap_or_default();
    let lease =
        if record["lease_id"].is_string() { format!("  lease {}", text("lease_id")) } else { String::new() };
    let time = text("time");
    let clock = time.split('T').nth(1).unwrap_or(&time);
    format!("{clock:<14.12} {:<10} {:<8} {}{status}{lease}", text("type"), text("operation"), text("path"))
}

fn farewell(cluster: &Cluster) {
    say("\nThat was the demo. The cluster, Coffer and Postgres go on running. To look around:\n");
    if cluster.kind() == Kind::Local {
        say("  eval \"$(e2e/cluster/cluster env)\"              # kubectl and helm for this cluster");
    } else {
        say(&format!("  export KUBECONFIG={}", cluster.kubeconfig().display()));
    }
    say("  kubectl get coffer -A                            # what the teams wrote, and its state");
    say("  kubectl apply -f e2e/examples/orders-api.yaml    # the pod again");
    say("  kubectl logs -n shop orders-api -c app -f        # its queries");
    say("  kubectl describe dynamicsecret -n shop orders-db");
    say("  kubectl exec -n coffer-system coffer-0 -- coffer status\n");
    say("  make demo-down                                   # removes everything again");
}

async fn down() -> Result<()> {
    Postgres::stop_kept(&postgres_dir()).await?;
    Cluster::down().await?;
    say("Nothing of the demo is running any more. What was built is kept in the cache, for the next time.");
    Ok(())
}
