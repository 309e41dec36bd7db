//! The chart's CRDs are the generated ones, and every field is described. Never talks to a cluster.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::PathBuf;

use coffer_crds::generate;
use serde_json::Value;

fn chart_directory() -> PathBuf {
    coffer_fuzz::workspace().join("charts/coffer/templates/crds")
}

/// Run with `COFFER_REGENERATE=1` (or `coffer-operator crds --chart charts/coffer/templates/crds`) to write them anew.
#[test]
fn chart_holds_the_generated_crds() {
    let regenerate = std::env::var_os("COFFER_REGENERATE").is_some();
    let mut expected_names = Vec::new();
    for crd in generate::all() {
        let path = chart_directory().join(generate::chart_file_name(&crd));
        let expected = generate::chart_template(&crd).unwrap();
        if regenerate {
            fs::create_dir_all(chart_directory()).unwrap();
            fs::write(&path, &expected).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{} is stale: COFFER_REGENERATE=1 cargo test -p coffer-crds",
            path.display()
        );
        expected_names.push(generate::chart_file_name(&crd));
    }
    let mut names: Vec<String> = fs::read_dir(chart_directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, expected_names, "no other file belongs into the chart's crds");
}

fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            let here = format!("{path}.{name}");
            if property.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
                found.push(here.clone());
            }
            undescribed(property, &here, found);
        }
    }
    if let Some(items) = schema.get("items") {
        undescribed(items, &format!("{path}[]"), found);
    }
}

#[test]
fn every_field_is_described() {
    for crd in generate::all() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let root = &schema["openAPIV3Schema"];
        assert!(root["description"].as_str().is_some_and(|text| text.len() > 40), "{}", crd.spec.names.kind);
        let mut found = Vec::new();
        for part in ["spec", "status"] {
            undescribed(&root["properties"][part], part, &mut found);
        }
        assert!(found.is_empty(), "{}: {found:?}", crd.spec.names.kind);
    }
}

fn unlimited(schema: &Value, path: &str, found: &mut Vec<String>) {
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let limit = match kind {
        "array" => "maxItems",
        "string" if schema.get("enum").is_none() => "maxLength",
        _ => "",
    };
    if !limit.is_empty() && schema.get(limit).is_none() {
        found.push(path.to_owned());
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            // A label selector is Kubernetes' own type.
            if !name.ends_with("elector") && name != "allowedNamespaces" {
                unlimited(property, &format!("{path}.{name}"), found);
            }
        }
    }
    if let Some(items) = schema.get("items") {
        unlimited(items, &format!("{path}[]"), found);
    }
}

#[test]
fn every_list_and_string_of_a_spec_has_a_limit() {
    for crd in generate::all() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let mut found = Vec::new();
        unlimited(&schema["openAPIV3Schema"]["properties"]["spec"], "spec", &mut found);
        assert!(found.is_empty(), "{}: {found:?}", crd.spec.names.kind);
    }
}

fn templates(directory: PathBuf, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            templates(path, found);
        } else {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A release, a namespace or a cluster may be named `123`, and an audience may hold any character.
#[test]
fn names_that_look_like_something_else_are_quoted() {
    let mut found = Vec::new();
    templates(chart_directory().join(".."), &mut found);
    assert!(found.len() > 20);
    for (path, text) in found {
        for line in text.lines() {
            for key in ["namespace: ", "audience: ", "cluster: ", "app.kubernetes.io/instance: "] {
                let values = line.split(key).skip(1).filter(|value| value.starts_with("{{"));
                for value in values {
                    let expression = value.split("}}").next().unwrap_or_default();
                    assert!(expression.contains("| quote"), "{path}: {line}");
                }
            }
        }
    }
}
