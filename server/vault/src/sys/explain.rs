//! `sys/policy-explain...`: which rule of which policy decides about a request, and what is missing.
//!
//! Tells a caller about his own token what he could find out by trying. About others' tokens and about policies by name it
//! tells only whoever may read every policy that is named in the answer.

use std::sync::Arc;

use coffer_core::path::VaultPath;
use coffer_core::policy::{Acl, Explanation, Operation as Needs, Params, PolicyName, RuleOrigin};
use coffer_core::token::Token;
use serde_json::{Value, json};

use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::permit::{self, Permitted};
use crate::pipeline::{Ctx, only};
use crate::policy::POLICIES_PER_TOKEN_MAX;
use crate::request::Operation;
use crate::token::LiveToken;

/// What is explained where no operation is named.
const OPERATIONS: [Needs; 7] =
    [Needs::Create, Needs::Read, Needs::Update, Needs::Patch, Needs::Delete, Needs::List, Needs::Scan];

/// Whose rights are explained.
enum Subject {
    Token(Arc<LiveToken>),
    Policies(Box<Acl>),
}

impl Subject {
    fn acl(&self) -> &Acl {
        match self {
            Self::Token(token) => &token.acl,
            Self::Policies(acl) => acl,
        }
    }
}

/// Handles `sys/<which>`.
pub(crate) async fn handle(ctx: &mut Ctx, permitted: &Permitted, which: &str) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    let own = which == "policy-explain-self";
    let subject = match which {
        "policy-explain-self" => Subject::Token(permitted.token()?.clone()),
        "policy-explain-accessor" => Subject::Token(by_accessor(ctx).await?),
        _ => named(ctx).await?,
    };
    let text = ctx.filled("path")?;
    let path = VaultPath::parse(text).map_err(|error| bad(format!("invalid path: {error}")))?;
    let operations = operations(ctx)?;
    let params = parameters(ctx)?;
    let explained: Vec<Explanation> =
        operations.iter().map(|needs| subject.acl().explain(*needs, &path, params.as_ref())).collect();
    if !own {
        let mut names = Vec::new();
        explained.iter().for_each(|one| policies_of(one, &mut names));
        if !names.iter().all(|name| may_read(permitted, name)) {
            return Err(Fail::Denied);
        }
    }
    let mut data = json!({
        "path": path.as_str(),
        "operations": explained.iter().map(show).collect::<Vec<_>>(),
    });
    if let Subject::Token(token) = &subject
        && !token.refused_rules.is_empty()
    {
        data["refused_rules"] = json!(token.refused_rules);
    }
    Ok(Outcome::data(data))
}

async fn by_accessor(ctx: &Ctx) -> Result<Arc<LiveToken>, Fail> {
    let open = &ctx.open;
    let invalid = || bad("invalid accessor");
    let hash = open.tokens.by_accessor(ctx.filled("accessor")?).await?.ok_or_else(invalid)?;
    open.tokens.live(&open.policies, &hash, ctx.now).await?.ok_or_else(invalid)
}

/// A token that is given, or policies that are named.
async fn named(ctx: &Ctx) -> Result<Subject, Fail> {
    let open = &ctx.open;
    let token = ctx.text("token")?.filter(|text| !text.is_empty());
    match (token, params::policies(&ctx.request.body, "policies")?) {
        (Some(text), None) => {
            let invalid = || bad("invalid token");
            let token = Token::parse(text).map_err(|_| invalid())?;
            Ok(Subject::Token(
                open.caller(&token, Some(ctx.request.client_ip), ctx.now).await?.ok_or_else(invalid)?,
            ))
        }
        (None, Some(names)) => {
            if names.len() > POLICIES_PER_TOKEN_MAX {
                return Err(Fail::TooLarge(format!("more than {POLICIES_PER_TOKEN_MAX} policies")));
            }
            let compiled = open.policies.acl(&names, None, &Default::default(), &mut Vec::new()).await?;
            Ok(Subject::Policies(Box::new(compiled.acl)))
        }
        _ => Err(bad("either token or policies must be supplied")),
    }
}

/// What is asked about; a write may turn out to be either.
fn operations(ctx: &Ctx) -> Result<Vec<Needs>, Fail> {
    Ok(match ctx.text("operation")?.filter(|text| !text.is_empty()) {
        None => OPERATIONS.to_vec(),
        Some("write") => vec![Needs::Create, Needs::Update],
        Some(text) => vec![operation(text)?],
    })
}

fn operation(text: &str) -> Result<Needs, Fail> {
    let known = OPERATIONS.iter().chain(&[Needs::Subscribe]).find(|needs| needs.as_str() == text);
    known.copied().ok_or_else(|| {
        bad("operation must be one of create, read, update, write, patch, delete, list, scan and subscribe")
    })
}

fn parameters(ctx: &Ctx) -> Result<Option<Params>, Fail> {
    match ctx.request.body.get("parameters") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map.clone())),
        Some(_) => Err(bad("parameters must be an object")),
    }
}

/// Every policy that an explanation names.
fn policies_of<'a>(explained: &'a Explanation, names: &mut Vec<&'a PolicyName>) {
    let rules = explained.rule.iter().chain(&explained.others);
    names.extend(rules.flat_map(|rule| rule.policies.iter().map(|(name, _)| name)));
    explained.boundaries.iter().for_each(|boundary| policies_of(boundary, names));
}

fn may_read(permitted: &Permitted, name: &PolicyName) -> bool {
    let path = format!("sys/policies/acl/{name}");
    permitted.token().is_ok_and(|token| permit::may(token, Needs::Read, &path))
}

fn show(explained: &Explanation) -> Value {
    let words = |list: &[coffer_core::policy::Capability]| -> Vec<&'static str> {
        list.iter().map(|capability| capability.as_str()).collect()
    };
    json!({
        "operation": explained.operation.as_str(),
        "allowed": explained.allowed,
        "reason": explained.verdict(),
        "needs": words(&explained.needs),
        "missing": words(&explained.missing),
        "rule": explained.rule.as_ref().map(show_rule),
        "other_rules": explained.others.iter().map(show_rule).collect::<Vec<_>>(),
        "parameter": explained.parameter.as_ref().map(ToString::to_string),
        "boundaries": explained.boundaries.iter().map(show).collect::<Vec<_>>(),
        "explanation": explained.sentences(),
    })
}

fn show_rule(rule: &RuleOrigin) -> Value {
    let words = |set: coffer_core::policy::Capabilities| -> Vec<&'static str> {
        set.iter().map(|capability| capability.as_str()).collect()
    };
    let policies: Vec<Value> = rule
        .policies
        .iter()
        .map(|(name, capabilities)| json!({ "name": name, "capabilities": words(*capabilities) }))
        .collect();
    json!({ "path": rule.pattern.as_str(), "capabilities": words(rule.capabilities), "policies": policies })
}
