//! How a session is opened.

use engine::Setting;
use strategies::{PrmKind, PromptKind};

use crate::{Device, EngineOptions};

/// The models of a session, how they are prompted and read, and their device.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The model that writes: an embedded word, a directory or a hub name. `None`: no policy.
    pub policy: Option<String>,
    /// The model that scores steps. `None`: no PRM.
    pub prm: Option<String>,
    /// How the PRM is read; `None`: as its head and name say.
    pub prm_format: Option<PrmKind>,
    /// The paper's prompt for the policy; `None`: the one that fits it.
    pub prompt: Option<PromptKind>,
    /// System message in place of the prompt's; an empty text sends none.
    pub system: Option<String>,
    /// Line after the problem in place of the prompt's; an empty text sends none.
    pub instruction: Option<String>,
    /// Jobs in work at once; `None`: as many as fill a batch. Further jobs wait in order of arrival.
    pub concurrency: Option<usize>,
    /// The device, of both models unless `prm_device` says otherwise.
    pub engine: EngineOptions,
    /// A device of the PRM's own, used as `engine` says in all else. Each device has a KV cache of
    /// its own, and policy and PRM work at the same time.
    pub prm_device: Option<Device>,
}

impl Default for Options {
    /// The embedded models on the device that `auto` finds.
    fn default() -> Self {
        Options {
            policy: Some("nano-small".into()),
            prm: Some("nano-prm".into()),
            ..Options::without_models()
        }
    }
}

impl Options {
    /// Default options with neither policy nor PRM.
    pub fn without_models() -> Options {
        Options {
            policy: None,
            prm: None,
            prm_format: None,
            prompt: None,
            system: None,
            instruction: None,
            concurrency: None,
            engine: EngineOptions::default(),
            prm_device: None,
        }
    }

    /// Refuses options that no session can have.
    ///
    /// # Errors
    /// Neither a policy nor a PRM, no job at once, options of the device out of range.
    pub(crate) fn validate(&self) -> Result<(), Setting> {
        self.engine.validate()?;
        if self.policy.is_none() && self.prm.is_none() {
            return Err(Setting::new("policy", "missing", "a policy or a `prm`"));
        }
        match self.concurrency {
            Some(0) => Err(Setting::new("concurrency", 0, "a number from 1 up")),
            _ => Ok(()),
        }
    }
}
