//! The census of parsers: every source file that reads bytes from outside, and its fuzz targets or why it has none.
//!
//! The list is `server/fuzz/census`. Only looks at the sources; runs no target.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where programs' sources are.
const ROOMS: [&str; 4] = ["crds", "injector", "operator", "server"];
/// What shows that a file reads something.
const MARKS: [&str; 11] = [
    "serde_json::from_",
    "serde_yaml::from_",
    "fn parse",
    "FromStr for",
    "hex::decode",
    "STANDARD.decode",
    "URL_SAFE_NO_PAD.decode",
    "from_utf8",
    "decode_header",
    "try_from = ",
    "form_urlencoded::parse",
];
const SEEDS_MIN: usize = 3;

fn workspace() -> PathBuf {
    crate::workspace().canonicalize().unwrap()
}

/// The Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() && !matches!(name.as_str(), "tests" | "target") {
            sources(&entry, found);
        } else if name.ends_with(".rs") {
            found.push(entry);
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let root = workspace();
    let mut files = Vec::new();
    ROOMS.iter().for_each(|room| sources(&root.join(room), &mut files));
    files.sort();
    let named = |file: PathBuf| {
        let name = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&file).unwrap())
    };
    files.into_iter().map(named).collect()
}

/// What of a file is in the program: no tests.
fn shipped<'a>(name: &str, text: &'a str, tests: &BTreeSet<String>) -> &'a str {
    // Modules with a path of their own are called so; and this crate is in no program.
    if name.ends_with("_tests.rs") || name.starts_with("server/fuzz/") {
        return "";
    }
    let module = name.trim_end_matches(".rs").trim_end_matches("/mod");
    if tests.iter().any(|test| module == test || module.starts_with(&format!("{test}/"))) {
        return "";
    }
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// The modules that are only there in tests, as paths without an ending.
fn test_modules(sources: &[(String, String)]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (name, text) in sources {
        let stem = name.trim_end_matches(".rs");
        let is_root = ["mod", "lib", "main"].iter().any(|root| stem.ends_with(&format!("/{root}")));
        let folder = if is_root { stem.rsplit_once('/').map_or("", |(folder, _)| folder) } else { stem };
        let after = text.split("#[cfg(test)]\nmod ").skip(1);
        found.extend(after.filter_map(|rest| Some(format!("{folder}/{}", rest.split_once(';')?.0))));
    }
    found
}

/// The rows: a file, then its targets, or a dash and the reason why it has none.
fn rows() -> BTreeMap<String, String> {
    let text = fs::read_to_string(crate::room().join("census")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (file, rest) = line.split_once(": ").unwrap_or_else(|| panic!("not a row: {line}"));
        let doubled = rows.insert(file.to_owned(), rest.to_owned());
        assert!(doubled.is_none(), "{file} is there twice");
    }
    rows
}

fn targets(row: &str) -> Vec<&str> {
    if row.starts_with("- ") { Vec::new() } else { row.split(' ').collect() }
}

#[test]
fn every_file_that_reads_something_has_a_target_or_a_reason() {
    let rows = rows();
    let mut missing = Vec::new();
    let mut reading = BTreeSet::new();
    let sources = all_sources();
    let tests = test_modules(&sources);
    for (name, text) in sources {
        let marks = MARKS.iter().filter(|mark| shipped(&name, &text, &tests).contains(**mark)).count();
        if marks == 0 {
            continue;
        }
        if !rows.contains_key(&name) {
            missing.push(name.clone());
        }
        reading.insert(name);
    }
    assert!(reading.len() > 40, "the sources were not found");
    assert!(missing.is_empty(), "add a row to server/fuzz/census for {missing:#?}");
    // A row without a mark is fine for what reads in another way; one without a file is left over.
    let stale: Vec<_> = rows.keys().filter(|file| !workspace().join(file).is_file()).collect();
    assert!(stale.is_empty(), "rows of server/fuzz/census without a file: {stale:#?}");
}

#[test]
fn every_target_has_a_corpus_and_runs_somewhere() {
    let rows = rows();
    let listed: BTreeSet<&str> = rows.values().flat_map(|row| targets(row)).collect();
    let sources = all_sources();
    for target in &listed {
        let folder = crate::room().join("corpus").join(target);
        let seeds = fs::read_dir(&folder).map(Iterator::count).unwrap_or(0);
        assert!(seeds >= SEEDS_MIN, "{target} has {seeds} seeds in {}", folder.display());
        let runs = format!("Target::new(\"{target}\")");
        let sites = sources.iter().filter(|(_, text)| text.contains(&runs)).count();
        assert_eq!(sites, 1, "{runs} stands in {sites} files");
    }
    for entry in fs::read_dir(crate::room().join("corpus")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            name == "self" || listed.contains(name.as_str()),
            "no file in the census has the target {name}"
        );
    }
}

#[test]
fn a_target_without_a_corpus_would_be_missed() {
    assert_eq!(targets("path duration"), ["path", "duration"]);
    assert!(targets("- rows of our own").is_empty());
    let source = "fn x() {}\n#[cfg(test)]\nmod tests { fn parse() {} }";
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let tests = test_modules(&[
        file("a/lib.rs", "#[cfg(test)]\nmod fuzz;\nmod b;"),
        file("a/b.rs", "#[cfg(test)]\nmod more;"),
    ]);
    assert_eq!(tests, BTreeSet::from(["a/fuzz".to_owned(), "a/b/more".to_owned()]));
    assert_eq!(shipped("a/b.rs", source, &tests), "fn x() {}\n");
    assert_eq!(shipped("a/fuzz/mod.rs", "fn parse() {}", &tests), "");
    assert_eq!(shipped("a/b/more.rs", "fn parse() {}", &tests), "");
}
