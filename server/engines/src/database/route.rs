//! The engine's paths. The whole map is on this page.

/// The parts of the engine's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Configs,
    Config(&'p str),
    Roles,
    Role(&'p str),
    Creds(&'p str),
    StaticRoles,
    StaticRole(&'p str),
    StaticCreds(&'p str),
    RotateRole(&'p str),
    Reset(&'p str),
    RotateRoot(&'p str),
    Other,
}

/// Where a path leads.
pub(super) fn route(path: &str) -> Route<'_> {
    let path = path.trim_end_matches('/');
    let (head, name) = path.split_once('/').unwrap_or((path, ""));
    if name.contains('/') {
        return Route::Other;
    }
    match (head, name.is_empty()) {
        ("config", true) => Route::Configs,
        ("config", false) => Route::Config(name),
        ("roles", true) => Route::Roles,
        ("roles", false) => Route::Role(name),
        ("creds", false) => Route::Creds(name),
        ("static-roles", true) => Route::StaticRoles,
        ("static-roles", false) => Route::StaticRole(name),
        ("static-creds", false) => Route::StaticCreds(name),
        ("rotate-role", false) => Route::RotateRole(name),
        ("reset", false) => Route::Reset(name),
        ("rotate-root", false) => Route::RotateRoot(name),
        _ => Route::Other,
    }
}
