//! How the files of an audit log are named, for whoever writes and whoever checks them.

/// The file that is written to.
pub const PRESENT: &str = "audit.log";

/// The name of a file set aside whose first record has the number `first`.
pub fn aside_name(first: u64) -> String {
    format!("audit-{first:020}.log")
}

/// The number of the first record in a file of this name; `None` if no file set aside is called so.
pub fn first_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("audit-")?.strip_suffix(".log")?;
    let first = number.parse().ok()?;
    (aside_name(first) == name).then_some(first)
}

/// Those of `names` that are the log's, in the chain's order: the present file last.
pub fn in_order(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut found: Vec<(u64, String)> = names
        .into_iter()
        .filter_map(|name| {
            let first = if name == PRESENT { Some(u64::MAX) } else { first_of(&name) };
            first.map(|first| (first, name))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_logs_own_files_count_and_in_the_order_of_their_records() {
        let names =
            ["audit.log", "audit-00000000000000000100.log", "audit-00000000000000000009.log", "x.log"];
        let more = ["audit-9.log", "audit-0000000000000000009.log.gz", "audit-+0000000000000000009.log"];
        let found = in_order(names.iter().chain(&more).map(|name| (*name).to_owned()));
        assert_eq!(found, [names[2], names[1], names[0]]);
    }
}
