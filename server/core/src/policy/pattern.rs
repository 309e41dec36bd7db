//! Path patterns: exact, `+` for one whole segment, `*` at the very end for any rest.
//!
//! Also their order of priority and the question whether one pattern covers all that another does.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use crate::path::MAX_PATH_SEGMENTS;

/// The longest pattern accepted, in bytes.
const MAX_PATTERN_BYTES: usize = 1024;

/// Why a pattern was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing was given.
    #[error("path is empty")]
    Empty,
    /// Too long.
    #[error("path is longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// More segments than a request path can have.
    #[error("path has too many segments")]
    TooDeep,
    /// A `*` that is not the last character would match nothing but itself.
    #[error("'*' is only allowed as the last character (use '+' for one segment)")]
    Star,
    /// `+*` is ambiguous.
    #[error("'+*' is forbidden")]
    PlusStar,
    /// `.`, `..` or an empty segment: no request path has these, so the rule would never apply.
    #[error("path has a segment that no request can have (empty, '.' or '..')")]
    Segment,
    /// A control character.
    #[error("path has a control character")]
    Control,
}

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    /// Exactly this.
    Literal(&'a str),
    /// Any one segment.
    Any,
    /// The rest of the path begins with this. Always last.
    Prefix(&'a str),
}

/// A pattern out of a policy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PathPattern {
    text: Arc<str>,
}

impl PathPattern {
    /// Reads a pattern. A leading slash is ignored, as in Vault.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        let body = text.strip_suffix('*').unwrap_or(text);
        if body.contains('*') {
            return Err(PatternError::Star);
        }
        if body.len() < text.len() && body.ends_with('+') {
            return Err(PatternError::PlusStar);
        }
        let last = body.split('/').count() - 1;
        // One more than a path's segments, for LIST's slash.
        if last > MAX_PATH_SEGMENTS {
            return Err(PatternError::TooDeep);
        }
        for (i, segment) in body.split('/').enumerate() {
            // The last one may be empty (LIST's slash, or "a/*"), and is a mere prefix before a star.
            let relative = matches!(segment, "." | "..") && (i < last || body.len() == text.len());
            if relative || (segment.is_empty() && i < last) {
                return Err(PatternError::Segment);
            }
        }
        Ok(Self { text: text.into() })
    }

    /// A pattern that no path matches (paths are never empty).
    pub(super) fn nothing() -> Self {
        Self { text: "".into() }
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it ends in `*`.
    pub fn is_prefix(&self) -> bool {
        self.text.ends_with('*')
    }

    /// Whether it names one path only.
    pub fn is_exact(&self) -> bool {
        !self.is_prefix() && self.wildcards() == 0
    }

    /// What every path that it matches begins with: all of it up to the first wildcard.
    pub fn beginning(&self) -> &str {
        let mut at = 0;
        for segment in self.text.split('/') {
            if segment == "+" {
                return &self.text[..at];
            }
            at += segment.len() + 1;
        }
        self.text.strip_suffix('*').unwrap_or(&self.text)
    }

    /// How many `+` segments it has.
    pub fn wildcards(&self) -> usize {
        self.text.split('/').filter(|s| *s == "+").count()
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let last = self.text.split('/').count() - 1;
        self.text.split('/').enumerate().map(move |(i, s)| match s {
            "+" => Segment::Any,
            _ if i == last && s.ends_with('*') => Segment::Prefix(&s[..s.len() - 1]),
            _ => Segment::Literal(s),
        })
    }

    /// The same pattern in lower case (ASCII only).
    pub(super) fn folded(&self) -> Self {
        Self { text: self.text.to_ascii_lowercase().into() }
    }

    /// Whether the path, given with its trailing slash if it has one, matches.
    pub fn matches(&self, path: &str) -> bool {
        let mut rest = Some(path);
        for segment in self.segments() {
            let Some(here) = rest else { return false };
            let (first, tail) = match here.split_once('/') {
                Some((first, tail)) => (first, Some(tail)),
                None => (here, None),
            };
            match segment {
                Segment::Prefix(prefix) => return here.starts_with(prefix),
                Segment::Literal(literal) if literal != first => return false,
                Segment::Literal(_) | Segment::Any => rest = tail,
            }
        }
        rest.is_none()
    }

    /// Whether any path at or below `mount` (with or without its slash) matches.
    pub fn touches(&self, mount: &str) -> bool {
        let mount = mount.strip_suffix('/').unwrap_or(mount);
        let mut wanted = mount.split('/');
        for segment in self.segments() {
            let Some(part) = wanted.next() else { return true };
            match segment {
                // Whatever is left of the mount can be what the star stands for.
                Segment::Prefix(prefix) => return part.starts_with(prefix),
                Segment::Literal(literal) if literal != part => return false,
                Segment::Literal(_) | Segment::Any => {}
            }
        }
        wanted.next().is_none()
    }

    /// Its rank among patterns that match the same path. Equal ranks are told apart by the text.
    pub(super) fn rank(&self) -> Rank {
        let exact = self.is_exact();
        let mut first_wild = self.text.len() - usize::from(self.is_prefix());
        let mut at = 0;
        for segment in self.text.split('/') {
            if segment == "+" {
                first_wild = at;
                break;
            }
            at += segment.len() + 1;
        }
        Rank {
            exact,
            first_wild,
            not_prefix: !self.is_prefix(),
            fewer_wildcards: std::cmp::Reverse(self.wildcards()),
            length: self.text.len() - usize::from(self.is_prefix()),
        }
    }

    /// Vault's order of priority; the greater one decides.
    pub(super) fn priority(&self, other: &Self) -> Ordering {
        let bare = |p: &Self| p.text.len() - usize::from(p.is_prefix());
        self.rank().cmp(&other.rank()).then_with(|| self.text[..bare(self)].cmp(&other.text[..bare(other)]))
    }
}

/// How specific a pattern is; compared field by field, the greater one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) exact: bool,
    first_wild: usize,
    not_prefix: bool,
    fewer_wildcards: std::cmp::Reverse<usize>,
    length: usize,
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl std::str::FromStr for PathPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

/// Whether every path that `inner` matches is matched by `outer` too. Exact, not an estimate.
pub fn contains(outer: &PathPattern, inner: &PathPattern) -> bool {
    let mut inner_segments = inner.segments();
    for segment in outer.segments() {
        let Some(covered) = inner_segments.next() else { return false };
        let fits = match (segment, covered) {
            (Segment::Prefix(o), Segment::Literal(i) | Segment::Prefix(i)) => return i.starts_with(o),
            (Segment::Prefix(o), Segment::Any) => return o.is_empty(),
            // A star runs on over slashes, which neither a literal nor a `+` does.
            (Segment::Literal(_) | Segment::Any, Segment::Prefix(_)) => false,
            (Segment::Any, Segment::Literal(_) | Segment::Any) => true,
            (Segment::Literal(_), Segment::Any) => false,
            (Segment::Literal(o), Segment::Literal(i)) => o == i,
        };
        if !fits {
            return false;
        }
    }
    inner_segments.next().is_none()
}
