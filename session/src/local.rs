//! Models on a device, on the thread that owns them.
//!
//! [`Session`](crate::Session) runs one of these on a thread of its own. A program that measures a
//! backend puts its own under the same wiring with [`Local::over`].

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use engine::checkpoint::hub::{Need, Watch};
use engine::checkpoint::source::Source;
use engine::{
    Confidences, DeviceModels, Engine, FlopRates, Generate, KvUsage, Model, ModelSpec, Setting,
    Usage,
};
use futures::channel::mpsc;
use kernels::Backend;
use strategies::{
    Config, ContextOverflow, EnginePolicy, EnginePrm, News, NoPrm, Outcome, Plan, Prm, PrmFormat,
    Problem, PromptStyle, Strategy,
};

use crate::device::Machine;
use crate::generate::{GenerateRequest, Generation};
use crate::models::{LoadedModel, source};
use crate::{EngineOptions, Error, Options};

/// The files of a session's models, found or fetched.
#[derive(Clone, Debug)]
pub struct Sources {
    policy: Option<Source>,
    prm: Option<Source>,
}

impl Sources {
    /// Finds the models that `options` name; a hub model that the local cache lacks is fetched, which
    /// `watch` sees.
    ///
    /// # Errors
    /// Options that no session can have, a model that is not there, a download that failed.
    pub fn find(options: &Options, watch: &mut dyn Watch) -> Result<Sources, Error> {
        options.validate()?;
        let mut find = |setting, name: &Option<String>| {
            let found = name
                .as_ref()
                .map(|name| source(setting, name, Need::Weights, watch));
            found.transpose()
        };
        Ok(Sources {
            policy: find("policy", &options.policy)?,
            prm: find("prm", &options.prm)?,
        })
    }

    /// Opens the policy's files.
    fn policy(&self, options: &Options) -> Result<Option<PolicyFiles>, Error> {
        let Some((name, source)) = options.policy.as_ref().zip(self.policy.clone()) else {
            return Ok(None);
        };
        let loaded = LoadedModel::open("policy", name, source)?;
        loaded.must_write()?;
        let (system, instruction) = (options.system.as_deref(), options.instruction.as_deref());
        let style = loaded.prompt_style(options.prompt, system, instruction);
        let (style, unusable) = match loaded.fit(style.clone()) {
            Ok(style) => (style, None),
            Err(error) => (style, Some(error.to_string())),
        };
        Ok(Some(PolicyFiles {
            loaded,
            style,
            unusable,
        }))
    }

    /// Opens the PRM's files.
    fn prm(&self, options: &Options) -> Result<Option<PrmFiles>, Error> {
        let Some((name, source)) = options.prm.as_ref().zip(self.prm.clone()) else {
            return Ok(None);
        };
        let loaded = LoadedModel::open("prm", name, source)?;
        let format = loaded.prm_format(options.prm_format)?;
        Ok(Some(PrmFiles { loaded, format }))
    }
}

/// One model of a session, as reports name it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// As named in the options.
    pub name: String,
    /// Parameters.
    pub params: usize,
    /// Tokens of the longest sequence it was made for.
    pub context_length: usize,
    /// Layers.
    pub layers: usize,
    /// Numbers of a hidden state.
    pub hidden: usize,
    /// The PRM's format; `None` for a policy.
    pub prm_format: Option<&'static str>,
    /// What its user should know before it works: a sentence each.
    pub warnings: Vec<String>,
}

/// What a session consists of.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// The device.
    pub machine: Machine,
    /// The policy.
    pub policy: Option<ModelInfo>,
    /// The PRM.
    pub prm: Option<ModelInfo>,
    /// How a problem becomes the policy's first messages.
    pub prompt: PromptStyle,
    /// Why the policy's chat template takes no problem, if so: it can continue texts all the same.
    pub no_prompt: Option<String>,
}

