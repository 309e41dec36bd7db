//! `username_template`: names of accounts by a Go template, with Vault's functions `random`, `truncate`, `unix_time`,
//! `uppercase`, `lowercase`, `replace`, and `.DisplayName` and `.RoleName`. Never lets anything out that would have to be
//! quoted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use coffer_core::template::MAX_USERNAME_BYTES;
use coffer_core::time::Timestamp;
use gotmpl::{MissingKey, Template, TemplateError, Value};
use rand::RngExt as _;

use crate::EngineError;

const TEMPLATE_BYTES_MAX: usize = 4096;
const RANDOM_MAX: usize = 64;
const OUTPUT_BYTES_MAX: usize = 1024;

/// Checks a template before it is stored: it gives names that fit, and never the same one twice.
pub(super) fn check(source: &str, bytes_max: usize) -> Result<(), EngineError> {
    if source.len() > TEMPLATE_BYTES_MAX {
        return Err(refused(format!("longer than {TEMPLATE_BYTES_MAX} bytes")));
    }
    let names = || render(source, "token-display", "some-role", Timestamp::ZERO, bytes_max);
    if names()? == names()? {
        return Err(refused(
            "it must have something random in it, such as {{random 20}}: names are never used again",
        ));
    }
    Ok(())
}

/// A name.
pub(super) fn render(
    source: &str,
    display: &str,
    role: &str,
    now: Timestamp,
    bytes_max: usize,
) -> Result<String, EngineError> {
    let template = functions(Template::new("username"), now)
        .missing_key(MissingKey::Error)
        .max_range_iters(1)
        .parse(source)
        .map_err(|why| refused(why.to_string()))?;
    let text = |text: &str| Value::String(Arc::from(plain(text)));
    let dot =
        BTreeMap::from([(Arc::from("DisplayName"), text(display)), (Arc::from("RoleName"), text(role))]);
    let mut out = Bounded(String::new());
    template.execute_fmt(&mut out, &Value::Map(Arc::new(dot))).map_err(|why| refused(why.to_string()))?;
    let name = out.0.trim();
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-');
    let max = bytes_max.min(MAX_USERNAME_BYTES);
    if name.is_empty() || name.len() > max || !name.bytes().all(allowed) {
        return Err(refused(format!("it must give a name of 1 to {max} letters, digits, '_' and '-'")));
    }
    Ok(name.to_owned())
}

fn refused(why: impl fmt::Display) -> EngineError {
    EngineError::bad(format!("username_template: {why}"))
}

/// With everything that would have to be quoted replaced.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '-' }).collect()
}

struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

fn refuse(why: &str) -> TemplateError {
    TemplateError::Exec(why.to_owned())
}

fn text(args: &[Value], i: usize) -> Result<&str, TemplateError> {
    args.get(i).and_then(Value::as_str).ok_or_else(|| refuse("needs a text"))
}

fn count(args: &[Value], i: usize) -> Result<usize, TemplateError> {
    let count = args.get(i).and_then(Value::as_int).and_then(|n| usize::try_from(n).ok());
    count.filter(|n| *n > 0 && *n <= RANDOM_MAX).ok_or_else(|| refuse("needs a number from 1 to 64"))
}

fn string(text: impl AsRef<str>) -> Result<Value, TemplateError> {
    Ok(Value::String(Arc::from(text.as_ref())))
}

/// The order of arguments is Vault's: a pipeline's value comes last.
fn functions(template: Template, now: Timestamp) -> Template {
    template
        .func("random", |args| {
            let letters = rand::rng().sample_iter(rand::distr::Alphanumeric).take(count(args, 0)?);
            string(letters.map(char::from).collect::<String>())
        })
        .func("truncate", |args| {
            let most = count(args, 0)?;
            string(text(args, 1)?.chars().take(most).collect::<String>())
        })
        .func("unix_time", move |_| string(now.as_secs().to_string()))
        .func("unix_time_millis", move |_| string(now.as_millis().to_string()))
        .func("uppercase", |args| string(text(args, 0)?.to_uppercase()))
        .func("lowercase", |args| string(text(args, 0)?.to_lowercase()))
        .func("replace", |args| string(text(args, 2)?.replace(text(args, 0)?, text(args, 1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_521_600);

    #[test]
    fn vaults_own_templates_work() {
        let vaults = "{{ printf \"v-%s-%s-%s-%s\" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) \
                      (unix_time) | truncate 63 }}";
        check(vaults, 63).unwrap();
        let name = render(vaults, "token-o'brien", "k8s.orders", NOW, 63).unwrap();
        assert!(name.starts_with("v-token-o--k8s-orde-") && name.ends_with("-1795521600"), "{name}");
        let own = "{{ .RoleName | replace \"-\" \"_\" | uppercase }}_{{ random 8 | lowercase }}";
        let name = render(own, "x", "my-role", NOW, 32).unwrap();
        assert!(name.starts_with("MY_ROLE_") && name.len() == 16, "{name}");
        assert_eq!(name[8..], name[8..].to_lowercase());
    }

    #[test]
    fn names_that_would_have_to_be_quoted_never_come_out() {
        for bad in [
            "it's-{{random 8}}",
            "{{random 8}};DROP",
            "ü{{random 8}}",
            "{{.RoleName}}",
            "{{random 64}}{{random 64}}",
            "{{random 1000}}",
            "{{nothing}}{{random 8}}",
            "{{.Password}}{{random 8}}",
            "{{random 8",
            "",
            &"x".repeat(5000),
        ] {
            assert!(check(bad, 63).is_err(), "{bad}");
        }
        assert!(check("{{random 40}}", 32).is_err(), "longer than the database allows");
    }
}
