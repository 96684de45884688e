//! Stop strings in text that arrives in pieces.

/// Watches growing text for stop strings, which may straddle the pieces.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    strings: Vec<String>,
    text: String,
    longest: usize,
}

/// A stop string was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Which of the strings.
    pub index: usize,
    /// Where it begins, in bytes of the text so far.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl StopMatcher {
    /// Watches for `strings`; empty ones are ignored.
    pub fn new(strings: &[String]) -> StopMatcher {
        let longest = strings.iter().map(String::len).max().unwrap_or(0);
        StopMatcher {
            strings: strings.to_vec(),
            text: String::new(),
            longest,
        }
    }

    /// Appends `piece`. The stop string that ends first, the longest of those that end there.
    pub fn push(&mut self, piece: &str) -> Option<Stop> {
        let mut from = self
            .text
            .len()
            .saturating_sub(self.longest.saturating_sub(1));
        while !self.text.is_char_boundary(from) {
            from -= 1;
        }
        self.text.push_str(piece);
        let window = &self.text[from..];
        (self.strings.iter().enumerate())
            .filter(|(_, s)| !s.is_empty())
            .filter_map(|(index, s)| {
                let start = from + window.find(s.as_str())?;
                Some(Stop {
                    index,
                    start,
                    end: start + s.len(),
                })
            })
            .min_by_key(|s| (s.end, s.start, s.index))
    }

    /// All the text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How much of the text cannot be part of a stop string still to be completed.
    pub fn settled(&self) -> usize {
        let held = (self.strings.iter())
            .filter_map(|s| {
                let max = s.len().saturating_sub(1).min(self.text.len());
                (1..=max)
                    .rev()
                    .find(|&n| s.is_char_boundary(n) && self.text.ends_with(&s[..n]))
            })
            .max()
            .unwrap_or(0);
        self.text.len() - held
    }

    /// Cuts the text to its first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.text.truncate(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_strings_straddle_pieces() {
        for (stops, pieces, expected) in [
            (vec!["\n\n"], vec!["a", "\n", "\n", "b"], Some((2, 1, 3))),
            (vec!["\n\n"], vec!["a.\n\nStep"], Some((0, 2, 4))),
            (vec!["\n\n"], vec!["a\n", "b\n", "c"], None),
            (vec!["stop", "op"], vec!["st", "op"], Some((1, 0, 4))),
            (vec!["abc", "b"], vec!["a", "b", "c"], Some((1, 1, 2))),
            (vec![""], vec!["a"], None),
            (vec!["é!"], vec!["caf", "é", "!"], Some((2, 3, 6))),
            (vec!["aab"], vec!["a", "a", "a", "b"], Some((3, 1, 4))),
        ] {
            let strings: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
            let mut matcher = StopMatcher::new(&strings);
            let found = (pieces.iter().enumerate())
                .find_map(|(i, p)| matcher.push(p).map(|s| (i, s.start, s.end)));
            assert_eq!(found, expected, "{stops:?} in {pieces:?}");
        }
    }

    #[test]
    fn text_that_may_become_a_stop_string_is_held_back() {
        for (stops, text, settled) in [
            (vec!["\n\n"], "a\n", 1),
            (vec!["\n\n"], "a", 1),
            (vec!["STOP", "TOPS"], "xSTO", 1),
            (vec!["TOPS"], "xSTO", 2),
            (vec![], "abc", 3),
        ] {
            let strings: Vec<String> = stops.iter().map(|s: &&str| s.to_string()).collect();
            let mut matcher = StopMatcher::new(&strings);
            assert_eq!(matcher.push(text), None);
            assert_eq!(matcher.settled(), settled, "{stops:?} after {text:?}");
        }
    }
}
