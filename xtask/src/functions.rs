//! The length of functions: production code in Rust and CUDA has at most [`MAX_LINES`] a function.
//!
//! Lines are counted from the one with `fn` (in CUDA: the first of the declaration) to the closing
//! brace, comments and blank lines included. In Rust, functions inside of macros count as well; in
//! CUDA, macros are left out.

use std::path::Path;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::Done;
use crate::sources::{self, is_punct};

const MAX_LINES: usize = 70;

/// A function that may be longer.
struct Exception {
    path: &'static str,
    function: &'static str,
    /// Why it is not cut.
    reason: &'static str,
}

/// Each must exceed [`MAX_LINES`]: one that no longer does is an error, so that the list shrinks.
const EXCEPTIONS: [Exception; 0] = [];

/// A function and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    /// Line of its beginning, from 1.
    line: usize,
    lines: usize,
}

/// Checks every production function of the repository; one line per offender.
pub fn check() -> Done {
    let mut offences = Vec::new();
    let mut used = Vec::new();
    let mut count = 0;
    let mut add = |path: &Path, functions: Vec<Function>| {
        count += functions.len();
        for function in functions.into_iter().filter(|f| f.lines > MAX_LINES) {
            let path = path.display().to_string();
            let exception = |e: &&Exception| e.path == path && e.function == function.name;
            match EXCEPTIONS.iter().find(exception) {
                Some(exception) => used.push((exception.path, exception.function)),
                None => offences.push(format!(
                    "{path}:{}: `{}` has {} lines, expected at most {MAX_LINES}",
                    function.line, function.name, function.lines
                )),
            }
        }
    };
    for (path, tokens) in sources::production_files("")? {
        add(&path, rust_functions(tokens));
    }
    for path in sources::files("kernels/cuda", &["cu", "cuh"])? {
        add(&path, cuda_functions(&sources::read(&path)?));
    }
    for Exception {
        path,
        function,
        reason,
    } in EXCEPTIONS
    {
        if !used.contains(&(path, function)) {
            offences.push(format!(
                "{path}: `{function}` needs no exception ({reason}): remove it from {}",
                file!()
            ));
        }
    }
    for line in &offences {
        eprintln!("{line}");
    }
    if offences.is_empty() {
        eprintln!(
            "functions: {count}, all of at most {MAX_LINES} lines but {}",
            used.len()
        );
        return Ok(());
    }
    Err(format!("functions: {} to change", offences.len()))
}

/// The functions with a body, inner ones too, also those in the bodies of macros.
fn rust_functions(tokens: TokenStream) -> Vec<Function> {
    let mut found = Vec::new();
    collect(&tokens.into_iter().collect::<Vec<_>>(), &mut found);
    found
}

fn collect(tokens: &[TokenTree], found: &mut Vec<Function>) {
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => {
                collect(&group.stream().into_iter().collect::<Vec<_>>(), found);
            }
            TokenTree::Ident(word) if *word == "fn" => {
                let rest = &tokens[index + 1..];
                if let (Some(name), Some(body)) = (name(rest), body(rest)) {
                    let line = word.span().start().line;
                    let lines = body.span_close().end().line + 1 - line;
                    found.push(Function { name, line, lines });
                }
            }
            _ => {}
        }
    }
}

/// The name after `fn`, in a macro perhaps `$name`; `None` in the type of a function pointer.
fn name(rest: &[TokenTree]) -> Option<String> {
    match rest {
        [TokenTree::Ident(name), ..] => Some(name.to_string()),
        [dollar, TokenTree::Ident(name), ..] if is_punct(dollar, '$') => Some(format!("${name}")),
        _ => None,
    }
}

/// The braces of the body; `None` for a declaration.
fn body(rest: &[TokenTree]) -> Option<&Group> {
    for (index, token) in rest.iter().enumerate() {
        match token {
            token if is_punct(token, ';') => return None,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                // Not the braces of a constant among generic arguments.
                let next = rest.get(index + 1);
                if !next.is_some_and(|next| is_punct(next, '>') || is_punct(next, ',')) {
                    return Some(group);
                }
            }
            _ => {}
        }
    }
    None
}

