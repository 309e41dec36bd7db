//! One pod's life: its login in files, used, renewed, replaced, and gone with it.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use coffer_e2e::orders::{Orders, POD};
use coffer_e2e::{eventually, within};
use serde_json::Value;

use crate::scene::with_orders;
use crate::secrecy::assert_nowhere;

const SOON: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(90);

fn done<'a>(records: &'a [Value], path: &'a str) -> impl Iterator<Item = &'a Value> {
    records.iter().filter(move |record| {
        record["type"] == "completion"
            && record["path"].as_str().is_some_and(|found| found.starts_with(path))
            && record["status"].as_u64().is_some_and(|status| status < 300)
    })
}

fn short(records: &[Value]) -> String {
    let line = |record: &Value| {
        format!("\n{} {} {} {}", record["type"], record["operation"], record["path"], record["status"])
    };
    records.iter().map(line).collect()
}

fn issues(records: &[Value]) -> usize {
    done(records, "database/creds/").filter(|record| record["operation"] == "read").count()
}

async fn answered(orders: &Orders, as_whom: &str) -> Result<()> {
    eventually("the application answers queries with its login", SOON, || async {
        let log = orders.app_log(POD).await?;
        let wanted = format!("answered as {as_whom}");
        if log.iter().any(|line| line.contains(&wanted)) { Ok(()) } else { bail!("{}", log.join("\n")) }
    })
    .await
}

#[tokio::test]
async fn a_pod_finds_a_login_in_files_and_takes_it_along_when_it_ends() -> Result<()> {
    with_orders(|orders| async move {
        // The namespace enforces Pod Security `restricted`, and the application does not wait for its files.
        orders.start_pod().await?;
        let first = orders.login(POD).await?;
        let log = orders.app_log(POD).await?;
        ensure!(log[0] == format!("started with login {}", first.username), "{}", log.join("\n"));
        for file in ["username", "password"] {
            let rights = orders.file_rights(POD, &format!("/coffer/secrets/orders-db/{file}")).await?;
            ensure!(rights.starts_with("0440 1000 "), "{file}: {rights}");
        }
        answered(&orders, &first.username).await?;
        ensure!(orders.postgres.made_accounts().await? == std::slice::from_ref(&first.username));
        assert_nowhere(&orders.cluster, &first.password, &orders.pod_uid(POD).await?).await?;

        let uid = orders.pod_uid(POD).await?;
        within("the lease is renewed", LONG, || async {
            Ok(done(&orders.audit_of(&uid).await?, "sys/leases/renew").count() > 0)
        })
        .await?;
        let records = orders.audit_of(&uid).await?;
        ensure!(done(&records, "auth/kubernetes/").count() == 1, "not one login: {}", short(&records));
        ensure!(issues(&records) == 1, "not one issue: {}", short(&records));

        let second = replaced(&orders, &first.username).await?;
        let stolen = orders.login(POD).await?;
        ensure!(stolen.username == second);
        let session = orders.postgres.connect(&stolen).await?;
        session.query_one("SELECT 1", &[]).await?;

        let log = orders.app_log(POD).await?;
        ensure!(!log.iter().any(|line| line.contains("query failed")), "{}", log.join("\n"));
        orders.delete_pod(POD, false).await?;
        let took = no_accounts(&orders).await?;
        println!("the account was gone {} ms after the pod's deletion was asked for", took.as_millis());
        ensure!(session.query_one("SELECT 1", &[]).await.is_err(), "the copied login's session still works");
        ensure!(orders.postgres.connect(&stolen).await.is_err(), "the copied login still works");
        let records = orders.audit_of(&uid).await?;
        let logins =
            done(&records, "auth/kubernetes/").filter(|record| record["operation"] != "revoke").count();
        ensure!(logins == 1, "one pod life is one login: {}", short(&records));
        ensure!(issues(&records) == 2, "and one issue per max TTL: {}", short(&records));
        Ok(())
    })
    .await
}

/// Waits until the files hold another login, the application uses it, and the old account is gone.
async fn replaced(orders: &Orders, first: &str) -> Result<String> {
    let second = eventually("another login in the files", LONG, || async {
        let now = orders.file(POD, "/coffer/secrets/orders-db/username").await?;
        if now == first { bail!("still {first}") } else { Ok(now) }
    })
    .await?;
    answered(orders, &second).await?;
    within("the first account is gone", LONG, || async {
        Ok(orders.postgres.made_accounts().await? == [second.clone()])
    })
    .await?;
    Ok(second)
}

async fn no_accounts(orders: &Orders) -> Result<Duration> {
    within("no account is left", SOON, || async { Ok(orders.postgres.made_accounts().await?.is_empty()) })
        .await
}

#[tokio::test]
async fn a_force_deleted_pod_loses_its_login() -> Result<()> {
    with_orders(|orders| async move {
        orders.start_pod().await?;
        let login = orders.login(POD).await?;
        let session = orders.postgres.connect(&login).await?;
        orders.delete_pod(POD, true).await?;
        let took = no_accounts(&orders).await?;
        println!("the account was gone {} ms after the forced deletion was asked for", took.as_millis());
        ensure!(session.query_one("SELECT 1", &[]).await.is_err(), "the copied login's session still works");
        Ok(())
    })
    .await
}