impl Info {
    /// Refuses a policy whose chat template takes no problem.
    ///
    /// # Errors
    /// The template's own, with the policy's name.
    pub fn must_take_problems(&self) -> Result<(), Error> {
        match (&self.policy, &self.no_prompt) {
            (Some(policy), Some(problem)) => Err(Error::Model {
                setting: "policy",
                name: policy.name.clone(),
                problem: problem.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// What the user of the models should know before they work: a sentence each.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        let models = [&self.policy, &self.prm].into_iter().flatten();
        models.flat_map(|model| model.warnings.iter().map(String::as_str))
    }
}

/// One of a session's models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The model that writes.
    Policy,
    /// The model that scores.
    Prm,
}

/// What a model has done since the session was opened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelUsage {
    /// Tokens, FLOPs, batches.
    pub work: Usage,
    /// Its KV cache.
    pub kv: KvUsage,
    /// What its rows cost.
    pub rates: FlopRates,
}

/// What policy and PRM have done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usages {
    /// The policy.
    pub policy: Option<ModelUsage>,
    /// The PRM.
    pub prm: Option<ModelUsage>,
    /// Solutions that searches have finished.
    pub solutions: u64,
    /// The policy's tokens along their paths.
    pub solution_tokens: u64,
}

/// A policy's files and how problems are put to it.
struct PolicyFiles {
    loaded: LoadedModel,
    style: PromptStyle,
    /// Why the chat template takes no problem, if so.
    unusable: Option<String>,
}

impl PolicyFiles {
    fn info(&self) -> ModelInfo {
        let mut info = self.loaded.info();
        if self.style.system_in_user {
            let note = self.style.note(&self.loaded.chat);
            let note = note.map(|note| format!("{}: {note}", info.name));
            info.warnings.extend(note);
        }
        info
    }
}

/// A PRM's files and how it reads steps.
struct PrmFiles {
    loaded: LoadedModel,
    format: Rc<PrmFormat>,
}

/// The opened files of a session's models.
struct Files {
    info: Info,
    policy: Option<PolicyFiles>,
    prm: Option<PrmFiles>,
}

impl Files {
    fn open(machine: Machine, options: &Options, sources: Sources) -> Result<Files, Error> {
        let (policy, prm) = (sources.policy(options)?, sources.prm(options)?);
        let info = Info {
            machine,
            policy: policy.as_ref().map(PolicyFiles::info),
            prm: prm.as_ref().map(|p| ModelInfo {
                prm_format: Some(p.format.kind().name()),
                ..p.loaded.info()
            }),
            prompt: policy
                .as_ref()
                .map_or_else(PromptStyle::default, |p| p.style.clone()),
            no_prompt: policy.as_ref().and_then(|p| p.unusable.clone()),
        };
        Ok(Files { info, policy, prm })
    }

    /// What to load of the policy and of the PRM.
    fn specs(&self, options: &Options) -> [Vec<ModelSpec<'_>>; 2] {
        let extend_context = options.engine.context_overflow == ContextOverflow::Extend;
        let writer = (self.policy.iter()).map(|p| p.loaded.part(None, extend_context));
        let scorer = self.prm.iter();
        let scorer = scorer.map(|p| p.loaded.part(p.format.head_rows(), extend_context));
        [writer.collect(), scorer.collect()]
    }
}

/// Models on a device, and the engine that computes them.
pub struct Local {
    engine: Engine,
    info: Info,
    policy: Option<(PolicyFiles, Model)>,
    prm: Option<(PrmFiles, Model)>,
    overflow: ContextOverflow,
    solutions: Cell<u64>,
    solution_tokens: Cell<u64>,
}

impl LoadedModel {
    fn part(&self, head_rows: Option<Vec<u32>>, extend_context: bool) -> ModelSpec<'_> {
        ModelSpec {
            head_rows,
            extend_context,
            ..ModelSpec::new(&self.checkpoint, Some(Rc::clone(&self.tokenizer)))
        }
    }

    fn info(&self) -> ModelInfo {
        ModelInfo {
            name: self.name.clone(),
            params: self.checkpoint.params(),
            context_length: self.checkpoint.config.context_length,
            layers: self.checkpoint.config.layers,
            hidden: self.checkpoint.config.hidden,
            prm_format: None,
            warnings: (self.checkpoint.warnings.iter().map(String::as_str))
                .chain(self.tokenizer.warning())
                .map(str::to_string)
                .collect(),
        }
    }
}

