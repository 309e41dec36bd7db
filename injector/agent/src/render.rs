//! From a document and a secret to files, in memory. Never touches a directory.

use crate::config::{is_file_name, parse_mode};
use crate::error::AgentError;
use crate::template;
use coffer_client::wire::{DeliveryDocument, DeliveryFile, Disclose};
use serde_json::{Map, Value};
use std::fmt;
use zeroize::Zeroizing;

/// A file to write.
pub struct Rendered {
    /// Path below the secret's directory.
    pub name: String,
    /// Permission bits.
    pub mode: u32,
    /// Its bytes.
    pub content: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rendered({} {:04o})", self.name, self.mode)
    }
}

const FILES_MAX: usize = 64;
const MODE_DEFAULT: u32 = 0o440;
const NESTING_MAX: usize = 8;

fn refuse(file: &str, why: impl Into<String>) -> AgentError {
    AgentError::Render { file: file.to_owned(), why: why.into() }
}

/// Says whether a document's files can be written at all, before a credential is taken for them.
///
/// # Errors
/// [`AgentError::Render`] names the file.
pub fn check(document: &DeliveryDocument) -> Result<(), AgentError> {
    if document.files.len() > FILES_MAX {
        return Err(refuse("", format!("more than {FILES_MAX} files")));
    }
    for file in &document.files {
        mode_of(file)?;
        check_name(&file.name)?;
        if let Some(source) = &file.template {
            template::parse(source).map_err(|why| refuse(&file.name, why))?;
        }
    }
    Ok(())
}

/// Renders every file of a document.
///
/// # Errors
/// [`AgentError::Render`] names the file; none is returned then.
pub fn render(
    document: &DeliveryDocument,
    data: &Disclose<Map<String, Value>>,
    mode_floor: u32,
) -> Result<Vec<Rendered>, AgentError> {
    let data = data.expose();
    if document.files.is_empty() {
        if data.len() > FILES_MAX {
            return Err(refuse("", format!("the secret has more than {FILES_MAX} keys: name the files")));
        }
        return data
            .iter()
            .map(|(key, value)| {
                check_name(key)?;
                Ok(Rendered { name: key.clone(), mode: MODE_DEFAULT | mode_floor, content: plain(value) })
            })
            .collect();
    }
    check(document)?;
    document
        .files
        .iter()
        .map(|file| {
            let content = match &file.template {
                Some(source) => template::parse(source)
                    .and_then(|parsed| template::render(&parsed, data))
                    .map_err(|why| refuse(&file.name, why))?,
                None => plain(data.get(&file.name).ok_or_else(|| {
                    refuse(&file.name, "has no template, and the secret has no key of that name")
                })?),
            };
            Ok(Rendered { name: file.name.clone(), mode: mode_of(file)? | mode_floor, content })
        })
        .collect()
}

fn mode_of(file: &DeliveryFile) -> Result<u32, AgentError> {
    match file.mode.as_deref() {
        None => Ok(MODE_DEFAULT),
        Some(text) => parse_mode(text).ok_or_else(|| refuse(&file.name, "mode is not octal")),
    }
}

fn check_name(name: &str) -> Result<(), AgentError> {
    let segments = name.split('/').count();
    if segments > NESTING_MAX || !name.split('/').all(is_file_name) {
        return Err(refuse(name, "is not a path below the secret's directory"));
    }
    Ok(())
}

fn plain(value: &Value) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match value {
        Value::String(text) => text.as_bytes().to_vec(),
        other => other.to_string().into_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(files: Value) -> DeliveryDocument {
        serde_json::from_value(json!({
            "uid": "u", "generation": 1, "source": {"path": "p"}, "files": files
        }))
        .unwrap()
    }

    fn data(json: Value) -> Disclose<Map<String, Value>> {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn without_files_each_key_is_one() {
        let files = render(&document(json!([])), &data(json!({"port": 5432, "user": "u"})), 0o400).unwrap();
        let shown: Vec<_> = files.iter().map(|f| (f.name.as_str(), f.mode, f.content.to_vec())).collect();
        assert_eq!(shown, [("port", 0o440, b"5432".to_vec()), ("user", 0o440, b"u".to_vec())]);
    }

    #[test]
    fn the_floor_adds_bits() {
        let doc = document(json!([{"name": "dsn", "mode": "0400", "template": "{{ .user }}"}]));
        let files = render(&doc, &data(json!({"user": "u"})), 0o444).unwrap();
        assert_eq!(files[0].mode, 0o444);
    }

    #[test]
    fn names_stay_inside() {
        for bad in ["../x", "/x", "a/../b", "a//b", "", "..data", "a/b/c/d/e/f/g/h/i"] {
            assert!(check(&document(json!([{"name": bad}]))).is_err(), "{bad}");
        }
        assert!(check(&document(json!([{"name": "conf.d/app.json"}]))).is_ok());
    }

    #[test]
    fn a_key_that_is_no_file_name_is_refused() {
        assert!(render(&document(json!([])), &data(json!({"../../etc/passwd": "x"})), 0).is_err());
    }

    #[test]
    fn debug_shows_no_content() {
        let files = render(&document(json!([])), &data(json!({"password": "hunter2"})), 0).unwrap();
        assert_eq!(format!("{files:?}"), "[Rendered(password 0440)]");
    }
}
