//! Solutions that are written in parts, with texts between them that the policy did not write.

pub(crate) use super::whole::ending;
use super::whole::{add_chain, fate, steps_of};
use super::{LastRow, Search};
use crate::trace::NodeState;
use crate::{
    Confidences, Cost, Ending, Error, Policy, Prm, Sampling, Solution, Step, StepEnd, StepParams,
};
use engine::Work;
use std::cell::Cell;
use std::rc::Rc;

/// A solution as far as it is written, on a branch of its own.
pub(crate) struct Draft<'s, 'a, P: Policy, R: Prm> {
    search: &'s Search<'a, P, R>,
    branch: P::Branch,
    /// Tokens of the prompt.
    prompt: usize,
    /// Tokens that all drafts share.
    stem: usize,
    /// The row of the branch's last token; one for all forks of it.
    last_row: Rc<Cell<LastRow>>,
    /// Tokens that the policy wrote, those of ends of sequence and left out delimiters included.
    pub num_tokens: usize,
    /// Tokens that probes of it wrote, then thrown away.
    probe_tokens: usize,
    logprob: f64,
    cost: Cost,
}

/// A draft that has ended.
pub(crate) struct Written {
    pub solution: Solution,
    /// The fate of its last step.
    pub state: NodeState,
    probe_tokens: usize,
}

impl<'a, P: Policy, R: Prm> Search<'a, P, R> {
    /// So many drafts, all from the prompt and, if the context has room for it, the text `opening`; the i-th
    /// does not depend on their number.
    ///
    /// # Errors
    /// A failure of the policy.
    pub(crate) async fn drafts(
        &self,
        count: usize,
        opening: Option<&str>,
    ) -> Result<Vec<Draft<'_, 'a, P, R>>, Error> {
        let branch = self.start().await?.policy;
        let prompt = self.policy.num_tokens(&branch);
        let mut root = Draft {
            search: self,
            branch,
            prompt,
            stem: 0,
            last_row: Rc::new(Cell::new(self.use_stem())),
            num_tokens: 0,
            probe_tokens: 0,
            logprob: 0.0,
            cost: Cost::default(),
        };
        if let Some(opening) = opening {
            root.append(opening)?;
        }
        root.stem = self.policy.num_tokens(&root.branch);
        // What they share is nobody's own cost.
        root.cost = Cost::default();
        Ok((0..count).map(|_| root.fork()).collect())
    }

    /// Whether the prompt ends with `text`, white space aside: a chat template may open the thinking.
    pub(crate) fn prompt_ends_with(&self, text: &str) -> Result<bool, Error> {
        self.policy.prompt_ends_with(&self.problem.problem, text)
    }

    /// Puts drafts into the trace, in their order; returns their solutions.
    pub(crate) fn record_drafts(&self, written: Vec<Written>) -> Vec<Solution> {
        let mut trace = self.trace.borrow_mut();
        let solutions = written.into_iter().map(|written| {
            let mut solution = written.solution;
            solution.node = add_chain(&mut trace, &solution, written.state);
            trace.nodes[solution.node].lookahead_tokens = written.probe_tokens;
            solution
        });
        solutions.collect()
    }
}

impl<P: Policy, R: Prm> Draft<'_, '_, P, R> {
    /// Writes on, up to `delimiter`, which stays if `include_delimiter`, the end of sequence or `max_tokens`.
    /// On a branch whose context is full it writes nothing, which is the end [`StepEnd::Length`].
    ///
    /// # Errors
    /// A failure of the policy.
    pub async fn write(
        &mut self,
        delimiter: Option<&str>,
        include_delimiter: bool,
        max_tokens: usize,
        sampling: Sampling,
    ) -> Result<Step, Error> {
        if max_tokens == 0 || self.search.policy.is_full(&self.branch)? {
            return Ok(Step::no_room());
        }
        let last = self
            .search
            .policy
            .num_tokens(&self.branch)
            .saturating_sub(1);
        match self.last_row.get() {
            LastRow::Pending => {
                self.last_row.set(LastRow::Drawn);
                self.count_shared(last, 1);
            }
            LastRow::Drawn => {}
            LastRow::Read => self.count(Work::rows(last..last + 1, 1)),
        }
        let params = StepParams {
            begun: 0,
            delimiter,
            include_delimiter,
            max_tokens,
            sampling,
            confidences: Confidences::None,
        };
        let (step, cost) = self.search.write(&mut self.branch, &params).await?;
        self.cost += cost;
        let last_row = match step.end {
            StepEnd::Length => LastRow::Pending,
            StepEnd::Delimiter if include_delimiter => LastRow::Pending,
            // It gave the end of sequence, or the delimiter that was left out.
            _ => LastRow::Read,
        };
        self.last_row = Rc::new(Cell::new(last_row));
        self.num_tokens += step.num_tokens;
        self.logprob += step.logprob;
        Ok(step)
    }

    /// Appends a text that the policy did not write; false, and nothing is appended, if the context has no
    /// room for it.
    ///
    /// # Errors
    /// A failure of the policy.
    pub fn append(&mut self, text: &str) -> Result<bool, Error> {
        let policy = self.search.policy;
        let before = policy.num_tokens(&self.branch);
        if !policy.append(&mut self.branch, text)? {
            return Ok(false);
        }
        let after = policy.num_tokens(&self.branch);
        if after > before {
            if self.last_row.get() == LastRow::Pending {
                self.last_row.set(LastRow::Read);
                self.count_shared(before.saturating_sub(1), 0);
            }
            // The last row comes with the next part.
            self.count(Work::rows(before..after - 1, 0));
            self.last_row = Rc::default();
        }
        Ok(true)
    }

    /// A second draft with the same content, whose own tokens and cost begin at nothing.
    pub fn fork(&self) -> Self {
        Draft {
            search: self.search,
            branch: self.search.policy.fork(&self.branch),
            last_row: Rc::clone(&self.last_row),
            num_tokens: 0,
            probe_tokens: 0,
            logprob: 0.0,
            cost: Cost::default(),
            ..*self
        }
    }

    /// Counts a probe's tokens and rows as this draft's.
    pub fn adopt(&mut self, probe: Self) {
        self.probe_tokens += probe.num_tokens;
        self.cost += probe.cost;
    }

    /// All of its text, what was appended included.
    ///
    /// # Errors
    /// A failure of the policy.
    pub fn text(&self) -> Result<String, Error> {
        self.search.policy.text(&self.branch, self.prompt)
    }

    /// The draft as a solution that ended so, with `closing` behind its text.
    ///
    /// # Errors
    /// A failure of the policy.
    pub fn finish(self, end: Ending, closing: &str) -> Result<Written, Error> {
        let text = self.text()? + closing;
        let solution = Solution {
            steps: steps_of(&text, &self.search.config.delimiter),
            scores: Vec::new(),
            answer: None,
            extraction: None,
            correct: None,
            ending: end,
            num_tokens: self.num_tokens,
            logprob: self.logprob,
            node: 0,
            cost: self.cost,
            confidence: None,
        };
        Ok(Written {
            state: fate(end),
            solution,
            probe_tokens: self.probe_tokens,
        })
    }

    /// Counts one row for all forks; that of the stem is nobody's own.
    fn count_shared(&mut self, position: usize, outputs: usize) {
        let row = Work::rows(position..position + 1, outputs);
        if position + 1 == self.stem {
            self.search.count_policy(row);
        } else {
            self.count(row);
        }
    }

    fn count(&mut self, policy: Work) {
        self.search.count_policy(policy);
        self.cost.policy += policy;
    }
}
