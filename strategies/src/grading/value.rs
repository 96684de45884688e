//! Exact rational values of the answers that have one.
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = signed (("*" | "/") signed | factor)*      a factor that is no number may follow
//! signed  = ("+" | "-")* power
//! power   = atom ["^" (atom | signed)] "%"*
//! atom    = number | mixed | "(" sum ")" | {sum} | \frac sum sum | \sqrt sum
//! mixed   = integer \frac{integer}{integer} | integer integer "/" integer
//! ```
//!
//! Anything else, an overflow of 128 bits, a division by zero, or a root that is not rational
//! has no value here.

use super::latex::{MAX_DEPTH, Node};

/// A fraction in lowest terms with a positive denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rational {
    num: i128,
    den: i128,
}

impl std::fmt::Display for Rational {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.den {
            1 => write!(f, "{}", self.num),
            den => write!(f, "{}/{den}", self.num),
        }
    }
}

impl Rational {
    fn new(num: i128, den: i128) -> Option<Rational> {
        if den == 0 || num == i128::MIN || den == i128::MIN {
            return None;
        }
        let (mut a, mut b) = (num.abs(), den.abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let sign = den.signum();
        Some(Rational {
            num: sign * num / a,
            den: sign * den / a,
        })
    }

    /// Digits with at most one point.
    fn decimal(digits: &str) -> Option<Rational> {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let num: i128 = format!("0{whole}{fraction}").parse().ok()?;
        Rational::new(
            num,
            10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?,
        )
    }

    fn add(self, other: Rational) -> Option<Rational> {
        let left = self.num.checked_mul(other.den)?;
        let right = other.num.checked_mul(self.den)?;
        Rational::new(left.checked_add(right)?, self.den.checked_mul(other.den)?)
    }

    fn mul(self, other: Rational) -> Option<Rational> {
        Rational::new(
            self.num.checked_mul(other.num)?,
            self.den.checked_mul(other.den)?,
        )
    }

    fn div(self, other: Rational) -> Option<Rational> {
        self.mul(Rational::new(other.den, other.num)?)
    }

    fn neg(self) -> Option<Rational> {
        Rational::new(self.num.checked_neg()?, self.den)
    }

    /// Integer powers; 0^0 has no value.
    fn pow(self, exponent: Rational) -> Option<Rational> {
        let size = u32::try_from(exponent.num.unsigned_abs()).ok()?;
        if exponent.den != 1 || (self.num == 0 && exponent.num <= 0) {
            return None;
        }
        let power = Rational::new(self.num.checked_pow(size)?, self.den.checked_pow(size)?)?;
        match exponent.num < 0 {
            true => Rational::new(power.den, power.num),
            false => Some(power),
        }
    }

    fn sqrt(self) -> Option<Rational> {
        let root = |x: i128| {
            let r = u128::try_from(x).ok()?.isqrt();
            (r * r == x.unsigned_abs()).then_some(r as i128)
        };
        Rational::new(root(self.num)?, root(self.den)?)
    }

    fn whole(self) -> bool {
        self.den == 1
    }
}

/// The value of an answer, if all of it is an expression over rationals.
pub(super) fn value(nodes: &[Node]) -> Option<Rational> {
    let mut parser = Parser {
        nodes,
        at: 0,
        depth: 0,
    };
    let value = parser.sum()?;
    (parser.at == nodes.len()).then_some(value)
}

struct Parser<'a> {
    nodes: &'a [Node],
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn sum(&mut self) -> Option<Rational> {
        let mut total = self.product()?;
        loop {
            total = match self.peek() {
                Some(Node::Char('+')) => total.add(self.after_sign()?)?,
                Some(Node::Char('-')) => total.add(self.after_sign()?.neg()?)?,
                _ => return Some(total),
            };
        }
    }

    fn after_sign(&mut self) -> Option<Rational> {
        self.at += 1;
        self.product()
    }

