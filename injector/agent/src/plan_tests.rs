//! The plan's decisions, one situation each.

use super::*;
use crate::state::{Document, Lease, Retired, Retiring, Token};
use coffer_client::wire::{DeliveryDocument, DeliverySource, Disclose};

const HOUR: u64 = 3_600_000;

fn wanted(names: &[&str]) -> Vec<Wanted> {
    names
        .iter()
        .map(|name| Wanted {
            name: (*name).to_owned(),
            path: None,
            template: None,
            file: None,
            mode: None,
            on_change: Vec::new(),
        })
        .collect()
}

fn life(since_ms: u64, ttl_ms: u64) -> Life {
    Life { since_ms, ttl_ms, exhausted: false }
}

fn token(life: Life) -> Option<Token> {
    Some(Token { secret: "s.t".into(), accessor: "acc".to_owned(), life })
}

fn document(path: &str) -> Document {
    Document {
        path: "k8s/c/shop/dsec/a".to_owned(),
        version: 1,
        body: DeliveryDocument {
            uid: "u".to_owned(),
            generation: 1,
            source: DeliverySource { path: path.to_owned(), leased: true },
            scope: None,
            ttl: None,
            max_ttl: None,
            renew_at_percent: None,
            overlap: Some("5m".to_owned()),
            files: Vec::new(),
            on_change: Vec::new(),
        },
    }
}

fn held(lease: Option<Life>) -> Held {
    Held {
        document: Some(document("database/creds/a")),
        issue: Some(Issue {
            number: 1,
            source: "database/creds/a".to_owned(),
            owner: "acc".to_owned(),
            read_ms: 0,
            lease: lease.map(|life| Lease { id: "l1".to_owned(), life }),
            data: Disclose::default(),
        }),
        shown: Some((1, 1)),
        superseded: Vec::new(),
        issues: 1,
    }
}

fn state(token: Option<Token>, secrets: Vec<(&str, Held)>) -> State {
    State {
        token,
        secrets: secrets.into_iter().map(|(name, held)| (name.to_owned(), held)).collect(),
        retiring: Vec::new(),
    }
}

fn decide(names: &[&str], state: &State, now_ms: u64) -> Step {
    decide_with(names, state, &Attempts::default(), &BTreeSet::new(), now_ms)
}

fn decide_with(
    names: &[&str],
    state: &State,
    attempts: &Attempts,
    stale: &BTreeSet<String>,
    now_ms: u64,
) -> Step {
    next(&Situation { wanted: &wanted(names), state, attempts, stale, now_ms })
}

#[test]
fn first_a_login_then_every_document_then_the_secrets() {
    let mut s = state(None, vec![]);
    assert_eq!(decide(&["a", "b"], &s, 0), Step::Login);
    s.token = token(life(0, HOUR));
    assert_eq!(decide(&["a", "b"], &s, 0), Step::ReadDocument("a".to_owned()));
    s.secrets.insert("a".to_owned(), Held { document: Some(document("p")), ..Held::default() });
    assert_eq!(decide(&["a", "b"], &s, 0), Step::ReadDocument("b".to_owned()));
    s.secrets.insert("b".to_owned(), Held { document: Some(document("p")), ..Held::default() });
    assert_eq!(decide(&["a", "b"], &s, 0), Step::Issue("a".to_owned()));
}

#[test]
fn no_credential_is_taken_while_a_document_is_missing() {
    let ready = Held { document: Some(document("p")), ..Held::default() };
    let s = state(token(life(0, HOUR)), vec![("a", ready)]);
    let mut attempts = Attempts::default();
    attempts.failed(Subject::Document("b".to_owned()), 0, 0);
    assert_eq!(decide_with(&["a", "b"], &s, &attempts, &BTreeSet::new(), 0), Step::Idle(Some(750)));
}

