//! `sys/plugins/catalog`: what is built in. Nothing can be added: this server runs no other program.

use serde_json::{Value, json};

use crate::error::Fail;
use crate::mounts::running_version;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// Class, name.
const BUILT_IN: [(&str, &str); 12] = [
    ("auth", "approle"),
    ("auth", "jwt"),
    ("auth", "kubernetes"),
    ("auth", "oidc"),
    ("auth", "userpass"),
    ("database", "mysql-aurora-database-plugin"),
    ("database", "mysql-database-plugin"),
    ("database", "mysql-legacy-database-plugin"),
    ("database", "mysql-rds-database-plugin"),
    ("database", "postgresql-database-plugin"),
    ("secret", "database"),
    ("secret", "kv"),
];
const CLASSES: [&str; 3] = ["auth", "database", "secret"];

fn names(class: &str) -> Vec<String> {
    BUILT_IN.iter().filter(|(c, _)| *c == class).map(|(_, name)| (*name).to_owned()).collect()
}

/// Handles `sys/plugins/<below>`.
pub(crate) fn handle(ctx: &Ctx, below: &str) -> Result<Outcome, Fail> {
    let rest = below.strip_prefix("catalog").ok_or(Fail::UnsupportedPath)?.trim_matches('/');
    let version = running_version(&ctx.open);
    match (ctx.request.operation, rest.split_once('/')) {
        (Operation::Read, None) if rest.is_empty() => {
            let detailed: Vec<Value> = BUILT_IN
                .iter()
                .map(|(class, name)| {
                    json!({ "builtin": true, "deprecation_status": "supported", "name": name, "type": class,
                        "version": version })
                })
                .collect();
            Ok(Outcome::data(json!({ "auth": names("auth"), "database": names("database"),
                "secret": names("secret"), "detailed": detailed })))
        }
        (Operation::List, None) if CLASSES.contains(&rest) => Ok(Outcome::list(names(rest))),
        (Operation::Read, Some((class, name))) if BUILT_IN.contains(&(class, name)) => {
            Ok(Outcome::data(json!({ "args": null, "builtin": true, "command": "", "declarative": false,
                "deprecation_status": "supported", "name": name, "oci": false, "sha256": "", "version": version })))
        }
        (Operation::Read, Some(_)) => Err(Fail::NotFound),
        _ => Err(Fail::NoOperation),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Method;

    #[test]
    fn every_method_of_the_catalogue_is_there() {
        for name in names("auth") {
            assert!(Method::of(&name).is_some(), "{name}");
        }
        assert!(BUILT_IN.is_sorted());
    }
}
