//! Words, numbers and punctuation.

use super::{PtxError, refuse};

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// Anything that starts with a letter, `_`, `$`, `%` or a dot: opcode with modifiers, name,
    /// directive.
    Word(String),
    Int(u64),
    Float(f64, Option<u32>),
    Text(String),
    Punct(char),
}

fn word_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn word_char(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// All tokens of `text`, each with its line.
pub fn lex(text: &str) -> Result<Vec<(Token, u32)>, PtxError> {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        pos: 0,
        line: 1,
    };
    let mut out = Vec::new();
    while let Some(token) = lexer.next()? {
        out.push((token, lexer.line));
    }
    Ok(out)
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// The next byte.
    pos: usize,
    /// Its PTX line.
    line: u32,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.pos + ahead).copied()
    }

    /// The next token; its line is `line`.
    fn next(&mut self) -> Result<Option<Token>, PtxError> {
        while let Some(c) = self.peek(0) {
            match c {
                // The text of the driver API is a C string.
                0 => return Ok(None),
                b'\n' => {
                    self.line += 1;
                    self.pos += 1;
                }
                b' ' | b'\t' | b'\r' => self.pos += 1,
                b'/' if self.peek(1) == Some(b'/') => {
                    while self.peek(0).is_some_and(|c| c != b'\n') {
                        self.pos += 1;
                    }
                }
                b'/' if self.peek(1) == Some(b'*') => self.comment()?,
                b'"' => return self.string().map(Some),
                b'0'..=b'9' => return self.number().map(Some),
                _ if word_start(c) => return Ok(Some(self.word())),
                b',' | b';' | b':' | b'[' | b']' | b'{' | b'}' | b'(' | b')' | b'<' | b'>'
                | b'@' | b'!' | b'|' | b'+' | b'-' | b'=' => {
                    self.pos += 1;
                    return Ok(Some(Token::Punct(c as char)));
                }
                _ => {
                    let rest = self.text.get(self.pos..);
                    let shown = rest.and_then(|t| t.chars().next()).unwrap_or('?');
                    let why = format!("character {shown:?} has no meaning in PTX");
                    return refuse(self.line, why);
                }
            }
        }
        Ok(None)
    }

    /// Skips a comment that may run over several lines.
    fn comment(&mut self) -> Result<(), PtxError> {
        let start = self.line;
        self.pos += 2;
        loop {
            match self.peek(0) {
                None => return refuse(start, "comment is not closed"),
                Some(b'*') if self.peek(1) == Some(b'/') => break,
                Some(b'\n') => self.line += 1,
                _ => {}
            }
            self.pos += 1;
        }
        self.pos += 2;
        Ok(())
    }

    fn string(&mut self) -> Result<Token, PtxError> {
        let start = self.pos + 1;
        self.pos = start;
        while let Some(c) = self.peek(0) {
            match c {
                b'"' => break,
                b'\\' => self.pos += 2,
                _ => self.pos += 1,
            }
        }
        if self.pos >= self.bytes.len() {
            return refuse(self.line, "string is not closed");
        }
        let body = String::from_utf8_lossy(&self.bytes[start..self.pos]).into_owned();
        self.line += body.bytes().filter(|&b| b == b'\n').count() as u32;
        self.pos += 1;
        Ok(Token::Text(body))
    }

    fn number(&mut self) -> Result<Token, PtxError> {
        let start = self.pos;
        let hexadecimal = self
            .peek(1)
            .is_some_and(|b| matches!(b, b'x' | b'X' | b'f' | b'F' | b'd' | b'D'));
        while let Some(c) = self.peek(0) {
            if !c.is_ascii_alphanumeric() && c != b'.' {
                break;
            }
            // An exponent may carry a sign: 1.5e-3, but 0xe-3 is a difference.
            let signed = matches!(c, b'e' | b'E') && matches!(self.peek(1), Some(b'+' | b'-'));
            self.pos += if signed && !hexadecimal { 2 } else { 1 };
        }
        number(&self.text[start..self.pos], self.line)
    }

    fn word(&mut self) -> Token {
        let start = self.pos;
        while let Some(c) = self.peek(0) {
            if word_char(c) {
                self.pos += 1;
            } else if c == b':' && self.peek(1) == Some(b':') && self.peek(2).is_some_and(word_char)
            {
                self.pos += 2;
            } else {
                break;
            }
        }
        Token::Word(self.text[start..self.pos].to_owned())
    }
}

fn number(word: &str, line: u32) -> Result<Token, PtxError> {
    let bad = || PtxError {
        line,
        message: format!("{word:?} is not a number"),
    };
    let lower = word.to_ascii_lowercase();
    if let Some(bits) = lower.strip_prefix("0f") {
        if bits.len() != 8 {
            return Err(bad());
        }
        let b = u32::from_str_radix(bits, 16).map_err(|_| bad())?;
        return Ok(Token::Float(f64::from(f32::from_bits(b)), Some(b)));
    }
    if let Some(bits) = lower.strip_prefix("0d") {
        if bits.len() != 16 {
            return Err(bad());
        }
        let b = u64::from_str_radix(bits, 16).map_err(|_| bad())?;
        return Ok(Token::Float(f64::from_bits(b), None));
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    let value = if let Some(h) = digits.strip_prefix("0x") {
        u64::from_str_radix(h, 16)
    } else if let Some(b) = digits.strip_prefix("0b") {
        u64::from_str_radix(b, 2)
    } else if digits.contains('.') || digits.contains('e') {
        return lower
            .parse::<f64>()
            .map(|v| Token::Float(v, None))
            .map_err(|_| bad());
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(&digits[1..], 8)
    } else {
        digits.parse()
    };
    value.map(Token::Int).map_err(|_| bad())
}
