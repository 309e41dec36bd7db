//! DatabaseConnection: a configuration at the server that holds the admin login.

mod plan;
mod reconcile;

pub(crate) use plan::labels_of;
pub(crate) use reconcile::reconcile;
