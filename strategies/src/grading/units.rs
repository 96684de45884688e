//! Units of measure, simple and compound, and the names of what is counted.
//!
//! ```text
//! unit   = ["/" | "per"] factor (["*" | "-" | "/" | "per"] factor)*
//! factor = ["square" | "cubic"] atom ["^" integer | "squared" | "cubed"]
//! atom   = a name of the table | words that name what is counted | "(" unit ")" | \frac unit unit
//! ```

use super::latex::Node;
use super::unit_table::{known, multiplier};
use num_rational::BigRational;
use num_traits::One;
use std::collections::BTreeMap;

/// A unit of measure, or what is counted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unit {
    /// The same for every spelling of the unit.
    pub(super) key: String,
    /// Its base units with their exponents.
    pub(super) base: BTreeMap<String, i32>,
    /// How many of its base units it is.
    pub(super) factor: BigRational,
    /// Whether an answer without it is another answer: 5 feet 6 inches is not 66.
    pub(super) required: bool,
}

impl Unit {
    /// A unit of one name.
    pub(super) fn named(name: &str) -> Unit {
        let mut factors = Factors::default();
        factors.add(name, 1);
        factors.unit()
    }

    /// Whether it is made of units of measure alone.
    pub(super) fn is_measure(&self) -> bool {
        let name = |factor: &str| factor.split('^').next().is_some_and(|n| known(n).is_some());
        self.key.split('*').all(name)
    }

    /// `self` times `other`: dollars, per hour.
    pub(super) fn times(&self, other: &Unit) -> Unit {
        let mut base = self.base.clone();
        for (name, power) in &other.base {
            *base.entry(name.clone()).or_default() += power;
        }
        base.retain(|_, power| *power != 0);
        Unit {
            key: format!("{}*{}", self.key, other.key),
            base,
            factor: &self.factor * &other.factor,
            required: self.required || other.required,
        }
    }
}

/// The names of a unit with their exponents.
#[derive(Default)]
struct Factors(BTreeMap<String, i32>);

impl Factors {
    fn add(&mut self, name: &str, power: i32) {
        let name = known(name).map_or_else(|| singular(name), |unit| unit.names[0].into());
        *self.0.entry(name).or_default() += power;
    }

    fn unit(self) -> Unit {
        let (mut base, mut factor) = (BTreeMap::new(), BigRational::one());
        for (name, power) in &self.0 {
            let Some(row) = known(name) else {
                *base.entry(name.clone()).or_default() += power;
                continue;
            };
            for (name, exponent) in row.base {
                *base.entry(name.to_string()).or_default() += power * exponent;
            }
            factor *= num_traits::pow(row.factor(), power.unsigned_abs() as usize)
                .pow(if *power < 0 { -1 } else { 1 });
        }
        base.retain(|_, power| *power != 0);
        let named = |(name, power): (&String, &i32)| match power {
            1 => name.clone(),
            power => format!("{name}^{power}"),
        };
        let key = self.0.iter().map(named).collect::<Vec<_>>().join("*");
        Unit {
            key,
            base,
            factor,
            required: false,
        }
    }
}

/// One of what is counted, in small letters.
fn singular(name: &str) -> String {
    let name = name.to_lowercase();
    let stem = |end: &str| name.strip_suffix(end).filter(|rest| rest.len() >= 3);
    match name.as_str() {
        "people" | "persons" => return "person".into(),
        "children" => return "child".into(),
        _ => {}
    }
    if let Some(rest) = stem("ies") {
        return format!("{rest}y");
    }
    let hissing = |rest: &&str| {
        ["s", "x", "z", "ch", "sh"]
            .iter()
            .any(|end| rest.ends_with(end))
    };
    if let Some(rest) = stem("es").filter(hissing) {
        return rest.into();
    }
    match stem("s").filter(|rest| !rest.ends_with('s')) {
        Some(rest) => rest.into(),
        None => name,
    }
}

/// Words that say something about an answer other than what it counts.
const NO_NOUNS: [&str; 26] = [
    "if",
    "when",
    "where",
    "for",
    "otherwise",
    "is",
    "are",
    "not",
    "mod",
    "base",
    "remainder",
    "and",
    "or",
    "below",
    "less",
    "fewer",
    "loss",
    "than",
    "times",
    "plus",
    "minus",
    "over",
    "all",
    "any",
    "with",
    "half",
];

