//! The commands in the guides are run as they stand there.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::Server;
use crate::servers::postgres::{ADMIN_PASSWORD, Postgres};

/// The `sh` blocks of a page, one after the other.
fn commands(page: &str) -> String {
    let path = coffer_fuzz::workspace().join("docs/guides").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script: String = blocks.collect();
    assert!(!script.is_empty(), "{page} has no commands");
    script
}

/// Runs a page's commands against a development server, in a directory with these files, and gives back what they said.
fn run(page: &str, files: &[(&str, &str)], environment: &[(&str, String)]) -> String {
    let mut server = Server::dev();
    let root = server.said("Root Token: ");
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_coffer")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &commands(page)])
        .current_dir(dir.path())
        .env("HOME", dir.path())
        .env("PATH", path)
        .env("COFFER_ADDR", format!("http://{}", server.address))
        .env("COFFER_TOKEN", root)
        .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{wrong}");
    said.into_owned()
}

#[test]
fn the_guide_of_logins_does_what_it_says() {
    let said = run("logins.md", &[], &[]);
    // By both logins, and twice without one.
    assert_eq!(said.matches("s3cret").count(), 4, "{said}");
}

#[test]
fn the_guide_of_events_does_what_it_says() {
    let said = run("events.md", &[], &[]);
    assert!(said.contains("secret/data/shop/db"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_of_databases_does_what_it_says() {
    let database = Postgres::start().await;
    let files = [("db-ca.crt", database.ca.as_str()), ("admin.password", ADMIN_PASSWORD)];
    let said = run("databases.md", &files, &[("DB_PORT", database.port.to_string())]);
    for line in ["let in", "still good", "good"] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
}
