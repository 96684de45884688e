//! From the word on the command line to models on a device.

use std::path::Path;
use std::rc::Rc;

use bench::timed::{Profile, Timed};
use engine::chat::ChatTemplate;
use engine::checkpoint::Checkpoint;
use engine::config::HeadKind;
use engine::hub::{Hub, HubName, Need};
use engine::source::Source;
use engine::tokenizer::Tokenizer;
use engine::{Engine, Model, Options, Part};
use kernels::cpu::Isa;
use kernels::cuda::Which;
use kernels::cuda::items::Sharing;
use kernels::{CpuBackend, CudaBackend, Dtype};
use strategies::{ContextOverflow, EnginePolicy, PrmFormat, PrmKind, PromptStyle};

use crate::downloads::Downloads;
use crate::embedded;
use crate::error::{Done, Failure, sentence};
use crate::flags::{Device, EngineFlags, KvDtype, Quantize, Without};

/// A checkpoint with everything that turns text into its tokens and back.
pub struct Loaded {
    /// The word or path it was named by.
    pub name: String,
    /// Config and tensors.
    pub checkpoint: Checkpoint,
    /// Its tokenizer.
    pub tokenizer: Rc<Tokenizer>,
    /// Its chat template.
    pub chat: Rc<ChatTemplate>,
}

/// Finds a model named on the command line by `flag`: an embedded word, else a directory, else a
/// name on the hub, of which `need` is fetched if the local cache lacks it.
pub fn source(flag: &str, name: &str, need: Need) -> Done<Source> {
    if let Some(source) = embedded::find(name) {
        return Ok(source);
    }
    if Path::new(name).exists() {
        return Ok(Source::directory(name)?);
    }
    let Some(on_hub) = hub_name(name) else {
        let words = embedded::words().collect::<Vec<_>>().join(", ");
        return Err(Failure::new(format!(
            "{flag} {name}: no such directory, and neither an embedded model ({words}) nor a name \
             on the hub (org/name or org/name@revision)"
        )));
    };
    Hub::from_env()
        .and_then(|hub| hub.get(&on_hub, need, &mut Downloads::default()))
        .map(Source::Directory)
        .map_err(|error| Failure::new(format!("{flag} {error}")))
}

/// The name on the hub that `name` is, if it is neither an embedded word nor a path.
pub fn hub_name(name: &str) -> Option<HubName> {
    let here = embedded::find(name).is_some() || Path::new(name).exists();
    HubName::parse(name).filter(|_| !here)
}

/// Opens a model named on the command line by `flag`.
pub fn open(flag: &str, name: &str) -> Done<Loaded> {
    let source = source(flag, name, Need::Weights)?;
    let checkpoint = Checkpoint::open(source.clone())?;
    let tokenizer = Tokenizer::open(&source, Some(&checkpoint.config))?;
    let chat = ChatTemplate::open(&source, &tokenizer)?;
    Ok(Loaded {
        name: name.into(),
        checkpoint,
        tokenizer: Rc::new(tokenizer),
        chat: Rc::new(chat),
    })
}

impl Loaded {
    /// Refuses, naming `flag`, a model that cannot write.
    pub fn must_write(&self, flag: &str) -> Done {
        match &self.checkpoint.config.head {
            HeadKind::Causal => Ok(()),
            HeadKind::TokenClassification { labels } => Err(Failure::new(format!(
                "{flag} {}: a classifier of {} labels cannot write, expected a causal language model",
                self.name,
                labels.len()
            ))),
            HeadKind::Value | HeadKind::Process => Err(Failure::new(format!(
                "{flag} {}: a reward model cannot write, expected a causal language model",
                self.name
            ))),
        }
    }

    /// The step format of a model that scores, `kind` if given; refuses, naming `flag`, a model
    /// that cannot.
    pub fn prm_format(&self, flag: &str, kind: Option<PrmKind>) -> Done<Rc<PrmFormat>> {
        let refuse = |why: String| Failure::new(format!("{flag} {}: {why}", self.name));
        let config = &self.checkpoint.config;
        let kind = match kind {
            Some(kind) => kind,
            None => {
                PrmKind::recognise(config, &self.name).map_err(|error| refuse(sentence(&error)))?
            }
        };
        let (tokenizer, chat) = (Rc::clone(&self.tokenizer), Rc::clone(&self.chat));
        PrmFormat::new(kind, config, tokenizer, chat)
            .map(Rc::new)
            .map_err(|error| refuse(sentence(&error)))
    }

    /// This model on an engine, as a policy.
    pub fn policy(
        &self,
        model: Model,
        style: PromptStyle,
        past_limit: ContextOverflow,
    ) -> EnginePolicy {
        let stop = self.checkpoint.eos().to_vec();
        EnginePolicy::new(
            model,
            Rc::clone(&self.tokenizer),
            Rc::clone(&self.chat),
            style,
            stop,
            past_limit,
        )
    }
}

