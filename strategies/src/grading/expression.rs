//! Values of expressions.
//!
//! ```text
//! sum     = [sign] product (sign product)*             sign is + - or, by `upper`, \pm \mp
//! product = signed (("*" | "/") signed | power)*       a factor that is not a number needs no sign
//! signed  = sign* power
//! power   = atom ("^" (atom | signed) | "!" | "%" | degree)*
//! atom    = number | mixed | symbol | "(" sum ")" | {sum} | "|" sum "|" | \frac sum sum
//!         | \sqrt[sum] sum | \binom sum sum | function ["^" power] (atom | power+)
//! mixed   = integer \frac{integer}{integer} | integer integer "/" integer
//! ```

use super::exact::{Frac, Fuel};
use super::latex::{MAX_DEPTH, Node};
use super::symbols::{DECORATIONS, FUNCTIONS, LETTERS, is_circ, is_function, is_name, plain_text};
use num_bigint::BigInt;
use num_rational::BigRational;

/// The value of all of `nodes`; `None` if they are not an expression, or too long. With `upper`
/// `\pm` is plus.
pub(super) fn value(nodes: &[Node], upper: bool, fuel: &Fuel) -> Option<Frac> {
    let parser = Parser {
        nodes,
        at: 0,
        depth: 0,
        bars: 0,
        upper,
        fuel,
    };
    parser.all()
}

/// Digits with at most one point, as a number.
pub(super) fn decimal(digits: &str) -> Option<BigRational> {
    if digits.len() > 1000 {
        return None;
    }
    let Some((whole, fraction)) = digits.split_once('.') else {
        return Some(BigRational::from_integer(digits.parse().ok()?));
    };
    let top: BigInt = format!("0{whole}{fraction}").parse().ok()?;
    let bottom = num_traits::pow(BigInt::from(10), fraction.len());
    Some(BigRational::new(top, bottom))
}

struct Parser<'a, 'f> {
    nodes: &'a [Node],
    at: usize,
    depth: usize,
    /// Open `|`.
    bars: usize,
    upper: bool,
    fuel: &'f Fuel,
}

impl<'a, 'f> Parser<'a, 'f> {
    fn all(mut self) -> Option<Frac> {
        let value = self.sum()?;
        (self.at == self.nodes.len()).then_some(value)
    }

    /// The sign here: true for minus.
    fn sign(&self) -> Option<bool> {
        match self.peek()? {
            Node::Char('+') => Some(false),
            Node::Char('-') => Some(true),
            Node::Command(name) if name == "pm" => Some(!self.upper),
            Node::Command(name) if name == "mp" => Some(self.upper),
            _ => None,
        }
    }

    fn sum(&mut self) -> Option<Frac> {
        let mut total = self.product()?;
        while let Some(negative) = self.sign() {
            self.at += 1;
            let next = self.product()?;
            let next = if negative { next.negated() } else { next };
            total = total.add(&next, self.fuel)?;
        }
        Some(total)
    }

    fn product(&mut self) -> Option<Frac> {
        let mut total = self.signed()?;
        loop {
            let factor = match self.peek() {
                Some(Node::Char('*')) => {
                    self.at += 1;
                    self.signed()?
                }
                Some(Node::Char('/')) => {
                    self.at += 1;
                    self.signed()?.inverse(self.fuel)?
                }
                Some(_) if self.juxtaposed() => self.power()?,
                _ => return Some(total),
            };
            total = total.mul(&factor, self.fuel)?;
        }
    }

    /// Whether a factor follows without a product sign.
    fn juxtaposed(&self) -> bool {
        let spaced = self.at > 0 && self.nodes[self.at - 1] == Node::Space;
        match self.peek() {
            // neither x2 nor "3 R 2" is a product
            Some(Node::Number(_)) => match self.at.checked_sub(1).map(|at| &self.nodes[at]) {
                Some(Node::Char(c)) => !c.is_alphanumeric(),
                before => !spaced && !matches!(before, Some(Node::Number(_) | Node::Word(_))),
            },
            Some(Node::Char('(' | '[')) | Some(Node::Group(_)) => true,
            Some(Node::Char('|')) => self.bars == 0,
            Some(Node::Char(c)) => c.is_alphabetic(),
            Some(Node::Word(word)) => is_name(word),
            Some(Node::Space) => match self.nodes.get(self.at + 1) {
                Some(Node::Char(c)) => c.is_alphabetic(),
                Some(Node::Word(word)) => is_name(word),
                _ => false,
            },
            Some(Node::Command(name)) => {
                let name = name.as_str();
                matches!(name, "frac" | "sqrt" | "binom" | "pi" | "lfloor" | "lceil")
                    || FUNCTIONS.contains(&name)
                    || LETTERS.contains(&name)
                    || DECORATIONS.contains(&name)
            }
            _ => false,
        }
    }

