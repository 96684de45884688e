//! The documents name only what exists, and their command lines run.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    let text = std::fs::read_to_string(root().join(name));
    text.unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The text of a document without its fenced and indented code.
fn prose(document: &str) -> String {
    let mut fenced = false;
    let mut out = String::new();
    for line in document.lines() {
        let fence = line.starts_with("```");
        fenced ^= fence;
        if !fenced && !fence && !line.starts_with("    ") {
            out += line;
            out.push('\n');
        }
    }
    out
}

/// What stands between backticks in prose.
fn quoted(document: &str) -> Vec<String> {
    let prose = prose(document);
    let pieces = prose.split('`').skip(1).step_by(2);
    pieces.map(String::from).collect()
}

/// Whether a quoted piece names a file or folder of the repository.
fn is_path(piece: &str) -> bool {
    let path = piece.split("::").next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    // Files of a model's directory and of the user are not ours.
    let theirs = path.ends_with(".json") || path.ends_with(".jsonl") || path.starts_with("target/");
    let file = [".rs", ".md", ".toml"]
        .iter()
        .any(|end| path.ends_with(end));
    !theirs && path.chars().all(plain) && (path.contains('/') || file || path == "LICENSE")
}

/// What is wrong with the paths and tests that a document names.
fn dead_names(document: &str) -> Vec<String> {
    let mut dead = Vec::new();
    for piece in quoted(document).iter().filter(|piece| is_path(piece)) {
        let (path, test) = match piece.split_once("::") {
            Some((path, test)) => (path, Some(test)),
            None => (piece.as_str(), None),
        };
        let full = root().join(path);
        if !full.exists() {
            dead.push(format!("{path}: no such file"));
        } else if let Some(test) = test {
            let text = std::fs::read_to_string(&full).unwrap_or_default();
            if !text.contains(&format!("fn {test}(")) {
                dead.push(format!("{path}: no test {test}"));
            }
        }
    }
    dead
}

#[test]
fn every_path_and_test_named_exists() {
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let dead = dead_names(&read(name));
        assert!(dead.is_empty(), "{name}:\n{}", dead.join("\n"));
    }
    let paths = quoted(&read("ARCHITECTURE.md"));
    let count = paths.iter().filter(|piece| is_path(piece)).count();
    assert!(count > 50, "only {count} paths found in ARCHITECTURE.md");
}

#[test]
fn a_name_that_is_gone_is_found() {
    let document = "See `src/main.rs`, `src/gone.rs` and `src/main.rs::gone`; not `a b/c` or `x`.\n\
                    ```sh\n`src/not-prose.rs`\n```\n";
    assert_eq!(
        dead_names(document),
        ["src/gone.rs: no such file", "src/main.rs: no test gone"]
    );
}

#[test]
fn the_architecture_is_under_300_lines() {
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines < 300, "{lines} lines");
}

/// The command lines of a document that call the binary.
fn examples(document: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => {
                let line = line.replace("cargo run --release -- ", "offshoot ");
                if !line.starts_with("cargo ") {
                    examples.push(line);
                }
            }
            _ => {}
        }
    }
    examples
}

#[test]
fn the_readme_s_examples_run() {
    let examples = examples(&read("README.md"));
    assert!(examples.len() >= 12, "{examples:?}");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let problems = "{\"problem\": \"A crew has 5 stamps. They make 3 more. How many stamps?\"}\n";
    std::fs::write(folder.join("problems.jsonl"), problems).expect("a file");
    let binary = Path::new(env!("CARGO_BIN_EXE_offshoot"));
    let mut path = binary.parent().expect("a folder").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());

    let mut failures = Vec::new();
    for example in &examples {
        // The first problem is enough.
        let line = example.replace("offshoot solve", "offshoot solve --limit 1");
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(&folder)
            .env("PATH", &path)
            .output()
            .expect("sh");
        let errors = String::from_utf8_lossy(&output.stderr);
        // A model that a reader would have: the flags must be right, the folder is not there.
        let right = match line.contains("./my-") {
            true => errors.contains("no such directory"),
            false => output.status.success(),
        };
        if !right {
            failures.push(format!("{line}\n{}\n{errors}", output.status));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
