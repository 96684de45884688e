//! The LaTeX of an answer as a small tree, differences of spelling already gone.
//!
//! What letters mean is decided here, once: a run of letters is a product of variables, or a word
//! (`words.rs`). Text (`\text{}` and its kin) holds words, numbers and signs like the rest.

use super::commands::{Meaning, meaning};
use super::tidy::{fractions_of_tex, without_idle_space};
use super::{numbers, unicode, words};

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Digits with at most one point, thousands separators removed.
    Number(String),
    /// Any other character, a variable among them; `*` is every kind of product sign, `/` every
    /// division sign.
    Char(char),
    /// Letters that are not a product of variables: a word, a unit, a name such as AB; a single
    /// letter where it may be a unit.
    Word(String),
    /// A command without its backslash; `{` and `}` are the printed braces.
    Command(String),
    /// The content of a pair of braces.
    Group(Vec<Node>),
    /// An environment with rows of cells, such as a matrix.
    Rows(String, Vec<Vec<Vec<Node>>>),
    /// Space beside a number, letter or word; all other space is dropped.
    Space,
}

impl Node {
    /// Whether it is this command.
    pub(super) fn is(&self, command: &str) -> bool {
        matches!(self, Node::Command(name) if name == command)
    }

    /// Whether it is this word, in any case.
    pub(super) fn says(&self, word: &str) -> bool {
        matches!(self, Node::Word(w) if w.eq_ignore_ascii_case(word))
    }

    fn command(name: &str) -> Node {
        Node::Command(name.into())
    }
}

/// The maximum depth of nested groups; deeper answers are compared as text, unchanged.
pub(super) const MAX_DEPTH: usize = 32;

/// Parses an answer; `None` if it is not LaTeX: its braces or environments do not match, a command
/// lacks what it needs, or it is nested too deep.
pub(super) fn parse(answer: &str) -> Option<Vec<Node>> {
    let chars: Vec<char> = answer.chars().map(unicode::half_width).collect();
    let mut parser = Parser {
        chars: &chars,
        at: 0,
        brackets: 0,
        list_until: 0,
        text: false,
        cells: false,
        spaced: false,
    };
    let nodes = parser.nodes(0)?;
    (parser.at == chars.len()).then_some(nodes)
}

pub(super) struct Parser<'a> {
    pub(super) chars: &'a [char],
    pub(super) at: usize,
    /// Open printed brackets: inside them a comma always separates.
    pub(super) brackets: usize,
    /// Up to here commas separate the elements of a list: `25,100,55`.
    pub(super) list_until: usize,
    /// In `\text{}`: letters are words.
    text: bool,
    /// In an environment: `&` and `\\` end a cell.
    pub(super) cells: bool,
    /// Just behind a command for space, where a letter may be a unit.
    spaced: bool,
}

