//! Go templates over a secret's data. Errors tell the place and the keys there are, never a value:
//! the library's own execution errors may quote data, so they do not leave this room.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gotmpl::{MissingKey, Template, TemplateError, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Most bytes one file may have.
pub(crate) const FILE_BYTES_MAX: usize = 1 << 20;
const TEMPLATE_BYTES_MAX: usize = 64 << 10;
const RANGE_ITERATIONS_MAX: u64 = 100_000;
const JSON_DEPTH_MAX: usize = 32;

/// Parses a template; the error is safe to log, it knows the template only.
pub(crate) fn parse(source: &str) -> Result<Template, String> {
    if source.len() > TEMPLATE_BYTES_MAX {
        return Err(format!("the template is longer than {TEMPLATE_BYTES_MAX} bytes"));
    }
    // Unknown functions show only when they are called: a run over nothing finds most of them before a
    // credential is taken. What else fails then says nothing about a run over the secret.
    let trial = build(MissingKey::ZeroValue, source)?;
    let mut out = Bounded(Zeroizing::new(String::new()));
    if let Err(error) = trial.execute_fmt(&mut out, &Value::Map(Arc::default()))
        && let Some(why) = fault_of_the_template(&error)
    {
        return Err(why);
    }
    build(MissingKey::Error, source)
}

fn build(missing_key: MissingKey, source: &str) -> Result<Template, String> {
    let template = Template::new("t").missing_key(missing_key).max_range_iters(RANGE_ITERATIONS_MAX);
    functions(template).parse(source).map_err(|e| e.to_string())
}

// Only errors that name what stands in the template; the others may quote data.
fn fault_of_the_template(error: &TemplateError) -> Option<String> {
    match error {
        TemplateError::ArgCount { .. }
        | TemplateError::RangeIterLimit
        | TemplateError::RecursionLimit
        | TemplateError::UndefinedFunction(_)
        | TemplateError::UndefinedTemplate(_)
        | TemplateError::UndefinedVariable(_) => Some(error.to_string()),
        _ => None,
    }
}

/// Renders a template over a secret's data.
pub(crate) fn render(
    template: &Template,
    data: &serde_json::Map<String, Json>,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let dot = to_value(&Json::Object(data.clone()), 0);
    let mut out = Bounded(Zeroizing::new(String::with_capacity(4 << 10)));
    match template.execute_fmt(&mut out, &dot) {
        Ok(()) => Ok(Zeroizing::new(out.0.as_bytes().to_vec())),
        Err(_) if out.0.len() >= FILE_BYTES_MAX => Err(format!("is larger than {FILE_BYTES_MAX} bytes")),
        Err(error) => Err(fault_of_the_template(&error).unwrap_or_else(|| {
            let keys: Vec<&str> = data.keys().take(32).map(String::as_str).collect();
            format!("the template does not fit the secret, whose keys are: {}", keys.join(", "))
        })),
    }
}

struct Bounded(Zeroizing<String>);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > FILE_BYTES_MAX {
            // Marks the overflow for the caller: nothing shorter reaches this length.
            let missing = FILE_BYTES_MAX - self.0.len();
            self.0.extend(std::iter::repeat_n(' ', missing));
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

fn to_value(json: &Json, depth: usize) -> Value {
    if depth > JSON_DEPTH_MAX {
        return Value::Nil;
    }
    match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => n
            .as_i64()
            .map(Value::Int)
            .or_else(|| n.as_u64().map(Value::Uint))
            .or_else(|| n.as_f64().map(Value::Float))
            .unwrap_or(Value::Nil),
        Json::String(s) => Value::String(Arc::from(s.as_str())),
        Json::Array(items) => Value::List(items.iter().map(|item| to_value(item, depth + 1)).collect()),
        Json::Object(map) => {
            let entries: BTreeMap<Arc<str>, Value> = map
                .iter()
                .map(|(key, value)| (Arc::from(key.as_str()), to_value(value, depth + 1)))
                .collect();
            Value::Map(Arc::new(entries))
        }
    }
}

fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Nil => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Uint(n) => Json::from(*n),
        Value::Float(n) => Json::from(*n),
        Value::String(s) => Json::String(s.to_string()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect::<Option<_>>()?),
        Value::Map(map) => Json::Object(
            map.iter().map(|(key, value)| Some((key.to_string(), to_json(value)?))).collect::<Option<_>>()?,
        ),
        Value::Function(_) => return None,
    })
}

fn refuse(why: &str) -> TemplateError {
    TemplateError::Exec(why.to_owned())
}

fn text(args: &[Value], i: usize) -> Result<&str, TemplateError> {
    args.get(i).and_then(Value::as_str).ok_or_else(|| refuse("needs a text"))
}

fn string(text: impl AsRef<str>) -> Result<Value, TemplateError> {
    Ok(Value::String(Arc::from(text.as_ref())))
}

