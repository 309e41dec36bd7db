//! Every route with a request that it takes. `<value>`, `<setting>`, `<token>`, `<path>`, `<user>`, `<policy>` and `<meta>` become
//! marks: the first three are new each time, names are the same throughout. `{x}` is what an earlier row kept as `x`.

use coffer_vault::Operation::{self, Delete, List, Patch, Read, Scan, Update};
use serde_json::{Value, json};

/// One request.
pub struct Row {
    pub operation: Operation,
    pub path: &'static str,
    pub body: Value,
    /// Without a token.
    pub anonymous: bool,
    /// What the reply is kept as, and where it is there.
    pub keep: &'static [(&'static str, &'static str)],
    /// Whether it is known to fail, and is there for what the failure says.
    pub fails: bool,
    /// Whether it may go either way: it depends on a ceremony's state.
    pub either: bool,
    /// Never sent with a token that may do it: it would end the crawl.
    pub ends: bool,
}

impl Row {
    const fn keep(mut self, keep: &'static [(&'static str, &'static str)]) -> Self {
        self.keep = keep;
        self
    }

    const fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    const fn fails(mut self) -> Self {
        self.fails = true;
        self
    }

    const fn either(mut self) -> Self {
        self.either = true;
        self
    }

    const fn ends(mut self) -> Self {
        self.ends = true;
        self
    }
}

const fn row(operation: Operation, path: &'static str, body: Value) -> Row {
    Row { operation, path, body, anonymous: false, keep: &[], fails: false, either: false, ends: false }
}

const fn get(path: &'static str) -> Row {
    row(Read, path, Value::Null)
}

const fn list(path: &'static str) -> Row {
    row(List, path, Value::Null)
}

const fn del(path: &'static str) -> Row {
    row(Delete, path, Value::Null)
}

const fn put(path: &'static str, body: Value) -> Row {
    row(Update, path, body)
}