impl Parser<'_> {
    /// Up to the closing brace of this group, the end of this cell, or the end.
    pub(super) fn nodes(&mut self, depth: usize) -> Option<Vec<Node>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut nodes = Vec::new();
        // Arguments that \frac still needs: `\frac43` is 4 over 3.
        let mut single_digits = 0usize;
        while let Some(c) = self.peek(0).filter(|&c| c != '}') {
            if self.cells && self.ends_cell() {
                break;
            }
            self.at += 1;
            let before = nodes.len();
            let spaced = std::mem::take(&mut self.spaced);
            match c {
                '{' => nodes.push(self.group(depth)?),
                '\\' => {
                    if self.control(depth, &mut nodes)? {
                        single_digits = 2;
                        continue;
                    }
                }
                '$' => {}
                c if c.is_whitespace() || c == '~' => {
                    self.spaced = spaced || (c == '~' && !self.text);
                    if single_digits == 0 {
                        nodes.push(Node::Space); // none between the arguments of \frac 1 2
                    }
                }
                '.' if self.dots() => nodes.push(Node::command("ldots")),
                c if c.is_ascii_digit() || (c == '.' && self.digit(0)) => {
                    self.at -= 1;
                    nodes.push(self.number(single_digits > 0));
                    if single_digits == 0 && !self.text {
                        nodes.extend(self.scientific(nodes.last()).into_iter().flatten());
                    }
                }
                '*' if self.peek(0) == Some('*') => {
                    self.at += 1;
                    nodes.push(Node::Char('^'));
                }
                c if c.is_ascii_alphabetic() || (self.text && c.is_alphabetic()) => {
                    self.letters(spaced, &mut nodes);
                }
                _ => self.plain(c, &mut nodes),
            }
            if nodes.last() != Some(&Node::Space) && nodes.len() > before {
                single_digits = single_digits.saturating_sub(1);
            }
        }
        Some(fractions_of_tex(without_idle_space(nodes)))
    }

    /// The group behind an opening brace.
    fn group(&mut self, depth: usize) -> Option<Node> {
        let cells = std::mem::take(&mut self.cells);
        let group = self.nodes(depth + 1)?;
        self.cells = cells;
        (self.peek(0) == Some('}')).then(|| self.at += 1)?;
        Some(match group.as_slice() {
            [Node::Char(',')] => Node::Char(','), // 10{,}080
            _ => Node::Group(group),
        })
    }

    /// What follows a backslash; true if it is a fraction.
    fn control(&mut self, depth: usize, nodes: &mut Vec<Node>) -> Option<bool> {
        let name = self.name();
        match meaning(&name) {
            Meaning::Symbol if name.is_empty() => self.escaped(nodes)?,
            Meaning::Symbol if name == "not" && self.peek(0) == Some('=') => {
                self.at += 1;
                nodes.push(Node::command("neq"));
            }
            Meaning::Nothing => {}
            Meaning::Size => self.delimiter()?,
            Meaning::Space => {
                self.spaced = name != "quad" && name != "qquad";
                nodes.push(Node::Space);
            }
            Meaning::Fraction(command) => {
                nodes.push(Node::command(command));
                return Some(true);
            }
            Meaning::Char(c) => self.sign(Node::Char(c), nodes),
            Meaning::Command(command) => self.sign(Node::command(command), nodes),
            Meaning::Degree => nodes.extend([Node::Char('^'), Node::command("circ")]),
            Meaning::Without(arguments) => {
                for _ in 0..arguments {
                    self.argument(depth)?;
                }
            }
            Meaning::Length => self.length()?,
            Meaning::Text => self.in_text(depth, nodes)?,
            Meaning::Letter => self.in_font(depth, nodes)?,
            Meaning::Environment => self.environment(depth, nodes)?,
            Meaning::Modulus => {
                let modulus = self.argument(depth)?;
                nodes.extend([Node::command("mod"), Node::Group(modulus)]);
            }
            Meaning::Symbol => nodes.push(Node::Command(name)),
        }
        Some(false)
    }

    /// The letters of a command, and a star.
    pub(super) fn name(&mut self) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphabetic()) {
            self.at += 1;
        }
        let name: String = self.chars[start..self.at].iter().collect();
        let starred = ["operatorname", "hspace", "vspace", "tag"].contains(&name.as_str());
        if starred && self.peek(0) == Some('*') {
            self.at += 1;
        }
        name
    }

    /// A backslash before something that is not a letter. `None` at the end of the answer.
    fn escaped(&mut self, nodes: &mut Vec<Node>) -> Option<()> {
        let c = self.peek(0)?;
        self.at += 1;
        match c {
            '!' | '(' | ')' | '[' | ']' => {} // negative space; math delimiters
            ',' | ':' | ';' | '>' | ' ' | '\n' => {
                self.spaced = true;
                nodes.push(Node::Space);
            }
            '/' | '-' => {}
            '{' | '}' => self.sign(Node::Command(c.into()), nodes),
            '\\' => {
                self.row_break()?;
                nodes.push(Node::command("\\"));
            }
            '$' => nodes.push(Node::command("$")),
            '|' => nodes.push(Node::command("|")),
            _ => nodes.push(Node::Char(c)),
        }
        Some(())
    }

    /// What `\left` and `\big` must have behind them; the delimiter itself is read like any other,
    /// an invisible one is skipped.
    fn delimiter(&mut self) -> Option<()> {
        while self.peek(0) == Some(' ') {
            self.at += 1;
        }
        let c = self.peek(0)?;
        if c == '.' {
            self.at += 1;
        }
        ("()[]|.\\/<>⟨⟩‖".contains(c)).then_some(())
    }

    /// The length behind `\kern` and `\hskip`.
    fn length(&mut self) -> Option<()> {
        let letter = |c: char| c.is_ascii_lowercase();
        while self.peek(0).is_some_and(|c| !letter(c)) {
            self.at += 1;
        }
        (self.peek(0).is_some_and(letter) && self.peek(1).is_some_and(letter)).then(|| self.at += 2)
    }

    /// The argument of a command, an option in brackets before it left out.
    fn argument(&mut self, depth: usize) -> Option<Vec<Node>> {
        self.skip_spaces();
        if self.peek(0) == Some('[') {
            let close = self.chars[self.at..].iter().position(|c| *c == ']')?;
            self.at += close + 1;
            self.skip_spaces();
        }
        let c = self.peek(0)?;
        self.at += 1;
        match c {
            '{' => match self.group(depth)? {
                Node::Group(nodes) => Some(nodes),
                node => Some(vec![node]),
            },
            c if c.is_ascii_digit() => Some(vec![Node::Number(c.into())]),
            c if c.is_alphabetic() => Some(vec![Node::Char(c)]),
            '\\' => {
                let mut nodes = Vec::new();
                self.control(depth + 1, &mut nodes)?;
                Some(nodes)
            }
            _ => None,
        }
    }

    /// `\text{...}`: its content, read as text.
    fn in_text(&mut self, depth: usize, nodes: &mut Vec<Node>) -> Option<()> {
        self.skip_spaces();
        let c = self.peek(0)?;
        if c != '{' {
            return Some(()); // \mathrm x: the letter follows by itself
        }
        self.at += 1;
        let text = std::mem::replace(&mut self.text, true);
        let group = self.group(depth)?;
        self.text = text;
        let Node::Group(mut inner) = group else {
            nodes.push(Node::Char(','));
            return Some(());
        };
        // \text{i} and \mathrm{e} are the constants
        if let [Node::Word(letter)] = inner.as_slice()
            && let "i" | "e" = letter.as_str()
        {
            inner = letter.chars().map(Node::Char).collect();
        } else if inner.iter().any(|n| matches!(n, Node::Word(_))) {
            inner.insert(0, Node::Space);
            inner.push(Node::Space);
        }
        nodes.extend(inner);
        Some(())
    }

    /// `\mathbf{...}`: letters in another font are letters; two or more are a word.
    fn in_font(&mut self, depth: usize, nodes: &mut Vec<Node>) -> Option<()> {
        let before = nodes.len();
        self.in_text(depth, nodes)?;
        let inner: Vec<Node> = nodes
            .drain(before..)
            .filter(|n| *n != Node::Space)
            .collect();
        match inner.as_slice() {
            // bold i is a unit vector and not the imaginary unit
            [Node::Char('i')] => {
                nodes.extend([Node::command("mathbf"), Node::Group(vec![Node::Char('i')])])
            }
            [Node::Word(letter)] if letter.chars().count() == 1 => {
                nodes.extend(letter.chars().map(Node::Char));
            }
            _ => nodes.extend(inner),
        }
        Some(())
    }

    /// A run of letters: a name people write without its backslash, a word, or variables. A single
    /// letter after a command for space may be a unit.
    fn letters(&mut self, spaced: bool, nodes: &mut Vec<Node>) {
        let start = self.at - 1;
        let letter = |c: char| c.is_ascii_alphabetic() || (self.text && c.is_alphabetic());
        let length = (self.chars[start..].iter())
            .take_while(|c| letter(**c))
            .count();
        self.at = start + length;
        let word: String = self.chars[start..self.at].iter().collect();
        let call = self.peek(0) == Some('(');
        if let Some(command) = words::command(&word, call) {
            nodes.push(Node::command(command));
        } else if self.text || (spaced && length == 1) {
            nodes.push(Node::Word(word));
        } else {
            nodes.extend(words::of_run(&word));
        }
    }

    /// Any other character, in its LaTeX spelling.
    fn plain(&mut self, c: char, nodes: &mut Vec<Node>) {
        for node in unicode::nodes(c, nodes) {
            self.sign(node, nodes);
        }
    }

    fn sign(&mut self, node: Node, nodes: &mut Vec<Node>) {
        if opens(&node) {
            self.brackets += 1;
        } else if closes(&node) {
            // ]0, 1[ opens with what closes elsewhere
            self.brackets = if self.brackets == 0 {
                1
            } else {
                self.brackets - 1
            };
        }
        nodes.push(node);
    }

    /// `...`, its first dot already read.
    fn dots(&mut self) -> bool {
        let dots = self.peek(0) == Some('.') && self.peek(1) == Some('.');
        if dots {
            while self.peek(0) == Some('.') {
                self.at += 1;
            }
        }
        dots
    }

    pub(super) fn skip_spaces(&mut self) {
        while self.peek(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    pub(super) fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    pub(super) fn digit(&self, ahead: usize) -> bool {
        self.peek(ahead).is_some_and(|c| c.is_ascii_digit())
    }
}

/// Whether the node is an opening bracket.
pub(super) fn opens(node: &Node) -> bool {
    match node {
        Node::Char(c) => matches!(c, '(' | '['),
        Node::Command(name) => name == "{",
        _ => false,
    }
}

/// Whether the node is a closing bracket.
pub(super) fn closes(node: &Node) -> bool {
    match node {
        Node::Char(c) => matches!(c, ')' | ']'),
        Node::Command(name) => name == "}",
        _ => false,
    }
}

impl Parser<'_> {
    /// One digit as an argument, or a whole number with its thousands separators.
    fn number(&mut self, single_digit: bool) -> Node {
        if single_digit {
            self.at += 1;
            return Node::Number(self.chars[self.at - 1].into());
        }
        numbers::number(self)
    }

    fn scientific(&mut self, mantissa: Option<&Node>) -> Option<[Node; 4]> {
        match mantissa {
            Some(Node::Number(mantissa)) => numbers::exponent(self, mantissa),
            _ => None,
        }
    }
}