/// The unit that `nodes` are, all of them: `Some(None)` for the word "units". `spaced` says whether
/// space parts it from its number, `after_number` whether that is a plain number.
pub(super) fn unit(nodes: &[Node], spaced: bool, after_number: bool) -> Option<Option<Unit>> {
    let mut parser = Parser::new(nodes, spaced, after_number);
    parser.all()?;
    let Parser {
        factors,
        count,
        clear,
        ..
    } = parser;
    if factors.0.is_empty() {
        return (count > 0).then_some(None);
    }
    let unit = factors.unit();
    // one letter that is not in \text{} may be a variable
    let speed = ["meter*second^-1", "meter*second^-2"].contains(&unit.key.as_str());
    (clear || speed || (spaced && count >= 2)).then_some(Some(unit))
}

struct Parser<'a> {
    nodes: &'a [Node],
    at: usize,
    factors: Factors,
    /// Factors so far.
    count: usize,
    /// Whether some name cannot be a variable.
    clear: bool,
    spaced: bool,
    /// Whether a plain number stands before it.
    after_number: bool,
}

impl<'a> Parser<'a> {
    fn new(nodes: &'a [Node], spaced: bool, after_number: bool) -> Parser<'a> {
        Parser {
            nodes,
            at: 0,
            factors: Factors::default(),
            count: 0,
            clear: false,
            spaced,
            after_number,
        }
    }

    fn all(&mut self) -> Option<()> {
        let mut sign = 1;
        loop {
            self.skip_space();
            match self.nodes.get(self.at) {
                None => return (self.count > 0 && sign == 1).then_some(()),
                Some(Node::Char('/')) => {
                    sign = -1;
                    self.at += 1;
                    continue;
                }
                Some(node) if node.says("per") => {
                    sign = -1;
                    self.at += 1;
                    self.clear = true;
                    continue;
                }
                Some(Node::Char('*' | '-')) if self.count > 0 && self.at + 1 < self.nodes.len() => {
                    self.at += 1;
                    continue;
                }
                Some(_) => {}
            }
            self.factor(sign)?;
            self.count += 1;
            sign = 1;
        }
    }

    fn factor(&mut self, sign: i32) -> Option<()> {
        let mut power = 1;
        for (words, value) in [(["square", "sq"], 2), (["cubic", "cu"], 3)] {
            let prefix = self.nodes.get(self.at)?;
            if words.iter().any(|word| prefix.says(word)) && self.at + 1 < self.nodes.len() {
                power = value;
                self.at += 1;
                self.skip_space();
            }
        }
        let (names, inner) = self.atom()?;
        self.skip_space_before(&["squared", "cubed"]);
        match self.nodes.get(self.at) {
            Some(node) if node.says("squared") => power = 2,
            Some(node) if node.says("cubed") => power = 3,
            Some(Node::Char('^')) => {
                power *= exponent(self.nodes.get(self.at + 1)?)?;
                self.at += 1;
            }
            _ => self.at -= 1,
        }
        self.at += 1;
        if let Some(name) = names {
            self.factors.add(&name, sign * power);
        }
        for (name, inner_power) in inner.0 {
            *self.factors.0.entry(name).or_default() += inner_power * sign * power;
        }
        self.factors.0.retain(|_, power| *power != 0);
        Some(())
    }

    /// A name, or the factors of a group.
    fn atom(&mut self) -> Option<(Option<String>, Factors)> {
        let none = Factors::default();
        let node = self.nodes.get(self.at)?;
        self.at += 1;
        match node {
            Node::Word(word) if word.eq_ignore_ascii_case("unit") || word == "units" => {
                self.clear = true;
                Some((None, none))
            }
            Node::Word(word) if known(word).is_some() => {
                self.clear = true;
                Some((Some(self.degrees_of(word)), none))
            }
            Node::Word(_) => {
                self.at -= 1;
                let noun = self.noun()?;
                (noun.len() >= 3 && self.spaced).then_some(())?;
                self.clear = true;
                Some((Some(noun), none))
            }
            Node::Command(name) if matches!(name.as_str(), "sec" | "min" | "deg") => {
                self.clear = true;
                Some((Some(name.clone()), none))
            }
            Node::Char(c) if c.is_alphabetic() => {
                self.at -= 1;
                let name = self.letters();
                known(&name)?;
                let length = name.chars().count();
                self.clear |= length >= 2;
                let unit = length == 1 || is_plain_unit(&name, self.spaced, self.after_number);
                unit.then_some((Some(name), none))
            }
            Node::Group(inner) => Some((None, self.inside(inner)?)),
            Node::Char('(') => {
                let close = self.nodes[self.at..]
                    .iter()
                    .position(|n| *n == Node::Char(')'))?;
                let inner = &self.nodes[self.at..self.at + close];
                self.at += close + 1;
                Some((None, self.inside(inner)?))
            }
            Node::Command(frac) if frac == "frac" => {
                let [Node::Group(top), Node::Group(bottom), ..] = &self.nodes[self.at..] else {
                    return None;
                };
                self.at += 2;
                let (mut top, bottom) = (self.inside(top)?, self.inside(bottom)?);
                for (name, power) in bottom.0 {
                    *top.0.entry(name).or_default() -= power;
                }
                Some((None, top))
            }
            _ => None,
        }
    }

    fn inside(&mut self, nodes: &[Node]) -> Option<Factors> {
        let mut parser = Parser::new(nodes, true, true);
        let flat = !nodes.iter().any(|n| matches!(n, Node::Group(_)));
        (flat && parser.all().is_some()).then_some(())?;
        self.clear |= parser.clear;
        Some(parser.factors)
    }

    /// "degrees", with the scale of a temperature.
    fn degrees_of(&mut self, word: &str) -> String {
        if known(word).is_some_and(|unit| unit.names[0] == "degree") {
            self.skip_space_before(&["C", "F", "Celsius", "Fahrenheit"]);
            let scale = match self.nodes.get(self.at) {
                Some(Node::Word(scale)) => temperature(scale),
                _ => None,
            };
            if let Some(scale) = scale {
                self.at += 1;
                return scale;
            }
        }
        word.into()
    }

    /// Words that name what is counted: "red apples", "cups of flour".
    fn noun(&mut self) -> Option<String> {
        let mut words: Vec<String> = Vec::new();
        loop {
            let word = match self.nodes.get(self.at) {
                Some(Node::Word(word)) => {
                    self.at += 1;
                    word.clone()
                }
                Some(Node::Char(c)) if c.is_alphabetic() && !words.is_empty() => self.letters(),
                _ => break,
            };
            let capitals = word.chars().all(char::is_uppercase);
            let small = word.to_lowercase();
            let no_noun = NO_NOUNS.contains(&small.as_str()) || multiplier(&small).is_some();
            if capitals || no_noun || (words.is_empty() && small.chars().count() < 3) {
                return None;
            }
            words.push(small);
            let next = match self.nodes.get(self.at) {
                Some(Node::Space) => self.nodes.get(self.at + 1),
                _ => break,
            };
            let ends = |word: &str| known(word).is_some() || word == "per";
            match next {
                Some(Node::Word(word)) if !ends(word) => self.at += 1,
                Some(Node::Char(c)) if c.is_alphabetic() => self.at += 1,
                _ => break,
            }
        }
        let last = words.pop()?;
        words.push(singular(&last));
        Some(words.join(" "))
    }

    /// A run of letters.
    fn letters(&mut self) -> String {
        let run = self.nodes[self.at..].iter().map_while(|n| match n {
            Node::Char(c) if c.is_alphabetic() => Some(*c),
            _ => None,
        });
        let run: String = run.collect();
        self.at += run.chars().count();
        run
    }

    fn skip_space(&mut self) {
        while let Some(Node::Space | Node::Char('.')) = self.nodes.get(self.at) {
            self.at += 1;
        }
    }

    fn skip_space_before(&mut self, words: &[&str]) {
        if self.nodes.get(self.at) == Some(&Node::Space)
            && let Some(next) = self.nodes.get(self.at + 1)
            && words.iter().any(|word| next.says(word))
        {
            self.at += 1;
        }
    }
}

/// Whether letters outside of text are a unit and no product of variables.
fn is_plain_unit(name: &str, spaced: bool, after_number: bool) -> bool {
    const CLEAR: [&str; 7] = ["mm", "cm", "km", "kg", "ft", "lb", "oz"];
    const AFTER_NUMBERS: [&str; 6] = ["in", "yd", "mi", "hr", "ml", "yr"]; // 2 hr, but \pi hr
    let capitals = name.chars().any(char::is_uppercase);
    let small = name.to_lowercase();
    CLEAR.contains(&small.as_str())
        || (after_number && AFTER_NUMBERS.contains(&small.as_str()))
        || (spaced && capitals)
}

/// A scale of temperature.
pub(super) fn temperature(scale: &str) -> Option<String> {
    match scale.to_lowercase().as_str() {
        "c" | "celsius" => Some("degree C".into()),
        "f" | "fahrenheit" => Some("degree F".into()),
        _ => None,
    }
}

/// A whole number as a power.
fn exponent(node: &Node) -> Option<i32> {
    let number = |digits: &String| digits.parse().ok().filter(|n: &i32| *n <= 9);
    match node {
        Node::Number(digits) => number(digits),
        Node::Group(inner) => match inner.as_slice() {
            [Node::Number(digits)] => number(digits),
            [Node::Char('-'), Node::Number(digits)] => number(digits).map(|n| -n),
            _ => None,
        },
        _ => None,
    }
}
