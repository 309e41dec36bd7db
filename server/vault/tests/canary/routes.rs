//! Reads the dispatch out of the source, so that a handler nobody crawls is noticed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Literals in the patterns of a dispatch that are no parts of a path.
const NO_ROUTES: &[&str] = &[];

/// The parts of paths that the functions `handle` and `route` of the server's rooms tell apart.
pub fn segments() -> BTreeSet<(String, String)> {
    let here = coffer_fuzz::workspace().join("server/vault");
    let mut files = Vec::new();
    for dir in ["src/identity", "src/sys", "src/token", "src/auth", "src/lease", "src/mounts"] {
        collect(&here.join(dir), &mut files);
    }
    for dir in ["../engines/src/kv", "../engines/src/database"] {
        collect(&here.join(dir), &mut files);
    }
    let mut found = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(&here).unwrap_or(&file).display().to_string();
        for body in bodies(&text) {
            for line in body.lines() {
                let Some((pattern, _)) = line.split_once("=>") else { continue };
                let literals = pattern.split('"').skip(1).step_by(2);
                found.extend(literals.filter(|l| is_segment(l)).map(|l| (l.to_owned(), name.clone())));
            }
        }
    }
    found
}

fn is_segment(literal: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '/' | '_');
    !literal.is_empty() && literal.chars().all(plain) && !NO_ROUTES.contains(&literal)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// The bodies of the functions called `handle` or `route`.
fn bodies(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for name in ["fn handle(", "fn route("] {
        for (at, _) in text.match_indices(name) {
            let rest = &text[at..];
            // The functions stand at the margin or one step in; the brace that ends them does, too.
            let line = text[..at].rfind('\n').map_or(0, |n| n + 1);
            let indent = text[line..].len() - text[line..].trim_start().len();
            let close = format!("\n{}}}\n", " ".repeat(indent));
            found.push(&rest[..rest.find(&close).unwrap_or(rest.len())]);
        }
    }
    found
}