#[test]
fn a_lease_is_renewed_at_its_percentage_and_not_before() {
    let s = state(token(life(0, 24 * HOUR)), vec![("a", held(Some(life(0, HOUR))))]);
    assert_eq!(decide(&["a"], &s, 0), Step::Idle(Some(HOUR / 100 * 66)));
    assert_eq!(decide(&["a"], &s, HOUR / 100 * 66), Step::RenewLease("a".to_owned()));
}

#[test]
fn a_failed_renewal_waits_for_its_backoff() {
    let s = state(token(life(0, 24 * HOUR)), vec![("a", held(Some(life(0, HOUR))))]);
    let due = HOUR / 100 * 66;
    let mut attempts = Attempts::default();
    attempts.failed(Subject::Lease("a".to_owned()), due, 0);
    assert_eq!(decide_with(&["a"], &s, &attempts, &BTreeSet::new(), due), Step::Idle(Some(due + 750)));
}

#[test]
fn an_exhausted_lease_is_replaced_an_overlap_before_its_end() {
    let exhausted = Life { since_ms: 0, ttl_ms: HOUR, exhausted: true };
    let mut s = state(token(life(0, 24 * HOUR)), vec![("a", held(Some(exhausted)))]);
    let due = HOUR - 330_000;
    assert_eq!(decide(&["a"], &s, due - 1), Step::Idle(Some(due)));
    s.token = token(life(due, 24 * HOUR));
    assert_eq!(decide(&["a"], &s, due), Step::Issue("a".to_owned()));
}

#[test]
fn a_lease_that_ends_with_its_token_waits_for_the_new_login() {
    let exhausted = |ttl_ms| Life { since_ms: 0, ttl_ms, exhausted: true };
    let swap = HOUR - 330_000;
    let mut s = state(token(life(0, HOUR * 3 / 2)), vec![("a", held(Some(exhausted(HOUR))))]);
    assert_eq!(decide(&["a"], &s, swap), Step::RenewToken, "is it the token that ends?");
    s.token = token(Life { since_ms: swap, ttl_ms: 330_000, exhausted: true });
    assert_eq!(decide(&["a"], &s, swap), Step::Login);
    s.token = token(Life { since_ms: swap, ttl_ms: HOUR, exhausted: true });
    assert_eq!(decide(&["a"], &s, swap), Step::Issue("a".to_owned()), "no, the lease alone");
}

#[test]
fn a_short_exhausted_lease_is_replaced_at_half_its_life() {
    let exhausted = Life { since_ms: 0, ttl_ms: 60_000, exhausted: true };
    let mut s = state(token(life(0, 24 * HOUR)), vec![("a", held(Some(exhausted)))]);
    assert_eq!(decide(&["a"], &s, 29_999), Step::Idle(Some(30_000)));
    s.token = token(life(30_000, 24 * HOUR));
    assert_eq!(decide(&["a"], &s, 30_000), Step::Issue("a".to_owned()));
}

#[test]
fn a_lease_that_ended_is_taken_anew_at_once() {
    let s = state(token(life(0, 24 * HOUR)), vec![("a", held(Some(life(0, HOUR))))]);
    assert_eq!(decide(&["a"], &s, HOUR), Step::Issue("a".to_owned()));
}

#[test]
fn the_shortest_and_the_longest_lives_neither_flood_nor_overflow() {
    let short = |exhausted| Life { since_ms: 0, ttl_ms: 1, exhausted };
    for exhausted in [false, true] {
        let s = state(token(life(0, 24 * HOUR)), vec![("a", held(Some(short(exhausted))))]);
        assert_eq!(decide(&["a"], &s, 0), Step::Idle(Some(1_000)));
        let s = state(token(short(exhausted)), vec![("a", held(Some(life(0, HOUR))))]);
        assert_eq!(decide(&["a"], &s, 0), Step::Idle(Some(1_000)));
        assert_eq!(decide(&["a"], &s, 1), Step::Idle(Some(1_000)));
        assert_eq!(decide(&["a"], &s, 1_000), Step::Login);
    }
    let long = Life::new(HOUR, u64::MAX, true).renewed(2 * HOUR, u64::MAX);
    let s = state(token(long), vec![("a", held(Some(long)))]);
    assert!(matches!(decide(&["a"], &s, 3 * HOUR), Step::Idle(Some(_))));
}