/// Puts models onto the device; one with a format serves as a PRM.
pub fn engine(
    flags: &EngineFlags,
    seed: u64,
    models: &[(&Loaded, Option<&PrmFormat>)],
) -> Done<(Engine, Vec<Model>)> {
    let options = options(flags, seed)?;
    let parts = parts(flags, models);
    Ok(match gpu(flags)? {
        Some(backend) => Engine::new(backend, &parts, &options)?,
        None => Engine::new(cpu(flags), &parts, &options)?,
    })
}

/// The CPU backend.
fn cpu(flags: &EngineFlags) -> CpuBackend {
    CpuBackend::with_isa(flags.threads, flags.isa.unwrap_or_else(Isa::best))
}

/// Puts models onto the device, a GPU without some of what it could use; the CPU's operations are clocked.
pub fn timed_engine(
    flags: &EngineFlags,
    mut options: Options,
    parts: &[Part<'_>],
    without: &[Without],
) -> Done<(Engine, Vec<Model>, Option<Profile>)> {
    if let Some(mut backend) = gpu(flags)? {
        for what in without {
            match what {
                Without::Graphs => backend.set_graphs(false),
                Without::RunningAhead => options.run_ahead = Some(false),
                Without::Cublaslt => backend.set_cublaslt(None).map_err(engine::Error::from)?,
                Without::Sharing => backend.set_sharing(Sharing::Flat),
            }
        }
        let (engine, models) = Engine::new(backend, parts, &options)?;
        return Ok((engine, models, None));
    }
    if !without.is_empty() {
        return Err(Failure::new(
            "--without: expected a GPU, the CPU has none of it",
        ));
    }
    let (backend, profile) = Timed::new(cpu(flags));
    let (engine, models) = Engine::new(backend, parts, &options)?;
    Ok((engine, models, Some(profile)))
}

/// How the flags set up an engine.
pub fn options(flags: &EngineFlags, seed: u64) -> Done<Options> {
    if let Some(found) = flags.kv_memory.filter(|mib| !(*mib > 0.0 && *mib < 1e9)) {
        return Err(Failure::new(format!(
            "--kv-memory {found}: expected MiB above 0"
        )));
    }
    Ok(Options {
        kv_bytes: (flags.kv_memory).map(|mib| (mib * f64::from(1 << 20)) as usize),
        block_tokens: flags.block_tokens as usize,
        kv_dtype: flags.kv_dtype.map(|dtype| match dtype {
            KvDtype::F32 => Dtype::F32.into(),
            KvDtype::Bf16 => Dtype::Bf16.into(),
            KvDtype::F16 => Dtype::F16.into(),
            KvDtype::Int8 => kernels::KvDtype::Int8,
        }),
        quantize: flags.quantize.map(Quantize::kind),
        rows: flags.max_rows as usize,
        seed,
        run_ahead: None,
    })
}

/// How the flags have models used; one with a format serves as a PRM.
pub fn parts<'a>(
    flags: &EngineFlags,
    models: &[(&'a Loaded, Option<&PrmFormat>)],
) -> Vec<Part<'a>> {
    let part = |&(model, format): &(&'a Loaded, Option<&PrmFormat>)| Part {
        head_rows: format.and_then(PrmFormat::head_rows),
        ..part(flags, &model.checkpoint, Some(Rc::clone(&model.tokenizer)))
    };
    models.iter().map(part).collect()
}

/// How the flags have a model used that is no PRM.
pub fn part<'a>(
    flags: &EngineFlags,
    checkpoint: &'a Checkpoint,
    tokenizer: Option<Rc<Tokenizer>>,
) -> Part<'a> {
    Part {
        run_on: flags.past_limit == ContextOverflow::Extend,
        ..Part::new(checkpoint, tokenizer)
    }
}

/// The CUDA device that is asked for, held to its share of memory; `None` for the CPU.
fn gpu(flags: &EngineFlags) -> Done<Option<CudaBackend>> {
    let fraction = flags.gpu_memory_fraction;
    if !(fraction > 0.0 && fraction <= 1.0) {
        return Err(Failure::new(format!(
            "--gpu-memory-fraction {fraction}: expected a number above 0, at most 1"
        )));
    }
    let mut backend = cuda(flags.device)?;
    if let Some(backend) = &mut backend {
        backend.set_memory_fraction(fraction);
    }
    Ok(backend)
}

/// The CUDA device that is asked for; `None` for the CPU.
pub fn cuda(device: Device) -> Done<Option<CudaBackend>> {
    let open = |which| {
        let backend = CudaBackend::open(which).map_err(engine::Error::from)?;
        Ok(Some(backend))
    };
    match device {
        Device::Cpu => Ok(None),
        Device::Cuda(index) => open(Which::Card(index)),
        Device::Emulated => open(Which::Emulated),
        Device::Auto => match kernels::cuda::cards() {
            // The emulator is thousands of times slower than the CPU: only by name.
            Ok(cards) if cards.first().is_some_and(|card| !card.emulated) => {
                Ok(CudaBackend::open(Which::Card(0))
                    .inspect_err(|why| eprintln!("running on the CPU: {why}"))
                    .ok())
            }
            // No driver: nothing that a user of this machine would expect to be used.
            _ => Ok(None),
        },
    }
}
