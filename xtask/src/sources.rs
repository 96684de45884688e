//! The repository's source files, and the tokens of a Rust file without its tests.

use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{Done, root};

/// The files below `folder` (relative to the root) whose extension is one of `extensions`, in the
/// order of their names; paths are relative to the root. Hidden and build folders are left out.
pub fn files(folder: &str, extensions: &[&str]) -> Done<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') || name == "target" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if (path.extension()).is_some_and(|e| extensions.iter().any(|x| e == *x)) {
                found.push(path.strip_prefix(root()).unwrap_or(&path).to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The text of a file, its path relative to the root.
pub fn read(path: &Path) -> Done<String> {
    std::fs::read_to_string(root().join(path)).map_err(|e| format!("{}: {e}", path.display()))
}

/// Rust files below `folder` as [`production`] token streams; files and folders that hold only
/// tests or examples are left out.
pub fn production_files(folder: &str) -> Done<Vec<(PathBuf, TokenStream)>> {
    let mut streams = Vec::new();
    let mut only_tests = Vec::new();
    for path in files(folder, &["rs"])? {
        let part_is = |name: &str| path.iter().any(|part| part == name);
        if part_is("tests") || part_is("examples") {
            continue;
        }
        let (tokens, modules) =
            production(&read(&path)?).map_err(|e| format!("{}: {e}", path.display()))?;
        let folder = module_folder(&path);
        only_tests.extend(modules.iter().map(|name| folder.join(name)));
        streams.push((path, tokens));
    }
    streams.retain(|(path, _)| {
        !(only_tests.iter())
            .any(|module| path.starts_with(module) || path.with_extension("") == *module)
    });
    Ok(streams)
}

/// The folder in which the modules declared in a file lie.
fn module_folder(path: &Path) -> PathBuf {
    let parent = path.parent().unwrap_or(Path::new(""));
    match path.file_stem().unwrap_or_default().to_str() {
        Some("mod" | "lib" | "main") => parent.to_path_buf(),
        _ => path.with_extension(""),
    }
}

/// The tokens of a Rust file without items under `#[cfg(test)]` or `#[test]` and without doc
/// comments, and the names of the modules in other files that only tests have.
pub fn production(text: &str) -> Done<(TokenStream, Vec<String>)> {
    let tokens: TokenStream = text.parse().map_err(|e| format!("{e}"))?;
    let mut modules = Vec::new();
    let tokens = without_tests(tokens, &mut modules);
    Ok((tokens, modules))
}

fn without_tests(tokens: TokenStream, modules: &mut Vec<String>) -> TokenStream {
    let mut kept: Vec<TokenTree> = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        if is_punct(&token, '#') {
            let inner = tokens.next_if(|next| is_punct(next, '!'));
            match tokens.peek().and_then(attribute) {
                Some(words) if words.starts_with("doc") => {
                    tokens.next();
                    continue;
                }
                Some(words) if inner.is_none() && is_for_tests(&words) => {
                    tokens.next();
                    skip_item(&mut tokens, modules);
                    continue;
                }
                _ => {}
            }
            kept.push(token);
            kept.extend(inner);
            continue;
        }
        kept.push(match token {
            TokenTree::Group(group) => {
                let stream = without_tests(group.stream(), modules);
                let mut new = proc_macro2::Group::new(group.delimiter(), stream);
                new.set_span(group.span());
                TokenTree::Group(new)
            }
            other => other,
        });
    }
    kept.into_iter().collect()
}

/// Passes over an item: to the end of its braces, or to its semicolon.
fn skip_item(tokens: &mut impl Iterator<Item = TokenTree>, modules: &mut Vec<String>) {
    let mut words = Vec::new();
    for token in tokens {
        match &token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return,
            token if is_punct(token, ';') => {
                if let Some(index) = words.iter().position(|word| word == "mod") {
                    modules.extend(words.get(index + 1).cloned());
                }
                return;
            }
            TokenTree::Ident(word) => words.push(word.to_string()),
            _ => {}
        }
    }
}

fn attribute(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => {
            Some(group.stream().to_string().replace(' ', ""))
        }
        _ => None,
    }
}

/// Whether an attribute, its spaces removed, leaves its item to tests alone.
fn is_for_tests(words: &str) -> bool {
    words == "test" || words == "cfg(test)" || words.starts_with("cfg(all(test,")
}

/// Whether a token is this character of punctuation.
pub fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_comments_are_left_out() {
        let (tokens, modules) = production(
            "//! a\n/// b\n#[inline] fn kept() {}\n#[cfg(test)] mod far;\n#[cfg(test)]\n#[path = \"x\"]\n\
             mod near { fn gone() {} }\n#[test] fn gone() {}\n#[cfg(any(test, unix))] fn too() {}",
        )
        .expect("Rust");
        let text = tokens.to_string().replace(' ', "");
        assert_eq!(text, "#[inline]fnkept(){}#[cfg(any(test,unix))]fntoo(){}");
        assert_eq!(modules, ["far"]);
    }

    #[test]
    fn modules_lie_beside_or_below_their_file() {
        for (file, folder) in [
            ("a/src/lib.rs", "a/src"),
            ("a/src/b/mod.rs", "a/src/b"),
            ("a/src/b.rs", "a/src/b"),
        ] {
            assert_eq!(module_folder(Path::new(file)), Path::new(folder), "{file}");
        }
    }
}
