//! Patterns compiled for matching: a path is walked once, segment by segment, and never compared with rules
//! that cannot match.
//!
//! Nodes are mere numbers and words are stored once, so that a policy of any shape compiles to a small multiple
//! of its own size.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::pattern::{PathPattern, Segment};

const ROOT: u32 = 0;

/// Rules by what must come before their star in the last segment.
type Prefixes = BTreeMap<Box<str>, Vec<usize>>;

/// A set of patterns, each carrying the number of its rule.
#[derive(Debug, Default)]
pub(super) struct Trie {
    /// The number of each literal segment.
    words: HashMap<Box<str>, u32>,
    /// From a node by a word to a node.
    literals: HashMap<(u32, u32), u32>,
    /// From a node by `+` to a node.
    any: HashMap<u32, u32>,
    /// Rules that end at a node.
    ends: HashMap<u32, Vec<usize>>,
    /// Rules that end at a node with a star.
    prefixes: HashMap<u32, Prefixes>,
    last_node: u32,
}

impl Trie {
    pub(super) fn insert(&mut self, pattern: &PathPattern, rule: usize) {
        let mut node = ROOT;
        for segment in pattern.segments() {
            let fresh = self.last_node + 1;
            node = match segment {
                Segment::Literal(literal) => {
                    let word = self.word(literal);
                    *self.literals.entry((node, word)).or_insert(fresh)
                }
                Segment::Any => *self.any.entry(node).or_insert(fresh),
                Segment::Prefix(prefix) => {
                    let prefixes = self.prefixes.entry(node).or_default();
                    prefixes.entry(prefix.into()).or_default().push(rule);
                    return;
                }
            };
            self.last_node = self.last_node.max(node);
        }
        self.ends.entry(node).or_default().push(rule);
    }

    fn word(&mut self, literal: &str) -> u32 {
        if let Some(word) = self.words.get(literal) {
            return *word;
        }
        let word = u32::try_from(self.words.len()).expect("policies are far smaller than 2^32 words");
        self.words.insert(literal.into(), word);
        word
    }

    /// Calls `found` with the rule of each pattern that matches the path.
    pub(super) fn walk(&self, path: &str, found: &mut impl FnMut(usize)) {
        // Each node lies on one way from the root, so none is visited twice, whatever the patterns.
        let mut here = vec![ROOT];
        let mut next = Vec::new();
        for segment in path.split('/') {
            let word = self.words.get(segment);
            for node in here.drain(..) {
                if let Some(prefixes) = self.prefixes.get(&node) {
                    prefixes_of(prefixes, segment, found);
                }
                next.extend(word.and_then(|w| self.literals.get(&(node, *w))));
                next.extend(self.any.get(&node));
            }
            std::mem::swap(&mut here, &mut next);
            if here.is_empty() {
                return;
            }
        }
        here.iter().filter_map(|node| self.ends.get(node)).flatten().for_each(|rule| found(*rule));
    }
}

/// All stored prefixes of the segment, longest first: the greatest key up to `text` either is one, or shares
/// with `text` all that any shorter one can be.
fn prefixes_of(prefixes: &Prefixes, segment: &str, found: &mut impl FnMut(usize)) {
    let mut text = segment;
    let mut bound = Bound::Included(text);
    while let Some((prefix, rules)) = prefixes.range::<str, _>((Bound::Unbounded, bound)).next_back() {
        if text.starts_with(&**prefix) {
            rules.iter().for_each(|rule| found(*rule));
            // Whatever else is a prefix is shorter, and so sorts before this one.
            text = &text[..prefix.len()];
            bound = Bound::Excluded(text);
        } else {
            text = &text[..common_len(text, prefix)];
            bound = Bound::Included(text);
        }
    }
}

/// How many bytes two texts have in common at the start, ending on a character.
fn common_len(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((at, _), _)| at)
}
