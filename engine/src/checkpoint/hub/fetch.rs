//! Downloads into the hub's cache.
//!
//! The `hf-hub` crate (0.5) talks to the hub and writes the cache's layout. What it does not do is
//! here: one commit for all files; retries (its own write a file's beginning into its middle when a
//! resumed attempt fails before its first byte); the check of a file's length.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::Cache;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};

use super::{Hub, HubName, Need, Watch, is_plain};
use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::safetensors::{self, INDEX, SINGLE};
use crate::checkpoint::source::{Source, TOKENIZER};
use crate::error::{Error, Result};

/// The files that are fetched besides the weights, where the repository has them.
const SMALL: [&str; 6] = [
    ModelConfig::FILE,
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Attempts in a row that bring no byte before a download is given up.
const MAX_IDLE_ATTEMPTS: u32 = 4;

impl Hub {
    /// Fetches what is needed of a model; the folder of its snapshot.
    pub(super) fn fetch(
        &self,
        name: &HubName,
        need: Need,
        watch: &mut dyn Watch,
    ) -> Result<PathBuf> {
        let cache = Cache::new(self.cache.clone());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .with_progress(false)
            .build()
            .map_err(|error| self.error(name, error.to_string()))?;
        let named = self.repo(name, &name.revision);
        let info = persistent(watch, "the list of files", |_| {
            guarded(|| api.repo(named.clone()).info())
        })
        .map_err(|failure| self.explain(name, &failure))?;
        if !is_plain(&info.sha) {
            return Err(self.error(name, format!("the hub names the commit {:?}", info.sha)));
        }
        let fetching = Fetching {
            files: info.siblings.into_iter().map(|s| s.rfilename).collect(),
            repo: api.repo(self.repo(name, &info.sha)),
            folder: self.cache.join(named.folder_name()),
            snapshot: cache.repo(named.clone()).pointer_path(&info.sha),
            commit: info.sha,
            hub: self,
            api,
            name,
        };
        fetching.run(need, watch)?;
        // Last, so that a name never refers to a snapshot that lacks files.
        cache
            .repo(named)
            .create_ref(&fetching.commit)
            .map_err(|error| self.error(name, format!("cannot write to the hub cache: {error}")))?;
        Ok(fetching.snapshot)
    }

    /// The error of a failed call, with a remedy.
    fn explain(&self, name: &HubName, failure: &CallFailure) -> Error {
        let (hub, repo, revision) = (&self.endpoint, &name.repo, &name.revision);
        let problem = match (failure.status, &self.token) {
            (Some(401), None) => format!(
                "the hub {hub} wants to know who asks (401): there is no such model, or it is \
                 private or gated; set HF_TOKEN to a token that may read it"
            ),
            (Some(401 | 403), Some(_)) => format!(
                "the hub {hub} refuses it to the owner of the token (HF_TOKEN): if it is gated, \
                 its terms must be accepted at {hub}/{repo}"
            ),
            (Some(403), None) => format!(
                "the hub {hub} refuses it (403): accept its terms at {hub}/{repo} and set \
                 HF_TOKEN to a token that may read it"
            ),
            (Some(404), _) => {
                format!(
                    "no such directory, and the hub {hub} has no such model or no revision {revision}"
                )
            }
            (None, _) if !failure.lasting => {
                format!(
                    "no such directory, and the hub {hub} cannot be reached: {}",
                    failure.what
                )
            }
            _ => format!("the hub {hub}: {}", failure.what),
        };
        self.error(name, problem)
    }
}

/// One model on its way into the cache.
struct Fetching<'a> {
    hub: &'a Hub,
    name: &'a HubName,
    api: Api,
    /// The repository at the one commit that all files are taken from.
    repo: ApiRepo,
    commit: String,
    /// The names of all its files.
    files: Vec<String>,
    folder: PathBuf,
    snapshot: PathBuf,
}