// Argument order is that of Vault's agent, so that a pipeline's value comes last.
fn functions(template: Template) -> Template {
    template
        .func("base64Decode", |args| {
            let bytes = STANDARD.decode(text(args, 0)?).map_err(|_| refuse("is not base64"))?;
            string(String::from_utf8(bytes).map_err(|_| refuse("is not text"))?)
        })
        .func("base64Encode", |args| string(STANDARD.encode(text(args, 0)?)))
        .func("indent", |args| {
            let width = args.first().and_then(Value::as_int).and_then(|n| usize::try_from(n).ok());
            let pad = " ".repeat(width.filter(|n| *n <= 64).ok_or_else(|| refuse("needs 0 to 64 spaces"))?);
            let lines: Vec<String> = text(args, 1)?.split('\n').map(|line| format!("{pad}{line}")).collect();
            string(lines.join("\n"))
        })
        .func("join", |args| match args.get(1) {
            Some(Value::List(items)) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                string(items.join(text(args, 0)?))
            }
            _ => Err(refuse("needs a list")),
        })
        .func("replaceAll", |args| string(text(args, 2)?.replace(text(args, 0)?, text(args, 1)?)))
        .func("split", |args| {
            let parts = text(args, 1)?.split(text(args, 0)?).map(|part| Value::String(Arc::from(part)));
            Ok(Value::List(parts.collect()))
        })
        .func("toJSON", |args| {
            let json = args.first().and_then(to_json).ok_or_else(|| refuse("needs a value"))?;
            string(json.to_string())
        })
        .func("toLower", |args| string(text(args, 0)?.to_lowercase()))
        .func("toUpper", |args| string(text(args, 0)?.to_uppercase()))
        .func("trimSpace", |args| string(text(args, 0)?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(source: &str, data: Json, expected: &str) {
        let Json::Object(data) = data else { panic!("data is a map") };
        let out = render(&parse(source).unwrap(), &data).unwrap();
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected, "{source}");
    }

    #[test]
    fn what_people_write() {
        let login = json!({"username": "v-app-1", "password": "p@ss<&>"});
        check(
            "postgresql://{{ .username }}:{{ .password }}@db/o",
            login.clone(),
            "postgresql://v-app-1:p@ss<&>@db/o",
        );
        check("{{ toJSON . }}", login.clone(), r#"{"password":"p@ss<&>","username":"v-app-1"}"#);
        check(
            "{{- range $k, $v := . }}{{ $k }}={{ printf \"%q\" $v }}\n{{ end -}}",
            login,
            "password=\"p@ss<&>\"\nusername=\"v-app-1\"\n",
        );
        check("{{ .a | base64Encode }} {{ \"aGk=\" | base64Decode }}", json!({"a": "hi"}), "aGk= hi");
        check("{{ split \",\" .a | join \"+\" }}", json!({"a": "1,2"}), "1+2");
        check("{{ .a | trimSpace | replaceAll \"x\" \"y\" | toUpper }}", json!({"a": " x "}), "Y");
        check("{{ indent 2 .a }}", json!({"a": "k:\nv"}), "  k:\n  v");
        check("{{ if eq .n 5 }}five{{ else }}no{{ end }}", json!({"n": 5}), "five");
    }

    #[test]
    fn a_missing_key_names_the_keys_and_no_value() {
        let Json::Object(data) = json!({"password": "hunter2"}) else { panic!("data is a map") };
        let error = render(&parse("{{ .passwort }}").unwrap(), &data).unwrap_err();
        assert!(error.contains("password") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_broken_template_is_told_by_place() {
        assert!(parse("{{ .x ").is_err());
        assert!(parse("{{ nosuch .x }}").is_err());
    }

    #[test]
    fn output_is_bounded() {
        let Json::Object(data) = json!({"a": "x".repeat(60_000)}) else { panic!("data is a map") };
        let error = render(&parse(&"{{ .a }}".repeat(20)).unwrap(), &data).unwrap_err();
        assert!(error.contains("larger"), "{error}");
    }

    #[test]
    fn no_template_is_a_panic() {
        let Json::Object(data) =
            json!({"a": "\u{e9}\u{20ac}x", "n": 1, "l": [1, 2], "m": {"x": null}, "f": 1e308})
        else {
            panic!("data is a map")
        };
        let templates = [
            "{{ slice .a 1 2 }}",
            "{{ slice .a 2 1 }}",
            "{{ slice .a -1 99 }}",
            "{{ slice .l 1 9 }}",
            "{{ index .a 1 }}{{ index .l -1 }}",
            "{{ index .l 99 }}",
            "{{ index .m \"y\" \"z\" }}",
            "{{ printf }}",
            "{{ printf \"%\" }}{{ printf \"%!\" .a }}{{ printf \"%d %s %v\" }}",
            "{{ printf \"%.1s|%.2q|%5.1f|%-3d|%x|%c|%U|%t\" .a .a .f .n .a .n .n .n }}",
            "{{ printf \"%*d\" -9223372036854775808 1 }}",
            "{{ printf \"%c\" 99999999999 }}",
            "{{ 9223372036854775808 }}{{ -9223372036854775809 }}",
            "{{ len .n }}{{ len nil }}",
            "{{ html .a }}{{ js .a }}{{ urlquery .a }}{{ print .f .m .l }}",
            "{{ eq .a .n }}{{ lt .a .n }}{{ gt .l .l }}",
            "{{ call .a }}",
            "{{ define \"t\" }}{{ template \"t\" . }}{{ end }}{{ template \"t\" . }}",
            "{{ range $i, $e := .a }}{{ $i }}{{ end }}{{ break }}",
            "{{ range .n }}{{ . }}{{ end }}{{ range 99999999999 }}{{ end }}",
            "{{ indent -1 .a }}{{ indent 65 .a }}",
            "{{ split \"\" .a }}{{ replaceAll \"\" \"x\" .a }}{{ join .a .l }}",
            "{{ \"\\u00\" }}{{ '\\''  }}{{ 'ab' }}{{ `x` }}",
            "{{/* */",
            "{{- -}}",
        ];
        for source in templates {
            if let Ok(parsed) = parse(source) {
                let _ = render(&parsed, &data);
            }
        }
        for deep in ["{{ ", "{{ (", "{{ if .a }}", "{{ with .a }}", "{{ .a | print ("] {
            let _ = parse(&deep.repeat(60_000 / deep.len()));
        }
        let nested = format!("{{{{ {}1{} }}}}", "(".repeat(30_000), ")".repeat(30_000));
        let _ = parse(&nested);
    }
}
