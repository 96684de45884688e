//! `cargo metadata` of the workspace.

use std::path::PathBuf;

use serde_json::Value;

use crate::{Done, cargo};

/// The output of `cargo metadata`, offline if the dependencies are on this machine.
pub fn read() -> Done<Value> {
    let call = |offline: bool| {
        let mut command = cargo(&["metadata", "--format-version", "1", "--locked"]);
        if offline {
            command.arg("--offline");
        }
        let output = command
            .output()
            .map_err(|e| format!("cargo metadata: {e}"))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("cargo metadata: {}", why.trim()));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))
    };
    call(true).or_else(|_| call(false))
}

/// The packages, of the workspace and of its dependencies on every platform.
pub fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

/// Whether the workspace has a member of this name.
pub fn is_member(metadata: &Value, name: &str) -> bool {
    let members = metadata["workspace_members"].as_array();
    packages(metadata)
        .filter(|package| package["name"] == name)
        .any(|package| members.is_some_and(|members| members.contains(&package["id"])))
}

/// The target folder.
pub fn target(metadata: &Value) -> PathBuf {
    match metadata["target_directory"].as_str() {
        Some(path) => PathBuf::from(path),
        None => crate::root().join("target"),
    }
}