impl Local {
    /// Opens the models' files and their devices, shows `check` what they are, then loads the models.
    ///
    /// # Errors
    /// Options out of range, a device that cannot be used, files that are not a checkpoint, a model that
    /// cannot do its work, what `check` refuses, too little memory.
    pub fn open<T>(
        options: &Options,
        sources: Sources,
        check: impl FnOnce(&Info) -> Result<T, Error>,
    ) -> Result<(Local, T), Error> {
        let main = &options.engine;
        let prm_on = |device| EngineOptions {
            device,
            ..main.clone()
        };
        let two = (options.prm_device).filter(|_| options.prm.is_some());
        let two = two.filter(|device| device.resolved() != main.device.resolved());
        let (first, second) = match two.map(prm_on) {
            Some(prm) if options.policy.is_none() => (prm.open()?, None),
            Some(prm) => (main.open()?, Some(prm.open()?)),
            None => (main.open()?, None),
        };
        let (backend, mut machine) = first;
        let mut prm_backend = None;
        if let Some((backend, prm_machine)) = second {
            machine = machine.with_prm_on(prm_machine);
            prm_backend = Some(backend);
        }
        let files = Files::open(machine, options, sources)?;
        let checked = check(&files.info)?;
        let engine_options = main.engine(0)?;
        let [policy, prm] = files.specs(options);
        let devices = match prm_backend {
            None => vec![backend.load(&[policy, prm].concat(), &engine_options)?],
            Some(prm_backend) => vec![
                backend.load(&policy, &engine_options)?,
                prm_backend.load(&prm, &engine_options)?,
            ],
        };
        Ok((Local::of(devices, files, options)?, checked))
    }

