//! Policy text. Never decides what a policy should grant.

use std::fmt::Write;

/// One path and what may be done there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Grant {
    /// Path pattern.
    pub(crate) path: String,
    /// Capabilities, as words.
    pub(crate) capabilities: Vec<&'static str>,
}

impl Grant {
    /// Grants `capabilities` at `path`.
    pub(crate) fn new(path: impl Into<String>, capabilities: &[&'static str]) -> Self {
        Self { path: path.into(), capabilities: capabilities.to_vec() }
    }
}

/// Whether a path can stand in a policy as it is: nothing in it ends the quotation or means something to the reader.
pub(crate) fn is_quotable(path: &str) -> bool {
    !path.chars().any(|c| c == '"' || c == '\\' || c == '$' || c.is_control())
}

/// The policy as HCL. A path with a character that could end the quotation is refused by the CRD's rules; should one
/// come here all the same it is left out, which grants less.
pub(crate) fn render(grants: &[Grant]) -> String {
    // A comment first: the server takes no empty policy, and one whose every rule was refused must still replace the
    // one before it.
    let mut text = "# Written by Coffer's operator, which undoes edits.\n".to_owned();
    for grant in grants {
        if !is_quotable(&grant.path) {
            continue;
        }
        let words: Vec<String> = grant.capabilities.iter().map(|word| format!("\"{word}\"")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "path \"{}\" {{ capabilities = [{}] }}", grant.path, words.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_one_block_a_line() {
        let text =
            render(&[Grant::new("secret/data/shop/*", &["read", "list"]), Grant::new("a/b", &["deny"])]);
        assert_eq!(
            text,
            "# Written by Coffer's operator, which undoes edits.\npath \"secret/data/shop/*\" { capabilities = [\"read\", \"list\"] }\npath \"a/b\" { capabilities = [\"deny\"] }\n"
        );
    }

    #[test]
    fn a_path_cannot_break_out() {
        let nothing = render(&[]);
        assert_eq!(render(&[Grant::new("x\" { capabilities = [\"sudo\"] }\npath \"*", &["read"])]), nothing);
        assert_eq!(render(&[Grant::new("x\\", &["read"])]), nothing);
    }
}
