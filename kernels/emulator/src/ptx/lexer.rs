//! Words, numbers and punctuation.

use super::{PtxError, refuse};

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// Anything that starts with a letter, `_`, `$`, `%` or a dot: opcode with modifiers, name, directive.
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
    let s = text.as_bytes();
    let (mut i, mut line) = (0, 1u32);
    let mut out = Vec::new();
    while i < s.len() {
        let c = s[i];
        match c {
            0 => break, // The driver API hands over C strings.
            b'\n' => {
                line += 1;
                i += 1;
            }
            b' ' | b'\t' | b'\r' => i += 1,
            b'/' if s.get(i + 1) == Some(&b'/') => {
                while i < s.len() && s[i] != b'\n' {
                    i += 1;
                }
            }
            b'/' if s.get(i + 1) == Some(&b'*') => {
                let start = line;
                i += 2;
                loop {
                    match s.get(i) {
                        None => return refuse(start, "comment is not closed"),
                        Some(b'*') if s.get(i + 1) == Some(&b'/') => break,
                        Some(b'\n') => line += 1,
                        _ => {}
                    }
                    i += 1;
                }
                i += 2;
            }
            b'"' => {
                let start = i + 1;
                i = start;
                while i < s.len() && s[i] != b'"' {
                    i += if s[i] == b'\\' { 2 } else { 1 };
                }
                if i >= s.len() {
                    return refuse(line, "string is not closed");
                }
                let body = String::from_utf8_lossy(&s[start..i]).into_owned();
                line += body.bytes().filter(|&b| b == b'\n').count() as u32;
                out.push((Token::Text(body), line));
                i += 1;
            }
            b'0'..=b'9' => {
                let start = i;
                while i < s.len() && (s[i].is_ascii_alphanumeric() || s[i] == b'.') {
                    // An exponent may carry a sign: 1.5e-3, but 0xe-3 is a difference.
                    let hexadecimal = s
                        .get(start + 1)
                        .is_some_and(|b| matches!(b, b'x' | b'X' | b'f' | b'F' | b'd' | b'D'));
                    if !hexadecimal
                        && matches!(s[i], b'e' | b'E')
                        && matches!(s.get(i + 1), Some(b'+' | b'-'))
                    {
                        i += 1;
                    }
                    i += 1;
                }
                out.push((number(&text[start..i], line)?, line));
            }
            _ if word_start(c) => {
                let start = i;
                while i < s.len() {
                    if word_char(s[i]) {
                        i += 1;
                    } else if s[i] == b':'
                        && s.get(i + 1) == Some(&b':')
                        && s.get(i + 2).is_some_and(|&b| word_char(b))
                    {
                        i += 2;
                    } else {
                        break;
                    }
                }
                out.push((Token::Word(text[start..i].to_owned()), line));
            }
            b',' | b';' | b':' | b'[' | b']' | b'{' | b'}' | b'(' | b')' | b'<' | b'>' | b'@'
            | b'!' | b'|' | b'+' | b'-' | b'=' => {
                out.push((Token::Punct(c as char), line));
                i += 1;
            }
            _ => {
                let shown = text.get(i..).and_then(|t| t.chars().next()).unwrap_or('?');
                return refuse(line, format!("character {shown:?} has no meaning in PTX"));
            }
        }
    }
    Ok(out)
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