    fn signed(&mut self) -> Option<Frac> {
        let mut negative = false;
        while let Some(sign) = self.sign() {
            negative ^= sign;
            self.at += 1;
        }
        let value = self.power()?;
        Some(if negative { value.negated() } else { value })
    }

    fn power(&mut self) -> Option<Frac> {
        if self.peek() == Some(&Node::Space) {
            self.at += 1;
        }
        let mut value = self.atom()?;
        loop {
            match self.peek() {
                Some(Node::Char('^')) => {
                    self.at += 1;
                    if self.peek().is_some_and(is_circ) {
                        self.at += 1;
                        let degree = Frac::number(BigRational::new(1.into(), 180.into()));
                        value = value.mul(&Frac::pi().mul(&degree, self.fuel)?, self.fuel)?;
                        continue;
                    }
                    let exponent = self.exponent()?;
                    value = value.pow(&exponent, self.fuel)?;
                }
                Some(Node::Char('!')) => {
                    self.at += 1;
                    value = Frac::call("factorial", vec![value], self.fuel)?;
                }
                Some(Node::Char('%')) => {
                    self.at += 1;
                    let hundredth = BigRational::new(1.into(), 100.into());
                    value = value.mul(&Frac::number(hundredth), self.fuel)?;
                }
                _ => return Some(value),
            }
        }
    }

    /// Right to left: 2^3^2 is 2^9.
    fn exponent(&mut self) -> Option<Frac> {
        self.deeper()?;
        let value = match self.peek()? {
            Node::Group(inner) => {
                self.at += 1;
                let mut value = self.inside(inner)?;
                if self.peek() == Some(&Node::Char('^')) {
                    self.at += 1;
                    value = value.pow(&self.exponent()?, self.fuel)?;
                }
                value
            }
            _ => {
                let mut negative = false;
                while let Some(sign) = self.sign() {
                    negative ^= sign;
                    self.at += 1;
                }
                let mut value = self.atom()?;
                if self.peek() == Some(&Node::Char('^')) {
                    self.at += 1;
                    value = value.pow(&self.exponent()?, self.fuel)?;
                }
                if negative { value.negated() } else { value }
            }
        };
        self.depth -= 1;
        Some(value)
    }

    fn atom(&mut self) -> Option<Frac> {
        self.fuel.take(10)?;
        let node = self.peek()?;
        self.at += 1;
        match node {
            Node::Number(digits) => self.number(digits),
            Node::Char(open @ ('(' | '[')) => {
                let close = if *open == '(' { ')' } else { ']' };
                self.deeper()?;
                let bars = std::mem::take(&mut self.bars);
                let value = self.sum()?;
                self.bars = bars;
                self.depth -= 1;
                (self.peek() == Some(&Node::Char(close))).then(|| self.at += 1)?;
                Some(value)
            }
            Node::Char('|') => {
                self.deeper()?;
                self.bars += 1;
                let value = self.sum()?;
                self.bars -= 1;
                self.depth -= 1;
                (self.peek() == Some(&Node::Char('|'))).then(|| self.at += 1)?;
                Frac::call("abs", vec![value], self.fuel)
            }
            Node::Char(c) if c.is_alphabetic() => self.symbol(&c.to_string()),
            Node::Word(word) if is_name(word) => self.symbol(word),
            Node::Group(inner) => self.inside(inner),
            Node::Command(name) => self.command(name),
            _ => None,
        }
    }

