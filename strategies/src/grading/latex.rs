//! The LaTeX of an answer as a small tree, spelling differences already gone.

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Digits with at most one point, thousands separators removed.
    Number(String),
    /// Any other character; `*` is every kind of product sign, `/` every division sign.
    Char(char),
    /// A command without its backslash; `{` and `}` are the printed braces.
    Command(String),
    /// The content of `\text{}` and its kin, trimmed.
    Text(String),
    /// The content of a pair of braces.
    Group(Vec<Node>),
    /// Space between two numbers or two letters; all other space is dropped.
    Space,
}

/// Names that are written without a backslash, or in `\operatorname{}`, and their commands.
const NAMES: [(&str, &str); 27] = [
    ("pi", "pi"),
    ("sqrt", "sqrt"),
    ("infinity", "infty"),
    ("infty", "infty"),
    ("inf", "infty"),
    ("sin", "sin"),
    ("cos", "cos"),
    ("tan", "tan"),
    ("cot", "cot"),
    ("sec", "sec"),
    ("csc", "csc"),
    ("arcsin", "arcsin"),
    ("arccos", "arccos"),
    ("arctan", "arctan"),
    ("arccot", "arccot"),
    ("sinh", "sinh"),
    ("cosh", "cosh"),
    ("tanh", "tanh"),
    ("ln", "ln"),
    ("log", "log"),
    ("exp", "exp"),
    ("theta", "theta"),
    ("alpha", "alpha"),
    ("beta", "beta"),
    ("gcd", "gcd"),
    ("lcm", "lcm"),
    ("frac", "frac"),
];

/// The maximum depth of nested groups; deeper answers are compared as text, unchanged.
pub(super) const MAX_DEPTH: usize = 32;

/// Parses an answer; `None` if its braces do not match or are nested too deep.
pub(super) fn parse(answer: &str) -> Option<Vec<Node>> {
    let chars: Vec<char> = answer.chars().collect();
    let mut parser = Parser {
        chars: &chars,
        at: 0,
        brackets: 0,
    };
    let nodes = parser.nodes(0)?;
    (parser.at == chars.len()).then_some(nodes)
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    /// Open printed brackets: inside them a comma always separates.
    brackets: usize,
}

