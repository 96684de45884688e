//! Which crates of the workspace may depend on which.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::metadata;

/// From the top down; a crate may depend on those listed with it, under any kind of dependency.
const LAYERS: [(&str, &[&str]); 6] = [
    (
        "offshoot",
        &[
            "offshoot-bench",
            "offshoot-session",
            "offshoot-strategies",
            "offshoot-engine",
            "offshoot-kernels",
        ],
    ),
    (
        "offshoot-bench",
        &[
            "offshoot-session",
            "offshoot-strategies",
            "offshoot-engine",
            "offshoot-kernels",
        ],
    ),
    (
        "offshoot-session",
        &["offshoot-strategies", "offshoot-engine", "offshoot-kernels"],
    ),
    ("offshoot-strategies", &["offshoot-engine"]),
    ("offshoot-engine", &["offshoot-kernels"]),
    ("offshoot-kernels", &[]),
];

/// The crates of this project that `package` depends on but may not.
fn forbidden(package: &Value, allowed: &[&str]) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|d| !d["path"].is_null())
        .filter_map(|d| d["name"].as_str())
        // A crate's tests may name the crate itself, with features.
        .filter(|name| *name != package["name"] && !allowed.contains(name))
        .map(String::from)
        .collect()
}

#[test]
fn dependencies_point_down() {
    let metadata = metadata::read().expect("cargo metadata");
    for (name, allowed) in LAYERS {
        let package = metadata::packages(&metadata)
            .find(|p| p["name"] == name)
            .unwrap_or_else(|| panic!("no package {name}"));
        let found = forbidden(package, allowed);
        assert!(found.is_empty(), "{name} must not depend on {found:?}");
    }
}

#[test]
fn a_dependency_upwards_is_found() {
    let package = serde_json::json!({"name": "offshoot-engine", "dependencies": [
        {"name": "serde"},
        {"name": "offshoot-kernels", "path": "/kernels"},
        {"name": "offshoot-strategies", "path": "/strategies", "kind": "dev"},
    ]});
    let found = forbidden(&package, &["offshoot-kernels"]);
    assert_eq!(found, BTreeSet::from(["offshoot-strategies".into()]));
}
