//! Plans of DynamicSecrets, case by case.

use std::collections::BTreeMap;

use coffer_crds::DatabaseConnection;

use super::super::source::resolve;
use super::*;

const SECRET: &str = "
apiVersion: coffer.dev/v1alpha1
kind: DynamicSecret
metadata: {name: orders-db, namespace: shop, uid: u-2, generation: 4}
spec:
  source: {database: {connectionRef: {name: orders-pg, namespace: platform}, profile: readwrite}}
  ttl: 1h
  maxTTL: 48h
  consumers: [{serviceAccount: orders-api}]
  files: [{name: dsn, template: 'postgresql://{{ .username }}'}]
  onChange: [{container: app, signal: SIGHUP}, {http: {post: 'http://127.0.0.1:8080/-/reload'}}]
";
const DATABASE: &str = "
apiVersion: coffer.dev/v1alpha1
kind: DatabaseConnection
metadata: {name: orders-pg, namespace: platform, uid: u-3, generation: 1}
spec:
  engine: PostgreSQL
  url: postgresql://{{username}}:{{password}}@pg:5432/orders
  adminSecretRef: {name: admin}
  profiles:
  - name: readwrite
    create: CREATE ROLE \"{{name}}\"
    allowedNamespaces: {matchLabels: {team: shop}}
status:
  conditions: [{type: Ready, status: 'True', reason: Verified, message: m, observedGeneration: 1, lastTransitionTime: '2026-11-24T07:00:00Z'}]
";

fn names() -> Names {
    Names { cluster: "c".into(), mount: "kubernetes/c".into() }
}

fn secret() -> DynamicSecret {
    serde_yaml::from_str(SECRET).unwrap()
}

fn database() -> DatabaseConnection {
    serde_yaml::from_str(DATABASE).unwrap()
}

fn plan_of(
    secret: &DynamicSecret,
    database: Option<&DatabaseConnection>,
    team: &str,
    at_server: &AtServer,
) -> Plan {
    let labels = BTreeMap::from([("team".to_owned(), team.to_owned())]);
    plan(&Observed { secret, names: &names(), source: resolve(secret, database, &labels), at_server })
}

/// The server's copies after a plan's changes.
fn written(plan: &Plan) -> AtServer {
    let mut at = AtServer::default();
    for change in &plan.changes {
        match change {
            Change::WriteDatabaseRole { role, .. } => at.role = Some((**role).clone()),
            Change::WritePolicy { name, body } => {
                at.policy = Some(PolicyReply {
                    name: name.clone(),
                    policy: body.policy.clone(),
                    custom_metadata: body.custom_metadata.clone(),
                });
            }
            Change::WriteDelivery { document, .. } => {
                at.delivery = Some(DeliveryReply {
                    document: document.document.clone(),
                    version: 1,
                    updated_time: String::new(),
                    custom_metadata: document.custom_metadata.clone(),
                });
            }
            other => panic!("{}", other.summary()),
        }
    }
    at
}

fn summaries(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::summary).collect()
}

#[test]
fn a_ready_source_gives_role_policy_and_document_in_this_order() {
    let plan = plan_of(&secret(), Some(&database()), "shop", &AtServer::default());
    assert_eq!(
        summaries(&plan.changes),
        [
            "write database/roles/k8s.c.shop.orders-db",
            "write policy k8s/c/shop/dsec/orders-db",
            "write delivery/k8s/c/shop/dsec/orders-db",
        ]
    );
    assert!(plan.verdicts.iter().all(Verdict::holds), "{:?}", plan.verdicts);
    let at = written(&plan);
    let role = at.role.unwrap();
    assert_eq!(role.db_name, "k8s.c.platform.orders-pg");
    assert_eq!((role.default_ttl, role.max_ttl), (Some(Ttl::Seconds(3600)), Some(Ttl::Seconds(86_400))));
    let document = serde_json::to_value(at.delivery.unwrap().document).unwrap();
    assert_eq!(
        document,
        serde_json::json!({
            "uid": "u-2", "generation": 4,
            "source": {"path": "database/creds/k8s.c.shop.orders-db", "leased": true},
            "scope": "PerPod", "ttl": "3600s", "maxTtl": "86400s", "renewAtPercent": 66, "overlap": "5m",
            "files": [{"name": "dsn", "mode": "0440", "template": "postgresql://{{ .username }}"}],
            "onChange": [{"container": "app", "signal": "SIGHUP"}, {"http": {"post": "http://127.0.0.1:8080/-/reload"}}],
        })
    );
}

