//! The same requests go to a real OpenBao and to Coffer, and the answers are compared field by field.
//!
//! `stories/` has the requests, `endpoints.yaml` what must be among them, `differences.yaml` what may differ and why.
//! One story alone: `COFFER_STORY=kv2 cargo test -p coffer --test peer -- --nocapture`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails")]

mod compare;
mod coverage;
mod http;
mod issuer;
mod openbao;
mod servers;
mod story;
mod table;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use story::{Story, Told};
use table::{Endpoints, Intended, Pending, Row};

/// A limit of the project: more than this is no longer the same API.
const DIFFERENCES_MAX: usize = 40;
/// Servers at the same time: each story has two.
const AT_ONCE: usize = 4;

/// The stories to tell, by name; the environment can choose one.
fn stories() -> Vec<(String, Story)> {
    let dir = coffer_fuzz::workspace().join("server/tests/peer/stories");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let named =
        paths.iter().map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), Story::load(path)));
    named.filter(|(name, _)| chosen().is_none_or(|wanted| wanted == *name)).collect()
}

fn chosen() -> Option<String> {
    std::env::var("COFFER_STORY").ok()
}

fn tell_all(stories: &[(String, Story)]) -> Vec<(String, Vec<Told>)> {
    let mut told = Vec::new();
    for few in stories.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let telling: Vec<_> =
                few.iter().map(|(name, story)| (name, scope.spawn(|| story.tell()))).collect();
            for (name, story) in telling {
                told.push((
                    name.clone(),
                    story.join().unwrap_or_else(|_| panic!("the story {name} broke off")),
                ));
            }
        });
    }
    told
}

#[test]
fn every_request_is_answered_as_openbao_answers_it() {
    let intended: Vec<Intended> = table::load("differences.yaml");
    let mut pending = table::load::<Pending>("pending.yaml").at;
    let mut still = BTreeSet::new();
    let stories = stories();
    let told = tell_all(&stories);
    let mut report = String::new();
    let mut used = BTreeSet::new();
    let mut steps = 0;
    for (name, told) in &told {
        for told in told {
            steps += 1;
            let mut open = Vec::new();
            for difference in &told.differences {
                // All that cover it: each of their places is still true.
                let by: Vec<_> = intended
                    .iter()
                    .enumerate()
                    .filter(|(_, intended)| intended.more || !difference.is_success_of_a_failure())
                    .flat_map(|(i, intended)| {
                        intended.places_of(name, &told.step.what, difference).map(move |at| (i, at))
                    })
                    .collect();
                if by.is_empty() || difference.is_failure_of_a_success() {
                    open.push(difference);
                } else {
                    used.extend(by);
                }
            }
            let place = format!("{name}: {}", told.step.what);
            let harmless = !open.iter().any(|difference| difference.is_success_of_a_failure());
            if !open.is_empty() && harmless && pending.contains(&place) && chosen().is_none() {
                still.insert(place);
            } else if !open.is_empty() {
                let [theirs, ours] = &told.answers;
                writeln!(report, "\n{place}").unwrap();
                open.iter().for_each(|difference| writeln!(report, "    {difference}").unwrap());
                writeln!(report, "  bao    {theirs}\n  coffer {ours}").unwrap();
            }
        }
    }
    let entries: BTreeSet<usize> = used.iter().map(|(i, _)| *i).collect();
    println!("{steps} requests in {} stories, {} intended differences", told.len(), entries.len());
    assert!(report.is_empty(), "differences that are not intended:{report}");
    if chosen().is_none() {
        pending.retain(|place| !still.contains(place));
        println!("{} requests are answered otherwise and wait to be mended", still.len());
        assert_eq!(pending, BTreeSet::new(), "mended, to be taken out of pending.yaml");
        let places = intended.iter().enumerate().flat_map(|(i, d)| (0..d.at.len()).map(move |at| (i, at)));
        let unused = places.filter(|place| !used.contains(place)).map(|(i, at)| &intended[i].at[at]);
        assert_eq!(
            unused.collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "places of intended differences where there is none"
        );
        everything_is_told(&told);
    }
}

/// Every row of the table has a request that succeeded at OpenBao, and every such request has a row.
fn everything_is_told(told: &[(String, Vec<Told>)]) {
    let endpoints: Endpoints = table::load("endpoints.yaml");
    let rows = || endpoints.groups.iter().flat_map(|group| &group.served);
    let good: Vec<&Told> =
        told.iter().flat_map(|(_, told)| told).filter(|told| (200..300).contains(&told.bao_status)).collect();
    let one_by_one = |row: &str| {
        let (methods, path) = row.split_once(' ').unwrap();
        methods.split('|').map(|method| format!("{method} {path}")).collect::<Vec<_>>()
    };
    let untold: Vec<String> = rows()
        .filter(|row| matches!(row, Row::Told(_)))
        .flat_map(|row| one_by_one(row.at()))
        .filter(|row| !good.iter().any(|told| is(row, told)))
        .collect();
    assert_eq!(untold, Vec::<String>::new(), "rows of endpoints.yaml that no story asks for with success");
    let strangers: BTreeSet<&str> = good
        .iter()
        // Further mounts of the same kinds have the same rows.
        .filter(|told| !["generic/", "moved/"].iter().any(|mount| told.step.endpoint().1.starts_with(mount)))
        .filter(|told| !rows().any(|row| is(row.at(), told)))
        .map(|told| told.step.what.as_str())
        .collect();
    assert_eq!(strangers, BTreeSet::new(), "requests that have no row in endpoints.yaml");
    let shown: BTreeSet<&str> = told
        .iter()
        .flat_map(|(_, told)| told)
        .flat_map(|told| &told.step.shows)
        .map(String::as_str)
        .collect();
    let wanted: BTreeSet<&str> = endpoints.behaviours.iter().map(|b| b.id.as_str()).collect();
    assert_eq!(shown, wanted, "behaviours shown by stories, and behaviours of the table");
}

fn is(row: &str, told: &Told) -> bool {
    let (method, path) = told.step.endpoint();
    table::matches(row, method, path)
}

#[test]
fn intended_differences_are_few_and_have_reasons() {
    let intended: Vec<Intended> = table::load("differences.yaml");
    assert!(intended.len() <= DIFFERENCES_MAX, "{} intended differences", intended.len());
    for difference in &intended {
        assert!(difference.why.len() > 20 && !difference.at.is_empty(), "{}", difference.what);
    }
}

#[test]
fn the_reference_page_is_made_of_the_tables() {
    let intended: Vec<Intended> = table::load("differences.yaml");
    let pending: Pending = table::load("pending.yaml");
    let page = table::page(&table::load("endpoints.yaml"), &intended, &pending);
    let path = coffer_fuzz::workspace().join("docs/reference/api.md");
    if std::env::var_os("COFFER_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page,
        "docs/reference/api.md is old: COFFER_BLESS=1 cargo test -p coffer --test peer page"
    );
}

#[test]
fn rows_match_their_requests() {
    for (row, method, path, yes) in [
        ("GET|POST :mount/data/*path", "PUT", "secret/data/a/b", true),
        ("GET :mount/data/*path", "GET", "secret/data", false),
        ("GET sys/mounts/:path", "GET", "sys/mounts/a", true),
        ("GET sys/mounts/:path", "GET", "sys/mounts/a/tune", false),
        ("LIST auth/token/accessors", "LIST", "auth/token/accessors/", true),
    ] {
        assert_eq!(table::matches(row, method, path), yes, "{row} {method} {path}");
    }
}
