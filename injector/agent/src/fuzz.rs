//! Fuzz targets of what the agent is told: its environment, templates, URLs, and its own state file.

use std::net::IpAddr;

use coffer_fuzz::{Target, kind, text};
use serde_json::json;

use crate::config::{SECRETS_MAX, is_file_name, parse_mode, parse_secrets};
use crate::duration::parse_ms;
use crate::notify;
use crate::state::State;
use crate::template::{self, FILE_BYTES_MAX};

#[test]
fn a_template_renders_within_its_bound_and_errors_hold_no_value() {
    let words = [
        "{{",
        "}}",
        "{{ .password }}",
        "{{ .username }}",
        "{{ .n }}",
        "{{ range $k, $v := . }}",
        "{{ end }}",
        "{{ if ",
        "{{ with ",
        "printf \"%q\"",
        "toJSON",
        "base64Decode",
        "indent 2",
        "split \",\"",
        "index",
        "slice",
        "len",
        " | ",
        "(",
        ")",
        "{{ define \"t\" }}",
        "{{ template \"t\" . }}",
        "9223372036854775807",
        "{{- ",
        " -}}",
        "%*d",
        "html",
        "eq",
        "call",
        "{{/*",
        "*/}}",
    ];
    let data = json!({"password": "hunter2-hunter2", "username": "v-app", "n": 7, "list": [1, "a"], "map": {"k": null}});
    let data = data.as_object().unwrap().clone();
    Target::new("template").words(&words).runs(3_000).run(|input| {
        let source = text(input);
        let parsed = match template::parse(&source) {
            Ok(parsed) => parsed,
            Err(why) => return kind(&why),
        };
        match template::render(&parsed, &data) {
            Ok(out) => {
                assert!(out.len() <= FILE_BYTES_MAX);
                format!("{}", text(&out).contains("hunter2"))
            }
            Err(why) => {
                assert!(!why.contains("hunter2"), "{why}");
                kind(&why)
            }
        }
    });
}

#[test]
fn what_the_injector_asks_for_stays_in_its_directory() {
    let words = [
        "name", "path", "template", "file", "mode", "onChange", "..", "/", "0440", "4755", "http", "post",
        "a",
    ];
    Target::new("agent-secrets").words(&words).run(|input| {
        let secrets = match parse_secrets(&text(input)) {
            Ok(secrets) => secrets,
            Err(why) => return kind(&why),
        };
        assert!((1..=SECRETS_MAX).contains(&secrets.len()));
        for secret in &secrets {
            assert!(
                is_file_name(&secret.name) && !secret.name.contains('/') && !secret.name.starts_with("..")
            );
            assert!(
                secret.mode.as_deref().is_none_or(|mode| parse_mode(mode).is_some_and(|mode| mode <= 0o777))
            );
        }
        format!("{}", secrets.len().min(9))
    });
}

#[test]
fn only_loopback_is_called() {
    let words = [
        "http://",
        "https://",
        "127.0.0.1",
        "localhost",
        "[::1]",
        "@",
        ":80",
        "/",
        "?",
        "#",
        "\\",
        "evil.example",
        "%40",
        "127.1",
        "::ffff:127.0.0.1",
    ];
    Target::new("notify-url").words(&words).run(|input| {
        let (host, port, uri) = match notify::target(&text(input)) {
            Ok(target) => target,
            Err(why) => return why.to_owned(),
        };
        assert!(host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()), "{host}");
        format!("{} {}", port == 80, uri.query().is_some())
    });
}

#[test]
fn a_duration_is_digits_with_units() {
    let words = ["h", "m", "s", "1h30m", "d", "-", ".", "18446744073709551615", "٣"];
    Target::new("agent-duration").words(&words).run(|input| {
        let given = text(input);
        let Some(ms) = parse_ms(&given) else { return "refused".into() };
        assert!(given.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'h' | b'm' | b's')));
        if ms <= u64::MAX / 1000 {
            assert_eq!(parse_ms(&format!("{}s", ms / 1000)), Some(ms));
        }
        format!("{}", ms == 0)
    });
}

#[test]
fn a_state_file_reads_back_as_it_is_written() {
    let words = [
        "token", "secret", "accessor", "life", "ttl_ms", "secrets", "document", "issue", "retiring", "lease",
        "hunter2",
    ];
    Target::new("agent-state").words(&words).run(|input| {
        let Ok(state) = serde_json::from_slice::<State>(input) else { return "refused".into() };
        let once = serde_json::to_vec(&state).unwrap();
        assert_eq!(read_and_written(&once), once);
        assert!(!format!("{state:?}").contains("hunter2-secret"));
        format!("{} {}", state.token.is_some(), state.secrets.len().min(5))
    });
}

fn read_and_written(once: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&serde_json::from_slice::<State>(once).unwrap()).unwrap()
}
