//! Branches through the handle: the operations of a search for programs outside.
//!
//! A strategy in `strategies/` sees a policy's and a PRM's branches; a [`Branch`] is both at once,
//! and can be held by any thread. Operations on one branch are done in the order of the calls.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use strategies::{
    Confidences, EnginePolicy, EnginePrm, Policy, Prm, PrmBranch, StepEnd, StepParams,
};

use crate::session::Owner;
use crate::{Error, Sampling, Session, Setting};

/// How the next step of a branch is written.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOptions {
    /// Text that ends the step and belongs to it; `None` writes to the end of the solution.
    pub delimiter: Option<String>,
    /// Most tokens to draw.
    pub max_tokens: usize,
    /// The distribution of a token.
    pub sampling: Sampling,
}

impl StepOptions {
    fn validate(&self) -> Result<(), Error> {
        strategies::check_sampling(&self.sampling)?;
        if self.max_tokens == 0 {
            return Err(Setting::new("max_tokens", 0, "a number from 1 up").into());
        }
        match self.delimiter.as_deref() {
            Some("") => Err(Setting::new("delimiter", "empty", "text that ends a step").into()),
            _ => Ok(()),
        }
    }
}

/// A step that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct WrittenStep {
    /// The new text, with its delimiter, without any end-of-sequence token.
    pub text: String,
    /// The ids of the tokens that the branch grew by. Where a delimiter ended inside a drawn token,
    /// the branch has the tokens of its part instead.
    pub token_ids: Vec<u32>,
    /// The ids of every drawn token, an end-of-sequence token included.
    pub sampled_ids: Vec<u32>,
    /// Natural-log probability of every token of `sampled_ids`, one to one, under the model's own
    /// distribution: temperature 1, no filter, no penalty.
    pub logprobs: Vec<f32>,
    /// The same under the distribution that the token was drawn from; 0 for a greedy one.
    pub processed_logprobs: Vec<f32>,
    /// Why it ended.
    pub end: StepEnd,
}

/// What a branch holds.
#[derive(Clone, Debug, PartialEq)]
pub struct BranchText {
    /// What the policy wrote on it, from the stem on.
    pub text: String,
    /// The ids of all tokens, the prompt's included.
    pub token_ids: Vec<u32>,
    /// Tokens of the prompt among them.
    pub prompt_tokens: usize,
    /// The PRM's scores so far.
    pub scores: Vec<f64>,
}

/// One partial solution. Dropping it frees the memory that only it held.
pub struct Branch {
    session: Session,
    id: u64,
}

/// The branches of all handles, on the owning thread. `None`: an operation is under way.
#[derive(Default)]
pub(crate) struct Branches(RefCell<HashMap<u64, Option<State>>>);

/// Ids are given by the handles, so that a fork need not wait for the engine's thread.
static NEXT: AtomicU64 = AtomicU64::new(0);

struct State {
    policy: Rc<EnginePolicy>,
    branch: engine::Branch,
    prm: Option<(Rc<EnginePrm>, PrmBranch)>,
    text: String,
    prompt_tokens: usize,
    /// Steps that the PRM has not read.
    unread: Vec<String>,
    scores: Vec<f64>,
}

impl Session {
    /// The stem of a problem: the prompt of the policy and, if the session has a PRM, the PRM's.
    ///
    /// Branches of equal problem, seed and path draw equal tokens, here and in [`Session::solve`],
    /// with equal sampling and limits. Branches are not counted among the jobs of
    /// [`Options::concurrency`](crate::Options::concurrency).
    ///
    /// # Errors
    /// The session has no policy, or the problem cannot be rendered or does not fit the context.
    pub async fn stem(&self, problem: String, seed: u64) -> Result<Branch, Error> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let job = self.unqueued(async move |owner: Rc<Owner>, _| {
            let state = State::stem(&owner, &problem, seed).await?;
            owner.branches.0.borrow_mut().insert(id, Some(state));
            Ok(())
        });
        // Made first: it frees the branch if this future is dropped.
        let branch = Branch {
            session: self.clone(),
            id,
        };
        job.outcome().await?;
        Ok(branch)
    }
}