/// All of them, in an order in which they work.
pub fn rows() -> Vec<Row> {
    [
        sys(),
        keys(),
        kv(),
        tokens(),
        identity(),
        approle(),
        userpass(),
        kubernetes(),
        leases(),
        delivery(),
        removal(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn sys() -> Vec<Row> {
    let policy = json!({"policy": "path \"secret/data/<path>\" { capabilities = [\"read\"] }"});
    vec![
        put(
            "sys/mounts/<path>",
            json!({"type": "kv", "description": "<value>", "options": {"version": "2"}}),
        ),
        put("sys/mounts/<path>-plain", json!({"type": "kv", "description": "<value>"})),
        get("sys/mounts"),
        get("sys/mounts/<path>"),
        get("sys/mounts/<path>/tune"),
        put("sys/mounts/<path>/tune", json!({"default_lease_ttl": "1h", "description": "<value>"})),
        put("sys/quotas/rate-limit/<path>", json!({"rate": 1_000_000})),
        get("sys/quotas/rate-limit/<path>"),
        list("sys/quotas/rate-limit/"),
        get("sys/internal/inspect/router/root"),
        get("sys/internal/ui/resultant-acl"),
        get("sys/internal/ui/namespaces"),
        put("sys/auth/<path>-roles", json!({"type": "approle", "description": "<value>"})),
        get("sys/auth"),
        get("sys/auth/<path>-roles"),
        get("sys/auth/<path>-roles/tune"),
        put("sys/auth/<path>-roles/tune", json!({"max_lease_ttl": "2h"})),
        put("sys/policies/acl/<policy>", policy.clone()),
        get("sys/policies/acl/<policy>"),
        list("sys/policies/acl"),
        put("sys/policies/acl/<policy>", json!({"policy": "path <setting> {"})).fails(),
        put(
            "sys/policies/password/<policy>",
            json!({"policy": "length = 9\nrule \"charset\" { charset = \"a\" }"}),
        ),
        get("sys/policies/password/<policy>"),
        get("sys/policies/password/<policy>/generate"),
        list("sys/policies/password"),
        put("sys/policies/password/<policy>", json!({"policy": "length = <value>"})).fails(),
        del("sys/policies/password/<policy>"),
        put("sys/policy/<policy>", policy),
        get("sys/policy/<policy>"),
        get("sys/policy"),
        put("sys/capabilities", json!({"token": "<token>", "paths": ["secret/data/<path>"]})).fails(),
        put("sys/capabilities-self", json!({"paths": ["secret/data/<path>"]})),
        put("sys/capabilities-accessor", json!({"accessor": "<user>", "path": "x"})).fails(),
        put("sys/policy-explain", json!({"token": "<token>", "path": "secret/data/<path>"})).fails(),
        put("sys/policy-explain", json!({"policies": ["<path>"], "path": "secret/data/<path>"})),
        put("sys/policy-explain-self", json!({"path": "secret/data/<path>", "parameters": {"k": "<value>"}})),
        put("sys/policy-explain-accessor", json!({"accessor": "<user>", "path": "x"})).fails(),
        get("sys/internal/ui/mounts"),
        get("sys/internal/ui/mounts/<path>"),
        put(
            "sys/audit/<path>",
            json!({"type": "file", "description": "<value>", "options": {"file_path": "{dir}/more.log"}}),
        ),
        put(
            "sys/audit/<path>-no",
            json!({"type": "file", "options": {"file_path": "/<setting>", "prefix": "<setting>"}}),
        )
        .fails(),
        get("sys/audit"),
        get("sys/audit/chain"),
        get("sys/audit/tail?limit=3"),
        put("sys/audit-hash/<path>", json!({"input": "<value>"})),
        get("sys/metrics"),
        get("sys/host-info"),
        get("sys/config/cors"),
        get("sys/config/state/sanitized"),
        list("sys/version-history"),
        get("sys/plugins/catalog"),
        put("sys/tools/hash", json!({"input": "aGVsbG8="})),
        put("sys/tools/hash/<setting>", json!({"input": "<value>"})).fails(),
        put("sys/tools/random/8", json!({"format": "hex"})),
        list("sys/policies/detailed/acl"),
        get("sys/events/subscribe/kv-v2/data-write"),
        get("sys/locked-users"),
        put("sys/wrapping/lookup", json!({"token": "<token>"})).fails(),
        put("sys/wrapping/unwrap", json!({"token": "<token>"})).fails(),
        put("sys/wrapping/rewrap", json!({"token": "<token>"})).fails(),
        put("sys/wrapping/wrap", json!({"k": "<value>"})).fails(),
        put("sys/seal", Value::Null).ends(),
    ]
}

/// Keys of the vault and the ceremonies about them.
fn keys() -> Vec<Row> {
    let share = || json!({"key": "<token>", "nonce": "<token>"});
    let mut rows = vec![
        get("sys/key-status"),
        get("sys/ha-status"),
        put("sys/step-down", json!({})),
        get("sys/rotate/config"),
        put("sys/rotate", json!({})),
        get("sys/rotate/keyring/config"),
        put("sys/rotate/keyring", json!({})),
        put("sys/rotate/keyring/config", json!({"interval": "<setting>"})),
        get("sys/rotate/status"),
        get("sys/rotate/root/backup"),
        get("sys/rekey/backup"),
        del("sys/rekey/backup"),
    ];
    for (begin, go_on) in [
        ("sys/rekey/init", "sys/rekey/update"),
        ("sys/rotate/root/init", "sys/rotate/root/update"),
        ("sys/generate-root/attempt", "sys/generate-root/update"),
        ("sys/generate-root-token/attempt", "sys/generate-root-token/update"),
    ] {
        let counts = json!({"secret_shares": 1, "secret_threshold": 1, "pgp_keys": "<setting>"});
        rows.extend([get(begin), put(begin, counts), put(begin, json!({})), put(go_on, share()), del(begin)]);
    }
    rows.push(put("sys/rekey/verify", share()));
    rows.into_iter().map(Row::either).collect()
}

fn kv() -> Vec<Row> {
    let secret = json!({"data": {"password": "<value>", "list": ["<value>", {"deep": "<value>"}]}, "options": {"cas": 0}});
    vec![
        put("<path>/config", json!({"max_versions": 5, "cas_required": false})),
        get("<path>/config"),
        put("<path>/data/<path>", secret.clone()),
        put("<path>/data/<path>", secret).fails(),
        put("<path>/data/<path>/below", json!({"data": {"k": "<value>"}})),
        get("<path>/data/<path>"),
        get("<path>/data/<path>?version=1"),
        row(Patch, "<path>/data/<path>", json!({"data": {"password": "<value>"}})),
        put("<path>/metadata/<path>", json!({"custom_metadata": {"owner": "<value>"}, "max_versions": 4})),
        row(Patch, "<path>/metadata/<path>", json!({"custom_metadata": {"owner": "<value>"}})),
        get("<path>/metadata/<path>"),
        list("<path>/metadata"),
        row(Scan, "<path>/metadata", Value::Null),
        list("<path>/detailed-metadata"),
        get("<path>/subkeys/<path>"),
        put("<path>/delete/<path>", json!({"versions": [1]})),
        put("<path>/undelete/<path>", json!({"versions": [1]})),
        put("<path>/destroy/<path>", json!({"versions": [1]})),
        put("<path>/rotation-config", json!({"allowed_webhooks": ["https://hooks.invalid"]})),
        get("<path>/rotation-config"),
        put(
            "<path>/rotation/<path>",
            json!({"rotation_period": "24h", "length": 24, "webhook_url": "https://hooks.invalid/", "webhook_secret": "<value>"}),
        ),
        get("<path>/rotation/<path>"),
        put("<path>/rotate/<path>", json!({})).fails(),
        get("sys/rotations/<path>/data/<path>"),
        del("<path>/rotation/<path>"),
        del("<path>/data/<path>"),
        get("<path>/data/<path>").fails(),
        del("<path>/metadata/<path>/below"),
        put("<path>-plain/<path>", json!({"password": "<value>", "ttl": "1h"})),
        get("<path>-plain/<path>"),
        list("<path>-plain/"),
        del("<path>-plain/<path>"),
        put("cubbyhole/<path>", json!({"k": "<value>"})),
        get("cubbyhole/<path>"),
        list("cubbyhole/"),
        del("cubbyhole/<path>"),
    ]
}

fn tokens() -> Vec<Row> {
    let made =
        json!({"policies": ["<policy>"], "display_name": "<user>", "meta": {"team": "<meta>"}, "ttl": "1h"});
    const KEEP: &[(&str, &str)] = &[("token", "/auth/client_token"), ("accessor", "/auth/accessor")];
    vec![
        put("auth/token/create", made.clone()).keep(KEEP),
        put("auth/token/lookup", json!({"token": "{token}"})),
        put("auth/token/lookup", json!({"token": "<token>"})).fails(),
        put("auth/token/lookup-accessor", json!({"accessor": "{accessor}"})),
        put("auth/token/lookup-accessor", json!({"accessor": "<user>"})).fails(),
        get("auth/token/lookup-self"),
        list("auth/token/accessors"),
        put("auth/token/renew", json!({"token": "{token}"})),
        put("auth/token/renew-accessor", json!({"accessor": "{accessor}"})),
        put("auth/token/renew-self", json!({})),
        put("auth/token/tidy", json!({})),
        put("auth/token/revoke-orphan", json!({"token": "{token}"})),
        put("auth/token/create-orphan", made).keep(KEEP),
        put("auth/token/revoke-accessor", json!({"accessor": "{accessor}"})),
        put("auth/token/create", json!({"policies": ["<policy>"]})).keep(KEEP),
        put("auth/token/revoke", json!({"token": "{token}"})),
        put("auth/token/create", json!({"ttl": "<setting>", "num_uses": "<setting>"})).fails(),
        put("auth/token/revoke-self", json!({})).ends(),
    ]
}

fn identity() -> Vec<Row> {
    const ENTITY: &[(&str, &str)] = &[("entity", "/data/id")];
    const OTHER: &[(&str, &str)] = &[("other", "/data/id")];
    const GROUP: &[(&str, &str)] = &[("group", "/data/id")];
    let somebody = json!({"name": "<user>", "metadata": {"team": "<meta>"}, "policies": ["<policy>"]});
    let mut some = somebody.clone();
    some["member_entity_ids"] = json!(["{entity}"]);
    vec![
        put("identity/entity", somebody).keep(ENTITY),
        get("identity/entity/id/{entity}"),
        get("identity/entity/name/<user>"),
        list("identity/entity/id"),
        list("identity/entity/name"),
        put("identity/lookup/entity", json!({"name": "<user>"})),
        put("identity/entity-alias", json!({"name": "<user>", "mount_accessor": "<user>"})).fails(),
        list("identity/entity-alias/id").either(),
        put("identity/group", some).keep(GROUP),
        get("identity/group/id/{group}"),
        get("identity/group/name/<user>"),
        list("identity/group/id"),
        list("identity/group/name"),
        put("identity/lookup/group", json!({"name": "<user>"})),
        put("identity/group-alias", json!({"name": "<user>", "mount_accessor": "<user>"})).fails(),
        list("identity/group-alias/id").either(),
        put("identity/entity", json!({"name": "<user>-b"})).keep(OTHER),
        put("identity/entity/merge", json!({"to_entity_id": "{entity}", "from_entity_ids": ["{other}"]})),
        del("identity/group/name/<user>"),
        del("identity/entity/id/{entity}"),
    ]
}

fn approle() -> Vec<Row> {
    const LOGIN: &[(&str, &str)] =
        &[("secret_id", "/data/secret_id"), ("id_accessor", "/data/secret_id_accessor")];
    let by_id = || json!({"secret_id": "{secret_id}"});
    let by_accessor = || json!({"secret_id_accessor": "{id_accessor}"});
    vec![
        put("auth/<path>-roles/role/<user>", json!({"token_policies": ["<policy>"], "token_ttl": "1h"})),
        get("auth/<path>-roles/role/<user>"),
        list("auth/<path>-roles/role"),
        get("auth/<path>-roles/role/<user>/role-id").keep(&[("role_id", "/data/role_id")]),
        put("auth/<path>-roles/role/<user>/secret-id", json!({"metadata": "{\"team\": \"<meta>\"}"}))
            .keep(LOGIN),
        list("auth/<path>-roles/role/<user>/secret-id"),
        put("auth/<path>-roles/role/<user>/secret-id/lookup", by_id()),
        put("auth/<path>-roles/role/<user>/secret-id-accessor/lookup", by_accessor()),
        put("auth/<path>-roles/login", json!({"role_id": "{role_id}", "secret_id": "{secret_id}"}))
            .anonymous(),
        put("auth/<path>-roles/login", json!({"role_id": "{role_id}", "secret_id": "<token>"}))
            .anonymous()
            .fails(),
        put("auth/<path>-roles/login", json!({"role_id": "<token>", "secret_id": "<token>"}))
            .anonymous()
            .fails(),
        put("auth/<path>-roles/role/<user>/secret-id/destroy", by_id()),
        put("auth/<path>-roles/role/<user>/custom-secret-id", json!({"secret_id": "<token>"})).keep(LOGIN),
        put("auth/<path>-roles/role/<user>/secret-id-accessor/destroy", by_accessor()),
        put("auth/<path>-roles/role/<user>/policies", json!({"token_policies": ["<policy>"]})),
        put("auth/<path>-roles/tidy/secret-id", json!({})),
    ]
}

fn userpass() -> Vec<Row> {
    vec![
        put("sys/auth/<path>-people", json!({"type": "userpass"})),
        put(
            "auth/<path>-people/users/<user>",
            json!({"password": "<token>", "token_policies": ["<policy>"]}),
        ),
        get("auth/<path>-people/users/<user>"),
        list("auth/<path>-people/users"),
        put("auth/<path>-people/users/<user>/policies", json!({"token_policies": ["<policy>"]})),
        put("auth/<path>-people/users/<user>/password", json!({"password": "{password}"})),
        put("auth/<path>-people/login/<user>", json!({"password": "{password}"})).anonymous(),
        put("auth/<path>-people/login/<user>", json!({"password": "<token>"})).anonymous().fails(),
        del("auth/<path>-people/users/<user>"),
    ]
}

fn kubernetes() -> Vec<Row> {
    vec![
        get("auth/kubernetes/prod/config"),
        put("auth/kubernetes/prod/config", json!({"kubernetes_host": "<setting>"})).fails(),
        put(
            "auth/kubernetes/prod/role/<user>",
            json!({"bound_service_account_names": ["<user>"], "bound_service_account_namespaces": ["shop"],
                "audience": "coffer", "token_policies": ["<policy>"]}),
        ),
        get("auth/kubernetes/prod/role/<user>"),
        list("auth/kubernetes/prod/role"),
        put("auth/kubernetes/prod/login", json!({"role": "shop.orders", "jwt": "{jwt}"}))
            .anonymous()
            .keep(&[("pod_token", "/auth/client_token")]),
        put("auth/kubernetes/prod/login", json!({"role": "<user>", "jwt": "<token>"})).anonymous().fails(),
        put("auth/kubernetes/prod/login", json!({"role": "<user>", "jwt": "{jwt}"})).anonymous().fails(),
        get("auth/kubernetes/prod/pods"),
        put("auth/kubernetes/prod/revoke-pod", json!({"uid": "<user>"})),
        del("auth/kubernetes/prod/role/<user>"),
        put("sys/auth/jwt", json!({"type": "jwt"})),
        put("auth/jwt/oidc/auth_url", json!({"role": "<user>"})).fails(),
        get("auth/jwt/oidc/callback").fails(),
        put("auth/jwt/oidc/poll", json!({"state": "<setting>"})).fails(),
    ]
}

fn leases() -> Vec<Row> {
    const LEASE: &[(&str, &str)] = &[("lease", "/lease_id")];
    let lease = || json!({"lease_id": "{lease}"});
    vec![
        put(
            "database/config/<path>",
            json!({"plugin_name": "postgresql-database-plugin", "password": "<token>"}),
        ),
        put("database/roles/<path>", json!({"db_name": "<path>", "creation_statements": ["<value>"]})),
        get("database/creds/<path>").keep(LEASE),
        put("sys/leases/lookup", lease()),
        list("sys/leases/lookup/database/creds"),
        list("sys/leases/lookup"),
        get("sys/leases?type=irrevocable"),
        get("sys/leases/count?type=irrevocable"),
        get("sys/mounts/database/health"),
        put("sys/leases/renew", lease()),
        put("sys/renew", lease()),
        put("sys/leases/revoke", lease()),
        get("database/creds/<path>").keep(LEASE),
        put("sys/revoke", lease()),
        put("sys/leases/renew", json!({"lease_id": "database/creds/<path>/none"})).fails(),
        put("sys/leases/revoke-prefix/database/creds/<path>", json!({})),
        put("sys/revoke-prefix/database/creds/<path>", json!({})),
        put("database/reset/<path>", json!({})),
        put("database/rotate-root/<path>", json!({})),
        put("database/static-roles/<path>", json!({"db_name": "<path>", "username": "<user>"})),
        get("database/static-creds/<path>").fails(),
        put("database/rotate-role/<path>", json!({})),
        get("sys/rotations/database/static-creds/<path>").fails(),
        put("sys/rotations/ack", json!({"path": "database/static-creds/<path>", "version": 1})),
    ]
}

fn delivery() -> Vec<Row> {
    vec![
        put("delivery/k8s/prod/shop/dsec/<path>", json!({"document": {"source": "<value>"}})),
        get("delivery/k8s/prod/shop/dsec/<path>"),
        list("delivery/k8s/prod/shop/dsec"),
    ]
}

fn removal() -> Vec<Row> {
    vec![
        del("<path>/metadata/<path>"),
        del("auth/<path>-roles/role/<user>"),
        del("sys/policy/<policy>"),
        del("sys/policies/acl/<policy>"),
        del("sys/audit/<path>"),
        del("sys/quotas/rate-limit/<path>"),
        put("sys/remount", json!({"from": "<path>-plain", "to": "<path>-moved"})),
        del("sys/mounts/<path>-moved"),
        del("sys/auth/<path>-roles"),
    ]
}
