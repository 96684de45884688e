//! The paper's prompts: a problem as the policy's first messages (SEMANTICS.md, "Prompts").

use engine::checkpoint::config::ModelConfig;
use engine::text::chat::{ChatTemplate, Message};
use engine::text::tokenizer::Tokenizer;

use crate::Error;

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

/// A problem to try a chat template with.
pub const PROBE: &str = "1 + 1?";

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
            system_in_user: false,
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
    /// Whether the text of the system message stands before the problem, in the user's message: for
    /// a chat template that refuses system messages.
    pub system_in_user: bool,
}

impl PromptStyle {
    /// The messages of a problem.
    pub fn messages(&self, problem: &str) -> Vec<Message> {
        let mut user = match &self.instruction {
            Some(instruction) => format!("{problem}\n{instruction}"),
            None => problem.to_string(),
        };
        let mut messages = Vec::new();
        match &self.system {
            Some(system) if self.system_in_user => user = format!("{system}\n\n{user}"),
            Some(system) => messages.push(Message::new("system", system)),
            None => {}
        }
        messages.push(Message::new("user", user));
        messages
    }

    /// This style as `chat` takes it: with the system's text in the user's message if the template
    /// refuses it in a message of its own (SEMANTICS.md, "Prompts").
    ///
    /// # Errors
    /// A template that fails on a problem all the same.
    pub fn fit(self, chat: &ChatTemplate) -> Result<PromptStyle, Error> {
        let tried = |style: &PromptStyle| chat.render(&style.messages(PROBE), true, false);
        let Err(error) = tried(&self) else {
            return Ok(self);
        };
        if self.system.is_none() {
            return Err(error.into());
        }
        let moved = PromptStyle {
            system_in_user: true,
            ..self
        };
        tried(&moved)?;
        Ok(moved)
    }

    /// What there is to know about this style with `chat`, if anything: that the system's text goes
    /// into the user's message, or that the template leaves it out.
    pub fn note(&self, chat: &ChatTemplate) -> Option<&'static str> {
        let system = self.system.as_ref()?;
        if self.system_in_user {
            return Some(
                "its chat template takes no system message, so the system prompt goes into the \
                 user's message, before the problem",
            );
        }
        let rendered = chat.render(&self.messages(PROBE), true, false);
        let left_out = rendered.is_ok_and(|text| !text.contains(system.trim()));
        left_out.then_some("its chat template leaves system messages out")
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

    /// The system prompt goes where the chat template takes it.
    #[test]
    fn styles_fit_chat_templates() {
        const TURNS: &str = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}";
        let refusing = |what: &str| {
            let refuse = "{{ raise_exception('no system') }}";
            format!("{{% if messages[0].role == 'system' %}}{refuse}{{% endif %}}{what}")
        };
        let drops = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}";
        let moved = Some("its chat template takes no system message, so");
        let dropped = Some("its chat template leaves system messages out");
        let qwen = || PromptKind::Qwen.style();
        let plain = || PromptKind::Plain.style();
        let sentence = REASON_STEP_BY_STEP;
        let own = format!("system={sentence};user=7?;");
        let folded = format!("user={sentence}\n\n7?;");
        #[rustfmt::skip]
        let cases: [(&str, PromptStyle, &str, Option<&str>); 5] = [
            (TURNS, qwen(), &own, None),
            (&refusing(TURNS), qwen(), &folded, moved),
            (&refusing(TURNS), plain(), "user=7?;", None),
            (drops, qwen(), "7?", dropped),
            (drops, plain(), "7?", None),
        ];
        for (template, style, expected, note) in cases {
            let chat = ChatTemplate::parse("t".into(), template, vec![]).expect(template);
            let style = style.fit(&chat).expect(template);
            let text = chat.render(&style.messages("7?"), true, false);
            assert_eq!(text.expect(template), expected, "{template}");
            let found = style.note(&chat);
            let right = match (found, note) {
                (Some(found), Some(note)) => found.starts_with(note),
                (found, note) => found == note,
            };
            assert!(right, "{template}: {found:?}");
        }
        let always = "{{ raise_exception('only in verse') }}";
        let chat = ChatTemplate::parse("t".into(), always, vec![]).expect("parses");
        for style in [qwen(), plain()] {
            let error = style.fit(&chat).expect_err("refuses").to_string();
            assert_eq!(error, "t, line 1: only in verse");
        }
    }
}
