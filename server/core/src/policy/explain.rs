//! Why a request may pass or not: the rule that decided, whose it is, what it lost against, and what is missing.
//!
//! Never decides: it takes [`Acl::decide`]'s word and says where it comes from.

use std::fmt;

use crate::path::VaultPath;

use super::acl::{Acl, Forms, Reason, requires_sudo};
use super::merge::Merged;
use super::params::{ParamFault, Params};
use super::{Capabilities, Capability, Operation, PathPattern, PolicyName};

/// The most rules that match and did not decide, that are named.
const OTHERS_MAX: usize = 32;

/// Why one request would pass or not.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What was to be done.
    pub operation: Operation,
    /// To which path, as the rules see it: listings end in a slash.
    pub path: String,
    /// Whether it may be done.
    pub allowed: bool,
    /// Why. What only `sudo` is missing for is [`Explanation::sudo_is_missing`].
    pub reason: Reason,
    /// The capabilities that are asked for: the operation's, and `sudo` on paths for administrators.
    pub needs: Vec<Capability>,
    /// Those of them that are not there.
    pub missing: Vec<Capability>,
    /// The rule that decided.
    pub rule: Option<RuleOrigin>,
    /// Further rules that match, the more specific ones first. They decide nothing.
    pub others: Vec<RuleOrigin>,
    /// The parameter that the rule does not let pass.
    pub parameter: Option<ParamFault>,
    /// The same by each boundary alone. What the policies allow must be allowed by all of them.
    pub boundaries: Vec<Explanation>,
}

/// A rule, and which policies make it what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOrigin {
    /// Its pattern, with its placeholders filled in.
    pub pattern: PathPattern,
    /// What all policies with this pattern come to.
    pub capabilities: Capabilities,
    /// What each of them says.
    pub policies: Vec<(PolicyName, Capabilities)>,
}

impl RuleOrigin {
    fn of(rule: &Merged) -> Self {
        Self {
            pattern: rule.pattern.clone(),
            capabilities: rule.capabilities,
            policies: rule.sources.clone(),
        }
    }
}

impl Acl {
    /// Explains what [`Acl::decide`] decides about the same request, and whether `sudo` is there where the path needs it.
    pub fn explain(&self, operation: Operation, path: &VaultPath, params: Option<&Params>) -> Explanation {
        let decision = self.decide(operation, path, params);
        let free = decision.reason == Reason::Free;
        let mut needs: Vec<Capability> = operation.needs().into_iter().collect();
        if !free && requires_sudo(operation, path) {
            needs.push(Capability::Sudo);
        }
        let missing: Vec<Capability> =
            needs.iter().copied().filter(|need| !decision.capabilities.has(*need)).collect();
        let listed = operation.is_listing().then(|| path.to_dir());
        let seen = listed.as_ref().unwrap_or(path).as_str();
        let forms = if operation.is_listing() { Forms::listing(seen) } else { Forms::plain(seen) };
        let mut matching = if free { Vec::new() } else { self.matching(forms) };
        let decided = decision.rule.as_ref();
        matching.retain(|rule| Some(&rule.pattern) != decided);
        let rule = decided.and_then(|pattern| self.rule(pattern));
        let parameter = (operation.has_parameters() && !decision.allowed)
            .then(|| rule.and_then(|rule| rule.params.fault(params)))
            .flatten();
        Explanation {
            operation,
            path: seen.to_owned(),
            allowed: free || (decision.allowed && missing.is_empty()),
            reason: decision.reason,
            needs,
            missing,
            rule: rule.map(RuleOrigin::of),
            others: matching.into_iter().take(OTHERS_MAX).map(RuleOrigin::of).collect(),
            parameter: parameter.filter(|_| decision.reason == Reason::Parameters),
            boundaries: self.boundaries().map(|b| b.explain(operation, path, params)).collect(),
        }
    }
}

impl Explanation {
    /// Whether the operation's own capability is there, and the path is for administrators.
    pub fn sudo_is_missing(&self) -> bool {
        !self.allowed && self.missing == [Capability::Sudo]
    }

    /// One word for why.
    pub fn verdict(&self) -> &'static str {
        match self.reason {
            _ if self.sudo_is_missing() && self.reason != Reason::Boundary => "sudo_missing",
            Reason::Root => "root",
            Reason::Free => "free",
            Reason::Granted => "granted",
            Reason::NoRule => "no_rule",
            Reason::Denied => "denied",
            Reason::DeniedCaseVariant => "denied_case_variant",
            Reason::NotGranted => "not_granted",
            Reason::Parameters => "parameters",
            Reason::Boundary => "boundary",
        }
    }

    /// The whole of it in sentences.
    pub fn sentences(&self) -> Vec<String> {
        let verdict = if self.allowed { "allowed" } else { "denied" };
        let mut said = vec![format!("{} on {:?} is {verdict}.", self.operation.as_str(), self.path)];
        said.push(self.cause());
        if let Some(rule) = &self.rule {
            said.extend(rule.policies.iter().map(|(name, capabilities)| {
                format!("Policy {name:?} says {} there.", listed(*capabilities), name = name.as_str())
            }));
        }
        said.extend(self.others.iter().map(|rule| {
            format!("Rule {:?} {} matches too, and decides nothing.", rule.pattern.as_str(), rule.sources())
        }));
        if !self.missing.is_empty() && !self.allowed {
            let names: Vec<&str> = self.missing.iter().map(|c| c.as_str()).collect();
            said.push(format!("Missing: {}.", names.join(", ")));
        }
        for boundary in &self.boundaries {
            let inner = boundary.sentences();
            said.push(format!("By the boundary alone: {}", inner.join(" ")));
        }
        said
    }

    fn cause(&self) -> String {
        let rule = self.rule.as_ref().map_or("", |rule| rule.pattern.as_str());
        match self.reason {
            _ if self.sudo_is_missing() && self.reason != Reason::Boundary => {
                format!(
                    "Rule {rule:?} grants the operation, but the path is for administrators and needs sudo."
                )
            }
            Reason::Root => "The root policy allows everything.".to_owned(),
            Reason::Free => "It is free for all.".to_owned(),
            Reason::Granted => format!("Rule {rule:?} decides, and grants it."),
            Reason::NoRule => "No rule matches.".to_owned(),
            Reason::Denied => format!("Rule {rule:?} decides, and refuses everything."),
            Reason::DeniedCaseVariant => {
                format!("Rule {rule:?} refuses this path in another spelling of upper and lower case.")
            }
            Reason::NotGranted => format!("Rule {rule:?} decides, and does not grant it."),
            Reason::Parameters => match &self.parameter {
                Some(fault) => {
                    format!("Rule {rule:?} decides, and does not let the parameters pass: {fault}.")
                }
                None => format!("Rule {rule:?} decides, and does not let the parameters pass."),
            },
            Reason::Boundary => "The policies allow it, the boundary does not.".to_owned(),
        }
    }
}

impl RuleOrigin {
    fn sources(&self) -> String {
        let names: Vec<String> =
            self.policies.iter().map(|(name, _)| format!("{:?}", name.as_str())).collect();
        format!("of {}", names.join(", "))
    }
}

fn listed(capabilities: Capabilities) -> String {
    let names: Vec<&str> = capabilities.iter().map(Capability::as_str).collect();
    format!("[{}]", names.join(", "))
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences().join("\n"))
    }
}
