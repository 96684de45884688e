//! Models by name: from a word, a directory or a hub name to a checkpoint with its tokenizer.

use std::path::Path;
use std::rc::Rc;

use engine::checkpoint::Checkpoint;
use engine::checkpoint::config::HeadKind;
use engine::checkpoint::hub::{Hub, HubName, Need, Watch};
use engine::checkpoint::source::Source;
use engine::text::chat::ChatTemplate;
use engine::text::tokenizer::Tokenizer;
use engine::{Model, Setting};
use strategies::{
    ContextOverflow, EnginePolicy, PROBE, PrmFormat, PrmKind, PromptKind, PromptStyle,
};

use crate::{Error, embedded};

/// Finds a model that the setting `setting` names: an embedded word, else a directory, else a name on
/// the hub, of which `need` is fetched if the local cache lacks it.
///
/// # Errors
/// No such model, or a download that failed.
pub fn source(
    setting: &'static str,
    name: &str,
    need: Need,
    watch: &mut dyn Watch,
) -> Result<Source, Error> {
    if let Some(source) = embedded::find(name) {
        return Ok(source);
    }
    if Path::new(name).exists() {
        return Source::directory(name).map_err(|error| unusable(setting, name, error));
    }
    let Some(on_hub) = hub_name(name) else {
        let words = embedded::words().collect::<Vec<_>>().join(", ");
        let expected = format!(
            "a directory, an embedded model ({words}) or a name on the hub (org/name or \
             org/name@revision)"
        );
        let found = format!("{name} (no such directory)");
        return Err(Setting::new(setting, found, expected).into());
    };
    Hub::from_env()
        .and_then(|hub| hub.get(&on_hub, need, watch))
        .map(Source::Directory)
        .map_err(|error| unusable(setting, name, error))
}

/// An error of finding a model, with the setting that names it.
fn unusable(setting: &'static str, name: &str, error: engine::Error) -> Error {
    match error {
        engine::Error::Hub { name, problem } => Error::Model {
            setting,
            name,
            problem,
        },
        engine::Error::NotADirectory { reason, .. } => Error::Model {
            setting,
            name: name.into(),
            problem: format!("{reason}; expected a directory"),
        },
        other => other.into(),
    }
}

/// The name on the hub that `name` is, if it is neither an embedded word nor a path.
pub fn hub_name(name: &str) -> Option<HubName> {
    let here = embedded::find(name).is_some() || Path::new(name).exists();
    HubName::parse(name).filter(|_| !here)
}

/// A checkpoint with everything that turns text into its tokens and back.
pub struct LoadedModel {
    /// The setting that named it: `policy`, `prm` or `model`.
    pub setting: &'static str,
    /// The word, path or hub name it was named by.
    pub name: String,
    /// Config and tensors.
    pub checkpoint: Checkpoint,
    /// Its tokenizer.
    pub tokenizer: Rc<Tokenizer>,
    /// Its chat template.
    pub chat: Rc<ChatTemplate>,
}

impl LoadedModel {
    /// Opens the files of a model that the setting `setting` calls `name`.
    ///
    /// # Errors
    /// Files that are missing, damaged or of an unknown architecture.
    pub fn open(setting: &'static str, name: &str, source: Source) -> Result<LoadedModel, Error> {
        let checkpoint = Checkpoint::open(source.clone())?;
        let tokenizer = Tokenizer::open(&source, Some(&checkpoint.config))?;
        let chat = ChatTemplate::open(&source, &tokenizer)?;
        Ok(LoadedModel {
            setting,
            name: name.into(),
            checkpoint,
            tokenizer: Rc::new(tokenizer),
            chat: Rc::new(chat),
        })
    }

    /// The tokens that end its texts.
    pub fn end_tokens(&self) -> Vec<u32> {
        self.tokenizer.end_tokens(self.checkpoint.eos())
    }

    fn refuse(&self, problem: impl ToString) -> Error {
        Error::Model {
            setting: self.setting,
            name: self.name.clone(),
            problem: problem.to_string(),
        }
    }

    /// Refuses a model that cannot write.
    ///
    /// # Errors
    /// A classifier or a reward model.
    pub fn must_write(&self) -> Result<(), Error> {
        match &self.checkpoint.config.head {
            HeadKind::Causal => Ok(()),
            HeadKind::TokenClassification { labels } => Err(self.refuse(format!(
                "a classifier of {} labels cannot write; expected a causal language model",
                labels.len()
            ))),
            HeadKind::Value | HeadKind::Process => {
                Err(self.refuse("a reward model cannot write; expected a causal language model"))
            }
        }
    }

    /// How this model reads steps and scores them: `kind` if given, else as its head and name say.
    ///
    /// # Errors
    /// A model that cannot score steps, or not in this format.
    pub fn prm_format(&self, kind: Option<PrmKind>) -> Result<Rc<PrmFormat>, Error> {
        let config = &self.checkpoint.config;
        let kind = match kind {
            Some(kind) => kind,
            None => PrmKind::recognise(config, &self.name).map_err(|why| self.refuse(why))?,
        };
        let (tokenizer, chat) = (Rc::clone(&self.tokenizer), Rc::clone(&self.chat));
        PrmFormat::new(kind, config, tokenizer, chat)
            .map(Rc::new)
            .map_err(|error| self.refuse(error))
    }

    /// The prompt of this model: `kind` if given, else the paper's that fits it, with its system message
    /// and instruction replaced where others are given (an empty text sends none).
    pub fn prompt_style(
        &self,
        kind: Option<PromptKind>,
        system: Option<&str>,
        instruction: Option<&str>,
    ) -> PromptStyle {
        let recognised = || PromptKind::recognise(&self.checkpoint.config, &self.tokenizer);
        let style = kind.unwrap_or_else(recognised).style();
        let given = |text: Option<&str>, own| match text {
            Some(text) => Some(text.to_string()).filter(|text| !text.is_empty()),
            None => own,
        };
        PromptStyle {
            system: given(system, style.system),
            instruction: given(instruction, style.instruction),
            ..style
        }
    }

    /// A prompt's style as this model takes it.
    ///
    /// # Errors
    /// A chat template that fails on a problem, or writes a token that the model does not have.
    pub fn fit(&self, style: PromptStyle) -> Result<PromptStyle, Error> {
        let style = style.fit(&self.chat)?;
        let prompt = self.chat.render(&style.messages(PROBE), true, false)?;
        let vocab = self.checkpoint.config.vocab;
        let token_ids = self.tokenizer.encode(&prompt, false)?;
        match token_ids.into_iter().find(|&id| id as usize >= vocab) {
            Some(token) => Err(engine::Error::TokenOutOfVocabulary { token, vocab }.into()),
            None => Ok(style),
        }
    }

    /// This model on an engine, as a policy.
    pub fn policy(
        &self,
        model: Model,
        style: PromptStyle,
        overflow: ContextOverflow,
    ) -> EnginePolicy {
        EnginePolicy::new(
            model,
            Rc::clone(&self.tokenizer),
            Rc::clone(&self.chat),
            style,
            self.end_tokens(),
            overflow,
        )
    }
}
