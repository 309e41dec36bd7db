//! The binary as the kubelet runs it: environment in, probe, an edit that arrives as an event, SIGTERM.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod fake;

use fake::Fake;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn command(verb: &str, dir: &Path, fake: &Fake) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer-agent"));
    command
        .arg(verb)
        .env_clear()
        .env("COFFER_ADDR", &fake.address)
        .env("COFFER_AUTH_MOUNT", "kubernetes/c")
        .env("COFFER_CLUSTER", "c")
        .env("COFFER_NAMESPACE", "shop")
        .env("COFFER_SERVICE_ACCOUNT", "orders-api")
        .env("COFFER_TOKEN_FILE", dir.join("token"))
        .env("COFFER_MOUNT_PATH", dir.join("secrets"))
        .env("COFFER_STATE_DIR", dir.join("state"))
        .env("COFFER_SECRETS", r#"[{"name":"orders-db"}]"#)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

// Ends the agent should the test fail before it does.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !check() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_start_to_sigterm() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("secrets")).unwrap();
    fs::create_dir(at("state")).unwrap();
    fs::write(at("token"), "jwt-of-the-pod").unwrap();

    let early = command("ready", dir.path(), &fake).output().unwrap();
    assert!(!early.status.success());

    let mut agent = Running(Some(command("run", dir.path(), &fake).spawn().unwrap()));
    fake.until(|inner| inner.document_reads >= 2).await;
    eventually("the probe says what it waits for", || {
        let probe = command("ready", dir.path(), &fake).output().unwrap();
        !probe.status.success() && String::from_utf8_lossy(&probe.stderr).contains("orders-db")
    })
    .await;

    eventually("subscribed", || fake.subscribers() > 0).await;
    fake.document("orders-db", 1, "{{ .username }}");
    fake.event("delivery/k8s/c/shop/dsec/orders-db");
    eventually("ready", || command("ready", dir.path(), &fake).output().unwrap().status.success()).await;
    assert_eq!(fs::read_to_string(at("secrets/orders-db/dsn")).unwrap(), "user1");

    fake.document("orders-db", 2, "edited {{ .username }}");
    fake.event("delivery/k8s/c/shop/dsec/orders-db");
    eventually("the edit arrives", || {
        fs::read_to_string(at("secrets/orders-db/dsn")).is_ok_and(|text| text == "edited user1")
    })
    .await;

    let child = agent.0.take().unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let out = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    assert!(out.status.success());
    assert!(out.stdout.is_empty());
    let log = String::from_utf8_lossy(&out.stderr);
    for secret in ["user1", "pass1", "s.1", "jwt-of-the-pod"] {
        assert!(!log.contains(secret), "the log holds {secret}: {log}");
    }
    let inner = fake.set();
    assert_eq!((inner.logins, inner.issues), (1, 1));
    assert_eq!(inner.revoked, ["database/creds/k8s.c.shop.orders-db/l1", "s.1"]);
}
