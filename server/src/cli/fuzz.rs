//! Fuzz targets of what is typed at the command line.

use coffer_fuzz::{Target, kind, text};
use serde_json::Value;

use super::{dashes, input};

/// Arguments, one a line. Those that would read a file or standard input are left out.
#[test]
fn pairs_are_taken_as_they_are_typed() {
    let words = ["=", "a=b", "a=", "=b", "\\@", "a=\\@b", "é=ü", "\n", "a"];
    Target::new("cli-pairs").words(&words).run(|input| {
        let given = text(input);
        let reads = |line: &str| {
            let value = line.split_once('=').map_or("", |(_, value)| value);
            line == "-" || line.starts_with('@') || value == "-" || value.starts_with('@')
        };
        let lines: Vec<String> =
            given.lines().filter(|line| !reads(line)).take(50).map(str::to_owned).collect();
        let map = match input::pairs(&lines) {
            Ok(map) => map,
            Err(why) => return kind(&why),
        };
        let values = |value: &Value| value.as_array().map_or(1, Vec::len);
        assert_eq!(map.values().map(values).sum::<usize>(), lines.len(), "each is there");
        for line in &lines {
            let (key, value) = line.split_once('=').unwrap();
            let value = value.strip_prefix("\\@").map_or(value.to_owned(), |rest| format!("@{rest}"));
            let found = &map[key];
            assert!(
                found == &Value::from(value.as_str()) || found.as_array().unwrap().contains(&value.into())
            );
        }
        assert_eq!(input::labels(&lines).unwrap().len(), map.len());
        format!("{} {}", map.len().min(9), map.values().any(Value::is_array))
    });
}

/// Arguments, one a line: only flags of ours get a second dash, and never twice.
#[test]
fn a_second_dash_is_given_once() {
    let words = ["-", "--", "-format=json", "--format", "-field", "-s.abc", "\n", "="];
    Target::new("cli-dashes").words(&words).runs(300).run(|input| {
        let given = text(input);
        let lines: Vec<std::ffi::OsString> = given.lines().take(20).map(Into::into).collect();
        let once = dashes::vaults(lines.iter().cloned());
        assert_eq!(once.len(), lines.len());
        assert_eq!(dashes::vaults(once.iter().cloned()), once);
        let changed = once.iter().zip(&lines).filter(|(now, before)| now != before).count();
        format!("{changed}")
    });
}
