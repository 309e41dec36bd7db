//! The commands in the guides are run as they stand there.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::Server;

/// The `sh` blocks of a page, one after the other.
fn commands(page: &str) -> String {
    let path = coffer_fuzz::workspace().join("docs/guides").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script: String = blocks.collect();
    assert!(!script.is_empty(), "{page} has no commands");
    script
}

#[test]
fn the_guide_of_logins_does_what_it_says() {
    let mut server = Server::dev();
    let root = server.said("Root Token: ");
    let dir = tempfile::tempdir().unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_coffer")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &commands("logins.md")])
        .current_dir(dir.path())
        .env("HOME", dir.path())
        .env("PATH", path)
        .env("COFFER_ADDR", format!("http://{}", server.address))
        .env("COFFER_TOKEN", root)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{wrong}");
    // By both logins, and twice without one.
    assert_eq!(said.matches("s3cret").count(), 4, "{said}\n{wrong}");
}
