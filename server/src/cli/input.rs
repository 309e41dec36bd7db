//! What is given to a command: `key=value` pairs, files and standard input.

use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context, bail};
use coffer_client::wire::Disclose;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use serde_json::{Map, Value};

/// The most that a file or standard input may hold: what a server takes.
const INPUT_BYTES_MAX: u64 = 1 << 20;

/// Reads `key=value`, `key=@file`, `key=-` (standard input), `@file.json` and `-` (JSON from standard input).
/// A key that is given several times becomes a list.
pub(crate) fn pairs(arguments: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut map = Map::new();
    let mut stdin_used = false;
    let mut stdin = || {
        if std::mem::replace(&mut stdin_used, true) {
            bail!("standard input can be read only once");
        }
        read_stdin()
    };
    for argument in arguments {
        if argument == "-" {
            map.extend(json_object(&stdin()?, "standard input")?);
        } else if let Some(file) = argument.strip_prefix('@') {
            map.extend(json_object(&read_file(file)?, file)?);
        } else {
            let (key, value) = argument
                .split_once('=')
                .with_context(|| format!("{argument:?}: expected key=value, key=@file, key=- or -"))?;
            if key.is_empty() {
                bail!("{argument:?}: the key is empty");
            }
            let value = match value {
                "-" => stdin()?,
                _ => match value.strip_prefix('@') {
                    Some(file) => read_file(file)?,
                    // As in Vault: a value that begins with @ is written \@.
                    None => {
                        value.strip_prefix("\\@").map_or_else(|| value.to_owned(), |rest| format!("@{rest}"))
                    }
                },
            };
            add(&mut map, key, Value::String(value));
        }
    }
    Ok(map)
}

fn add(map: &mut Map<String, Value>, key: &str, value: Value) {
    match map.get_mut(key) {
        None => drop(map.insert(key.to_owned(), value)),
        Some(Value::Array(items)) => items.push(value),
        Some(first) => {
            let list = Value::Array(vec![first.take(), value]);
            *first = list;
        }
    }
}

/// Labels: `key=value`, text only.
pub(crate) fn labels(arguments: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut map = Map::new();
    for argument in arguments {
        let (key, value) =
            argument.split_once('=').with_context(|| format!("{argument:?}: expected key=value"))?;
        map.insert(key.to_owned(), Value::from(value));
    }
    Ok(map)
}

fn json_object(text: &str, whence: &str) -> anyhow::Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => bail!("{whence}: expected a JSON object"),
        // The parser's words may quote a value.
        Err(error) => bail!("{whence}: no JSON at line {} column {}", error.line(), error.column()),
    }
}

/// A file's text, or standard input for `-`.
pub(crate) fn file_or_stdin(name: &str) -> anyhow::Result<String> {
    if name == "-" { read_stdin() } else { read_file(name) }
}

fn read_file(name: &str) -> anyhow::Result<String> {
    let context = || format!("file {name}");
    bounded(std::fs::File::open(Path::new(name)).with_context(context)?, &context())
}

fn read_stdin() -> anyhow::Result<String> {
    bounded(std::io::stdin().lock(), "standard input")
}

fn bounded(source: impl Read, whence: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    source.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text).with_context(|| whence.to_owned())?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        bail!("{whence} is larger than {INPUT_BYTES_MAX} bytes");
    }
    Ok(text)
}

/// One secret line: typed without an echo at a terminal, else the first line of standard input.
pub(crate) fn secret(prompt: &str) -> anyhow::Result<Disclose> {
    let stdin = std::io::stdin();
    let mut line = String::with_capacity(256);
    if stdin.is_terminal() {
        use std::io::Write;
        write!(std::io::stderr(), "{prompt}: ")?;
        let silent = Silent::begin()?;
        stdin.read_line(&mut line)?;
        drop(silent);
        writeln!(std::io::stderr())?;
    } else {
        stdin.read_line(&mut line)?;
    }
    let line = Disclose::from(line);
    match line.expose().trim() {
        "" => bail!("{prompt}: nothing was given on standard input"),
        text => Ok(Disclose::from(text)),
    }
}

/// A terminal that does not echo, until this is dropped.
struct Silent(Termios);

impl Silent {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(std::io::stdin(), SetArg::TCSANOW, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _terminal_gone = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(arguments: &[&str]) -> anyhow::Result<Value> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        pairs(&arguments).map(Value::Object)
    }

    #[test]
    fn pairs_and_lists() {
        assert_eq!(read(&["a=1", "b=x=y", "c="]).unwrap(), json!({"a": "1", "b": "x=y", "c": ""}));
        assert_eq!(read(&["p=a", "p=b", "p=c"]).unwrap(), json!({"p": ["a", "b", "c"]}));
        assert_eq!(read(&["a=\\@b"]).unwrap(), json!({"a": "@b"}));
        for bad in ["novalue", "=x", "@/nonexistent", "a=@/nonexistent"] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.json");
        std::fs::write(&path, r#"{"n": 1}"#).unwrap();
        let path = path.display();
        assert_eq!(read(&[&format!("@{path}")]).unwrap(), json!({"n": 1}));
        assert_eq!(read(&[&format!("v=@{path}")]).unwrap(), json!({"v": "{\"n\": 1}"}));
    }
}
