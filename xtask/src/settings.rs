//! Errors of the libraries speak of settings, never of the command line's flags: a server turns a
//! setting into a field and a Python binding into a keyword.

use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};

use crate::sources;

/// The crates below the binary; those that are not there yet are passed over.
const LIBRARIES: [&str; 4] = ["kernels", "engine", "strategies", "session"];

/// Arguments of other programs: the file, and the argument.
const EXCEPTIONS: [(&str, &str); 3] = [
    // cargo's, pip's, and NVRTC's own error.
    (
        "kernels/src/cuda/device/emulator.rs",
        "cargo build --release",
    ),
    ("kernels/src/cuda/nvrtc.rs", "pip download --no-deps"),
    ("kernels/src/cuda/device/compile.rs", "--gpu-architecture"),
];

/// The string literals that name a flag, doc comments and tests left out.
fn flags(tokens: TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => flags(group.stream(), found),
            TokenTree::Literal(literal) if names_a_flag(&literal.to_string()) => {
                let line = literal.span().start().line;
                found.push(format!("{line}: {literal}"));
            }
            _ => {}
        }
    }
}

/// Whether `--` and a letter stand in a literal, not inside of a word or a longer rule.
fn names_a_flag(literal: &str) -> bool {
    (literal.match_indices("--")).any(|(index, _)| {
        let before = literal[..index].chars().next_back();
        let after = literal[index + 2..].chars().next();
        after.is_some_and(|c| c.is_ascii_lowercase())
            && !before.is_some_and(|c| c == '-' || c.is_alphanumeric())
    })
}

#[test]
fn no_library_names_a_flag() {
    let mut wrong = Vec::new();
    let mut used = Vec::new();
    let libraries = LIBRARIES
        .iter()
        .filter(|name| crate::root().join(name).exists());
    for (path, tokens) in libraries.flat_map(|name| {
        sources::production_files(&format!("{name}/src")).expect("the sources can be read")
    }) {
        let mut found = Vec::new();
        flags(tokens, &mut found);
        for text in found {
            let exception = EXCEPTIONS
                .iter()
                .find(|(file, argument)| path == Path::new(file) && text.contains(argument));
            match exception {
                Some(exception) => used.push(exception),
                None => wrong.push(format!("{}:{text}", path.display())),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "flags in libraries:\n{}",
        wrong.join("\n")
    );
    let unused = EXCEPTIONS
        .iter()
        .filter(|exception| !used.contains(exception));
    assert_eq!(unused.count(), 0, "an exception is no longer needed");
}

#[test]
fn a_flag_in_a_literal_is_found() {
    let text = "/// Like --this.\n#[error(\"--n {0}: too small\")]\nenum E { A = f!(\"see `--top-p`\", \
                'x', \"a--b\", \"-----begin\", \"--\", \"{n} --KIND\") }\n\
                #[cfg(test)] mod tests { const A: &str = \"--gone\"; }";
    let (tokens, _) = sources::production(text).expect("Rust");
    let mut found = Vec::new();
    flags(tokens, &mut found);
    assert_eq!(found, ["2: \"--n {0}: too small\"", "3: \"see `--top-p`\""]);
}