impl Fetching<'_> {
    /// Fetches what is needed; the weights last, so that a snapshot that has them has the rest.
    fn run(&self, need: Need, watch: &mut dyn Watch) -> Result<()> {
        let has = |file: &str| self.files.iter().any(|name| name == file);
        if !has(ModelConfig::FILE) {
            return Err(self.missing(ModelConfig::FILE, "a model is in Hugging Face's layout"));
        }
        for file in SMALL {
            if has(file) {
                self.file(file, watch)?;
            }
            if file == ModelConfig::FILE && !has(SINGLE) && !has(INDEX) && need == Need::Weights {
                return Err(self.no_safetensors()?);
            }
        }
        if need == Need::Description {
            return Ok(());
        }
        if has(SINGLE) {
            return self.file(SINGLE, watch);
        }
        self.file(INDEX, watch)?;
        let source = Source::Directory(self.snapshot.clone());
        let bytes = source.read(INDEX)?.unwrap_or_default();
        let shards = safetensors::shards(&source.place(INDEX), &bytes)?;
        for (shard, tensor) in &shards {
            if !has(shard) {
                let expected = format!("expected it there because {INDEX} has {tensor} in it");
                return Err(self.missing(shard, &expected));
            }
        }
        shards.keys().try_for_each(|shard| self.file(shard, watch))
    }

    fn missing(&self, file: &str, expected: &str) -> Error {
        Error::MissingFile {
            place: format!("{} on the hub", self.name),
            file: file.to_string(),
            expected: expected.to_string(),
        }
    }

    /// The error of a model without safetensors: it has pickles or no weights. Its config is
    /// fetched.
    fn no_safetensors(&self) -> Result<Error> {
        let Some(file) = self.files.iter().find(|file| safetensors::is_pickle(file)) else {
            let expected = format!("expected the weights in it, or in shards with {INDEX}");
            return Ok(self.missing(SINGLE, &expected));
        };
        let config = ModelConfig::open(&Source::Directory(self.snapshot.clone()))?;
        let (repo, revision) = (&self.name.repo, &self.commit);
        let (class, folder) = (config.architecture, repo.rsplit('/').next().unwrap_or(repo));
        Ok(Error::PytorchWeights {
            place: format!("{} on the hub", self.name),
            file: file.clone(),
            command: format!(
                "python -c \"from transformers import {class} as M, AutoTokenizer as T; \
                 o = dict(pretrained_model_name_or_path='{repo}', revision='{revision}'); \
                 M.from_pretrained(**o, dtype='auto').save_pretrained('{folder}'); \
                 T.from_pretrained(**o).save_pretrained('{folder}')\" # then name ./{folder}"
            ),
        })
    }

    /// Fetches one file, or the rest of it.
    fn file(&self, file: &str, watch: &mut dyn Watch) -> Result<()> {
        let target = self.snapshot.join(file);
        if target.is_file() {
            return Ok(());
        }
        persistent(watch, file, |meter| self.attempt(file, &target, meter))
            .map_err(|failure| self.hub.explain(self.name, &failure))
    }

    fn attempt(&self, file: &str, target: &Path, meter: Meter<'_>) -> Result<(), CallFailure> {
        let found = guarded(|| self.api.metadata(&self.repo.url(file)))?;
        let size = found.size() as u64;
        // hf-hub makes paths of both.
        let etag = found.etag();
        if !is_plain(etag.strip_prefix("W/").unwrap_or(etag)) || found.commit_hash() != self.commit
        {
            let commit = found.commit_hash();
            let what = format!("{file} has the ETag {etag:?} and is of commit {commit:?}");
            return Err(CallFailure::lasting(what));
        }
        let blob = self.folder.join("blobs").join(etag);
        // A partial file as long as the whole one cannot be resumed.
        let part = blob.with_extension("part");
        if std::fs::metadata(&part).is_ok_and(|part| part.len() >= size) {
            std::fs::remove_file(&part).map_err(ApiError::from)?;
        }
        guarded(|| self.repo.download_with_progress(file, meter))?;
        let length = std::fs::metadata(target).map_err(ApiError::from)?.len();
        if length != size {
            let removed = std::fs::remove_file(&blob).and_then(|()| std::fs::remove_file(target));
            removed.map_err(ApiError::from)?;
            return Err(CallFailure {
                lasting: false,
                ..CallFailure::lasting(format!("{length} of {size} bytes of {file} came"))
            });
        }
        Ok(())
    }
}

