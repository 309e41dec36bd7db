//! The `token_*` parameters that every role and user has: what the tokens granted by it are like.
//!
//! Names, defaults and messages are those of OpenBao 2.7.2 (its shared token parameters).

use std::collections::BTreeSet;
use std::time::Duration;

use coffer_core::policy::PolicyName;
use coffer_core::time::duration_from_json;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cidr::Cidrs;
use crate::error::{Fail, bad};
use crate::params;

/// What kind of tokens are granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TokenType {
    /// Whatever the mount says.
    #[default]
    Default,
    Service,
    Batch,
}

impl TokenType {
    /// As clients see it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Service => "service",
            Self::Batch => "batch",
        }
    }
}

/// An old name of a parameter, which some methods still take and show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OldName {
    BoundCidrs,
    MaxTtl,
    NumUses,
    Period,
    Policies,
    Ttl,
}

impl OldName {
    /// As it stands in bodies.
    const fn as_str(self) -> &'static str {
        match self {
            Self::BoundCidrs => "bound_cidrs",
            Self::MaxTtl => "max_ttl",
            Self::NumUses => "num_uses",
            Self::Period => "period",
            Self::Policies => "policies",
            Self::Ttl => "ttl",
        }
    }

    /// What replaced it.
    const fn successor(self) -> &'static str {
        match self {
            Self::BoundCidrs => "token_bound_cidrs",
            Self::MaxTtl => "token_max_ttl",
            Self::NumUses => "token_num_uses",
            Self::Period => "token_period",
            Self::Policies => "token_policies",
            Self::Ttl => "token_ttl",
        }
    }
}

/// The parameters as stored, as part of a role. Zero and empty mean "not set".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TokenParams {
    pub(crate) policies: Vec<PolicyName>,
    pub(crate) no_default_policy: bool,
    pub(crate) ttl: Duration,
    pub(crate) max_ttl: Duration,
    pub(crate) explicit_max_ttl: Duration,
    pub(crate) period: Duration,
    pub(crate) num_uses: u64,
    pub(crate) bound_cidrs: Cidrs,
    /// Besides, bind each token to the address that logged in.
    pub(crate) strictly_bind_ip: bool,
    pub(crate) token_type: TokenType,
    /// Which of these were last written by their old name; they are shown by it, too.
    pub(crate) old_names: BTreeSet<OldName>,
}

impl TokenParams {
    /// Takes over what a body says; what it does not name keeps its value. `old` are the old names that this method
    /// knows. Gives back what the client should be warned of.
    pub(crate) fn merge(&mut self, body: &Map<String, Value>, old: &[OldName]) -> Result<Vec<String>, Fail> {
        let mut warnings = Vec::new();
        let mut source = |new: &'static str| -> &'static str {
            let Some(name) = old.iter().find(|o| o.successor() == new) else { return new };
            let given = |key: &str| body.get(key).is_some_and(|v| !v.is_null());
            match (given(new), given(name.as_str())) {
                (true, false) => {
                    self.old_names.remove(name);
                    new
                }
                (true, true) => {
                    self.old_names.insert(*name);
                    new
                }
                (false, true) => {
                    self.old_names.insert(*name);
                    name.as_str()
                }
                (false, false) => new,
            }
        };
        let names = ["token_bound_cidrs", "token_policies", "token_num_uses", "token_period", "token_ttl"];
        let [cidrs, policies, uses, period, ttl] = names.map(&mut source);
        let max_ttl = source("token_max_ttl");
        if let Some(texts) = params::list(body, cidrs)? {
            self.bound_cidrs = Cidrs::try_from(texts)
                .map_err(|error| bad(format!("failed to parse token_bound_cidrs: {error}")))?;
        }
        if let Some(mut names) = params::policies(body, policies)? {
            names.sort();
            self.policies = names;
        }
        self.num_uses = count(body, uses)?.unwrap_or(self.num_uses);
        for (place, name) in [
            (&mut self.period, period),
            (&mut self.ttl, ttl),
            (&mut self.max_ttl, max_ttl),
            (&mut self.explicit_max_ttl, "token_explicit_max_ttl"),
        ] {
            *place = duration(body, name)?.unwrap_or(*place);
        }
        let flag = |name, now| Ok::<_, Fail>(params::flag(body, name)?.unwrap_or(now));
        self.no_default_policy = flag("token_no_default_policy", self.no_default_policy)?;
        self.strictly_bind_ip = flag("token_strictly_bind_ip", self.strictly_bind_ip)?;
        if let Some(text) = params::text(body, "token_type")? {
            self.token_type = token_type(text, &mut warnings)?;
        }
        self.check()?;
        Ok(warnings)
    }

