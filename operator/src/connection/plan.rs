//! What a CofferConnection's status says. Pure: everything it looks at is an argument.

use coffer_client::wire::Health;

use crate::conditions::Verdict;
use crate::error::NotConnected;

/// What was found out, in the order it was asked.
#[derive(Debug)]
pub(crate) enum Observed {
    /// The server could not be asked.
    NoAnswer(NotConnected),
    /// It answered; a login was tried if it is unsealed.
    Answered {
        /// Its own words.
        health: Health,
        /// What came of the login.
        login: Option<Result<(), NotConnected>>,
    },
}

/// What to say.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Plan {
    /// The Ready condition.
    pub(crate) verdict: Verdict,
    /// Whether the server is sealed, if it answered.
    pub(crate) sealed: Option<bool>,
    /// Its version, if it answered.
    pub(crate) version: Option<String>,
}

/// Says what was found out.
pub(crate) fn plan(observed: Observed) -> Plan {
    match observed {
        Observed::NoAnswer(why) => {
            Plan { verdict: Verdict::no("Ready", why.reason, why.message), sealed: None, version: None }
        }
        Observed::Answered { health, login } => {
            let verdict = match (health.initialized, health.sealed, login) {
                (false, _, _) => Verdict::no(
                    "Ready",
                    "NotInitialized",
                    "the vault is empty; run `coffer operator init`, or set autoInit.enabled for evaluation",
                ),
                (true, true, _) => Verdict::no(
                    "Ready",
                    "Sealed",
                    "the vault is sealed: nothing is issued and files stay as they are; unseal it with `coffer operator unseal`",
                ),
                (true, false, Some(Err(why))) => Verdict::no("Ready", why.reason, why.message),
                (true, false, Some(Ok(()))) => Verdict::yes(
                    "Ready",
                    "Connected",
                    "the server answers, is unsealed, and lets the operator in",
                ),
                (true, false, None) => Verdict::no("Ready", "LoginPending", "not logged in yet"),
            };
            let sealed = Some(health.sealed || !health.initialized);
            let version = Some(health.version).filter(|version| !version.is_empty());
            Plan { verdict, sealed, version }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(initialized: bool, sealed: bool, login: Option<Result<(), NotConnected>>) -> Plan {
        let health = Health { initialized, sealed, version: "0.1.0".into(), ..Health::default() };
        plan(Observed::Answered { health, login })
    }

    #[test]
    fn each_state_has_its_reason() {
        let refused = NotConnected { reason: "LoginRefused", message: "m".into() };
        assert_eq!(answered(false, true, None).verdict.reason, "NotInitialized");
        assert_eq!(answered(true, true, None).verdict.reason, "Sealed");
        assert_eq!(answered(true, false, Some(Err(refused.clone()))).verdict.reason, "LoginRefused");
        let fine = answered(true, false, Some(Ok(())));
        assert!(fine.verdict.holds());
        assert_eq!((fine.sealed, fine.version.as_deref()), (Some(false), Some("0.1.0")));
        let silent = plan(Observed::NoAnswer(NotConnected { reason: "Unreachable", message: "m".into() }));
        assert_eq!((silent.verdict.reason.as_str(), silent.sealed), ("Unreachable", None));
    }
}