impl State {
    async fn stem(owner: &Owner, problem: &str, seed: u64) -> Result<State, Error> {
        let policy = owner.local.policy(seed)?;
        let branch = policy
            .start(problem, strategies::stream(seed, problem))
            .await?;
        let prm = match owner.local.prm() {
            Ok(prm) => {
                let read = prm.start(problem).await?;
                Some((Rc::new(prm), read))
            }
            Err(_) => None,
        };
        Ok(State {
            prompt_tokens: branch.len(),
            policy: Rc::new(policy),
            branch,
            prm,
            text: String::new(),
            unread: Vec::new(),
            scores: Vec::new(),
        })
    }

    fn fork(&self) -> State {
        State {
            policy: Rc::clone(&self.policy),
            branch: self.branch.fork(),
            prm: (self.prm.as_ref()).map(|(prm, read)| (Rc::clone(prm), prm.fork(read))),
            text: self.text.clone(),
            prompt_tokens: self.prompt_tokens,
            unread: self.unread.clone(),
            scores: self.scores.clone(),
        }
    }

    async fn step(&mut self, options: &StepOptions) -> Result<WrittenStep, Error> {
        let params = StepParams {
            delimiter: options.delimiter.as_deref(),
            include_delimiter: true,
            max_tokens: options.max_tokens,
            begun: 0,
            sampling: options.sampling,
            confidences: Confidences::None,
        };
        let written = self.policy.generate(&mut self.branch, &params).await?;
        self.text.push_str(&written.text);
        let step = written.text.trim();
        if !step.is_empty() {
            self.unread.push(step.to_string());
        }
        Ok(WrittenStep {
            end: StepEnd::of(written.finish),
            text: written.text,
            token_ids: written.token_ids,
            sampled_ids: written.sampled_ids,
            logprobs: written.logprobs,
            processed_logprobs: written.processed_logprobs,
        })
    }

    async fn score(&mut self) -> Result<Vec<f64>, Error> {
        let Some((prm, read)) = &mut self.prm else {
            return Err(Error::NoModel { role: "prm" });
        };
        if self.unread.is_empty() {
            return Ok(Vec::new());
        }
        let steps: Vec<&str> = self.unread.iter().map(String::as_str).collect();
        let scores = prm.score(read, &steps).await?;
        self.unread.clear();
        self.scores.extend(&scores);
        Ok(scores)
    }

    fn read(&self) -> BranchText {
        BranchText {
            text: self.text.clone(),
            token_ids: self.branch.token_ids(),
            prompt_tokens: self.prompt_tokens,
            scores: self.scores.clone(),
        }
    }
}

impl Branch {
    /// A second branch with the same content: its KV cache is shared, its text is copied. The i-th
    /// fork of a branch (from 0, in the order of the calls of one thread) draws random numbers by
    /// its path, as [`Policy::fork`] says. A fork of a branch that was given up is given up.
    pub fn fork(&self) -> Branch {
        let (parent, id) = (self.id, NEXT.fetch_add(1, Ordering::Relaxed));
        self.session.send(Box::new(move |owner| {
            let branches = &mut *owner.branches.0.borrow_mut();
            let child = branches
                .get(&parent)
                .and_then(Option::as_ref)
                .map(State::fork);
            // Without a parent there is no child: its first operation says so.
            if let Some(child) = child {
                branches.insert(id, Some(child));
            }
            None
        }));
        Branch {
            session: self.session.clone(),
            id,
        }
    }

    /// Writes the next step. A step that fails after it has begun, or whose future is dropped,
    /// gives the branch up.
    ///
    /// # Errors
    /// Options that cannot be honoured, a full context, too little memory.
    pub async fn step(&mut self, options: &StepOptions) -> Result<WrittenStep, Error> {
        options.validate()?;
        let options = options.clone();
        self.operate(async move |state| state.step(&options).await)
            .await
    }