#[test]
fn a_second_look_changes_nothing() {
    let first = plan_of(&secret(), Some(&database()), "shop", &AtServer::default());
    let again = plan_of(&secret(), Some(&database()), "shop", &written(&first));
    assert!(again.changes.is_empty(), "{:?}", summaries(&again.changes));
}

#[test]
fn a_profile_that_became_shorter_shortens_the_lease_and_its_overlap() {
    let mut database = database();
    database.spec.profiles[0].max_ttl = "2m".into();
    let document = written(&plan_of(&secret(), Some(&database), "shop", &AtServer::default()))
        .delivery
        .unwrap()
        .document;
    assert_eq!(
        (document.ttl.as_deref(), document.max_ttl.as_deref(), document.overlap.as_deref()),
        (Some("120s"), Some("120s"), Some("60s"))
    );
}

#[test]
fn each_obstacle_has_its_reason() {
    let reason = |secret: &DynamicSecret, database: Option<&DatabaseConnection>, team: &str| {
        let plan = plan_of(secret, database, team, &AtServer::default());
        assert!(plan.changes.is_empty());
        assert_eq!(plan.verdicts[0].reason, plan.verdicts[1].reason);
        plan.verdicts[0].reason.clone()
    };
    assert_eq!(reason(&secret(), None, "shop"), "DatabaseConnectionNotFound");
    assert_eq!(reason(&secret(), Some(&database()), "other"), "NamespaceNotAllowed");
    let mut wrong = secret();
    wrong.spec.source.database.as_mut().unwrap().profile = "nosuch".into();
    assert_eq!(reason(&wrong, Some(&database()), "shop"), "ProfileNotFound");
    let mut elsewhere = database();
    elsewhere.spec.connection_ref.name = "second".into();
    assert_eq!(reason(&secret(), Some(&elsewhere), "shop"), "ConnectionMismatch");
    let mut failing = database();
    failing.status.as_mut().unwrap().conditions[0].status = "False".into();
    assert_eq!(reason(&secret(), Some(&failing), "shop"), "DatabaseNotReady");
    let mut private = database();
    private.spec.profiles[0].allowed_namespaces = None;
    assert_eq!(reason(&secret(), Some(&private), "shop"), "NamespaceNotAllowed");
}

#[test]
fn a_permission_that_is_gone_is_taken_back_and_an_outage_is_not() {
    let at = written(&plan_of(&secret(), Some(&database()), "shop", &AtServer::default()));
    let gone = plan_of(&secret(), Some(&database()), "other", &at);
    assert_eq!(
        summaries(&gone.changes),
        [
            "delete policy k8s/c/shop/dsec/orders-db",
            "delete delivery/k8s/c/shop/dsec/orders-db",
            "revoke leases under database/creds/k8s.c.shop.orders-db",
            "delete database/roles/k8s.c.shop.orders-db",
        ]
    );
    let mut failing = database();
    failing.status.as_mut().unwrap().conditions[0].status = "False".into();
    assert!(plan_of(&secret(), Some(&failing), "shop", &at).changes.is_empty());
}

#[test]
fn deletion_ends_the_leases_before_the_role_and_touches_nothing_foreign() {
    let at = written(&plan_of(&secret(), Some(&database()), "shop", &AtServer::default()));
    let changes = summaries(&deletion(&secret(), &names(), &at));
    assert_eq!(changes.last().unwrap(), "delete database/roles/k8s.c.shop.orders-db");
    assert_eq!(changes.len(), 4);

    let foreign = AtServer { role: Some(DatabaseRole::default()), ..AtServer::default() };
    assert!(deletion(&secret(), &names(), &foreign).is_empty());
    let plan = plan_of(&secret(), Some(&database()), "shop", &foreign);
    assert!(plan.changes.is_empty());
    assert_eq!(plan.verdicts[0].reason, "NotOwned");
}