/// The functions of a CUDA file: braces that follow a parameter list, outside of other functions.
fn cuda_functions(text: &str) -> Vec<Function> {
    let text = blank_out(text);
    let mut found = Vec::new();
    let (mut depth, mut line) = (0usize, 1);
    // Text since the last declaration ended, the line where it begins, and the open function.
    let (mut head, mut head_line) = (String::new(), 1);
    let mut open: Option<(usize, Function)> = None;
    for character in text.chars() {
        match character {
            '\n' => line += 1,
            '{' => {
                if let (None, Some(name)) = (&open, cuda_name(&head)) {
                    let function = Function {
                        name,
                        line: head_line,
                        lines: 0,
                    };
                    open = Some((depth, function));
                }
                depth += 1;
            }
            '}' => {
                depth = depth.saturating_sub(1);
                if let Some((_, mut function)) = open.take_if(|(outer, _)| *outer == depth) {
                    function.lines = line + 1 - function.line;
                    found.push(function);
                }
            }
            _ => {}
        }
        if "{};".contains(character) {
            head.clear();
        } else if !(head.is_empty() && character.is_whitespace()) {
            if head.is_empty() {
                head_line = line;
            }
            head.push(character);
        }
    }
    found
}

/// The name of the function that a declaration begins; `None` for types and initialisers.
fn cuda_name(head: &str) -> Option<String> {
    let is_type = ["struct", "union", "enum", "namespace"].iter().any(|word| {
        head.split(|c: char| !c.is_alphanumeric())
            .any(|other| other == *word)
    });
    let head = head.trim_end();
    let head = head.strip_suffix("const").unwrap_or(head).trim_end();
    if is_type || !head.ends_with(')') {
        return None;
    }
    // The name stands before the last pair of parentheses.
    let mut depth = 0;
    let open = head.char_indices().rev().find(|(_, c)| {
        depth += i32::from(*c == ')') - i32::from(*c == '(');
        depth == 0 && *c == '('
    });
    let before = head[..open?.0].trim_end();
    let start = before.rfind(|c: char| !c.is_alphanumeric() && c != '_');
    let name = &before[start.map_or(0, |index| index + 1)..];
    (!name.is_empty()).then(|| name.to_string())
}

/// The text with comments, strings and preprocessor lines made blank; lines keep their numbers.
fn blank_out(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    let mut line_begins = true;
    while let Some(character) = rest.chars().next() {
        let directive = line_begins && rest.trim_start_matches([' ', '\t']).starts_with('#');
        let length = if directive {
            directive_length(rest)
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if character == '"' || character == '\'' {
            quoted_length(rest, character)
        } else {
            0
        };
        if length == 0 {
            out.push(character);
            line_begins = character == '\n';
            rest = &rest[character.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().filter(|c| *c == '\n'));
            line_begins = false;
            rest = &rest[length..];
        }
    }
    out
}

/// Bytes of a preprocessor line and the lines it goes on in, without the last line's end.
fn directive_length(text: &str) -> usize {
    let mut length = 0;
    for line in text.split('\n') {
        length += line.len();
        if !line.ends_with('\\') {
            break;
        }
        length += 1;
    }
    length.min(text.len())
}

/// Bytes of a string or character, its quotes included.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        if character == quote && !escaped {
            return index + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, line: usize, lines: usize) -> Function {
        let name = name.into();
        Function { name, line, lines }
    }

    #[test]
    fn rust_functions_are_measured() {
        let (tokens, _) = sources::production(
            "impl A {\n    /// Says fn x() {}.\n    pub fn one(f: fn(u8) -> u8) -> [u8; 2] {\n        \
             fn two() {\n        }\n    }\n}\ntrait B { fn declared(); fn three() -> C<{ 1 }> {\n } }\n\
             macro_rules! m { ($n:ident) => { fn $n() {\n\n } } }\n#[cfg(test)] fn gone() {}\n",
        )
        .expect("Rust");
        let expected = [
            function("one", 3, 4),
            function("two", 4, 2),
            function("three", 8, 2),
            function("$n", 10, 3),
        ];
        assert_eq!(rust_functions(tokens), expected);
    }

    #[test]
    fn cuda_functions_are_measured() {
        let text = "#define M(x) \\\n    void x() { }\n// void gone() {\nnamespace n {\nstruct S {\n    \
                    int a = 0;\n    __device__ int get(int (&x)[2]) const {\n        return \"}\"[0];\n    }\n};\n\
                    }\nextern \"C\" __global__ void __launch_bounds__(T, 1)\n    run(const P p) {\n    \
                    auto f = [&](int i) { if (i) { return; } };\n    for (;;) { }\n}\n\
                    const int table[] = {1, 2};\n";
        let expected = [function("get", 7, 3), function("run", 12, 5)];
        assert_eq!(cuda_functions(text), expected);
    }
}
