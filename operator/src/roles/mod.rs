//! Auth roles: one for each ServiceAccount, composed from every object that names it.

mod compose;
mod sync;

pub(crate) use compose::seconds;
pub(crate) use sync::sync;
