//! Patterns compiled for matching: one node per segment, so that a path is walked once and never compared
//! with rules that cannot match.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::pattern::{PathPattern, Segment};

/// A set of patterns, each carrying the number of its rule.
#[derive(Debug, Default)]
pub(super) struct Trie {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// Rules that end here.
    ends: Vec<usize>,
    /// Rules that end here with a star, by what must come before it in this segment.
    prefixes: BTreeMap<Box<str>, Vec<usize>>,
}

impl Trie {
    pub(super) fn insert(&mut self, pattern: &PathPattern, rule: usize) {
        let mut node = &mut self.root;
        for segment in pattern.segments() {
            match segment {
                Segment::Literal(literal) => node = node.literals.entry(literal.into()).or_default(),
                Segment::Any => node = node.any.get_or_insert_default(),
                Segment::Prefix(prefix) => {
                    node.prefixes.entry(prefix.into()).or_default().push(rule);
                    return;
                }
            }
        }
        node.ends.push(rule);
    }

    /// Calls `found` with the rule of each pattern that matches the path.
    pub(super) fn walk(&self, path: &str, found: &mut impl FnMut(usize)) {
        // Each node lies on one way from the root, so none is visited twice, whatever the patterns.
        let mut here = vec![&self.root];
        for segment in path.split('/') {
            let mut next = Vec::new();
            for node in here {
                node.prefixes_of(segment, found);
                next.extend(node.literals.get(segment));
                next.extend(node.any.as_deref());
            }
            here = next;
            if here.is_empty() {
                return;
            }
        }
        here.iter().flat_map(|node| &node.ends).for_each(|rule| found(*rule));
    }
}

impl Node {
    /// All stored prefixes of the segment, longest first: the greatest key up to `text` either is one, or
    /// shares with `text` all that any shorter one can be.
    fn prefixes_of(&self, segment: &str, found: &mut impl FnMut(usize)) {
        let mut text = segment;
        let mut bound = Bound::Included(text);
        while let Some((prefix, rules)) = self.prefixes.range::<str, _>((Bound::Unbounded, bound)).next_back()
        {
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
}

/// How many bytes two texts have in common at the start, ending on a character.
fn common_len(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((at, _), _)| at)
}
