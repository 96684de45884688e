//! The policy over the engine: steps and branches.
//!
//! A branch goes on token by token. It is never rendered and encoded again, so a template that
//! trims the end of an assistant's message (Llama 3's) cannot take a step's blank line away.

use std::rc::Rc;

use engine::text::chat::ChatTemplate;
use engine::text::tokenizer::Tokenizer;
use engine::{Branch, Finish, Generate, Generated, Model};

use crate::{ContextOverflow, Error, Policy, PromptStyle, Step, StepEnd, StepParams};

/// A causal language model of the engine, as strategies see it.
pub struct EnginePolicy {
    model: Model,
    tokenizer: Rc<Tokenizer>,
    chat: Rc<ChatTemplate>,
    style: PromptStyle,
    stop_tokens: Vec<u32>,
    context_overflow: ContextOverflow,
}

impl EnginePolicy {
    /// `stop_tokens` end a solution: the checkpoint's end-of-sequence ids. For
    /// [`ContextOverflow::Extend`] the model must have been loaded with tables beyond its context
    /// length.
    pub fn new(
        model: Model,
        tokenizer: Rc<Tokenizer>,
        chat: Rc<ChatTemplate>,
        style: PromptStyle,
        stop_tokens: Vec<u32>,
        context_overflow: ContextOverflow,
    ) -> EnginePolicy {
        EnginePolicy {
            model,
            tokenizer,
            chat,
            style,
            stop_tokens,
            context_overflow,
        }
    }

    /// Continues a branch as [`Policy::step`] does, and returns its tokens as well.
    ///
    /// # Errors
    /// A full context, memory too small for this branch alone; the end of the context with
    /// [`ContextOverflow::Refuse`].
    pub async fn generate(
        &self,
        branch: &mut Branch,
        params: &StepParams<'_>,
    ) -> Result<Generated, Error> {
        let options = Generate {
            sampling: params.sampling,
            max_tokens: params.max_tokens,
            stop_strings: params.delimiter.iter().map(|d| d.to_string()).collect(),
            include_stop: params.include_delimiter,
            stop_token_ids: self.stop_tokens.clone(),
            stream: None,
            confidences: params.confidences,
        };
        let generated = branch.resume(params.begun, options).await?;
        if generated.finish == Finish::Context && self.context_overflow == ContextOverflow::Refuse {
            return Err(self.overflow());
        }
        Ok(generated)
    }

    fn overflow(&self) -> Error {
        Error::ContextOverflow {
            context_length: self.model.context_length(),
        }
    }

    /// The prompt: the chat template with the problem as the user's turn, opened for the answer.
    fn prompt(&self, problem: &str) -> Result<String, Error> {
        let messages = self.style.messages(problem);
        Ok(self.chat.render(&messages, true, false)?)
    }
}

impl Policy for EnginePolicy {
    type Branch = Branch;

    async fn start(&self, problem: &str, stream: u64) -> Result<Branch, Error> {
        let mut branch = self.model.root(stream);
        let prompt = self.prompt(problem)?;
        branch.append(&self.tokenizer.encode(&prompt, false)?)?;
        Ok(branch)
    }

    fn fork(&self, branch: &Branch) -> Branch {
        branch.fork()
    }

    fn twin(&self, stem: &Branch) -> Branch {
        stem.twin()
    }

    fn num_tokens(&self, branch: &Branch) -> usize {
        branch.len()
    }

    fn append(&self, branch: &mut Branch, text: &str) -> Result<bool, Error> {
        let token_ids = self.tokenizer.encode(text, false)?;
        let fits = branch.len() + token_ids.len() < self.model.context_length();
        if fits {
            branch.append(&token_ids)?;
        } else if self.context_overflow == ContextOverflow::Refuse {
            return Err(self.overflow());
        }
        Ok(fits)
    }

    fn text(&self, branch: &Branch, from: usize) -> Result<String, Error> {
        let token_ids = branch.token_ids();
        let written = token_ids.get(from..).unwrap_or_default();
        Ok(self.tokenizer.decode(written, true)?)
    }

    fn is_full(&self, branch: &Branch) -> Result<bool, Error> {
        let full = branch.len() >= self.model.context_length();
        if full && self.context_overflow == ContextOverflow::Refuse {
            return Err(self.overflow());
        }
        Ok(full)
    }

    fn prompt_ends_with(&self, problem: &str, text: &str) -> Result<bool, Error> {
        Ok(self.prompt(problem)?.trim_end().ends_with(text.trim()))
    }

    async fn hidden_sum(&self, branch: &Branch, tokens: usize) -> Result<Vec<f64>, Error> {
        let length = branch.token_ids().len();
        let layer = self.model.num_layers();
        let positions = length.saturating_sub(tokens)..length;
        let states = branch.hidden_states(layer, positions).await?;
        let mut sum = vec![0.0; states.first().map_or(0, Vec::len)];
        for state in &states {
            for (sum, &value) in sum.iter_mut().zip(state) {
                *sum += f64::from(value);
            }
        }
        Ok(sum)
    }

    async fn step(&self, branch: &mut Branch, params: &StepParams<'_>) -> Result<Step, Error> {
        // It may have been interrupted by the context's end as well.
        if params.begun > 0 && self.is_full(branch)? {
            return Ok(Step::no_room());
        }
        let generated = self.generate(branch, params).await?;
        Ok(Step {
            text: generated.text,
            num_tokens: generated.logprobs.len(),
            logprob: generated.logprobs.iter().map(|&l| f64::from(l)).sum(),
            confidences: generated.confidences,
            end: StepEnd::of(generated.finish),
        })
    }
}