    fn check(&self) -> Result<(), Fail> {
        if self.policies.iter().any(PolicyName::is_root) {
            return Err(bad("auth methods cannot create root tokens"));
        }
        if let Some(name) = self.policies.iter().find(|name| name.is_response_wrapping()) {
            // Such a token could pass for one that a reply was put away under.
            return Err(bad(format!("cannot assign policy {:?}", name.as_str())));
        }
        if !self.max_ttl.is_zero() && self.ttl > self.max_ttl {
            return Err(bad("'token_ttl' cannot be greater than 'token_max_ttl'"));
        }
        if self.token_type == TokenType::Batch {
            let never =
                |what| bad(format!("'token_type' cannot be 'batch' or 'default_batch' when set to {what}"));
            if !self.period.is_zero() {
                return Err(never("generate periodic tokens"));
            }
            if self.num_uses != 0 {
                return Err(never("generate tokens with limited use count"));
            }
        }
        Ok(())
    }

    /// All of them, as roles show them; those written by an old name under that, too, unless they are not set.
    pub(crate) fn show_in(&self, data: &mut Map<String, Value>) {
        let secs = |d: Duration| json!(d.as_secs());
        let new = [
            ("token_bound_cidrs", json!(self.bound_cidrs.texts())),
            ("token_explicit_max_ttl", secs(self.explicit_max_ttl)),
            ("token_max_ttl", secs(self.max_ttl)),
            ("token_no_default_policy", json!(self.no_default_policy)),
            ("token_num_uses", json!(self.num_uses)),
            ("token_period", secs(self.period)),
            ("token_policies", json!(self.policies)),
            ("token_strictly_bind_ip", json!(self.strictly_bind_ip)),
            ("token_ttl", secs(self.ttl)),
            ("token_type", json!(self.token_type.as_str())),
        ];
        data.extend(new.map(|(name, value)| (name.to_owned(), value)));
        for old in &self.old_names {
            let value = data.get(old.successor()).cloned().unwrap_or_default();
            if value != json!(0) && value != json!([]) {
                data.insert(old.as_str().to_owned(), value);
            }
        }
    }
}

/// A number of uses.
fn count(body: &Map<String, Value>, name: &str) -> Result<Option<u64>, Fail> {
    if negative(body, name) {
        return Err(bad("'token_num_uses' cannot be negative"));
    }
    params::number(body, name)
}

fn duration(body: &Map<String, Value>, name: &str) -> Result<Option<Duration>, Fail> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(_) if negative(body, name) => Err(bad(format!("'{name}' cannot be negative"))),
        Some(value) => {
            duration_from_json(value).map(Some).map_err(|_| bad(format!("{name} is not a duration")))
        }
    }
}

fn negative(body: &Map<String, Value>, name: &str) -> bool {
    match body.get(name) {
        Some(Value::Number(n)) => n.as_i64().is_some_and(|n| n < 0),
        Some(Value::String(text)) => text.starts_with('-'),
        _ => false,
    }
}