#[test]
fn a_token_is_renewed_then_replaced_before_its_end() {
    let s = state(token(life(0, HOUR)), vec![("a", held(None))]);
    assert_eq!(decide(&["a"], &s, HOUR / 100 * 66), Step::RenewToken);
    let exhausted = Life { since_ms: 0, ttl_ms: HOUR, exhausted: true };
    let mut fresh = held(None);
    if let Some(issue) = &mut fresh.issue {
        issue.read_ms = HOUR;
    }
    let s = state(token(exhausted), vec![("a", fresh)]);
    assert_eq!(decide(&["a"], &s, HOUR - 330_001), Step::Idle(Some(HOUR - 330_000)));
    assert_eq!(decide(&["a"], &s, HOUR - 330_000), Step::Login);
}

#[test]
fn a_token_without_an_end_needs_nothing() {
    let s = state(token(life(0, 0)), vec![("a", held(Some(life(0, 0))))]);
    assert_eq!(decide(&["a"], &s, 1_000 * HOUR), Step::Idle(None));
}

#[test]
fn leases_move_to_a_new_token() {
    let mut moved = held(Some(life(0, HOUR)));
    if let Some(issue) = &mut moved.issue {
        issue.owner = "former".to_owned();
    }
    let s = state(token(life(0, HOUR)), vec![("a", moved)]);
    assert_eq!(decide(&["a"], &s, 0), Step::Issue("a".to_owned()));
}

#[test]
fn an_edited_document_is_read_and_shown_without_a_new_credential() {
    let mut s = state(token(life(0, HOUR)), vec![("a", held(Some(life(0, HOUR))))]);
    let stale = BTreeSet::from(["a".to_owned()]);
    let step = decide_with(&["a"], &s, &Attempts::default(), &stale, 0);
    assert_eq!(step, Step::ReadDocument("a".to_owned()));
    if let Some(document) = s.secrets.get_mut("a").and_then(|h| h.document.as_mut()) {
        document.version = 2;
    }
    assert_eq!(decide(&["a"], &s, 0), Step::Show("a".to_owned()));
}

#[test]
fn a_new_source_is_read_before_anything_is_shown() {
    let mut s = state(token(life(0, HOUR)), vec![("a", held(Some(life(0, HOUR))))]);
    if let Some(held) = s.secrets.get_mut("a") {
        held.document = Some(Document { version: 2, ..document("database/creds/other") });
    }
    assert_eq!(decide(&["a"], &s, 0), Step::Issue("a".to_owned()));
}

#[test]
fn what_retires_is_revoked_when_its_overlap_is_over() {
    let mut s = state(token(life(0, HOUR)), vec![("a", held(Some(life(0, HOUR))))]);
    s.retiring.push(Retiring { what: Retired::Lease { id: "old".to_owned() }, revoke_ms: Some(300_000) });
    assert_eq!(decide(&["a"], &s, 299_999), Step::Idle(Some(300_000)));
    assert_eq!(decide(&["a"], &s, 300_000), Step::Revoke(0));
}

#[test]
fn a_renewal_cut_short_means_the_end_is_near() {
    let hour = Life::new(0, 3_600, true);
    assert!(!hour.renewed(10, 3_599).exhausted);
    assert!(hour.renewed(10, 1_200).exhausted);
    assert!(Life::new(0, 60, false).exhausted);
    assert!(!Life::new(0, 3, true).renewed(1_000, 3).exhausted);
}

#[test]
fn started_means_every_file_is_in_place() {
    let mut s = state(None, vec![("a", held(None))]);
    assert!(all_shown(&wanted(&["a"]), &s));
    assert!(!all_shown(&wanted(&["a", "b"]), &s));
    s.secrets.insert("b".to_owned(), Held::default());
    assert!(!all_shown(&wanted(&["a", "b"]), &s));
}
