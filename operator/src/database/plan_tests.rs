//! Plans of DatabaseConnections, case by case.

use coffer_crds::DatabaseConnectionStatus;
use serde_json::json;

use super::*;

const DATABASE: &str = "
apiVersion: coffer.dev/v1alpha1
kind: DatabaseConnection
metadata: {name: orders-pg, namespace: platform, uid: u-3, generation: 1}
spec:
  engine: PostgreSQL
  url: postgresql://{{username}}:{{password}}@pg:5432/orders
  adminSecretRef: {name: admin}
  rotateAdmin: true
";

fn names() -> Names {
    Names { cluster: "c".into(), mount: "kubernetes/c".into() }
}

fn database() -> DatabaseConnection {
    serde_yaml::from_str(DATABASE).unwrap()
}

fn found(text: &str) -> Lookup<String> {
    Lookup::Found(text.into())
}

fn plan_of(
    database: &DatabaseConnection,
    version: &Lookup<String>,
    at_server: Option<&Map<String, Value>>,
) -> Plan {
    plan(&Observed { database, names: &names(), secret_version: version, ca_pem: None, at_server })
}

fn written(plan: &Plan) -> Map<String, Value> {
    let Value::Object(config) = json!({"custom_metadata": plan.labels}) else { panic!() };
    config
}

/// The object and the server's copy after everything went well.
fn settled() -> (DatabaseConnection, Map<String, Value>) {
    let mut database = database();
    let plan = plan_of(&database, &found("7"), None);
    database.status = Some(DatabaseConnectionStatus {
        admin_secret_version: plan.secret_version.clone(),
        admin_rotated: Some(plan.rotated),
        ..Default::default()
    });
    (database, written(&plan))
}

#[test]
fn the_first_time_the_login_is_given_and_rotated() {
    let plan = plan_of(&database(), &found("7"), None);
    assert_eq!((plan.write, plan.rotate, plan.rotated), (Write::WithLogin, true, true));
    assert_eq!(plan.labels["uid"], "u-3");
}

#[test]
fn a_second_look_changes_nothing() {
    let (database, config) = settled();
    let plan = plan_of(&database, &found("7"), Some(&config));
    assert_eq!((plan.write, plan.rotate, plan.rotated), (Write::Nothing, false, true));
}

#[test]
fn a_crash_before_the_status_rotates_again_but_never_sends_the_old_password() {
    let (_, config) = settled();
    let plan = plan_of(&database(), &found("7"), Some(&config));
    assert_eq!((plan.write, plan.rotate), (Write::Nothing, true));
}

#[test]
fn a_new_version_of_the_secret_is_read_again() {
    let (database, config) = settled();
    let plan = plan_of(&database, &found("8"), Some(&config));
    assert_eq!((plan.write, plan.rotate), (Write::WithLogin, true));
}

#[test]
fn another_url_needs_a_login_that_works() {
    let (mut database, config) = settled();
    database.spec.url = database.spec.url.replace("pg:", "pg2:");
    let plan = plan_of(&database, &found("7"), Some(&config));
    assert_eq!((plan.write, plan.obstacle.unwrap().reason.as_str()), (Write::Nothing, "AdminLoginNeeded"));

    // Without rotation the Secret's login still works, and is given again.
    database.spec.rotate_admin = false;
    database.status.as_mut().unwrap().admin_rotated = Some(false);
    assert_eq!(plan_of(&database, &found("7"), Some(&config)).write, Write::WithLogin);
}

#[test]
fn what_is_missing_is_said() {
    let reason = |version: Lookup<String>| plan_of(&database(), &version, None).obstacle.unwrap().reason;
    assert_eq!(reason(Lookup::Missing("m".into())), "AdminSecretMissing");
    assert_eq!(reason(Lookup::Forbidden("m".into())), "AdminSecretForbidden");
    let ca = Lookup::Missing("m".to_owned());
    let plan = plan(&Observed {
        database: &database(),
        names: &names(),
        secret_version: &found("7"),
        ca_pem: Some(&ca),
        at_server: None,
    });
    assert_eq!(plan.obstacle.unwrap().reason, "CaMissing");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let plan = plan_of(&database(), &found("7"), Some(&Map::new()));
    assert_eq!((plan.write, plan.obstacle.unwrap().reason.as_str()), (Write::Nothing, "NotOwned"));
}