/// Reads a type; the two `default-` ones only make sense for a mount.
fn token_type(text: &str, warnings: &mut Vec<String>) -> Result<TokenType, Fail> {
    let mut adjusted = |to| warnings.push(format!("{text} has no useful meaning; adjusting to {to}"));
    Ok(match text {
        "" | "default" => TokenType::Default,
        "service" => TokenType::Service,
        "batch" => TokenType::Batch,
        "default-service" => {
            adjusted("service");
            TokenType::Service
        }
        "default-batch" => {
            adjusted("batch");
            TokenType::Batch
        }
        _ => return Err(bad(format!("invalid 'token_type' value {:?}", text.escape_default().to_string()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [OldName; 6] = [
        OldName::BoundCidrs,
        OldName::MaxTtl,
        OldName::NumUses,
        OldName::Period,
        OldName::Policies,
        OldName::Ttl,
    ];

    fn merge(params: &mut TokenParams, body: Value) -> Result<Vec<String>, Fail> {
        params.merge(body.as_object().unwrap(), &ALL)
    }

    fn shown(params: &TokenParams) -> Map<String, Value> {
        let mut data = Map::new();
        params.show_in(&mut data);
        data
    }

    #[test]
    fn all_parameters_are_shown_even_when_none_is_set() {
        let wanted = json!({
            "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": 0,
            "token_no_default_policy": false, "token_num_uses": 0, "token_period": 0, "token_policies": [],
            "token_strictly_bind_ip": false, "token_ttl": 0, "token_type": "default",
        });
        assert_eq!(Value::Object(shown(&TokenParams::default())), wanted);
    }

    #[test]
    fn old_names_are_taken_and_shown_until_the_new_one_is_written() {
        let mut params = TokenParams::default();
        merge(&mut params, json!({"policies": "b,a", "ttl": "1h", "bound_cidrs": "10.0.0.0/8"})).unwrap();
        let data = shown(&params);
        assert_eq!(data["policies"], json!(["a", "b"]));
        assert_eq!(data["token_policies"], json!(["a", "b"]));
        assert_eq!((&data["ttl"], &data["token_ttl"]), (&json!(3600), &json!(3600)));
        assert_eq!(data["bound_cidrs"], json!(["10.0.0.0/8"]));
        merge(&mut params, json!({"token_policies": ["c"]})).unwrap();
        let data = shown(&params);
        assert_eq!(data["token_policies"], json!(["c"]));
        assert!(!data.contains_key("policies"));
        assert_eq!(data["ttl"], 3600);
        // Given both ways the new one counts.
        merge(&mut params, json!({"token_policies": "n", "policies": "o"})).unwrap();
        assert_eq!(shown(&params)["policies"], json!(["n"]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (body, message) in [
            (
                json!({"token_ttl": "2h", "token_max_ttl": "1h"}),
                "'token_ttl' cannot be greater than 'token_max_ttl'",
            ),
            (json!({"token_type": "batch", "token_period": 3}), "generate periodic tokens"),
            (json!({"token_type": "batch", "token_num_uses": 3}), "limited use count"),
            (json!({"token_type": "rubbish"}), "invalid 'token_type' value \"rubbish\""),
            (json!({"token_num_uses": -3}), "'token_num_uses' cannot be negative"),
            (json!({"token_ttl": -3}), "'token_ttl' cannot be negative"),
            (json!({"token_bound_cidrs": "rubbish"}), "failed to parse token_bound_cidrs"),
            (json!({"token_policies": "ROOT"}), "auth methods cannot create root tokens"),
            (json!({"policies": ["Root"]}), "auth methods cannot create root tokens"),
        ] {
            let error = merge(&mut TokenParams::default(), body.clone()).unwrap_err();
            assert_eq!(error.status(), 400, "{body}");
            assert!(error.to_string().contains(message), "{body}: {error}");
        }
    }

    #[test]
    fn types_for_mounts_are_adjusted_with_a_warning() {
        let mut params = TokenParams::default();
        let warnings = merge(&mut params, json!({"token_type": "default-service"})).unwrap();
        assert_eq!(warnings, ["default-service has no useful meaning; adjusting to service"]);
        assert_eq!(params.token_type, TokenType::Service);
    }
}
