//! The life of a pod's secrets, driven by hand: the test says what time it is, the keeper does what is due.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod fake;

use coffer_agent::config::{Config, parse_secrets};
use coffer_agent::keeper::{Keeper, Signal};
use fake::Fake;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

const HOUR: u64 = 3_600_000;
const DSN: &str = "postgresql://{{ .username }}:{{ .password }}@db/orders";

struct Pod {
    dir: TempDir,
    fake: Fake,
    keeper: Keeper,
    secrets: &'static str,
}

impl Pod {
    async fn start(secrets: &'static str) -> Self {
        let fake = Fake::start().await;
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("secrets")).unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        fs::write(dir.path().join("token"), "jwt-of-the-pod\n").unwrap();
        let keeper = Keeper::new(config(&dir, &fake, secrets)).unwrap();
        Self { dir, fake, keeper, secrets }
    }

    fn restart(&mut self) {
        self.keeper = Keeper::new(config(&self.dir, &self.fake, self.secrets)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path("secrets").join(name)).ok()
    }

    fn is_ready(&self) -> bool {
        self.path("state/ready").exists()
    }

    fn status(&self) -> String {
        fs::read_to_string(self.path("state/status")).unwrap()
    }

    // Everything that becomes due until then, in order.
    async fn pass(&mut self, from_ms: u64, until_ms: u64) {
        let mut now_ms = from_ms;
        while let Some(next_ms) = self.keeper.settle(now_ms).await.filter(|next| *next <= until_ms) {
            now_ms = next_ms.max(now_ms + 1);
        }
        self.keeper.settle(until_ms).await;
    }
}

fn config(dir: &TempDir, fake: &Fake, secrets: &str) -> Config {
    Config {
        address: fake.address.clone(),
        ca_pem: String::new(),
        auth_mount: "kubernetes/c".to_owned(),
        cluster: "c".to_owned(),
        namespace: "shop".to_owned(),
        role: "shop.orders-api".to_owned(),
        token_file: dir.path().join("token"),
        mount_path: dir.path().join("secrets"),
        secrets: parse_secrets(secrets).unwrap(),
        state_dir: dir.path().join("state"),
        mode_floor: 0o400,
    }
}

const ONE: &str = r#"[{"name":"orders-db"}]"#;

#[tokio::test]
async fn one_login_one_issue_and_the_files_are_there() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    let next = pod.keeper.settle(0).await;
    assert_eq!(pod.file("orders-db/dsn").unwrap(), "postgresql://user1:pass1@db/orders");
    assert!(pod.is_ready());
    assert_eq!(next, Some(HOUR / 100 * 66), "nothing to do until the renewal");
    let inner = pod.fake.set();
    assert_eq!((inner.logins, inner.issues, inner.document_reads), (1, 1, 1));
    assert_eq!(inner.notified, 0, "an application that has not started needs no notice");
}

#[tokio::test]
async fn a_restarted_container_neither_logs_in_nor_takes_a_credential() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    pod.fake.set().sealed = true;
    pod.restart();
    let next = pod.keeper.settle(1_000).await;
    assert_eq!(next, Some(HOUR / 100 * 66));
    assert_eq!(pod.file("orders-db/dsn").unwrap(), "postgresql://user1:pass1@db/orders");
    let inner = pod.fake.set();
    assert_eq!((inner.logins, inner.issues), (1, 1));
}

