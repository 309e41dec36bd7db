//! Fuzzing on the stable toolchain: a target's committed corpus is replayed, then mutated.
//!
//! A target is a function over bytes that panics when a property does not hold, and otherwise names the kind of answer
//! it got. Inputs with a kind that was not seen before join the pool, which stands in for coverage. The same seed gives
//! the same inputs, so a run without [`SEED`] never fails by chance. Nothing here is part of a shipped program, and
//! nothing is written unless [`LAST`] asks for it.

#[cfg(test)]
mod census;
mod json;
mod mutate;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::Mutator;

/// How many mutated inputs a target gets; [`Target::runs`] unless set.
pub const RUNS: &str = "COFFER_FUZZ_RUNS";
/// For how many seconds a target runs; takes the place of [`RUNS`].
pub const SECONDS: &str = "COFFER_FUZZ_SECS";
/// Where the random numbers start; 1 unless set.
pub const SEED: &str = "COFFER_FUZZ_SEED";
/// A file that each input is put into before it runs, for crashes that end the process, such as an exhausted stack.
pub const LAST: &str = "COFFER_FUZZ_LAST";

const RUNS_DEFAULT: u64 = 10_000;
const POOL_MAX: usize = 1_024;
/// How many shorter forms of a failing input are tried.
const SHORTENINGS_MAX: usize = 2_000;
/// An input over which a parser sits this long hangs, on however slow a machine.
const HANG: Duration = Duration::from_secs(60);

/// The checkout whose tests run. Cargo says it when they run: checkouts share what is built, so it need not be the one
/// that this was built in.
///
/// # Panics
/// When this does not run below Cargo, in a workspace.
pub fn workspace() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("Cargo names the package whose tests run");
    let root = Path::new(&package).ancestors().find(|dir| dir.join("Cargo.lock").is_file());
    root.expect("a package is in a workspace").to_owned()
}

/// Where the corpora and the census are.
fn room() -> PathBuf {
    workspace().join("server/fuzz")
}

/// One parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    name: &'a str,
    words: &'a [&'a str],
    runs: u64,
}

impl<'a> Target<'a> {
    /// A target; its name is also that of its folder in `server/fuzz/corpus` and in `server/fuzz/census`.
    pub const fn new(name: &'a str) -> Self {
        Self { name, words: &[], runs: RUNS_DEFAULT }
    }

    /// With words that mean something to the parser.
    #[must_use]
    pub const fn words(self, words: &'a [&'a str]) -> Self {
        Self { words, ..self }
    }

    /// With another number of mutated inputs than 10,000, for parsers that are slow.
    #[must_use]
    pub const fn runs(self, runs: u64) -> Self {
        Self { runs, ..self }
    }

    /// The committed inputs: each file and what is in it, by name.
    ///
    /// # Panics
    /// When the folder is missing or empty.
    pub fn corpus(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = room().join("corpus").join(self.name);
        let listed = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let mut files: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        files.sort();
        let read = |file: PathBuf| {
            let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            (file, bytes)
        };
        files.into_iter().map(read).collect()
    }

    /// Replays the corpus, then runs mutations of it.
    ///
    /// # Panics
    /// When the corpus is missing or empty, a variable is no number, or `check` panics: then with a shortened input
    /// and the seed.
    pub fn run(&self, check: impl Fn(&[u8]) -> String) {
        let corpus = self.corpus();
        let seed = number(SEED).unwrap_or(1);
        let mut kinds = HashSet::new();
        for (file, input) in &corpus {
            kinds.insert(self.guarded(&check, input, &file.display().to_string()));
        }
        let mut pool: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
        let mut mutator = Mutator::new(seed, self.words);
        let start = Instant::now();
        let end = number(SECONDS).map(Duration::from_secs);
        let runs_max = number(RUNS).unwrap_or(self.runs);
        let mut runs = 0;
        while end.map_or(runs < runs_max, |end| start.elapsed() < end) {
            let input = mutator.next(&pool);
            let kind = self.guarded(&check, &input, &format!("seed {seed}, run {runs}"));
            if kinds.insert(kind) && pool.len() < POOL_MAX {
                pool.push(input);
            }
            runs += 1;
        }
        let ms = start.elapsed().as_millis();
        eprintln!("fuzz {}: {runs} runs in {ms} ms, {} kinds of answer, seed {seed}", self.name, kinds.len());
    }

    fn guarded(&self, check: &impl Fn(&[u8]) -> String, input: &[u8], which: &str) -> String {
        if let Ok(file) = std::env::var(LAST) {
            std::fs::write(&file, input).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        let since = Instant::now();
        let Ok(kind) = catch_unwind(AssertUnwindSafe(|| check(input))) else {
            let short = shorten(input, |part| catch_unwind(AssertUnwindSafe(|| check(part))).is_err());
            panic!("{}: {which}: fails with \"{}\"", self.name, short.escape_ascii());
        };
        assert!(since.elapsed() < HANG, "{}: {which}: takes longer than {HANG:?}", self.name);
        kind
    }
}

/// The text of an input, whatever its bytes are.
pub fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// An error as a kind of answer: its words up to where it quotes the input, without numbers.
pub fn kind(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let quoted = |c: char| matches!(c, '"' | '\'' | '{' | '[');
    let words = text.split(quoted).next().unwrap_or_default();
    words.chars().filter(|c| !c.is_ascii_digit()).take(80).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Cuts pieces out of an input for as long as it still fails.
fn shorten(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut short = input.to_vec();
    let mut piece = short.len() / 2;
    let mut left = SHORTENINGS_MAX;
    while piece > 0 {
        let mut at = 0;
        while at + piece <= short.len() && left > 0 {
            left -= 1;
            let without = [&short[..at], &short[at + piece..]].concat();
            if fails(&without) {
                short = without;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Target<'_> = Target::new("self").words(&["open", "shut"]);

    fn said(plant: impl Fn(&[u8]) -> String) -> String {
        let failed = catch_unwind(AssertUnwindSafe(|| HERE.run(plant))).expect_err("the plant was not found");
        failed.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn a_planted_fault_in_a_text_is_found_and_shortened() {
        let said = said(|input| {
            assert!(!text(input).contains("openshut"), "the plant");
            String::new()
        });
        assert!(said.ends_with("fails with \"openshut\""), "{said}");
    }

    #[test]
    fn a_planted_fault_deep_in_a_document_is_found() {
        let said = said(|input| {
            let value: serde_json::Value = serde_json::from_slice(input).unwrap_or_default();
            let inner = &value["outer"]["inner"];
            assert!(inner.is_null() || inner.as_u64() != Some(u64::MAX), "the plant");
            inner.is_number().to_string()
        });
        assert!(said.contains("inner"), "{said}");
    }

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, &["open", "shut"]);
            (0..50).map(|_| mutator.next(&[b"some text".to_vec()])).collect::<Vec<_>>()
        };
        assert_eq!(inputs(7), inputs(7));
        assert_ne!(inputs(7), inputs(8));
    }

    #[test]
    #[should_panic(expected = "no-such-corpus")]
    fn a_target_without_a_corpus_does_not_pass() {
        Target::new("no-such-corpus").run(|_| String::new());
    }
}
