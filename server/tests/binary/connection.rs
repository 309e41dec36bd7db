//! Where the command line finds its server and what it believes, and in which form it answers.

use std::process::Output;

use crate::bed::Bed;
use crate::common::{Server, Shell};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_environment_has_vaults_and_openbaos_names_too() {
    let mut server = Server::dev_with_root("from-the-environment");
    server.until("Root Token: ");
    let shell = Shell::new(String::new(), None);
    for whose in ["COFFER", "VAULT", "BAO"] {
        let run = |format: &str| {
            let mut command = shell.command(&["token", "lookup"]);
            command.env(format!("{whose}_ADDR"), format!("http://{}", server.address));
            command.env(format!("{whose}_TOKEN"), "from-the-environment");
            command
                .env(format!("{whose}_FORMAT"), format)
                .env(format!("{whose}_MAX_RETRIES"), "1")
                .output()
                .unwrap()
        };
        let json: serde_json::Value = serde_json::from_slice(&run("json").stdout).unwrap();
        assert_eq!(json["data"]["display_name"], "token", "{whose}");
        assert!(said(&run("yaml")).contains("\n  display_name: token\n"), "{}", said(&run("yaml")));
        assert!(said(&run("xml")).contains(&format!("{whose}_FORMAT")), "{}", said(&run("xml")));
    }
    let mut elsewhere = shell.command(&["--namespace", "team", "token", "lookup"]);
    elsewhere
        .env("VAULT_ADDR", format!("http://{}", server.address))
        .env("VAULT_TOKEN", "from-the-environment");
    let output = elsewhere.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("namespace not found"), "{output:?}");
}

#[test]
fn whom_to_believe_can_be_said_in_several_ways() {
    let bed = Bed::new();
    let (server, shell) = bed.serve();
    let ask = |address: &str, environment: &[(&str, &str)], flags: &[&str]| {
        let mut command = shell.command(flags);
        command.arg("status").env("VAULT_ADDR", address).envs(environment.iter().copied());
        let output = command.output().unwrap();
        (String::from_utf8_lossy(&output.stdout).contains("Sealed"), said(&output))
    };
    let address = format!("https://{}", server.address);
    let ca = bed.path("ca.crt").display().to_string();
    let dir = bed.path("cas");
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(bed.path("ca.crt"), dir.join("one.pem")).unwrap();
    let dir = dir.display().to_string();
    let elsewhere = address.replace("127.0.0.1", "127.0.0.2");
    for (wanted, environment, flags) in [
        (false, &[][..], &[][..]),
        (true, &[("VAULT_CACERT", ca.as_str())], &[]),
        (true, &[("BAO_CAPATH", dir.as_str())], &[]),
        (true, &[], &["-ca-cert", ca.as_str()]),
        (true, &[], &["--ca-path", dir.as_str()]),
        (true, &[("VAULT_SKIP_VERIFY", "true")], &[]),
        (true, &[], &["-tls-skip-verify"]),
        (false, &[("VAULT_SKIP_VERIFY", "false")], &[]),
        (false, &[("VAULT_SKIP_VERIFY", "maybe")], &[]),
        (true, &[("VAULT_CACERT", ca.as_str()), ("VAULT_TLS_SERVER_NAME", "localhost")], &[]),
        (false, &[("VAULT_CACERT", ca.as_str()), ("VAULT_TLS_SERVER_NAME", "other.example")], &[]),
        (false, &[], &["-ca-cert", ca.as_str(), "-client-cert", ca.as_str()]),
    ] {
        let (answered, said) = ask(&address, environment, flags);
        assert_eq!(answered, wanted, "{environment:?} {flags:?}: {said}");
    }
    let (answered, _) = ask(&elsewhere, &[("VAULT_CACERT", &ca)], &[]);
    assert!(!answered, "the certificate names another address, and nobody listens there");
}

#[test]
fn any_path_can_be_patched_and_asked_with_a_query() {
    let mut server = Server::dev_with_root("mine");
    server.until("Root Token: ");
    let shell = Shell::new(format!("http://{}", server.address), None);
    shell.ok_with(&["login"], "mine");
    let body = shell.home.path().join("body.json");
    std::fs::write(&body, r#"{"data": {"a": "1", "b": "2"}}"#).unwrap();
    shell.ok(&["write", "secret/data/app", &format!("@{}", body.display())]);
    std::fs::write(&body, r#"{"data": {"b": "3"}}"#).unwrap();
    shell.ok(&["patch", "-field=version", "secret/data/app", &format!("@{}", body.display())]);
    let both = shell.json(&["read", "secret/data/app"]);
    assert_eq!(both["data"]["data"], serde_json::json!({"a": "1", "b": "3"}));
    let first = shell.json(&["read", "secret/data/app", "version=1"]);
    assert_eq!(first["data"]["data"]["b"], "2");
    let yaml = shell.ok(&["-format=yaml", "read", "secret/data/app"]);
    assert!(yaml.contains("    b: '3'\n"), "{yaml}");
}
