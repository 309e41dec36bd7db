//! What the vault does, end to end but for HTTP: one program, because each would be linked with the whole vault.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod approle;
mod audit;
mod batch_tokens;
mod bed;
mod ceremonies;
mod clocks;
mod direct_tokens;
mod escalation;
mod explain;
mod groups;
mod identity;
mod jwt;
mod keys_over_https;
mod kv;
mod leases;
mod mounts;
mod password_policies;
mod pods;
mod policies;
mod quotas;
mod reconcile;
mod rotations;
mod scale;
mod story;
mod targets;
mod token_review;
mod token_tree;
mod tokens;
mod userpass;
mod watch;
mod wrapping;
