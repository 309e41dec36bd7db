//! LIST, SCAN and the detailed list: names below a path, in pages. Never reads a secret's data.
//!
//! A SCAN's order: the secrets of a directory by name, then its directories from the last to the first, each with
//! everything below it. This is OpenBao's order, and a walk in it can be taken up again after any name.

use serde_json::{Map, Value, json};

use super::{record, warned};
use crate::engine::{EngineReply, EngineRequest, Sees};
use crate::input::{self, PAGE_MAX, object};
use crate::{EngineError, ReadView};

/// The most names a SCAN looks at, shown or not.
const SCANNED_MAX: usize = 100_000;
/// The most secrets whose metadata one reply has.
const DETAILED_MAX: usize = 1_000;
/// About how many bytes of metadata one reply has at most, but for its last secret.
const DETAILED_BYTES_MAX: usize = 4 << 20;

/// The names directly below a directory.
pub(super) async fn list(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    dir: &str,
) -> Result<EngineReply, EngineError> {
    let page = Page::of(req, PAGE_MAX)?;
    let names = view.list(dir, page.after, page.limit + 1).await?;
    Ok(page.reply(names, false))
}

/// As [`list`], with what is known of each secret.
pub(super) async fn detailed(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    dir: &str,
) -> Result<EngineReply, EngineError> {
    let page = Page::of(req, DETAILED_MAX)?;
    let names = view.list(dir, page.after, page.limit + 1).await?;
    page.detailed(view, dir, names).await
}

/// The names of all secrets below a directory, as far as the caller may know of them: of each one of `areas`, with
/// the secret's path appended, is looked at. The first is the path that is listed.
pub(super) async fn scan(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    dir: &str,
    areas: &[&str],
) -> Result<EngineReply, EngineError> {
    let page = Page::of(req, PAGE_MAX)?;
    let names = Walk::new(view, req.sees, dir, areas).take(page.after, page.limit + 1).await?;
    Ok(page.reply(names, true))
}

/// As [`scan`], with what is known of each secret.
pub(super) async fn scan_detailed(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    dir: &str,
) -> Result<EngineReply, EngineError> {
    let page = Page::of(req, DETAILED_MAX)?;
    let walk = Walk::new(view, req.sees, dir, &["detailed-metadata/", "metadata/", "data/"]);
    let names = walk.take(page.after, page.limit + 1).await?;
    if names.is_empty() {
        return Ok(EngineReply::Data(Map::new()));
    }
    page.detailed(view, dir, names).await
}

/// Where a page begins and how long it is.
struct Page<'a> {
    after: Option<&'a str>,
    limit: usize,
    /// Whether the caller knows that there may be more.
    asked: bool,
}

impl<'a> Page<'a> {
    fn of(req: &EngineRequest<'a>, max: usize) -> Result<Self, EngineError> {
        let (after, limit) = input::page(req.query)?;
        let asked = req.query.contains_key("limit") && limit < max;
        Ok(Self { after, limit: limit.min(max), asked })
    }

    /// Takes the one that is too many off; whether there was one.
    fn cut(&self, names: &mut Vec<String>) -> bool {
        let more = names.len() > self.limit;
        names.truncate(self.limit);
        more
    }

    fn reply(&self, mut names: Vec<String>, scanned: bool) -> EngineReply {
        if names.is_empty() {
            // As in OpenBao, nothing found is not the same in both.
            return if scanned { EngineReply::Data(Map::new()) } else { EngineReply::NotFound };
        }
        let more = self.cut(&mut names);
        self.warn(EngineReply::List(names), more)
    }

    fn warn(&self, reply: EngineReply, more: bool) -> EngineReply {
        if !more || self.asked {
            return reply;
        }
        let limit = self.limit;
        warned(reply, format!("there are more than {limit} keys: ask for the rest with the parameter after"))
    }