impl Parser<'_> {
    /// Up to the closing brace of this group, or the end.
    fn nodes(&mut self, depth: usize) -> Option<Vec<Node>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut nodes = Vec::new();
        // Arguments that \frac still needs: `\frac43` is 4 over 3.
        let mut single_digits = 0usize;
        while let Some(c) = self.peek(0).filter(|&c| c != '}') {
            self.at += 1;
            let before = nodes.len();
            match c {
                '{' => {
                    let group = self.nodes(depth + 1)?;
                    (self.peek(0) == Some('}')).then(|| self.at += 1)?;
                    nodes.push(match group.as_slice() {
                        [Node::Char(',')] => Node::Char(','), // 10{,}080
                        _ => Node::Group(group),
                    });
                }
                '\\' => {
                    if self.command(&mut nodes)? {
                        single_digits = 2;
                        continue;
                    }
                }
                '$' => {}
                c if c.is_whitespace() || c == '~' => {
                    if single_digits == 0 {
                        nodes.push(Node::Space); // none between the arguments of \frac 1 2
                    }
                }
                c if c.is_ascii_digit() || (c == '.' && self.digit(0)) => {
                    self.at -= 1;
                    nodes.push(self.number(single_digits > 0));
                    if single_digits == 0 {
                        self.scientific(&mut nodes);
                    }
                }
                '*' if self.peek(0) == Some('*') => {
                    self.at += 1;
                    nodes.push(Node::Char('^'));
                }
                c if c.is_ascii_alphabetic() => self.word(&mut nodes),
                _ => self.plain(c, &mut nodes),
            }
            if nodes.last() != Some(&Node::Space) && nodes.len() > before {
                single_digits = single_digits.saturating_sub(1);
            }
        }
        Some(without_idle_space(nodes))
    }

    /// The rest of a command after its backslash; true if it is a fraction.
    fn command(&mut self, nodes: &mut Vec<Node>) -> Option<bool> {
        let start = self.at;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphabetic()) {
            self.at += 1;
        }
        let name: String = self.chars[start..self.at].iter().collect();
        match name.as_str() {
            "" => self.escaped(nodes),
            "left" | "right" | "big" | "Big" | "bigl" | "bigr" | "Bigl" | "Bigr" | "biggl"
            | "biggr" | "bigg" | "Bigg" | "Biggl" | "Biggr" | "middle" | "displaystyle"
            | "textstyle" | "scriptstyle" | "limits" | "boxed" | "mathstrut" | "rm" | "bf"
            | "it" | "nolimits" => {
                // `\right.` is an invisible bracket
                if matches!(name.as_str(), "left" | "right") && self.peek(0) == Some('.') {
                    self.at += 1;
                }
            }
            "quad" | "qquad" | "enspace" | "thinspace" | "space" => nodes.push(Node::Space),
            "frac" | "dfrac" | "tfrac" | "cfrac" => {
                nodes.push(Node::Command("frac".into()));
                return Some(true);
            }
            "cdot" | "times" | "ast" => nodes.push(Node::Char('*')),
            "div" => nodes.push(Node::Char('/')),
            "degree" => nodes.extend([Node::Char('^'), Node::Command("circ".into())]),
            "binom" | "dbinom" | "tbinom" => {
                nodes.push(Node::Command("binom".into()));
                return Some(true);
            }
            "langle" => self.bracket(Node::Char('('), nodes),
            "rangle" => self.bracket(Node::Char(')'), nodes),
            "lbrack" => self.bracket(Node::Char('['), nodes),
            "rbrack" => self.bracket(Node::Char(']'), nodes),
            "varnothing" => nodes.push(Node::Command("emptyset".into())),
            "prime" => nodes.push(Node::Char('\'')),
            "colon" => nodes.push(Node::Char(':')),
            "land" | "lor" => nodes.push(Node::Char(',')),
            "backslash" => nodes.push(Node::Command("setminus".into())),
            "simeq" | "thickapprox" => nodes.push(Node::Command("approx".into())),
            "le" | "leqslant" => nodes.push(Node::Command("leq".into())),
            "ge" | "geqslant" => nodes.push(Node::Command("geq".into())),
            "ne" => nodes.push(Node::Command("neq".into())),
            "lt" => nodes.push(Node::Char('<')),
            "gt" => nodes.push(Node::Char('>')),
            "lbrace" => self.bracket(Node::Command("{".into()), nodes),
            "rbrace" => self.bracket(Node::Command("}".into()), nodes),
            "lvert" | "rvert" | "vert" | "mid" => nodes.push(Node::Char('|')),
            "cdots" | "dots" => nodes.push(Node::Command("ldots".into())),
            "text" | "textbf" | "textit" | "textrm" | "textnormal" | "mbox" | "mathrm"
            | "mathbf" | "mathit" | "mathsf" | "texttt" | "operatorname" | "hbox" => {
                self.text(nodes)?
            }
            _ => nodes.push(Node::Command(name)),
        }
        Some(false)
    }

    /// A backslash before something that is not a letter.
    fn escaped(&mut self, nodes: &mut Vec<Node>) {
        let Some(c) = self.peek(0) else { return };
        self.at += 1;
        match c {
            '!' | '(' | ')' | '[' | ']' => {} // negative space; math delimiters
            ',' | ':' | ';' | '>' | ' ' => nodes.push(Node::Space),
            '{' | '}' => self.bracket(Node::Command(c.into()), nodes),
            '\\' => nodes.push(Node::Command("\\".into())),
            '$' => nodes.push(Node::Command("$".into())),
            '|' => nodes.push(Node::Command("|".into())),
            _ => nodes.push(Node::Char(c)),
        }
    }

    /// The braces after `\text`: a word, a unit, or a separator.
    fn text(&mut self, nodes: &mut Vec<Node>) -> Option<()> {
        while self.peek(0) == Some(' ') {
            self.at += 1;
        }
        if self.peek(0) != Some('{') {
            return Some(()); // \rm style or \mathbf x: the letter follows by itself
        }
        let start = self.at + 1;
        let mut depth = 0usize;
        loop {
            match self.peek(0)? {
                '\\' => self.at += 1,
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                break;
            }
        }
        let content: String = self.chars[start..self.at - 1].iter().collect();
        let content = content.trim_matches(|c: char| c.is_whitespace() || c == '~');
        if matches!(content, "°" | "^\\circ" | "$^\\circ$") {
            nodes.extend([Node::Char('^'), Node::Command("circ".into())]);
            return Some(());
        }
        nodes.push(match content {
            "" => Node::Space,
            "and" | "or" | ", and" | ", or" => Node::Char(','),
            "i" => Node::Char('i'),
            "e" => Node::Char('e'),
            content => match NAMES.iter().find(|(word, _)| *word == content) {
                Some((_, command)) => Node::Command((*command).into()),
                None => Node::Text(content.into()),
            },
        });
        Some(())
    }

    /// One digit as an argument, or a whole number with its thousands separators.
    fn number(&mut self, single_digit: bool) -> Node {
        let mut digits = String::new();
        let mut point = false;
        while let Some(c) = self.peek(0) {
            match c {
                '0'..='9' => digits.push(c),
                '.' if !point && !single_digit && (self.digit(1) || !digits.is_empty()) => {
                    point = true;
                    digits.push(c);
                }
                _ => break,
            }
            self.at += 1;
            if single_digit {
                return Node::Number(digits);
            }
        }
        let groupable = digits.len() <= 3 && !point && !digits.starts_with('0');
        while groupable && !point {
            let Some(separator) = self.thousands_separator() else {
                break;
            };
            self.at += separator;
            digits.extend(&self.chars[self.at..self.at + 3]);
            self.at += 3;
            if self.peek(0) == Some('.') && self.digit(1) {
                point = true;
                digits.push('.');
                self.at += 1;
                while let Some(c) = self.peek(0).filter(char::is_ascii_digit) {
                    digits.push(c);
                    self.at += 1;
                }
            }
        }
        Node::Number(digits)
    }

    /// The length of a separator here, if exactly three digits follow it. A plain comma counts
    /// only outside brackets, where it cannot separate coordinates.
    fn thousands_separator(&self) -> Option<usize> {
        let spellings: [(&str, bool); 5] = [
            (",\\!", true),
            ("{,}", true),
            ("\\,", true),
            ("\\!", true),
            (",", self.brackets == 0),
        ];
        for (spelling, allowed) in spellings {
            let mut end = self.at;
            let here = spelling.chars().all(|c| {
                end += 1;
                self.chars.get(end - 1) == Some(&c)
            });
            if !here || !allowed {
                continue;
            }
            while spelling == ",\\!" && self.chars.get(end) == Some(&' ') {
                end += 1;
            }
            let digit = |i: usize| self.chars.get(end + i).is_some_and(char::is_ascii_digit);
            if digit(0) && digit(1) && digit(2) && !digit(3) {
                return Some(end - self.at);
            }
        }
        None
    }

    /// The exponent after the digits of 1.5e-3: `e` and a sign make an exponent only after a point
    /// or a lone 1, because 2e-3 may be a multiple of e less 3.
    fn scientific(&mut self, nodes: &mut Vec<Node>) {
        let Some(Node::Number(mantissa)) = nodes.last() else {
            return;
        };
        let letter = self.peek(0);
        let sign = self.peek(1).filter(|c| "+-−".contains(*c));
        let start = 1 + usize::from(sign.is_some());
        let certain = letter == Some('E') || mantissa.contains('.') || mantissa == "1";
        if !matches!(letter, Some('e' | 'E')) || !self.digit(start) || !(sign.is_none() || certain)
        {
            return;
        }
        self.at += start;
        let digits = std::iter::from_fn(|| {
            let digit = self.peek(0).filter(char::is_ascii_digit)?;
            self.at += 1;
            Some(digit)
        });
        let exponent: String = digits.collect();
        let mut power = vec![Node::Number(exponent)];
        if matches!(sign, Some('-' | '−')) {
            power.insert(0, Node::Char('-'));
        }
        nodes.extend([
            Node::Char('*'),
            Node::Number("10".into()),
            Node::Char('^'),
            Node::Group(power),
        ]);
    }

    /// A run of letters: a name people write without its backslash, a conjunction, or letters.
    fn word(&mut self, nodes: &mut Vec<Node>) {
        let start = self.at - 1;
        while self.peek(0).is_some_and(|c| c.is_ascii_alphabetic()) {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        if matches!(word.as_str(), "and" | "or") {
            nodes.push(Node::Char(','));
        } else if let Some((_, command)) = NAMES.iter().find(|(name, _)| *name == word) {
            nodes.push(Node::Command((*command).into()));
        } else {
            nodes.extend(word.chars().map(Node::Char));
        }
    }

    /// Any other character, in its LaTeX spelling.
    fn plain(&mut self, c: char, nodes: &mut Vec<Node>) {
        let command = |name: &str| Node::Command(name.into());
        match c {
            '(' | '[' | ')' | ']' => self.bracket(Node::Char(c), nodes),
            '−' | '–' | '‐' => nodes.push(Node::Char('-')),
            '×' | '·' | '⋅' | '∗' => nodes.push(Node::Char('*')),
            '÷' | '⁄' => nodes.push(Node::Char('/')),
            '\u{ff05}' => nodes.push(Node::Char('%')),
            'π' => nodes.push(command("pi")),
            '√' => nodes.push(command("sqrt")),
            '∞' => nodes.push(command("infty")),
            '±' => nodes.push(command("pm")),
            '≤' => nodes.push(command("leq")),
            '≥' => nodes.push(command("geq")),
            '≠' => nodes.push(command("neq")),
            '≈' => nodes.push(command("approx")),
            '∅' => nodes.push(command("emptyset")),
            'θ' => nodes.push(command("theta")),
            'α' => nodes.push(command("alpha")),
            'β' => nodes.push(command("beta")),
            'λ' => nodes.push(command("lambda")),
            'φ' => nodes.push(command("phi")),
            '′' => nodes.push(Node::Char('\'')),
            '∪' => nodes.push(command("cup")),
            '∩' => nodes.push(command("cap")),
            '∈' => nodes.push(command("in")),
            '°' => nodes.extend([Node::Char('^'), command("circ")]),
            '⁰' | '¹' | '²' | '³' | '⁴' | '⁵' | '⁶' | '⁷' | '⁸' | '⁹' => {
                let digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
                let digit = digits.chars().position(|d| d == c).unwrap_or_default();
                match nodes.as_mut_slice() {
                    [.., Node::Char('^'), Node::Number(power)]
                        if self.at >= 2 && digits.contains(self.chars[self.at - 2]) =>
                    {
                        *power += &digit.to_string();
                    }
                    _ => nodes.extend([Node::Char('^'), Node::Number(digit.to_string())]),
                }
            }
            _ => nodes.push(Node::Char(c)),
        }
    }

    fn bracket(&mut self, node: Node, nodes: &mut Vec<Node>) {
        self.brackets = if opens(&node) {
            self.brackets + 1
        } else {
            self.brackets.saturating_sub(1)
        };
        nodes.push(node);
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn digit(&self, ahead: usize) -> bool {
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

/// Space has a meaning only between two numbers ("3 1/2") or two letters ("no solution").
fn without_idle_space(nodes: Vec<Node>) -> Vec<Node> {
    let letter = |n: &Node| matches!(n, Node::Char(c) if c.is_alphabetic());
    let number = |n: &Node| matches!(n, Node::Number(_));
    let mut kept: Vec<Node> = Vec::with_capacity(nodes.len());
    let mut space = false;
    for node in nodes {
        if node == Node::Space {
            space = true;
            continue;
        }
        if let Some(last) = kept.last().filter(|_| space)
            && ((letter(last) && letter(&node))
                || (number(last) && (number(&node) || letter(&node))))
        {
            kept.push(Node::Space);
        }
        space = false;
        kept.push(node);
    }
    kept
}