#[tokio::test]
async fn the_state_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    let mode = fs::metadata(pod.path("state/state.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_day_is_one_login_one_issue_and_renewals() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.pass(0, 23 * HOUR).await;
    let inner = pod.fake.set();
    assert_eq!((inner.logins, inner.issues), (1, 1));
    assert_eq!(inner.lease_renewals, 34, "every 39.6 minutes");
    assert_eq!(inner.token_renewals, 3, "every 6.6 hours");
    assert!(inner.revoked.is_empty());
}

#[tokio::test]
async fn near_its_end_a_lease_is_replaced_and_the_old_one_lives_for_the_overlap() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    pod.fake.set().lease_renewal = 1_200;
    let renewal = HOUR / 100 * 66;
    pod.keeper.settle(renewal).await;
    let swap = renewal + 1_200_000 - 330_000;
    assert_eq!(pod.keeper.settle(swap - 1).await, Some(swap));
    assert_eq!(pod.fake.set().issues, 1);
    pod.keeper.settle(swap).await;
    assert_eq!(pod.file("orders-db/dsn").unwrap(), "postgresql://user2:pass2@db/orders");
    assert!(pod.fake.set().revoked.is_empty(), "pools still use the old login");
    pod.fake.until(|inner| inner.notified == 1).await;
    pod.keeper.settle(swap + 300_000).await;
    assert_eq!(pod.fake.set().revoked, ["database/creds/k8s.c.shop.orders-db/l1"]);
}

#[tokio::test]
async fn a_token_near_its_end_is_replaced_with_its_leases() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.fake.set().token_ttl = 3_600;
    pod.keeper.settle(0).await;
    pod.fake.set().token_renewal = 1_200;
    let renewal = HOUR / 100 * 66;
    let swap = renewal + 1_200_000 - 330_000;
    pod.pass(renewal, swap).await;
    assert_eq!(pod.file("orders-db/dsn").unwrap(), "postgresql://user2:pass2@db/orders");
    assert_eq!(pod.fake.taken(), (2, 2));
    assert!(pod.fake.set().revoked.is_empty());
    pod.keeper.settle(swap + 300_000).await;
    assert_eq!(pod.fake.set().revoked, ["s.1"], "its lease goes with it");
}

#[tokio::test]
async fn an_edited_document_is_shown_without_a_new_credential() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    pod.fake.document("orders-db", 2, "user={{ .username }}");
    pod.keeper.mark(&Signal::Changed("delivery/k8s/c/shop/dsec/orders-db".to_owned()));
    pod.keeper.settle(1_000).await;
    assert_eq!(pod.file("orders-db/dsn").unwrap(), "user=user1");
    assert_eq!(pod.fake.set().issues, 1);
    pod.fake.until(|inner| inner.notified == 1).await;
}

#[tokio::test]
async fn events_of_others_cause_no_read() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    for path in ["delivery/k8s/c/shop/dsec/other", "delivery/k8s/c/other/dsec/orders-db", "secret/data/x"] {
        pod.keeper.mark(&Signal::Changed(path.to_owned()));
    }
    pod.keeper.settle(1_000).await;
    assert_eq!(pod.fake.set().document_reads, 1);
}

#[tokio::test]
async fn a_broken_template_costs_no_credential() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, "{{ .username ");
    pod.pass(0, HOUR).await;
    assert!(!pod.is_ready());
    assert!(pod.status().contains("unclosed action"), "{}", pod.status());
    let reads = pod.fake.set().document_reads;
    assert!(reads <= 61, "one look a minute at most, not {reads}");
    assert_eq!(pod.fake.taken(), (1, 0));
    pod.fake.document("orders-db", 2, DSN);
    pod.keeper.mark(&Signal::Changed("delivery/k8s/c/shop/dsec/orders-db".to_owned()));
    pod.keeper.settle(HOUR + 1).await;
    assert!(pod.is_ready());
}

#[tokio::test]
async fn a_template_that_does_not_fit_is_no_load_and_an_edit_needs_no_new_credential() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, "{{ .user_name }}");
    pod.pass(0, 10 * HOUR).await;
    assert!(!pod.is_ready());
    assert_eq!(pod.fake.taken(), (1, 1));
    assert_eq!(pod.fake.set().document_reads, 1);
    pod.fake.document("orders-db", 2, DSN);
    pod.keeper.mark(&Signal::Resync);
    pod.keeper.settle(10 * HOUR + 1).await;
    assert!(pod.is_ready());
    assert_eq!(pod.fake.set().issues, 1);
}

