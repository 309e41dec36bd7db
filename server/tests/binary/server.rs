//! A server with a configuration: TLS, restart, draining, reloading, and what it says of a wrong one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::bed::Bed;
use crate::common::{Server, Shell};
use crate::ready::connect;
use nix::sys::signal::Signal;

#[test]
fn tls_is_1_3_or_nothing() {
    let bed = Bed::new();
    let (server, _) = bed.serve();
    let mut stream = connect(&bed, &server, &rustls::version::TLS13).unwrap();
    stream.write_all(b"GET /v1/sys/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 501 "), "{text}");
    let error = connect(&bed, &server, &rustls::version::TLS12).unwrap_err().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    let mut plain = TcpStream::connect(server.address).unwrap();
    plain.write_all(b"GET /v1/sys/health HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _reset = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"));
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let bed = Bed::new();
    let (mut server, shell) = bed.serve();
    assert!(shell.run(&["status"]).status.code() == Some(2));
    let made = shell.json(&["operator", "init", "--key-shares", "3", "--key-threshold", "2"]);
    let keys: Vec<&str> =
        made["unseal_keys_b64"].as_array().unwrap().iter().map(|k| k.as_str().unwrap()).collect();
    shell.ok_with(&["operator", "unseal"], keys[0]);
    shell.ok_with(&["operator", "unseal"], keys[2]);
    shell.ok_with(&["login"], made["root_token"].as_str().unwrap());
    shell.ok(&["secrets", "enable", "--path", "secret", "kv"]);
    shell.ok(&["kv", "put", "secret/app", "password=s3cret"]);
    server.signal(Signal::SIGTERM);
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said:#?}");
    let said = said.join("\n");
    assert!(said.contains("\"ui\" has no effect"), "{said}");
    for secret in [keys[0], made["root_token"].as_str().unwrap(), "s3cret"] {
        assert!(!said.contains(secret));
    }

    let (_server, again) = bed.serve();
    again.ok_with(&["operator", "unseal"], made["unseal_keys_hex"][1].as_str().unwrap());
    again.ok_with(&["operator", "unseal"], keys[0]);
    again.ok_with(&["login"], made["root_token"].as_str().unwrap());
    assert_eq!(again.ok(&["kv", "get", "--field", "password", "secret/app"]), "s3cret");
    let verified = again.ok(&["audit", "verify", bed.path("audit").to_str().unwrap()]);
    assert!(verified.contains(": intact, "), "{verified}");
    assert!(again.ok(&["read", "--field", "ca_bundle", "sys/ca"]).contains("BEGIN CERTIFICATE"));
}

#[test]
fn sighup_takes_the_new_certificate() {
    let bed = Bed::new();
    let (mut server, _) = bed.serve();
    assert!(connect(&bed, &server, &rustls::version::TLS13).is_ok());
    bed.make_certificates();
    // The new authority does not know the certificate that the server still shows.
    assert!(connect(&bed, &server, &rustls::version::TLS13).is_err());
    server.signal(Signal::SIGHUP);
    server.until("certificate reloaded");
    assert!(connect(&bed, &server, &rustls::version::TLS13).is_ok());
    std::fs::write(bed.path("tls.key"), "nonsense").unwrap();
    server.signal(Signal::SIGHUP);
    let complaint = server.until("certificate not reloaded");
    assert!(
        complaint.contains("expected a PEM private key") && !complaint.contains("nonsense"),
        "{complaint}"
    );
    assert!(connect(&bed, &server, &rustls::version::TLS13).is_ok());
}

