//! The two tables: what of `/v1` is served, and where Coffer intends to differ. Both are data, and the pages in
//! `docs/reference/api.md` are made of them.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::compare::Difference;

/// `endpoints.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Endpoints {
    pub(crate) groups: Vec<Group>,
    pub(crate) behaviours: Vec<Behaviour>,
}

/// Endpoints that belong together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) served: Vec<Row>,
    #[serde(default)]
    pub(crate) unserved: Vec<Unserved>,
}

/// What OpenBao or Vault serves and Coffer does not.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Unserved {
    /// As in [`Row`]; `ANY` is every method.
    pub(crate) at: String,
    pub(crate) why: String,
    /// Whether only Vault has it, so that OpenBao cannot be asked.
    #[serde(default)]
    pub(crate) vault: bool,
}

/// A served endpoint.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Row {
    /// Method and path; `:name` is one segment, `*name` one or more.
    Told(String),
    /// The same, with the reason why no story asks for it.
    Untold { at: String, untold: String },
}

impl Row {
    pub(crate) fn at(&self) -> &str {
        match self {
            Self::Told(at) | Self::Untold { at, .. } => at,
        }
    }
}

/// Something that clients rely on beyond a single endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Behaviour {
    pub(crate) id: String,
    pub(crate) text: String,
}

/// An intended difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Intended {
    pub(crate) what: String,
    pub(crate) why: String,
    /// `story: METHOD path: field`, each with `*` for anything within a segment and `**` for anything.
    pub(crate) at: Vec<String>,
    /// Whether Coffer does here what OpenBao refuses.
    #[serde(default)]
    pub(crate) more: bool,
}

/// `pending.yaml`: what is known to be wrong and not mended yet. Each must still be seen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pending {
    /// `story: METHOD path`: everything about it.
    pub(crate) at: BTreeSet<String>,
}

impl Intended {
    /// Which of its places this is.
    pub(crate) fn places_of(
        &self,
        story: &str,
        step: &str,
        difference: &Difference,
    ) -> impl Iterator<Item = usize> {
        self.at.iter().enumerate().filter_map(move |(i, place)| {
            let parts: Vec<&str> = place.splitn(3, ": ").collect();
            let [in_story, in_step, in_field] = parts[..] else {
                panic!("{place:?}: expected story: request: field")
            };
            let here = glob(in_story, story) && glob(in_step, step) && glob(in_field, &difference.field);
            here.then_some(i)
        })
    }
}

/// `*` is anything without a dot or slash, `**` anything at all.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    let (after, anything) = after.strip_prefix('*').map_or((after, false), |after| (after, true));
    (0..=rest.len())
        .filter(|i| rest.is_char_boundary(*i))
        .any(|i| (anything || !rest[..i].contains(['.', '/'])) && glob(after, &rest[i..]))
}

/// Whether a request is one of these.
pub(crate) fn matches(row: &str, method: &str, path: &str) -> bool {
    let (row_method, row_path) = row.split_once(' ').unwrap();
    let same = |method: &str| if method == "PUT" { "POST" } else { method }.to_owned();
    if row_method != "ANY" && !row_method.split('|').any(|wanted| same(wanted) == same(method)) {
        return false;
    }
    let mut segments = path.trim_end_matches('/').split('/');
    for wanted in row_path.split('/') {
        let found = segments.next();
        match (wanted.as_bytes().first(), found) {
            (_, None) => return false,
            (Some(b'*'), Some(_)) => return true,
            (Some(b':'), Some(_)) => {}
            (_, Some(found)) if found == wanted => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

/// Reads a table.
pub(crate) fn load<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = coffer_fuzz::workspace().join("server/tests/peer").join(name);
    serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The page of the reference, as the tables have it.
pub(crate) fn page(endpoints: &Endpoints, intended: &[Intended], pending: &Pending) -> String {
    let mut page = include_str!("page.md").to_owned();
    let (mut served, mut unserved) = (String::new(), String::new());
    for group in &endpoints.groups {
        served += &format!("### {}\n\n", group.name);
        for row in &group.served {
            let (methods, path) = row.at().split_once(' ').unwrap();
            served += &format!("- `{}` `/v1/{path}`", methods.replace('|', "` `"));
            if let Row::Untold { untold, .. } = row {
                served += &format!(" (not compared: {untold})");
            }
            served.push('\n');
        }
        served.push('\n');
        for Unserved { at, why, .. } in &group.unserved {
            let (methods, path) = at.split_once(' ').unwrap();
            unserved += &format!("| `{}` `/v1/{path}` | {why} |\n", methods.replace('|', "` `"));
        }
    }
    let behaviours: String = endpoints.behaviours.iter().map(|b| format!("- {}\n", b.text)).collect();
    let differences: String = intended.iter().map(|d| format!("| {} | {} |\n", d.what, d.why)).collect();
    let pending: String = pending
        .at
        .iter()
        .filter_map(|at| at.split_once(": "))
        .fold(String::new(), |text, (_, request)| text + &format!("- `{request}`\n"));
    let pending = if pending.is_empty() { "Nothing.".to_owned() } else { pending };
    for (name, text) in [
        ("served", &served),
        ("unserved", &unserved),
        ("behaviours", &behaviours),
        ("differences", &differences),
        ("pending", &pending),
    ] {
        page = page.replace(&format!("{{{{{name}}}}}\n"), text.trim_end_matches('\n'));
        page = page.replace(&format!("{{{{{name}}}}}"), text.trim_end_matches('\n'));
    }
    page
}