#[tokio::test]
async fn a_broken_edit_keeps_the_good_files() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    pod.fake.document("orders-db", 2, "{{ .user_name }}");
    pod.keeper.mark(&Signal::Resync);
    pod.pass(1_000, HOUR / 2).await;
    assert_eq!(pod.file("orders-db/dsn").unwrap(), "postgresql://user1:pass1@db/orders");
    let status = pod.status();
    assert!(status.contains("username") && !status.contains("pass1"), "{status}");
}

#[tokio::test]
async fn a_pod_before_its_document_waits_and_says_so() {
    let mut pod = Pod::start(r#"[{"name":"orders-db"},{"name":"cache"}]"#).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.pass(0, 10 * 60_000).await;
    assert!(pod.status().contains("\"cache\""), "{}", pod.status());
    assert!(!pod.is_ready());
    assert_eq!(pod.fake.set().issues, 0, "a pod that cannot start needs no credential");
    let reads = pod.fake.set().document_reads;
    assert!(reads < 80, "two reads a look, a look every 30 s: {reads}");
    pod.fake.document("cache", 1, DSN);
    pod.keeper.mark(&Signal::Changed("delivery/k8s/c/shop/dsec/cache".to_owned()));
    pod.keeper.settle(10 * 60_000 + 1).await;
    assert!(pod.is_ready());
    assert_eq!(pod.fake.taken(), (1, 2));
}

#[tokio::test]
async fn a_policy_that_came_after_the_login_is_found_by_a_new_one() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.fake.set().denied.insert("k8s/c/shop/dsec/orders-db".to_owned());
    pod.keeper.settle(0).await;
    assert!(pod.status().contains("consumer"), "{}", pod.status());
    pod.fake.set().denied.clear();
    pod.pass(1, 60_000).await;
    assert!(pod.is_ready());
    let inner = pod.fake.set();
    assert_eq!((inner.logins, inner.issues), (2, 1));
    assert_eq!(inner.revoked, ["s.1"]);
}

#[tokio::test]
async fn while_the_server_is_sealed_the_files_stay() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    pod.fake.set().sealed = true;
    let renewal = HOUR / 100 * 66;
    pod.pass(renewal, renewal + 600_000).await;
    assert_eq!(pod.file("orders-db/dsn").unwrap(), "postgresql://user1:pass1@db/orders");
    pod.fake.set().sealed = false;
    pod.pass(renewal + 600_001, renewal + 640_000).await;
    let inner = pod.fake.set();
    assert_eq!((inner.logins, inner.issues, inner.lease_renewals), (1, 1, 1));
}

#[tokio::test]
async fn a_revoked_token_is_replaced() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    pod.fake.set().dead.insert("s.1".to_owned());
    pod.pass(HOUR / 100 * 66, HOUR / 100 * 66 + 60_000).await;
    assert_eq!(pod.file("orders-db/dsn").unwrap(), "postgresql://user2:pass2@db/orders");
    assert_eq!(pod.fake.set().logins, 2);
}

#[tokio::test]
async fn at_the_end_everything_is_given_back() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    pod.keeper.farewell().await;
    assert_eq!(pod.fake.set().revoked, ["database/creds/k8s.c.shop.orders-db/l1", "s.1"]);
    assert!(!pod.path("state/state.json").exists());
}

#[tokio::test]
async fn a_container_stopped_alone_comes_back_with_a_new_credential_and_tells_the_application() {
    let mut pod = Pod::start(ONE).await;
    pod.fake.document("orders-db", 1, DSN);
    pod.keeper.settle(0).await;
    pod.keeper.farewell().await;
    pod.restart();
    pod.keeper.settle(1_000).await;
    assert_eq!(pod.file("orders-db/dsn").unwrap(), "postgresql://user2:pass2@db/orders");
    pod.fake.until(|inner| inner.notified == 1).await;
}

#[tokio::test]
async fn a_secret_by_annotation_needs_no_document() {
    let secrets =
        r#"[{"name":"direct","path":"database/creds/direct","template":"{{ .username }}","file":"who"}]"#;
    let mut pod = Pod::start(secrets).await;
    pod.keeper.settle(0).await;
    assert_eq!(pod.file("direct/who").unwrap(), "user1");
    assert_eq!(pod.fake.set().document_reads, 0);
}