    async fn detailed(
        &self,
        view: &ReadView<'_>,
        dir: &str,
        mut names: Vec<String>,
    ) -> Result<EngineReply, EngineError> {
        if names.is_empty() {
            return Ok(EngineReply::NotFound);
        }
        let more = self.cut(&mut names);
        let mut info = Map::new();
        let mut bytes = 0;
        for name in &names {
            if bytes >= DETAILED_BYTES_MAX {
                break;
            }
            // As in OpenBao, a directory is described by the secret of the same name, if there is one.
            let path = below(dir, name.trim_end_matches('/'));
            let known = record::load(view, &path).await?;
            bytes += known.as_ref().map_or(0, record::Meta::json_bytes);
            info.insert(name.clone(), Value::Object(known.map(|meta| meta.json()).unwrap_or_default()));
        }
        let shown = info.len();
        let short = shown < names.len();
        names.truncate(shown);
        let data = object(json!({ "keys": names, "key_info": info }));
        if short {
            // Also to whoever asked for so many: a short page looks like the last one.
            let text =
                format!("only {shown} keys fit into a reply: ask for the rest with the parameter after");
            return Ok(warned(EngineReply::Data(data), text));
        }
        Ok(self.warn(EngineReply::Data(data), more))
    }
}

fn below(dir: &str, name: &str) -> String {
    match dir.trim_end_matches('/') {
        "" => name.to_owned(),
        dir => format!("{dir}/{name}"),
    }
}

/// A walk over everything below a directory.
pub(super) struct Walk<'a> {
    view: &'a ReadView<'a>,
    sees: &'a Sees<'a>,
    base: &'a str,
    areas: &'a [&'a str],
    /// Directories still to be entered, relative to the base, each with its slash; the last one first.
    stack: Vec<String>,
    looked_at: usize,
    looked_at_max: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        view: &'a ReadView<'a>,
        sees: &'a Sees<'a>,
        base: &'a str,
        areas: &'a [&'a str],
    ) -> Self {
        Self { view, sees, base, areas, stack: Vec::new(), looked_at: 0, looked_at_max: SCANNED_MAX }
    }

    /// For the server's own work, which no client waits for in a hurry.
    pub(super) fn without_bound(self) -> Self {
        Self { looked_at_max: usize::MAX, ..self }
    }

    /// Up to `limit` names behind `after`, relative to the base.
    pub(super) async fn take(
        mut self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, EngineError> {
        let mut found = Vec::new();
        let (mut dir, mut rest) = (String::new(), after.unwrap_or(""));
        // Down to the directory of `after`: what comes behind it on the way is still to be entered.
        while let Some((head, tail)) = rest.split_once('/') {
            let entered = format!("{head}/");
            let (_, directories) = self.names(&dir, None).await?;
            self.stack.extend(directories.into_iter().filter(|d| *d < entered).map(|d| format!("{dir}{d}")));
            dir.push_str(&entered);
            rest = tail;
        }
        let mut after = Some(rest).filter(|rest| !rest.is_empty());
        loop {
            let (secrets, directories) = self.names(&dir, after.take()).await?;
            for name in secrets {
                let name = format!("{dir}{name}");
                if self.sees(&name) {
                    found.push(name);
                }
                if found.len() >= limit {
                    return Ok(found);
                }
            }
            self.stack.extend(directories.into_iter().map(|d| format!("{dir}{d}")));
            match self.stack.pop() {
                Some(next) => dir = next,
                None => return Ok(found),
            }
        }
    }

    fn sees(&self, name: &str) -> bool {
        let path = below(self.base, name);
        let paths: Vec<String> = self.areas.iter().map(|area| format!("{area}{path}")).collect();
        (self.sees)(&paths)
    }

    /// The secrets directly in `dir` that come behind `after`, and all its directories.
    async fn names(
        &mut self,
        dir: &str,
        after: Option<&str>,
    ) -> Result<(Vec<String>, Vec<String>), EngineError> {
        let place = below(self.base, dir);
        let place = place.trim_end_matches('/');
        let (mut secrets, mut directories) = (Vec::new(), Vec::new());
        let mut last: Option<String> = None;
        loop {
            let page = self.view.list(place, last.as_deref(), PAGE_MAX).await?;
            self.looked_at += page.len().max(1);
            if self.looked_at > self.looked_at_max {
                return Err(EngineError::bad(format!(
                    "there are more than {SCANNED_MAX} names to look at: scan a path further down"
                )));
            }
            let full = page.len() == PAGE_MAX;
            last = page.last().filter(|_| full).cloned();
            for name in page {
                if name.ends_with('/') {
                    directories.push(name);
                } else if after.is_none_or(|after| name.as_str() > after) {
                    secrets.push(name);
                }
            }
            if last.is_none() {
                return Ok((secrets, directories));
            }
        }
    }
}