/// Forwards hf-hub's progress and counts new bytes.
struct Meter<'a> {
    watch: &'a mut dyn Watch,
    fresh: &'a mut u64,
    resumed: bool,
}

impl hf_hub::api::Progress for Meter<'_> {
    // Called twice, the second time with the answer; then `update` with the bytes of the partial
    // file.
    fn init(&mut self, size: usize, file: &str) {
        self.watch.begin(file, size as u64);
        self.resumed = false;
    }

    fn update(&mut self, bytes: usize) {
        self.watch.advance(bytes as u64);
        if self.resumed {
            *self.fresh += bytes as u64;
        }
        self.resumed = true;
    }

    fn finish(&mut self) {
        self.watch.end();
    }
}

/// A failed call.
#[derive(Debug)]
struct CallFailure {
    what: String,
    /// HTTP status, if there was an answer.
    status: Option<u16>,
    /// Whether a retry is pointless.
    lasting: bool,
}

impl CallFailure {
    fn lasting(what: String) -> CallFailure {
        CallFailure {
            what,
            status: None,
            lasting: true,
        }
    }
}

impl From<ApiError> for CallFailure {
    fn from(error: ApiError) -> CallFailure {
        let mut failure = CallFailure::lasting(error.to_string());
        match &error {
            ApiError::RequestError(request) => match &**request {
                ureq::Error::StatusCode(status) => {
                    failure.status = Some(*status);
                    failure.lasting = *status < 500 && !matches!(*status, 408 | 429);
                }
                ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_) => {}
                _ => failure.lasting = false,
            },
            // Reading from the net and writing to the disk come as the same kind.
            ApiError::IoError(io) => {
                use std::io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
                use std::io::ErrorKind::{QuotaExceeded, StorageFull};
                failure.lasting = matches!(
                    io.kind(),
                    NotADirectory
                        | PermissionDenied
                        | ReadOnlyFilesystem
                        | QuotaExceeded
                        | StorageFull
                );
            }
            ApiError::LockAcquisition(lock) => {
                failure.what = format!(
                    "another process is fetching the same file (it holds {})",
                    lock.display()
                );
            }
            _ => {}
        }
        failure
    }
}

/// Runs a call into hf-hub, which panics on some malformed answers, such as a redirect without a
/// target.
fn guarded<T>(call: impl FnOnce() -> Result<T, ApiError>) -> Result<T, CallFailure> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(CallFailure::from),
        Err(_) => Err(CallFailure::lasting(
            "its answer makes no sense".to_string(),
        )),
    }
}

/// Retries until a call succeeds, fails for good, or several attempts in a row bring no byte.
fn persistent<T>(
    watch: &mut dyn Watch,
    what: &str,
    mut attempt: impl FnMut(Meter<'_>) -> Result<T, CallFailure>,
) -> Result<T, CallFailure> {
    let mut idle = 0;
    loop {
        let mut fresh = 0;
        let failure = match attempt(Meter {
            watch: &mut *watch,
            fresh: &mut fresh,
            resumed: false,
        }) {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        idle = if fresh > 0 { 0 } else { idle + 1 };
        if failure.lasting || idle == MAX_IDLE_ATTEMPTS {
            return Err(failure);
        }
        let wait = Duration::from_millis(250 << idle);
        watch.retry(what, &failure.what, wait);
        std::thread::sleep(wait);
    }
}
