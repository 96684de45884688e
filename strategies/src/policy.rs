//! The policy over the engine: steps and branches.
//!
//! A branch goes on token by token. It is never rendered and encoded again, so a template that trims
//! the end of an assistant's message (Llama 3's) cannot take a step's blank line away.

use std::cell::Cell;
use std::rc::Rc;

use engine::text::chat::ChatTemplate;
use engine::text::tokenizer::Tokenizer;
use engine::{Branch, Finish, Generate, Generated, Model};

use crate::{Error, PastLimit, Policy, PromptStyle, Step, StepEnd, StepParams};

/// A causal language model of the engine, as strategies see it.
pub struct EnginePolicy {
    model: Model,
    tokenizer: Rc<Tokenizer>,
    chat: Rc<ChatTemplate>,
    style: PromptStyle,
    stop_tokens: Vec<u32>,
    past_limit: PastLimit,
    drawn: Cell<u64>,
}

impl EnginePolicy {
    /// `stop_tokens` end a solution: the checkpoint's end-of-sequence ids. To run on past its
    /// positions the model must have been loaded for that ([`engine::ModelSpec::extend_context`]).
    pub fn new(
        model: Model,
        tokenizer: Rc<Tokenizer>,
        chat: Rc<ChatTemplate>,
        style: PromptStyle,
        stop_tokens: Vec<u32>,
        past_limit: PastLimit,
    ) -> EnginePolicy {
        EnginePolicy {
            model,
            tokenizer,
            chat,
            style,
            stop_tokens,
            past_limit,
            drawn: Cell::new(0),
        }
    }

    /// The same model for another problem, with a count of its own.
    pub fn again(&self) -> EnginePolicy {
        EnginePolicy {
            model: self.model.clone(),
            tokenizer: Rc::clone(&self.tokenizer),
            chat: Rc::clone(&self.chat),
            style: self.style.clone(),
            stop_tokens: self.stop_tokens.clone(),
            past_limit: self.past_limit,
            drawn: Cell::new(0),
        }
    }

    /// Tokens drawn through this value.
    pub fn tokens_drawn(&self) -> u64 {
        self.drawn.get()
    }

    /// The prompt's tokens: the chat template with the problem as the user's turn, opened for the
    /// answer.
    fn prompt(&self, problem: &str) -> Result<Vec<u32>, Error> {
        let messages = self.style.messages(problem);
        let text = self
            .chat
            .render(&messages, true, false)
            .map_err(Error::model)?;
        self.tokenizer.encode(&text, false).map_err(Error::model)
    }

    /// Continues a branch as [`Policy::step`] does, and gives its tokens as well.
    ///
    /// # Errors
    /// A full context, memory too small for this branch alone, a solution past the context if that is to
    /// be refused.
    pub async fn generate(
        &self,
        branch: &mut Branch,
        how: &StepParams<'_>,
    ) -> Result<Generated, Error> {
        let generated = branch
            .generate(Generate {
                sampling: how.sampling,
                max_tokens: how.max_tokens,
                stop_strings: how.delimiter.iter().map(|d| d.to_string()).collect(),
                include_stop: true,
                stop_token_ids: self.stop_tokens.clone(),
                stream: None,
            })
            .await
            .map_err(Error::model)?;
        if generated.finish == Finish::Context && self.past_limit == PastLimit::Refuse {
            return Err(Error::PastLimit {
                positions: self.model.context_length(),
            });
        }
        self.drawn
            .set(self.drawn.get() + generated.logprobs.len() as u64);
        Ok(generated)
    }
}

impl Policy for EnginePolicy {
    type Branch = Branch;

    async fn start(&self, problem: &str, stream: u64) -> Result<Branch, Error> {
        let mut branch = self.model.root(stream);
        branch
            .append(&self.prompt(problem)?)
            .map_err(Error::model)?;
        Ok(branch)
    }

    fn fork(&self, branch: &Branch) -> Branch {
        branch.fork()
    }

    async fn step(&self, branch: &mut Branch, how: &StepParams<'_>) -> Result<Step, Error> {
        let generated = self.generate(branch, how).await?;
        let tokens = generated.logprobs.len();
        Ok(Step {
            text: generated.text,
            tokens,
            logprob: generated.logprobs.iter().map(|&l| f64::from(l)).sum(),
            end: StepEnd::of(generated.finish),
        })
    }
}
