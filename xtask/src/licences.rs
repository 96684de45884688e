//! The licences of the dependencies.

use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

use crate::{Done, metadata, root};

/// The licences allowed: for every package, and for single ones by name.
#[derive(Debug)]
struct Allowed {
    all: Vec<Licensee>,
    exceptions: Vec<(String, Vec<Licensee>)>,
}

/// Checks every package against the lists of `deny.toml`; one line per offender.
pub fn check() -> Done {
    let path = root().join("deny.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let allowed = allow_list(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let metadata = metadata::read()?;
    let offenders: Vec<String> = metadata::packages(&metadata)
        .filter_map(|package| offence(package, &allowed))
        .collect();
    for line in &offenders {
        eprintln!("{line}");
    }
    match offenders.len() {
        0 => {
            let count = metadata::packages(&metadata).count();
            eprintln!("licences: {count} packages, all allowed by deny.toml");
            eprintln!(
                "advisories: not checked here, the RustSec database needs network access to github.com; where there is, run `cargo deny check advisories` or `cargo audit`"
            );
            Ok(())
        }
        count => Err(format!(
            "licences: {count} packages are not allowed by deny.toml"
        )),
    }
}

/// The licences that `deny.toml` allows.
fn allow_list(text: &str) -> Done<Allowed> {
    let file: toml::Table = toml::from_str(text).map_err(|e| e.to_string())?;
    let section = file.get("licenses");
    let all = section.and_then(|section| section.get("allow"));
    let none = toml::Value::Array(Vec::new());
    let exceptions = section
        .and_then(|section| section.get("exceptions"))
        .unwrap_or(&none)
        .as_array()
        .ok_or("[licenses] exceptions: expected a list")?
        .iter()
        .map(|entry| {
            let name = entry.get("crate").and_then(toml::Value::as_str);
            let name = name.ok_or("[licenses] exceptions: expected `crate`")?;
            Ok((name.to_string(), licences(entry.get("allow"))?))
        })
        .collect::<Done<_>>()?;
    Ok(Allowed {
        all: licences(all)?,
        exceptions,
    })
}

/// A list of licences.
fn licences(list: Option<&toml::Value>) -> Done<Vec<Licensee>> {
    list.and_then(toml::Value::as_array)
        .ok_or("no list `allow` in [licenses]")?
        .iter()
        .map(|entry| {
            let name = entry.as_str().ok_or("[licenses] allow: expected strings")?;
            Licensee::parse(name).map_err(|e| format!("licence {name}: {}", e.reason))
        })
        .collect()
}

/// Why a package's licence is not allowed; `None` if it is.
fn offence(package: &Value, allowed: &Allowed) -> Option<String> {
    let name = format!(
        "{} {}",
        package["name"].as_str().unwrap_or("?"),
        package["version"].as_str().unwrap_or("?")
    );
    let Some(licence) = package["license"].as_str() else {
        return Some(format!("{name}: no licence in its manifest"));
    };
    // Old manifests write MIT/Apache-2.0.
    match Expression::parse_mode(licence, ParseMode::LAX) {
        Err(e) => Some(format!(
            "{name}: {licence:?} is no SPDX expression: {}",
            e.reason
        )),
        Ok(expression) => {
            let own = allowed.exceptions.iter();
            let own = own.filter(|(name, _)| package["name"] == **name);
            let have: Vec<_> = own.flat_map(|(_, list)| list).chain(&allowed.all).collect();
            let fits = expression.evaluate(|wanted| have.iter().any(|have| have.satisfies(wanted)));
            (!fits).then(|| format!("{name}: {licence} is not allowed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn licence_table() {
        let list = "[licenses]\nallow = ['MIT', 'Apache-2.0 WITH LLVM-exception', 'Unicode-3.0']";
        let allowed = allow_list(list).expect("a list");
        for (licence, fits) in [
            (json!("MIT"), true),
            (json!("MIT OR GPL-3.0-only"), true),
            (json!("MIT/GPL-3.0"), true),
            (json!("MIT AND Unicode-3.0"), true),
            (json!("MIT AND GPL-3.0-only"), false),
            (json!("GPL-3.0-only"), false),
            (json!("Apache-2.0 WITH LLVM-exception"), true),
            (json!("Apache-2.0"), false),
            (json!("(MIT OR Apache-2.0) AND Unicode-3.0"), true),
            (json!("my own words"), false),
            (json!(null), false),
        ] {
            let package = json!({"name": "p", "version": "1.0.0", "license": licence});
            let found = offence(&package, &allowed);
            assert_eq!(found.is_none(), fits, "{licence}: {found:?}");
        }
    }

    #[test]
    fn an_exception_is_for_one_package() {
        let list =
            "[licenses]\nallow = ['MIT']\nexceptions = [{ crate = 'p', allow = ['MPL-2.0'] }]";
        let allowed = allow_list(list).expect("a list");
        for (name, licence, fits) in [
            ("p", "MPL-2.0", true),
            ("p", "MIT AND MPL-2.0", true),
            ("p", "ISC", false),
            ("q", "MPL-2.0", false),
        ] {
            let package = json!({"name": name, "version": "1.0.0", "license": licence});
            let found = offence(&package, &allowed);
            assert_eq!(found.is_none(), fits, "{name} {licence}: {found:?}");
        }
    }

    #[test]
    fn a_bad_allow_list_is_refused() {
        for text in [
            "",
            "[licenses]",
            "[licenses]\nallow = ['No-Such-Licence']",
            "allow = [",
            "[licenses]\nallow = ['MIT']\nexceptions = [{ allow = ['MIT'] }]",
            "[licenses]\nallow = ['MIT']\nexceptions = [{ crate = 'p' }]",
        ] {
            assert!(allow_list(text).is_err(), "{text:?}");
        }
    }
}
