//! Text that grows one token at a time.

use super::tokenizer::Tokenizer;
use crate::error::Result;

/// Text that grows a token at a time. A clone continues independently, as a forked branch does.
///
/// [`TokenStream::push`] gives the text that has become certain. A character whose bytes are
/// spread over several tokens comes with its last one. All pieces together, with
/// [`TokenStream::finish`], are the decoding of all ids at once.
///
/// One exception: bytes that are not UTF-8. A byte-fallback decoder (Llama 2, Mistral) turns
/// a whole run of byte tokens into replacement characters if a later byte of the run is wrong,
/// also those that were sent as characters before.
///
/// Every push decodes a window of a few tokens, however long the text is: the tokens of the piece
/// before (decoders that treat a text's first space differently need them), then those not yet
/// sent. Intervals: `window[..context]` is sent entirely and is only context; `window[context..]`
/// is new; `sent` is the part of the window's text that was returned.
#[derive(Clone, Debug)]
pub struct TokenStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    window: Vec<u32>,
    context: usize,
    sent: String,
    fresh: String,
}

/// After this many new tokens without certain text, replacement characters are final: the bytes of
/// one character are at most four tokens.
const MAX_PENDING: usize = 8;

impl TokenStream {
    /// An empty text.
    pub(super) fn new(tokenizer: Tokenizer, skip_special: bool) -> TokenStream {
        TokenStream {
            tokenizer,
            skip_special,
            window: Vec::new(),
            context: 0,
            sent: String::new(),
            fresh: String::new(),
        }
    }

    /// Takes a token; gives the text that became certain with it, often empty.
    pub fn push(&mut self, id: u32) -> Result<&str> {
        self.fresh.clear();
        if self.tokenizer.is_silent(id, self.skip_special) {
            return Ok(&self.fresh);
        }
        self.window.push(id);
        let pending = self.window.len() - self.context;
        self.advance(pending > MAX_PENDING)?;
        Ok(&self.fresh)
    }

    /// Ends the text: gives what was held back, as replacement characters.
    pub fn finish(&mut self) -> Result<&str> {
        self.fresh.clear();
        if self.window.len() > self.context {
            self.advance(true)?;
        }
        Ok(&self.fresh)
    }

    fn advance(&mut self, all: bool) -> Result<()> {
        let mut text = self.tokenizer.decode(&self.window, self.skip_special)?;
        if !text.starts_with(&self.sent) {
            // Only after bytes that are not UTF-8: a trailing one may be completed, others may not.
            if text.ends_with(char::REPLACEMENT_CHARACTER) && !all {
                return Ok(());
            }
            self.window.drain(..self.context);
            self.context = 0;
            self.sent.clear();
            text = self.tokenizer.decode(&self.window, self.skip_special)?;
        }
        let certain = if all {
            text.len()
        } else {
            text.trim_end_matches(char::REPLACEMENT_CHARACTER).len()
        };
        if let Some(fresh) = text.get(self.sent.len()..certain)
            && !fresh.is_empty()
        {
            self.fresh.push_str(fresh);
            self.sent.push_str(fresh);
            if certain == text.len() {
                self.window.drain(..self.context);
                self.context = self.window.len();
                self.sent = self.tokenizer.decode(&self.window, self.skip_special)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::{BOTH, open, streamed};

    /// Any ids at all, also byte sequences that are no text. The byte-level decoder is exact; the
    /// byte-fallback one may differ in replacement characters only.
    #[test]
    fn streams_of_random_tokens() {
        for case in BOTH {
            let tokenizer = open(case);
            let mut state = 1u64;
            for round in 0..2000 {
                let ids: Vec<u32> = (0..1 + round % 40)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6364136223846793005)
                            .wrapping_add(1442695040888963407);
                        ((state >> 33) % (tokenizer.vocab_size() as u64 + 3)) as u32
                    })
                    .collect();
                let whole = tokenizer.decode(&ids, true).expect("decodes");
                let streamed = streamed(&tokenizer, &ids, true).concat();
                if case == BOTH[0] && !whole.contains(&"\u{fffd}".repeat(8)) {
                    assert_eq!(streamed, whole, "{case} {ids:?}");
                } else {
                    let valid = |text: &str| !text.contains('\u{fffd}');
                    assert!(!valid(&whole) || streamed == whole, "{case} {ids:?}");
                }
            }
        }
    }

    /// Line ends, spaces and whole characters come with their last token, not later.
    #[test]
    fn pieces_come_at_once() {
        for case in BOTH {
            let tokenizer = open(case);
            for text in ["Step 1: 47 * 5 = 235.\n\nStep", " naïve 数学 👩‍🚀\n"] {
                let ids = tokenizer.encode(text, false).expect("encodes");
                for end in 1..=ids.len() {
                    let whole = tokenizer.decode(&ids[..end], true).expect("decodes");
                    let mut pieces = streamed(&tokenizer, &ids[..end], true);
                    pieces.pop();
                    let certain = whole.trim_end_matches('\u{fffd}');
                    // A byte-fallback decoder un-writes a run of bytes that isn't finished.
                    if certain.len() == whole.len() {
                        assert_eq!(pieces.concat(), certain, "{case} {text:?} {end}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_clone_goes_its_own_way() {
        let tokenizer = open(BOTH[0]);
        let ids = tokenizer.encode("数学", false).expect("encodes");
        let mut one = tokenizer.stream(true);
        assert_eq!(one.push(ids[0]).expect("decodes"), "");
        let mut other = one.clone();
        for &id in &ids[1..] {
            one.push(id).expect("decodes");
        }
        assert_eq!(one.push(ids[0]).expect("decodes"), "");
        assert_eq!(other.finish().expect("decodes"), "\u{fffd}");
    }
}
