//! The closed list of questions that are answered whatever the state of the vault, and the two ceremonies.
//!
//! Only what everybody may know leaves here, and what an initialisation gives to who asked for it.

use std::net::IpAddr;

use coffer_core::audit::{AuditRecord, RecordType};
use serde_json::{Value, json};

use crate::ceremony::no_pgp;
use crate::door::{Door, Initialized, cluster_id};
use crate::error::Fail;
use crate::open::Surroundings;
use crate::outcome::Outcome;
use crate::request::{HealthParams, Reply, StatusRequest};

/// Answers one of them.
pub(crate) async fn answer(
    around: &Surroundings,
    door: &Door,
    id: &str,
    client_ip: IpAddr,
    request: StatusRequest,
) -> Reply {
    let recorded = async |operation: &str, path: &str, result: Result<Value, Fail>| {
        let (reply, error) = match result {
            Ok(value) => (Reply::json(200, value), None),
            Err(fail) => (fail.reply(), Some(fail.to_string())),
        };
        let record = AuditRecord {
            status: Some(reply.status),
            client_ip: Some(client_ip.to_string()),
            error,
            ..AuditRecord::new(around.clock.now(), RecordType::Completion, id, operation, path)
        };
        around.audit.conclude(&record, reply).await.reply.into_inner()
    };
    match request {
        StatusRequest::Health(params) => health(around, door, &params).await,
        StatusRequest::SealStatus => plain(door.seal_status().await),
        StatusRequest::Leader => Reply::json(
            200,
            json!({ "ha_enabled": false, "is_self": door.open().is_some(), "leader_address": "",
                "leader_cluster_address": "", "performance_standby": false,
                "performance_standby_last_remote_wal": 0 }),
        ),
        StatusRequest::InitStatus => plain(
            around.barrier.initialized().await.map(|done| json!({ "initialized": done })).map_err(Fail::from),
        ),
        StatusRequest::Init { secret_shares, secret_threshold, pgp } => {
            let result = match no_pgp(pgp, "pgp_keys or root_token_pgp_key") {
                Ok(()) => door.initialize(secret_shares, secret_threshold).await,
                Err(refused) => Err(refused),
            };
            recorded("init", "sys/init", result.map(|made| init_body(&made))).await
        }
        StatusRequest::Unseal { key, reset } => {
            let result = match door.unseal(key, reset).await {
                Ok(()) => door.seal_status().await,
                Err(fail) => Err(fail),
            };
            recorded("unseal", "sys/unseal", result).await
        }
        StatusRequest::Ca => match &around.ca_bundle {
            Some(pem) => Outcome::data(json!({ "ca_bundle": pem })).into_reply(id),
            None => Fail::NotFound.reply(),
        },
    }
}

fn plain(result: Result<Value, Fail>) -> Reply {
    match result {
        Ok(value) => Reply::json(200, value),
        Err(fail) => fail.reply(),
    }
}

/// Shown once. The caller's copy is the only one.
fn init_body(made: &Initialized) -> Value {
    let hex: Vec<String> = made.shares.iter().map(|s| s.to_hex().to_string()).collect();
    let base64: Vec<String> = made.shares.iter().map(|s| s.to_base64().to_string()).collect();
    json!({ "keys": hex, "keys_base64": base64, "root_token": made.root.expose() })
}

async fn health(around: &Surroundings, door: &Door, params: &HealthParams) -> Reply {
    let initialized = match around.barrier.initialized().await {
        Ok(initialized) => initialized,
        Err(error) => return Fail::from(error).reply(),
    };
    let sealed = door.open().is_none();
    let status = match (initialized, sealed) {
        (false, _) => params.uninit_code.unwrap_or(501),
        (true, true) => params.sealed_code.unwrap_or(503),
        (true, false) => params.active_code.unwrap_or(200),
    };
    let config = &around.config;
    let mut body = json!({
        "initialized": initialized,
        "sealed": sealed,
        "standby": false,
        "performance_standby": false,
        "replication_performance_mode": "disabled",
        "replication_dr_mode": "disabled",
        "server_time_utc": around.clock.now().as_secs(),
        "version": config.version,
        "enterprise": false,
    });
    if let (false, Value::Object(map)) = (sealed, &mut body) {
        map.insert("cluster_name".into(), config.cluster_name.as_str().into());
        // Sealed in this very moment: then it is not known any more.
        map.insert("cluster_id".into(), cluster_id(&around.barrier).unwrap_or_default().into());
    }
    Reply::json(status, body)
}
