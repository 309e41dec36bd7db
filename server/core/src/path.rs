//! The one canonicaliser: every request path passes through here before routing and policy see it.
//!
//! Percent escapes are decoded exactly once; whatever could make two spellings of one path (dots, empty
//! segments, control characters) is refused rather than repaired. Never looks at what a path means.

use std::fmt;

/// The longest path, in bytes, after decoding.
pub const MAX_PATH_BYTES: usize = 1024;
/// The most segments a path may have.
pub const MAX_PATH_SEGMENTS: usize = 64;

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing was given.
    #[error("path is empty")]
    Empty,
    /// Longer than [`MAX_PATH_BYTES`].
    #[error("path is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// More segments than [`MAX_PATH_SEGMENTS`].
    #[error("path has more than {MAX_PATH_SEGMENTS} segments")]
    TooDeep,
    /// `//`, or a slash at the start.
    #[error("path has an empty segment")]
    EmptySegment,
    /// `.` or `..` as a segment.
    #[error("path has a relative segment ('.' or '..')")]
    Relative,
    /// A control character, escaped or not.
    #[error("path has a control character")]
    Control,
    /// A `%` that two hex digits do not follow.
    #[error("path has an invalid percent escape")]
    Escape,
    /// The decoded bytes are not UTF-8.
    #[error("path is not UTF-8")]
    Utf8,
}

/// A canonical path such as `secret/data/app`, without `/v1/`. A trailing slash is kept: it marks LIST.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VaultPath(Box<str>);

impl VaultPath {
    /// Reads a path as it stands in a URL after `/v1/`: decodes percent escapes once, then checks.
    pub fn parse_encoded(encoded: &str) -> Result<Self, PathError> {
        // Three bytes of escape make one byte of path, so anything longer cannot fit.
        if encoded.len() > 3 * MAX_PATH_BYTES + 3 {
            return Err(PathError::TooLong);
        }
        let mut bytes = Vec::with_capacity(encoded.len());
        let mut rest = encoded.as_bytes();
        while let [first, tail @ ..] = rest {
            if *first != b'%' {
                bytes.push(*first);
                rest = tail;
                continue;
            }
            let [high, low, tail @ ..] = tail else { return Err(PathError::Escape) };
            bytes.push(hex_digit(*high)? << 4 | hex_digit(*low)?);
            rest = tail;
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| PathError::Utf8)?;
        // In a URL a slash at the start, escaped or not, is a second spelling of the path without it.
        if text.len() > 1 && text.starts_with('/') {
            return Err(PathError::EmptySegment);
        }
        Self::parse(text)
    }

    /// Reads a path that carries no escapes: a `%` is a plain character here. One leading slash is ignored.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        let body = text.strip_suffix('/').unwrap_or(text);
        let mut count = 0;
        for segment in body.split('/') {
            count += 1;
            match segment {
                "" => return Err(PathError::EmptySegment),
                "." | ".." => return Err(PathError::Relative),
                _ if count > MAX_PATH_SEGMENTS => return Err(PathError::TooDeep),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }

    /// The path, with its trailing slash if it has one.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without a trailing slash.
    pub fn trimmed(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }

    /// Whether the path ends in a slash, LIST's marker.
    pub fn is_dir(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The segments, none of which is empty.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.trimmed().split('/')
    }

    /// The same path with a trailing slash, as LIST sees it.
    #[must_use]
    pub fn to_dir(&self) -> Self {
        if self.is_dir() { self.clone() } else { Self(format!("{}/", self.0).into()) }
    }

    /// This path with `tail` (segments, possibly with a trailing slash) appended.
    pub fn join(&self, tail: &str) -> Result<Self, PathError> {
        Self::parse(&format!("{}/{tail}", self.trimmed()))
    }

    /// What is left after the mount's path (given with or without its slash), or `None` when this path is not
    /// below that mount. The mount itself leaves `""`. Whole segments only: `secret` does not own `secrets/a`.
    pub fn strip_mount(&self, mount: &str) -> Option<&str> {
        let mount = mount.strip_suffix('/').unwrap_or(mount);
        let rest = self.0.strip_prefix(mount)?;
        if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
    }
}

fn hex_digit(c: u8) -> Result<u8, PathError> {
    char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(PathError::Escape)
}

impl fmt::Display for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl AsRef<str> for VaultPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for VaultPath {
    type Err = PathError;
    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_once() {
        let ok = |text: &str| VaultPath::parse_encoded(text).unwrap().as_str().to_owned();
        assert_eq!(ok("secret/data/app"), "secret/data/app");
        assert_eq!(ok("secret/a%20b"), "secret/a b");
        assert_eq!(ok("secret/%2565"), "secret/%65");
        assert_eq!(ok("secret/x/"), "secret/x/");
        assert_eq!(VaultPath::parse("/secret/x/").unwrap().as_str(), "secret/x/");
        assert_eq!(ok("secret/caf%C3%A9"), "secret/café");
    }

    #[test]
    fn refuses_second_spellings() {
        for (text, why) in [
            ("", PathError::Empty),
            ("/", PathError::Empty),
            ("a//b", PathError::EmptySegment),
            ("/a", PathError::EmptySegment),
            ("%2Fa", PathError::EmptySegment),
            ("//a", PathError::EmptySegment),
            ("a/b//", PathError::EmptySegment),
            ("a/../b", PathError::Relative),
            ("a/%2e%2E/b", PathError::Relative),
            ("a/./b", PathError::Relative),
            ("a%2F%2Fb", PathError::EmptySegment),
            ("a/b%00", PathError::Control),
            ("a/b%0a", PathError::Control),
            ("a/%C2%85", PathError::Control),
            ("a/%zz", PathError::Escape),
            ("a/%4", PathError::Escape),
            ("a/%+1", PathError::Escape),
            ("a/%ff", PathError::Utf8),
        ] {
            assert_eq!(VaultPath::parse_encoded(text), Err(why), "{text}");
        }
        assert_eq!(VaultPath::parse(&"a".repeat(1025)), Err(PathError::TooLong));
        assert!(VaultPath::parse(&"a".repeat(1024)).is_ok());
        assert_eq!(VaultPath::parse(&vec!["a"; 65].join("/")), Err(PathError::TooDeep));
        assert!(VaultPath::parse(&vec!["a"; 64].join("/")).is_ok());
    }

    #[test]
    fn mounts_own_whole_segments() {
        let path = VaultPath::parse("kubernetes/prod/role/x").unwrap();
        assert_eq!(path.strip_mount("kubernetes/prod/"), Some("role/x"));
        assert_eq!(path.strip_mount("kubernetes/pro"), None);
        assert_eq!(path.strip_mount("kubernetes/prod/role/x"), Some(""));
        assert_eq!(VaultPath::parse("secret/").unwrap().strip_mount("secret/"), Some(""));
        assert_eq!(path.join("y/").unwrap().as_str(), "kubernetes/prod/role/x/y/");
    }

    proptest::proptest! {
        #[test]
        fn canonical_paths_are_fixed_points(text in "[a-zA-Z0-9 %+*._/é-]{0,40}") {
            if let Ok(path) = VaultPath::parse(&text) {
                proptest::prop_assert_eq!(VaultPath::parse(path.as_str()).unwrap(), path);
            }
        }
    }
}