#[test]
fn sigterm_lets_a_request_in_flight_finish_and_ends_streams() {
    let mut server = Server::dev();
    let token = server.said("Root Token: ");
    let head = |method: &str, path: &str, more: &str| {
        format!("{method} /v1/{path} HTTP/1.1\r\nhost: x\r\nx-vault-token: {token}\r\n{more}\r\n")
    };
    let mut events = TcpStream::connect(server.address).unwrap();
    events.write_all(head("GET", "sys/events/subscribe/*", "").as_bytes()).unwrap();
    let mut first = [0u8; 12];
    events.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    let body = br#"{"data":{"k":"v"}}"#;
    let mut write = TcpStream::connect(server.address).unwrap();
    let more = format!("content-length: {}\r\nexpect: 100-continue\r\n", body.len());
    write.write_all(head("POST", "secret/data/late", &more).as_bytes()).unwrap();
    // The server is reading the body once it has said "100".
    let mut interim = [0u8; 25];
    write.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    server.signal(Signal::SIGTERM);
    server.until("draining");
    write.write_all(body).unwrap();
    let mut answer = String::new();
    write.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"version\":1"), "{answer}");
    let mut rest = String::new();
    events.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("0\r\n\r\n"), "the stream's end is a clean one: {rest:?}");
    let (code, said) = server.end();
    assert_eq!(code, Some(0), "{said:#?}");
}

#[test]
fn events_come_by_websocket_where_it_is_asked_for() {
    let mut server = Server::dev();
    let token = server.said("Root Token: ");
    let shell = Shell::new(format!("http://{}", server.address), None);
    shell.ok_with(&["login"], &token);
    let mut socket = TcpStream::connect(server.address).unwrap();
    let request = format!(
        "GET /v1/sys/events/subscribe/kv*?json=true HTTP/1.1\r\nhost: x\r\nx-vault-token: {token}\r\n\
         connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    shell.ok(&["kv", "put", "secret/app", "k=v"]);
    let mut frame = [0u8; 4];
    socket.read_exact(&mut frame).unwrap();
    // One whole text frame whose length stands in two bytes.
    assert_eq!(frame[..2], [0x81, 126]);
    let mut text = vec![0; usize::from(u16::from_be_bytes([frame[2], frame[3]]))];
    socket.read_exact(&mut text).unwrap();
    let event: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(event["data"]["event"]["metadata"]["path"], "secret/data/app");
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let bed = Bed::new();
    let refused = |config: &str| {
        let path = bed.path("wrong.hcl");
        std::fs::write(&path, config).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_coffer")).args(["server", "--config"]).arg(&path).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        said.lines().last().unwrap().replace(&path.display().to_string(), "wrong.hcl")
    };
    let good = std::fs::read_to_string(bed.path("coffer.hcl")).unwrap();
    assert_eq!(
        refused(&good.replace("127.0.0.1:0", "everywhere")),
        "Error: wrong.hcl:2:3: \"address\" must be a host and port, such as \"127.0.0.1:8200\" or \"[::]:8200\""
    );
    assert_eq!(
        refused(&good.replace("storage \"embedded\"", "storage \"consul\"")),
        "Error: wrong.hcl:6:1: storage \"consul\": expected \"embedded\" or \"inmem\""
    );
    assert!(
        refused(&good.replace("tls.crt", "none.crt")).contains("none.crt: expected a PEM certificate chain")
    );
    assert!(refused(&good.replace("ca.crt", "tls.key")).contains("tls.key: expected PEM certificates"));
    let other = Bed::new();
    let theirs = other.path("tls.key").display().to_string();
    let mismatched = refused(&good.replace(&bed.path("tls.key").display().to_string(), &theirs));
    assert!(
        mismatched.contains("tls.crt and ") && mismatched.to_lowercase().contains("mismatch"),
        "{mismatched}"
    );
}

#[test]
fn a_taken_port_and_a_taken_store_are_named() {
    let bed = Bed::new();
    let (server, _) = bed.serve();
    let good = std::fs::read_to_string(bed.path("coffer.hcl")).unwrap();
    let start = |config: &str| {
        let path = bed.path("second.hcl");
        std::fs::write(&path, config).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_coffer")).args(["server", "--config"]).arg(&path).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let taken = start(&good.replace("127.0.0.1:0", &server.address.to_string()));
    assert!(taken.contains(&format!("cannot listen on {}", server.address)), "{taken}");
    let locked = start(&good);
    assert!(locked.contains(&bed.path("data").display().to_string()), "{locked}");
}