    fn number(&mut self, digits: &str) -> Option<Frac> {
        let mut whole = decimal(digits)?;
        if let (Some((_, fraction)), [Node::Command(bar), Node::Group(inner), ..]) =
            (digits.split_once('.'), &self.nodes[self.at..])
            && matches!(bar.as_str(), "overline" | "bar" | "dot")
        {
            // 0.1\overline{6}
            let [Node::Number(period)] = inner.as_slice() else {
                return None;
            };
            if period.contains('.') || period.len() + fraction.len() > 200 {
                return None;
            }
            self.at += 2;
            let ten = |power| num_traits::pow(BigInt::from(10), power);
            let nines = ten(period.len()) - 1;
            whole += BigRational::new(period.parse().ok()?, nines * ten(fraction.len()));
            return Some(Frac::number(whole));
        }
        if let (true, [Node::Char('('), Node::Number(period), Node::Char(')'), ..]) =
            (digits.contains('.'), &self.nodes[self.at..])
        {
            // 0.(3) is a third; 0.1(6) may be a sixth, or a product
            if !digits.ends_with('.') || period.contains('.') || period.len() > 200 {
                return None;
            }
            self.at += 3;
            let nines = num_traits::pow(BigInt::from(10), period.len()) - 1;
            whole += BigRational::new(period.parse().ok()?, nines);
            return Some(Frac::number(whole));
        }
        if let Some(fraction) = self.fraction_of_mixed(digits)? {
            whole += fraction;
        }
        Some(Frac::number(whole))
    }

    /// The fraction of a mixed number, after its whole part. `None` if a number follows that does
    /// not make a mixed number, since its meaning is not clear.
    fn fraction_of_mixed(&mut self, whole: &str) -> Option<Option<BigRational>> {
        let (top, bottom, used) = match &self.nodes[self.at..] {
            [Node::Command(frac), top, bottom, ..] if frac == "frac" => (top, bottom, 3),
            [
                Node::Space,
                top @ Node::Number(_),
                Node::Char('/'),
                bottom,
                ..,
            ] => (top, bottom, 4),
            [Node::Space, Node::Number(_), ..] => return None,
            _ => return Some(None),
        };
        let integer = |node: &Node| {
            let digits = match node {
                Node::Number(digits) => digits,
                Node::Group(inner) => match inner.as_slice() {
                    [Node::Number(digits)] => digits,
                    _ => return None,
                },
                _ => return None,
            };
            decimal(digits).filter(BigRational::is_integer)
        };
        let space = used == 4;
        let parts = integer(top).zip(integer(bottom));
        let parts = parts.filter(|(top, bottom)| top < bottom && !whole.contains('.'));
        let Some((top, bottom)) = parts else {
            return if space { None } else { Some(None) };
        };
        self.at += used;
        Some(Some(top / bottom))
    }

    /// A letter or name, with its index and primes.
    fn symbol(&mut self, name: &str) -> Option<Frac> {
        let mut name = name.to_string();
        let mut plain = true;
        loop {
            match (self.peek(), self.nodes.get(self.at + 1)) {
                (Some(Node::Char('_')), Some(index)) => {
                    name += &format!("_{}", plain_text(index)?);
                    self.at += 2;
                    plain = false;
                }
                (Some(Node::Char(prime @ ('\'' | '′'))), _) => {
                    let _ = prime;
                    name.push('\'');
                    self.at += 1;
                    plain = false;
                }
                _ => break,
            }
        }
        Some(match name.as_str() {
            "e" if plain => Frac::e(),
            "i" if plain => Frac::i(),
            _ => Frac::symbol(&name),
        })
    }

    fn command(&mut self, name: &str) -> Option<Frac> {
        match name {
            "frac" => {
                let top = self.argument()?;
                top.mul(&self.argument()?.inverse(self.fuel)?, self.fuel)
            }
            "binom" => {
                let arguments = vec![self.argument()?, self.argument()?];
                Frac::call("binom", arguments, self.fuel)
            }
            "sqrt" => {
                let index = match self.peek() {
                    Some(Node::Char('[')) => {
                        self.at += 1;
                        let index = self.sum()?;
                        (self.peek() == Some(&Node::Char(']'))).then(|| self.at += 1)?;
                        index
                    }
                    _ => Frac::integer(2),
                };
                let exponent = index.inverse(self.fuel)?;
                self.argument()?.pow(&exponent, self.fuel)
            }
            "pi" => Some(Frac::pi()),
            "imath" => Some(Frac::i()),
            "lfloor" | "lceil" => {
                let (close, function) = match name {
                    "lfloor" => ("rfloor", "floor"),
                    _ => ("rceil", "ceil"),
                };
                self.deeper()?;
                let value = self.sum()?;
                self.depth -= 1;
                (self.peek() == Some(&Node::Command(close.into()))).then(|| self.at += 1)?;
                Frac::call(function, vec![value], self.fuel)
            }
            _ if DECORATIONS.contains(&name) => {
                let below = plain_text(self.peek()?)?;
                self.at += 1;
                self.symbol(&format!("\\{name}{{{below}}}"))
            }
            _ if FUNCTIONS.contains(&name) => {
                let name = FUNCTIONS.iter().find(|f| **f == name)?;
                self.function(name)
            }
            _ if LETTERS.contains(&name) => self.symbol(&format!("\\{name}")),
            _ => None,
        }
    }

