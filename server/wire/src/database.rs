//! The database engine's connections and roles. Never connects anywhere.

use crate::{Disclose, Metadata, Ttl};
use serde::{Deserialize, Serialize};

/// `database/config/<name>`: a connection. The password goes in and never comes out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct DatabaseConfig {
    /// Which kind of database, such as `postgresql-database-plugin`.
    pub plugin_name: String,
    /// Address with `{{username}}` and `{{password}}` in place of the login.
    pub connection_url: String,
    /// The admin login's name.
    pub username: String,
    /// The admin login's password; left out keeps the stored one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Disclose>,
    /// PEM of the CA that signed the database's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_ca: Option<String>,
    /// Roles that may use the connection; `*` for all.
    pub allowed_roles: Vec<String>,
    /// Whether the server tries the login before it accepts this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_connection: Option<bool>,
    /// The writer's labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<Metadata>,
}

/// `database/roles/<name>`: how a login is made and ended.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct DatabaseRole {
    /// The connection, a name under `database/config/`.
    pub db_name: String,
    /// SQL that makes the login.
    pub creation_statements: Vec<String>,
    /// SQL that ends it.
    pub revocation_statements: Vec<String>,
    /// SQL that prolongs it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub renew_statements: Vec<String>,
    /// First life of a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_ttl: Option<Ttl>,
    /// Longest life of a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Ttl>,
    /// The writer's labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_metadata: Option<Metadata>,
}
