//! The documents name only what exists, and their command lines run; source files name only
//! documents that are in the repository.

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

/// The pieces between backticks in prose.
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
    // Documents that name paths relative to the root.
    let documents = files(&["md"]).into_iter();
    let relative_to_root =
        |path: &PathBuf| path.parent() == Some(Path::new("")) || path.ends_with("bench/GPU.md");
    for path in documents.filter(relative_to_root) {
        let name = path.to_string_lossy();
        let dead = dead_names(&read(&name));
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

/// The files of the repository with these extensions, relative to its root.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if path.is_file()
                && extensions
                    .iter()
                    .any(|end| path.extension().is_some_and(|e| e == *end))
            {
                let relative = path.strip_prefix(root()).expect("below the root");
                files.push(relative.to_path_buf());
            }
        }
    }
    files.sort();
    files
}

/// The names of Markdown files in a text; addresses on the web are left out.
fn documents_named(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for word in text.split_whitespace().filter(|word| !word.contains("://")) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        for piece in word.split(|c| !plain(c)) {
            let name = piece.trim_end_matches(['.', '/']);
            let stem = name.strip_suffix(".md").unwrap_or_default();
            if stem.ends_with(|c: char| c.is_ascii_alphanumeric()) {
                names.push(name);
            }
        }
    }
    names
}

/// Results that `offshoot bench` writes: its tests name them.
const WRITTEN: [&str; 3] = ["search.md", "sums.md", "throughput.md"];

/// The documents that a text names and that are neither relative to the root or the folder of the
/// text's file, nor the name of any document of the repository.
fn missing_documents<'a>(text: &'a str, folder: &Path, documents: &[PathBuf]) -> Vec<&'a str> {
    let there = |name: &str| {
        (Path::new(name).file_name()).is_some_and(|name| WRITTEN.iter().any(|w| name == *w))
            || root().join(name).exists()
            || root().join(folder).join(name).exists()
            || documents.iter().any(|path| path.ends_with(name))
    };
    let mut names = documents_named(text);
    names.retain(|name| !there(name));
    names.dedup();
    names
}

#[test]
fn source_files_name_only_documents_that_exist() {
    let documents = files(&["md"]);
    let mut missing = Vec::new();
    for path in files(&["rs", "cu", "cuh", "py", "md"]) {
        // The file with the names that are not there on purpose.
        if path.ends_with(Path::new(file!()).file_name().expect("a name")) {
            continue;
        }
        let text = std::fs::read_to_string(root().join(&path)).expect("UTF-8");
        let folder = path.parent().unwrap_or(Path::new(""));
        for name in missing_documents(&text, folder, &documents) {
            missing.push(format!("{}: {name}", path.display()));
        }
    }
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
}

#[test]
fn a_document_that_is_gone_is_found() {
    let documents = [PathBuf::from("bench/GPU.md")];
    let text = "/// See bench/README.md, (GPU.md) and `results/kernels.md`; TTS.md 2.4, and\n\
                //! https://example.org/x.md, \"{}.md\", a.mdx or .md.";
    let missing = missing_documents(text, Path::new("bench"), &documents);
    assert_eq!(missing, ["results/kernels.md", "TTS.md"]);
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
        // The first problem is enough; calibration needs some on both sides of its split.
        let limit = if example.contains("scored.jsonl") {
            8
        } else {
            1
        };
        let line = example.replace("offshoot solve", &format!("offshoot solve --limit {limit}"));
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(&folder)
            .env("PATH", &path)
            .output()
            .expect("sh");
        let errors = String::from_utf8_lossy(&output.stderr);
        // A model that a reader would have: the flags must be right, the folder is not there.
        let right = if line.contains("./my-") {
            errors.contains("no such directory")
        } else {
            output.status.success()
        };
        if !right {
            failures.push(format!("{line}\n{}\n{errors}", output.status));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