    fn function(&mut self, name: &'static str) -> Option<Frac> {
        self.deeper()?;
        let mut name = name;
        let mut base = None;
        if name == "log" && self.peek() == Some(&Node::Char('_')) {
            self.at += 1;
            base = Some(self.argument()?);
            name = "ln";
        }
        let mut power = None;
        if self.peek() == Some(&Node::Char('^')) {
            self.at += 1;
            let exponent = self.exponent()?;
            let inverse = exponent.rational() == Some(BigRational::from_integer((-1).into()));
            match (inverse, name) {
                (true, "sin") => name = "arcsin",
                (true, "cos") => name = "arccos",
                (true, "tan") => name = "arctan",
                (true, "cot") => name = "arccot",
                _ => power = Some(exponent),
            }
        }
        let mut arguments = Vec::new();
        if self.peek() == Some(&Node::Char('(')) {
            self.at += 1;
            let bars = std::mem::take(&mut self.bars);
            arguments.push(self.sum()?);
            while self.peek() == Some(&Node::Char(',')) {
                self.at += 1;
                arguments.push(self.sum()?);
            }
            self.bars = bars;
            (self.peek() == Some(&Node::Char(')'))).then(|| self.at += 1)?;
        } else {
            // \sin 2x, but not the cosine in \sin x \cos x
            let mut argument = self.power()?;
            while self.juxtaposed() && !self.peek().is_some_and(is_function) {
                argument = argument.mul(&self.power()?, self.fuel)?;
            }
            if self.peek() == Some(&Node::Char('/'))
                && let Some(Node::Number(_)) = self.nodes.get(self.at + 1)
            {
                self.at += 1; // \sin \pi/6
                argument = argument.mul(&self.atom()?.inverse(self.fuel)?, self.fuel)?;
            }
            arguments.push(argument);
        }
        let mut value = Frac::call(name, arguments, self.fuel)?;
        if let Some(base) = base {
            let base = Frac::call("ln", vec![base], self.fuel)?;
            value = value.mul(&base.inverse(self.fuel)?, self.fuel)?;
        }
        if let Some(power) = power {
            value = value.pow(&power, self.fuel)?;
        }
        self.depth -= 1;
        Some(value)
    }

    /// The argument of a command: a group or one node.
    fn argument(&mut self) -> Option<Frac> {
        let node = self.peek()?;
        match node {
            Node::Number(digits) => {
                self.at += 1;
                Some(Frac::number(decimal(digits)?))
            }
            Node::Char('(') => self.atom(),
            Node::Word(word) if is_name(word) => {
                self.at += 1;
                Some(Frac::symbol(word))
            }
            Node::Char(c) if c.is_alphabetic() => {
                self.at += 1;
                Some(match c {
                    'e' => Frac::e(),
                    'i' => Frac::i(),
                    c => Frac::symbol(&c.to_string()),
                })
            }
            Node::Command(_) => {
                self.deeper()?; // \frac\frac\frac
                let value = self.atom()?;
                self.depth -= 1;
                Some(value)
            }
            Node::Group(inner) => {
                self.at += 1;
                self.inside(inner)
            }
            _ => None,
        }
    }

    fn inside(&mut self, inner: &'a [Node]) -> Option<Frac> {
        if self.depth >= MAX_DEPTH {
            return None;
        }
        let parser = Parser {
            nodes: inner,
            at: 0,
            depth: self.depth + 1,
            bars: 0,
            upper: self.upper,
            fuel: self.fuel,
        };
        parser.all()
    }

    fn deeper(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn peek(&self) -> Option<&'a Node> {
        self.nodes.get(self.at)
    }
}
