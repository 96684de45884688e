//! The paper's prompts: a problem as the policy's first messages (SEMANTICS.md, "Prompts").

use engine::checkpoint::config::ModelConfig;
use engine::text::chat::Message;
use engine::text::tokenizer::Tokenizer;

/// The sentence Qwen2.5-Math and the paper's code use for every model but Llama.
pub const REASON_STEP_BY_STEP: &str =
    "Please reason step by step, and put your final answer within \\boxed{}.";

/// Meta's prompt for mathematics with Llama 3, as the paper's code and search-and-learn send it.
const LLAMA_MATHEMATICS: &str = "Solve the following math problem efficiently and clearly:\n\n\
    - For simple problems (2 steps or fewer):\n\
    Provide a concise solution with minimal explanation.\n\n\
    - For complex problems (3 steps or more):\n\
    Use this step-by-step format:\n\n\
    ## Step 1: [Concise description]\n\
    [Brief explanation and calculations]\n\n\
    ## Step 2: [Concise description]\n\
    [Brief explanation and calculations]\n\n\
    ...\n\n\
    Regardless of the approach, always conclude with:\n\n\
    Therefore, the final answer is: $\\boxed{answer}$. I hope it is correct.\n\n\
    Where [answer] is just the final number or expression that solves the problem.";

/// Which of the paper's prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptKind {
    /// The sentence as the system message.
    Qwen,
    /// Meta's prompt as the system message.
    Llama,
    /// No system message; the sentence after the problem (DeepSeek-R1 and its distillations).
    R1,
    /// The problem alone.
    Plain,
}

impl PromptKind {
    /// All of them.
    pub const ALL: [PromptKind; 4] = [
        PromptKind::Qwen,
        PromptKind::Llama,
        PromptKind::R1,
        PromptKind::Plain,
    ];

    /// The word for it in options and results.
    pub fn name(self) -> &'static str {
        match self {
            PromptKind::Qwen => "qwen",
            PromptKind::Llama => "llama",
            PromptKind::R1 => "r1",
            PromptKind::Plain => "plain",
        }
    }

    /// The prompt of the paper's code for a model, recognised by its chat tokens: R1 and its
    /// distillations, Llama 3, all others.
    pub fn recognise(config: &ModelConfig, tokenizer: &Tokenizer) -> PromptKind {
        let has = |token| tokenizer.token_id(token).is_some();
        if has("<｜Assistant｜>") {
            PromptKind::R1
        } else if config.architecture.starts_with("Llama") && has("<|start_header_id|>") {
            PromptKind::Llama
        } else {
            PromptKind::Qwen
        }
    }

    /// Its messages.
    pub fn style(self) -> PromptStyle {
        let (system, instruction) = match self {
            PromptKind::Qwen => (Some(REASON_STEP_BY_STEP), None),
            PromptKind::Llama => (Some(LLAMA_MATHEMATICS), None),
            PromptKind::R1 => (None, Some(REASON_STEP_BY_STEP)),
            PromptKind::Plain => (None, None),
        };
        PromptStyle {
            system: system.map(str::to_string),
            instruction: instruction.map(str::to_string),
        }
    }
}

/// How a problem becomes the policy's first messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptStyle {
    /// The system message; `None` sends none.
    pub system: Option<String>,
    /// A line after the problem in the user's message.
    pub instruction: Option<String>,
}

impl PromptStyle {
    /// The messages of a problem.
    pub fn messages(&self, problem: &str) -> Vec<Message> {
        let system = self.system.iter().map(|s| Message::new("system", s));
        let user = match &self.instruction {
            Some(instruction) => format!("{problem}\n{instruction}"),
            None => problem.to_string(),
        };
        system.chain([Message::new("user", user)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_of_every_style() {
        let said = |kind: PromptKind| -> Vec<(String, String)> {
            let messages = kind.style().messages("1 + 1?");
            messages.into_iter().map(|m| (m.role, m.content)).collect()
        };
        let user = |text: &str| ("user".to_string(), text.to_string());
        assert_eq!(said(PromptKind::Plain), [user("1 + 1?")]);
        assert_eq!(
            said(PromptKind::R1),
            [user(&format!("1 + 1?\n{REASON_STEP_BY_STEP}"))]
        );
        for (kind, begins) in [
            (PromptKind::Qwen, "Please reason step by step"),
            (
                PromptKind::Llama,
                "Solve the following math problem efficiently and clearly:\n\n- For simple",
            ),
        ] {
            let messages = said(kind);
            assert_eq!(messages[0].0, "system", "{kind:?}");
            assert!(messages[0].1.starts_with(begins), "{kind:?}");
            assert_eq!(messages[1..], [user("1 + 1?")], "{kind:?}");
        }
    }
}
