//! What can be configured, shown on running servers.

use std::process::{Command, Output};

use crate::bed::Bed;
use crate::common::{Server, Shell};
use nix::sys::signal::Signal;

fn server(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_coffer")).arg("server").args(arguments).output().unwrap()
}

/// The last thing said on standard error, and the exit code.
fn refusal(output: &Output) -> (i32, String) {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    (output.status.code().unwrap(), said.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn a_configuration_can_be_tested_without_serving() {
    let bed = Bed::new();
    let path = bed.path("coffer.hcl").display().to_string();
    let good = server(&["-config", &path, "-test"]);
    assert!(good.status.success(), "{good:?}");
    assert_eq!(String::from_utf8_lossy(&good.stdout), "The configuration is good.\n");
    assert!(String::from_utf8_lossy(&good.stderr).contains("\"ui\" has no effect"), "{good:?}");
    assert!(!bed.path("data").exists(), "nothing was opened");
    std::fs::write(bed.path("tls.key"), "nonsense").unwrap();
    let (code, said) = refusal(&server(&["--test", "--config", &path]));
    assert!(code == 1 && said.contains("tls.key: expected a PEM private key"), "{said}");
    let (code, said) = refusal(&server(&[]));
    assert_eq!((code, said.as_str()), (1, "Error: expected --config or --dev"));
}

#[test]
fn an_expired_certificate_is_named() {
    let bed = Bed::new();
    bed.make_expired(2020);
    let path = bed.path("coffer.hcl").display().to_string();
    let (code, said) = refusal(&server(&["--config", &path]));
    assert_eq!(code, 1);
    assert!(said.contains("tls.crt: the certificate expired on Jan  1 00:00:00 2020"), "{said}");
}

#[test]
fn a_directory_is_a_configuration_and_json_is_too() {
    let bed = Bed::new();
    let dir = bed.path("conf.d");
    std::fs::create_dir(&dir).unwrap();
    let path = |name: &str| bed.path(name).display().to_string();
    let pid = bed.path("coffer.pid");
    let listener = serde_json::json!({"listener": [{"tcp": [{
        "address": "127.0.0.1:0", "tls_cert_file": path("tls.crt"), "tls_key_file": path("tls.key"),
    }]}]});
    std::fs::write(dir.join("a.json"), listener.to_string()).unwrap();
    let rest = serde_json::json!({
        "backend": {"embedded": {"path": path("data")}},
        "log_format": "json", "log_level": "warn", "pid_file": pid, "disable_mlock": true,
    });
    std::fs::write(dir.join("b.json"), rest.to_string()).unwrap();
    let output = server(&["--config", dir.to_str().unwrap(), "--test"]);
    assert!(output.status.success(), "{output:?}");
    std::fs::write(dir.join("c.hcl"), "log_level = \"info\"").unwrap();
    std::fs::write(dir.join("d.hcl"), "log_format = \"standard\"").unwrap();
    let mut running = Server::with_config(&dir);
    let wanted = format!("{}\n", running.id());
    assert_eq!(std::fs::read_to_string(&pid).unwrap(), wanted);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
    assert!(!pid.exists());
}

#[test]
fn sighup_takes_the_new_log_level() {
    let bed = Bed::new();
    let mut server = Server::with_config(&bed.path("coffer.hcl"));
    let text = std::fs::read_to_string(bed.path("coffer.hcl")).unwrap();
    std::fs::write(bed.path("coffer.hcl"), format!("{text}log_level = \"nonsense\"\n")).unwrap();
    server.signal(Signal::SIGHUP);
    let complaint = server.until("log level not reloaded");
    assert!(complaint.contains("coffer.hcl:10:1: ") && complaint.contains("must be one of"), "{complaint}");
    std::fs::write(bed.path("coffer.hcl"), format!("{text}log_level = \"error\"\n")).unwrap();
    server.signal(Signal::SIGHUP);
    // At this level there is no word about it any more; that there is none about the end shows it.
    server.until("certificate reloaded");
    let shell = Shell::new(format!("https://{}", server.address), Some(bed.path("ca.crt")));
    assert_eq!(shell.run(&["status"]).status.code(), Some(2));
    server.signal(Signal::SIGTERM);
    let (code, said) = server.end();
    assert_eq!(code, Some(0));
    assert!(!said.iter().any(|line| line.contains("draining")), "{said:#?}");
}

#[test]
fn clients_can_be_made_to_show_a_certificate() {
    let bed = Bed::new();
    let text = std::fs::read_to_string(bed.path("coffer.hcl")).unwrap();
    let clients = format!(
        "  tls_client_ca_file = \"{}\"\n  tls_require_and_verify_client_cert = true\n}}\nstorage",
        bed.path("ca.crt").display()
    );
    std::fs::write(bed.path("coffer.hcl"), text.replacen("}\nstorage", &clients, 1)).unwrap();
    let (_server, shell) = bed.serve();
    let (code, said) = shell.fails(&["status"]);
    assert!(code == 2 && said.to_lowercase().contains("certificate"), "{said}");
    let path = |name: &str| bed.path(name).display().to_string();
    let known = ["-client-cert", &path("client.crt"), "-client-key", &path("client.key"), "status"]
        .map(str::to_owned);
    let output = shell.run(&known.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(2), "it answers that it is sealed");
    assert!(String::from_utf8_lossy(&output.stdout).contains("Initialized   false"), "{output:?}");
}

#[test]
fn a_developer_may_choose_the_root_token() {
    let mut server = Server::dev_with_root("of-my-own");
    assert_eq!(server.said("Root Token: "), "of-my-own");
    let shell = Shell::new(format!("http://{}", server.address), None);
    shell.ok_with(&["login"], "of-my-own");
    assert_eq!(shell.json(&["token", "lookup"])["data"]["policies"], serde_json::json!(["root"]));
    let accessors = shell.json(&["list", "auth/token/accessors"]);
    assert_eq!(accessors.as_array().unwrap().len(), 1, "the token it replaced is gone");
}
