//! Fuzz targets of the log's file as it is found at a start, and of devices' options.

use std::collections::BTreeMap;
use std::fs;

use coffer_core::audit::{files, verify};
use coffer_fuzz::{Target, kind, text};

use super::device::options::FileOptions;
use super::file;

/// Whatever the file holds, opening it either fails or leaves whole lines, and what is appended then continues the last one.
#[test]
fn a_log_that_opens_ends_in_a_whole_record_and_goes_on_from_it() {
    let words = ["\n", ",\"seq\":", "18446744073709551615", "\"}", "\0", "{", "}\n"];
    let dir = tempfile::tempdir().unwrap();
    Target::new("audit-file").words(&words).runs(1_000).run(|input| {
        let path = dir.path().join(files::PRESENT);
        fs::write(&path, input).unwrap();
        let opened = match file::open(dir.path()) {
            Ok(opened) => opened,
            Err(why) => return kind(&why),
        };
        let left = fs::read(&path).unwrap();
        assert!(input.starts_with(&left), "nothing is added");
        assert!(left.is_empty() || left.ends_with(b"\n"), "no half of a record");
        assert_eq!(opened.len, left.len() as u64);
        assert!(opened.chain.seq < u64::MAX);
        let mut chain = opened.chain;
        let next = chain.append_json(r#"{"a":1}"#).unwrap();
        let last = text(&left).lines().last().unwrap_or_default().to_owned();
        let intact = verify([last.as_str()], None).intact == 1;
        format!("{intact} {} {}", opened.chain.seq.min(9), next.is_empty())
    });
}

#[test]
fn a_device_takes_no_option_that_it_does_not_know_the_meaning_of() {
    let words = [
        "file_path",
        "path",
        "mode",
        "0600",
        "0777",
        "log_raw",
        "true",
        "prefix",
        "exec",
        "format",
        "jsonx",
        "hmac_accessor",
    ];
    Target::new("device-options").words(&words).run(|input| {
        let Ok(options) = serde_json::from_slice::<BTreeMap<String, String>>(input) else {
            return "no options".into();
        };
        let read = match FileOptions::parse(&options) {
            Ok(read) => read,
            Err(why) => return kind(&why),
        };
        let set = |name: &str| options.get(name).filter(|value| !value.is_empty()).map(String::as_str);
        assert!(!read.file_path.as_os_str().is_empty());
        assert!(
            matches!(set("log_raw"), None | Some("false" | "0"))
                && set("prefix").is_none()
                && set("exec").is_none()
        );
        assert!(matches!(set("mode"), None | Some("0600" | "600")));
        format!("{:?} {}", read.style, read.required)
    });
}