    /// The PRM's scores of the steps that it has not read yet, one for each. A call that fails, or
    /// whose future is dropped, gives the branch up.
    ///
    /// # Errors
    /// The session has no PRM, or the steps do not fit its context.
    pub async fn score(&mut self) -> Result<Vec<f64>, Error> {
        self.must_have_prm()?;
        self.operate(async |state| state.score().await).await
    }

    /// As [`Branch::score`], for a text that was written in one go: `steps` are scored in place of
    /// the texts that the PRM has not read yet.
    ///
    /// # Errors
    /// As [`Branch::score`].
    pub async fn score_steps(&mut self, steps: Vec<String>) -> Result<Vec<f64>, Error> {
        self.must_have_prm()?;
        self.operate(async move |state| {
            state.unread = steps;
            state.score().await
        })
        .await
    }

    fn must_have_prm(&self) -> Result<(), Error> {
        match self.session.info().prm {
            Some(_) => Ok(()),
            None => Err(Error::NoModel { role: "prm" }),
        }
    }

    /// What the branch holds.
    ///
    /// # Errors
    /// The branch was given up.
    pub async fn read(&self) -> Result<BranchText, Error> {
        let id = self.id;
        let read = move |owner: &Rc<Owner>| {
            let branches = owner.branches.0.borrow();
            let state = branches.get(&id).and_then(Option::as_ref);
            state.map(State::read).ok_or(Error::BranchGivenUp)
        };
        self.session.call(read).await
    }

    /// The hidden states of a layer at `positions` of [`BranchText::token_ids`]: one vector for each,
    /// [`ModelInfo::hidden`](crate::ModelInfo::hidden) numbers long. Layers are counted as in
    /// `hidden_states` of Hugging Face's transformers: 0 is the embedding,
    /// [`ModelInfo::layers`](crate::ModelInfo::layers) the last layer behind the final norm.
    ///
    /// The positions are computed once more; what is before them comes from the KV cache.
    ///
    /// # Errors
    /// A layer or position that is not there, or too little memory; the branch stays as it is.
    pub async fn hidden_states(
        &self,
        layer: usize,
        positions: Range<usize>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let read = self.operate(async move |state| {
            // An error here leaves the branch as it was.
            Ok(state.branch.hidden_states(layer, positions).await)
        });
        Ok(read.await??)
    }

    /// Takes the state out and works on it; puts it back if the work succeeds and the handle is
    /// still there.
    async fn operate<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&mut State) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let id = self.id;
        let job = self.session.unqueued(move |owner, _| {
            let taken = (owner.branches.0.borrow_mut().get_mut(&id)).and_then(Option::take);
            async move {
                let mut state = taken.ok_or(Error::BranchGivenUp)?;
                // After a failure the models may have read what the state does not know of.
                let done = work(&mut state).await?;
                if let Some(slot) = owner.branches.0.borrow_mut().get_mut(&id) {
                    *slot = Some(state);
                }
                Ok(done)
            }
        });
        let mut unfinished = GiveUp(Some(self));
        let done = job.outcome().await;
        unfinished.0 = None;
        done
    }

    /// Frees what the branch holds; later operations say that it was given up.
    fn remove(&self) {
        let id = self.id;
        self.session.send(Box::new(move |owner| {
            // Dropped outside the borrow: freeing a branch runs engine code.
            let state = owner.branches.0.borrow_mut().remove(&id);
            drop(state);
            None
        }));
    }
}

/// Gives a branch up when dropped: the outcome of its operation was not received.
struct GiveUp<'a>(Option<&'a Branch>);

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if let Some(branch) = self.0 {
            branch.remove();
        }
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.remove();
    }
}

impl std::fmt::Debug for Branch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Branch")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