    fn product(&mut self) -> Option<Rational> {
        let mut total = self.signed()?;
        loop {
            total = match self.peek() {
                Some(Node::Char('*')) => {
                    self.at += 1;
                    total.mul(self.signed()?)?
                }
                Some(Node::Char('/')) => {
                    self.at += 1;
                    total.div(self.signed()?)?
                }
                Some(Node::Char('(') | Node::Command(_) | Node::Group(_)) => {
                    total.mul(self.power()?)?
                }
                _ => return Some(total),
            };
        }
    }

    fn signed(&mut self) -> Option<Rational> {
        let mut negative = false;
        while let Some(Node::Char(sign @ ('+' | '-'))) = self.peek() {
            negative ^= *sign == '-';
            self.at += 1;
        }
        let value = self.power()?;
        if negative { value.neg() } else { Some(value) }
    }

    fn power(&mut self) -> Option<Rational> {
        let mut value = self.atom()?;
        if self.peek() == Some(&Node::Char('^')) {
            self.at += 1;
            self.deeper()?;
            let exponent = self.signed()?; // right to left: 2^3^2 is 2^9
            self.depth -= 1;
            value = value.pow(exponent)?;
        }
        while self.peek() == Some(&Node::Char('%')) {
            self.at += 1;
            value = value.div(Rational::new(100, 1)?)?;
        }
        Some(value)
    }

    fn atom(&mut self) -> Option<Rational> {
        let node = self.peek()?;
        self.at += 1;
        match node {
            Node::Number(digits) => {
                let whole = Rational::decimal(digits)?;
                match self.fraction_of_mixed(digits)? {
                    Some(fraction) => whole.add(fraction),
                    None => Some(whole),
                }
            }
            Node::Char('(') => {
                self.deeper()?;
                let value = self.sum()?;
                self.depth -= 1;
                (self.peek() == Some(&Node::Char(')'))).then(|| self.at += 1)?;
                Some(value)
            }
            Node::Group(inner) => self.inside(inner),
            Node::Command(name) if name == "frac" => {
                let numerator = self.argument()?;
                numerator.div(self.argument()?)
            }
            Node::Command(name) if name == "sqrt" => self.argument()?.sqrt(),
            _ => None,
        }
    }

    /// What follows the whole part of a mixed number. `None` if a fraction follows that makes no
    /// mixed number, since then a product may be meant as well.
    fn fraction_of_mixed(&mut self, whole: &str) -> Option<Option<Rational>> {
        let (num, den, used) = match &self.nodes[self.at..] {
            [Node::Command(frac), num, den, ..] if frac == "frac" => (num, den, 3),
            [Node::Space, num, Node::Char('/'), den, ..] => (num, den, 4),
            [Node::Space, ..] => return None,
            _ => return Some(None),
        };
        let integer = |node: &Node| match node {
            Node::Number(digits) => Rational::decimal(digits).filter(|r| r.whole()),
            Node::Group(inner) => match inner.as_slice() {
                [Node::Number(digits)] => Rational::decimal(digits).filter(|r| r.whole()),
                _ => None,
            },
            _ => None,
        };
        if whole.contains('.') {
            return None;
        }
        let fraction = integer(num)?.div(integer(den)?)?;
        self.at += used;
        Some(Some(fraction))
    }

    /// The argument of a command: a group or one node.
    fn argument(&mut self) -> Option<Rational> {
        let node = self.peek()?;
        self.at += 1;
        match node {
            Node::Number(digits) => Rational::decimal(digits),
            Node::Group(inner) => self.inside(inner),
            Node::Char('(') => {
                self.at -= 1;
                self.atom()
            }
            _ => None,
        }
    }

    fn inside(&mut self, inner: &'a [Node]) -> Option<Rational> {
        self.deeper()?;
        let mut parser = Parser {
            nodes: inner,
            at: 0,
            depth: self.depth,
        };
        let value = parser.sum()?;
        self.depth -= 1;
        (parser.at == inner.len()).then_some(value)
    }

    fn deeper(&mut self) -> Option<()> {
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn peek(&self) -> Option<&'a Node> {
        self.nodes.get(self.at)
    }
}