    /// As [`Local::open`], on a backend that is open already; `prm_device` has no effect.
    ///
    /// # Errors
    /// As [`Local::open`].
    pub fn over<B: Backend + 'static, T>(
        backend: B,
        machine: Machine,
        options: &Options,
        sources: Sources,
        check: impl FnOnce(&Info) -> Result<T, Error>,
    ) -> Result<(Local, T), Error> {
        let files = Files::open(machine, options, sources)?;
        let checked = check(&files.info)?;
        let specs = files.specs(options).concat();
        let device = DeviceModels::load(backend, &specs, &options.engine.engine(0)?)?;
        Ok((Local::of(vec![device], files, options)?, checked))
    }

    /// Over models that are loaded already, the policy first.
    fn of(devices: Vec<DeviceModels>, files: Files, options: &Options) -> Result<Local, Error> {
        let engine_options = options.engine.engine(0)?;
        let (seed, asynchronous) = (engine_options.seed, engine_options.async_scheduling);
        let (engine, models) = Engine::of(devices, seed, asynchronous);
        let mut models = models.into_iter();
        let Files { info, policy, prm } = files;
        Ok(Local {
            engine,
            info,
            policy: policy.and_then(|policy| Some((policy, models.next()?))),
            prm: prm.and_then(|prm| Some((prm, models.next()?))),
            overflow: options.engine.context_overflow,
            solutions: Cell::default(),
            solution_tokens: Cell::default(),
        })
    }

    /// What this consists of.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The engine, to drive the futures of the other methods with.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What policy and PRM have done.
    pub fn usage(&self) -> Usages {
        let usage = |model: &Model| ModelUsage {
            work: model.usage(),
            kv: model.kv_usage(),
            rates: model.flop_rates(),
        };
        Usages {
            policy: self.policy.as_ref().map(|(_, model)| usage(model)),
            prm: self.prm.as_ref().map(|(_, model)| usage(model)),
            solutions: self.solutions.get(),
            solution_tokens: self.solution_tokens.get(),
        }
    }

    /// The policy with the random numbers of `seed`.
    ///
    /// # Errors
    /// There is none.
    pub fn policy(&self, seed: u64) -> Result<EnginePolicy, Error> {
        let (files, model) = self.writer()?;
        let (model, style) = (model.with_seed(seed), files.style.clone());
        Ok(files.loaded.policy(model, style, self.overflow))
    }

    /// The PRM.
    ///
    /// # Errors
    /// There is none.
    pub fn prm(&self) -> Result<EnginePrm, Error> {
        let (files, model) = self.scorer()?;
        let (model, format) = (model.clone(), Rc::clone(&files.format));
        Ok(EnginePrm::new(model, format, self.overflow))
    }

    fn writer(&self) -> Result<&(PolicyFiles, Model), Error> {
        (self.policy.as_ref()).ok_or(Error::NoModel { role: "policy" })
    }

    fn scorer(&self) -> Result<&(PrmFiles, Model), Error> {
        self.prm.as_ref().ok_or(Error::NoModel { role: "prm" })
    }

    /// Searches for the answer of one problem; `watch` sees the news of the search.
    ///
    /// # Errors
    /// Settings that cannot run, a model that is not there, a failure of the search.
    pub async fn solve(
        &self,
        problem: &Problem,
        config: &Config,
        watch: &dyn Fn(News<'_>),
    ) -> Result<Outcome, Error> {
        let config = &*self.with_plan(config);
        config.validate()?;
        self.info.must_take_problems()?;
        let counted = |news: News<'_>| {
            if let News::Solution(solution) = &news {
                self.solutions.update(|count| count + 1);
                (self.solution_tokens).update(|tokens| tokens + solution.num_tokens as u64);
            }
            watch(news);
        };
        let policy = self.policy(config.seed)?;
        let outcome = if config.strategy.needs_prm() {
            let prm = self.prm()?;
            strategies::solve_watched(&policy, Some(&prm), problem, config, &counted).await
        } else {
            strategies::solve_watched(&policy, None::<&NoPrm>, problem, config, &counted).await
        };
        Ok(outcome?)
    }

    /// The options with the plan that [`Plan::by_size`] has for the policy, if they need one.
    fn with_plan<'a>(&self, config: &'a Config) -> Cow<'a, Config> {
        let policy = self.info.policy.as_ref();
        match (config.strategy, &config.plan, policy) {
            (Strategy::Auto, None, Some(policy)) => Cow::Owned(Config {
                plan: Some(Box::new(Plan::by_size(policy.params as u64, config.n))),
                ..config.clone()
            }),
            _ => Cow::Borrowed(config),
        }
    }

    /// Scores the steps of a solution: one score for each.
    ///
    /// # Errors
    /// No PRM, steps that do not fit its context.
    pub async fn score(&self, problem: &str, steps: &[&str]) -> Result<Vec<f64>, Error> {
        let prm = self.prm()?;
        let mut branch = prm.start(problem).await?;
        Ok(prm.score(&mut branch, steps).await?)
    }

    /// Continues a prompt; text goes to `stream` as it becomes final.
    ///
    /// # Errors
    /// No policy, sampling settings that cannot be honoured, a prompt without tokens or larger than the
    /// context.
    pub async fn generate(
        &self,
        request: &GenerateRequest,
        stream: Option<mpsc::UnboundedSender<String>>,
    ) -> Result<Generation, Error> {
        strategies::check_sampling(&request.sampling)?;
        if request.max_tokens == 0 {
            return Err(Setting::new("max_tokens", 0, "a number from 1 up").into());
        }
        let (PolicyFiles { loaded, .. }, model) = self.writer()?;
        let prompt = loaded.token_ids(&request.prompt)?;
        if prompt.is_empty() {
            return Err(Error::Empty { what: "prompt" });
        }
        let mut branch = model.with_seed(request.seed).root(0);
        branch.append(&prompt)?;
        let generate = Generate {
            sampling: request.sampling,
            max_tokens: request.max_tokens,
            stop_strings: request.stop.clone(),
            include_stop: false,
            stop_token_ids: loaded.end_tokens(),
            stream,
            confidences: Confidences::None,
        };
        let generated = branch.generate(generate).await?;
        Ok(Generation {
            prompt_tokens: prompt.len(),
            token_ids: generated.sampled_ids,
            text: generated.text,
            logprobs: generated.logprobs,
            processed_logprobs: generated.processed_logprobs,
            finish: generated.finish,
        })
    }

    /// The token ids of a text by the tokenizer of the policy, or of the PRM.
    ///
    /// # Errors
    /// No such model, a text that its tokenizer cannot encode.
    pub fn tokenize(&self, role: Role, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
        Ok(self.loaded(role)?.tokenizer.encode(text, add_special)?)
    }

    /// The text of token ids.
    ///
    /// # Errors
    /// No such model, an id outside its vocabulary.
    pub fn detokenize(&self, role: Role, token_ids: &[u32]) -> Result<String, Error> {
        Ok(self.loaded(role)?.tokenizer.decode(token_ids, true)?)
    }

    fn loaded(&self, role: Role) -> Result<&LoadedModel, Error> {
        match role {
            Role::Policy => Ok(&self.writer()?.0.loaded),
            Role::Prm => Ok(&self.scorer()?.0.loaded),
        }
    }
}
