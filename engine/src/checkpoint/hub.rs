//! Models by hub name: `org/name[@revision]`, found in the local Hugging Face cache or fetched
//! into it.
//!
//! The cache has the layout of `huggingface_hub`
//! (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>), so that what Python has
//! fetched is not fetched again: `models--org--name/refs/REVISION` holds a commit, whose files are
//! links in `snapshots/COMMIT`. A snapshot that has everything is used as it is, without asking
//! the hub for a newer one.
//!
//! The `hf-hub` crate (0.5) asks, downloads and writes that layout. Around it, because it does not
//! do so: offline mode and the variables of the environment; one commit for all files; trying
//! again (its own retries write a file's beginning into its middle when a resumed attempt fails
//! before its first byte); the check of a file's length.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::config::ModelConfig;
use super::safetensors::{self, INDEX, SINGLE};
use super::source::Source;
use crate::error::{Error, Result};
use crate::text::tokenizer::TOKENIZER;

/// Every file that is fetched besides the weights, where the repository has it.
const SMALL: [&str; 6] = [
    ModelConfig::FILE,
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Attempts in a row that bring no byte before a download is given up.
const TRIES: u32 = 4;

/// A model's name on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `org/name`.
    pub repo: String,
    /// A branch, tag or commit; `main` unless given.
    pub revision: String,
}

impl HubName {
    /// Reads `org/name[@revision]`; `None` if `word` cannot be a name on the hub.
    pub fn parse(word: &str) -> Option<HubName> {
        let (repo, revision) = word.split_once('@').unwrap_or((word, "main"));
        let (org, name) = repo.split_once('/')?;
        let part = |part: &str| {
            let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            is_plain(part)
                && part.len() <= 96
                && edge(part.chars().next())
                && edge(part.chars().next_back())
                && !part.contains("--")
                && !part.contains("..")
        };
        let revised = revision
            .split('/')
            .all(|part| is_plain(part) && !part.starts_with('.'));
        (part(org) && part(name) && revised).then(|| HubName {
            repo: repo.to_string(),
            revision: revision.to_string(),
        })
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.repo),
            revision => write!(f, "{}@{revision}", self.repo),
        }
    }
}

/// Whether `text` can be one part of a path and of a URL as it is.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// How much of a model is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Config, tokenizer and templates.
    Description,
    /// The weights too.
    Weights,
}

/// Sees the course of downloads.
pub trait Watch {
    /// A file of `bytes` is to be fetched, or to be gone on with.
    fn begin(&mut self, file: &str, bytes: u64);
    /// `bytes` more are there; the first call says what an earlier, broken download has left.
    fn advance(&mut self, bytes: u64);
    /// The file is complete.
    fn end(&mut self);
    /// An attempt failed; after `wait` it is tried again.
    fn retry(&mut self, file: &str, why: &str, wait: Duration);
}

/// The hub and the local cache of it.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    offline: bool,
}

impl Hub {
    /// As the environment says: `HF_HUB_CACHE`, `HF_HOME` (also for the token that
    /// `hf auth login` has left), `XDG_CACHE_HOME`; `HF_ENDPOINT`; `HF_TOKEN`; `HF_HUB_OFFLINE`.
    pub fn from_env() -> Result<Hub> {
        Hub::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Hub> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let home = get("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| get("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("huggingface")))
            .or_else(|| get("HOME").map(|dir| Path::new(&dir).join(".cache/huggingface")));
        let cache = get("HF_HUB_CACHE")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join("hub")));
        // hf-hub links from absolute paths only.
        let cache = cache
            .and_then(|cache| std::path::absolute(cache).ok())
            .ok_or_else(|| Error::Hub {
                name: "the hub cache".to_string(),
                problem: "neither HF_HOME nor HOME says where it is".to_string(),
            })?;
        let left = || std::fs::read_to_string(home.as_ref()?.join("token")).ok();
        let token = get("HF_TOKEN").or_else(left);
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        let offline = get("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(&*value.to_lowercase(), "1" | "on" | "yes" | "true"));
        Ok(Hub {
            cache,
            endpoint: endpoint.trim_end_matches('/').to_string(),
            token: token
                .map(|token| token.trim().to_string())
                .filter(|token| !token.is_empty()),
            offline,
        })
    }

    /// A directory with what is needed of a model: in the cache, else fetched into it.
    pub fn get(&self, name: &HubName, need: Need, watch: &mut dyn Watch) -> Result<PathBuf> {
        let lacking = match self.cached(name) {
            None => None,
            Some(snapshot) => match lacking(&snapshot, need)? {
                None => return Ok(snapshot),
                Some(file) => Some(file),
            },
        };
        if self.offline {
            let cache = self.cache.display();
            let found = match lacking {
                None => format!("no such directory, and it is not in the hub cache {cache}"),
                Some(file) => format!("the hub cache {cache} lacks its {file}"),
            };
            return Err(self.error(name, format!("{found}, and HF_HUB_OFFLINE is set")));
        }
        self.fetch(name, need, watch)
    }

    /// The snapshot of a revision in the cache, complete or not.
    fn cached(&self, name: &HubName) -> Option<PathBuf> {
        let repo = self.repo(name, &name.revision);
        let folder = self.cache.join(repo.folder_name());
        let commit = std::fs::read_to_string(folder.join("refs").join(&name.revision));
        // A commit may be named itself.
        let commit = commit.map_or(name.revision.clone(), |commit| commit.trim().to_string());
        let snapshot = folder.join("snapshots").join(&commit);
        (is_plain(&commit) && snapshot.is_dir()).then_some(snapshot)
    }

    fn repo(&self, name: &HubName, revision: &str) -> Repo {
        Repo::with_revision(name.repo.clone(), RepoType::Model, revision.to_string())
    }

    fn fetch(&self, name: &HubName, need: Need, watch: &mut dyn Watch) -> Result<PathBuf> {
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
        .map_err(|trouble| self.explain(name, &trouble))?;
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
        // Last, so that a name never leads to less than what was asked for first.
        cache
            .repo(named)
            .create_ref(&fetching.commit)
            .map_err(|error| self.error(name, format!("cannot write to the hub cache: {error}")))?;
        Ok(fetching.snapshot)
    }

    fn error(&self, name: &HubName, problem: String) -> Error {
        Error::Hub {
            name: name.to_string(),
            problem,
        }
    }

    /// What a failed call means to the user.
    fn explain(&self, name: &HubName, trouble: &Trouble) -> Error {
        let (hub, repo, revision) = (&self.endpoint, &name.repo, &name.revision);
        let problem = match (trouble.status, &self.token) {
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
            (None, _) if !trouble.lasting => {
                format!(
                    "no such directory, and the hub {hub} cannot be reached: {}",
                    trouble.what
                )
            }
            _ => format!("the hub {hub}: {}", trouble.what),
        };
        self.error(name, problem)
    }
}

/// The first file that a snapshot lacks, if any.
fn lacking(snapshot: &Path, need: Need) -> Result<Option<String>> {
    let missing = |file: &str| !snapshot.join(file).is_file();
    for file in [ModelConfig::FILE, TOKENIZER] {
        if missing(file) {
            return Ok(Some(file.to_string()));
        }
    }
    if need == Need::Description || !missing(SINGLE) {
        return Ok(None);
    }
    let source = Source::Directory(snapshot.to_path_buf());
    match source.read(INDEX)? {
        None => Ok(Some(SINGLE.to_string())),
        Some(bytes) => {
            let shards = safetensors::shards(&source.place(INDEX), &bytes)?;
            Ok(shards.into_keys().find(|file| missing(file)))
        }
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

    /// Why there is nothing to fetch: pickles only, or no weights at all. The config is there.
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
            .map_err(|trouble| self.hub.explain(self.name, &trouble))
    }

    fn attempt(&self, file: &str, target: &Path, meter: Meter<'_>) -> Result<(), Trouble> {
        let found = guarded(|| self.api.metadata(&self.repo.url(file)))?;
        let size = found.size() as u64;
        // hf-hub makes paths of both.
        let etag = found.etag();
        if !is_plain(etag.strip_prefix("W/").unwrap_or(etag)) || found.commit_hash() != self.commit
        {
            let commit = found.commit_hash();
            let what = format!("{file} has the ETag {etag:?} and is of commit {commit:?}");
            return Err(Trouble::lasting(what));
        }
        let blob = self.folder.join("blobs").join(etag);
        // A part as long as the file cannot be asked to go on.
        let part = blob.with_extension("part");
        if std::fs::metadata(&part).is_ok_and(|part| part.len() >= size) {
            std::fs::remove_file(&part).map_err(ApiError::from)?;
        }
        guarded(|| self.repo.download_with_progress(file, meter))?;
        let length = std::fs::metadata(target).map_err(ApiError::from)?.len();
        if length != size {
            let removed = std::fs::remove_file(&blob).and_then(|()| std::fs::remove_file(target));
            removed.map_err(ApiError::from)?;
            return Err(Trouble {
                lasting: false,
                ..Trouble::lasting(format!("{length} of {size} bytes of {file} came"))
            });
        }
        Ok(())
    }
}

/// Passes hf-hub's progress on and counts what is new.
struct Meter<'a> {
    watch: &'a mut dyn Watch,
    fresh: &'a mut u64,
    resumed: bool,
}

impl hf_hub::api::Progress for Meter<'_> {
    // Called twice, the second time when the answer has come; then once with what there was.
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

/// Why a call failed.
#[derive(Debug)]
struct Trouble {
    what: String,
    /// HTTP status, if there was an answer.
    status: Option<u16>,
    /// Whether trying again is of no use.
    lasting: bool,
}

impl Trouble {
    fn lasting(what: String) -> Trouble {
        Trouble {
            what,
            status: None,
            lasting: true,
        }
    }
}

impl From<ApiError> for Trouble {
    fn from(error: ApiError) -> Trouble {
        let mut trouble = Trouble::lasting(error.to_string());
        match &error {
            ApiError::RequestError(request) => match &**request {
                ureq::Error::StatusCode(status) => {
                    trouble.status = Some(*status);
                    trouble.lasting = *status < 500 && !matches!(*status, 408 | 429);
                }
                ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_) => {}
                _ => trouble.lasting = false,
            },
            // Reading from the net and writing to the disk come as the same kind.
            ApiError::IoError(io) => {
                use std::io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
                use std::io::ErrorKind::{QuotaExceeded, StorageFull};
                trouble.lasting = matches!(
                    io.kind(),
                    NotADirectory
                        | PermissionDenied
                        | ReadOnlyFilesystem
                        | QuotaExceeded
                        | StorageFull
                );
            }
            ApiError::LockAcquisition(lock) => {
                trouble.what = format!(
                    "another process is fetching the same file (it holds {})",
                    lock.display()
                );
            }
            _ => {}
        }
        trouble
    }
}

/// Runs a call into hf-hub, which panics on some answers no hub should give, such as a redirect
/// that leads nowhere.
fn guarded<T>(call: impl FnOnce() -> Result<T, ApiError>) -> Result<T, Trouble> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Trouble::from),
        Err(_) => Err(Trouble::lasting("its answer makes no sense".to_string())),
    }
}

/// Tries until it works, is refused, or several attempts in a row have brought nothing.
fn persistent<T>(
    watch: &mut dyn Watch,
    what: &str,
    mut attempt: impl FnMut(Meter<'_>) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let mut idle = 0;
    loop {
        let mut fresh = 0;
        let trouble = match attempt(Meter {
            watch: &mut *watch,
            fresh: &mut fresh,
            resumed: false,
        }) {
            Ok(done) => return Ok(done),
            Err(trouble) => trouble,
        };
        idle = if fresh > 0 { 0 } else { idle + 1 };
        if trouble.lasting || idle == TRIES {
            return Err(trouble);
        }
        let wait = Duration::from_millis(250 << idle);
        watch.retry(what, &trouble.what, wait);
        std::thread::sleep(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let good = [
            ("a/b", "a/b", "main", "a/b"),
            (
                "Qwen/Qwen2.5-0.5B@main",
                "Qwen/Qwen2.5-0.5B",
                "main",
                "Qwen/Qwen2.5-0.5B",
            ),
            ("a/b@v1.0", "a/b", "v1.0", "a/b@v1.0"),
            ("a/b@refs/pr/1", "a/b", "refs/pr/1", "a/b@refs/pr/1"),
        ];
        for (word, repo, revision, shown) in good {
            let name = HubName::parse(word).unwrap_or_else(|| panic!("{word}"));
            assert_eq!((&*name.repo, &*name.revision), (repo, revision), "{word}");
            assert_eq!(name.to_string(), shown, "{word}");
        }
        #[rustfmt::skip]
        let bad = [
            "", "a", "a/b/c", "./a", "../a", "a/..", "a/.b", "/a", "a/", "a/b@", "a/b@../c", "a/b@c//d",
            "a b/c", "a/b'c", "a--b/c", "a/b@c'd", "~/a", "a\\b/c",
        ];
        for word in bad {
            assert_eq!(HubName::parse(word), None, "{word}");
        }
    }

    #[test]
    fn environment() {
        let hub = |variables: &[(&str, &str)]| {
            Hub::from_variables(|name| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| value.to_string())
            })
        };
        #[rustfmt::skip]
        let caches: [(&[(&str, &str)], &str); 5] = [
            (&[("HOME", "/h")], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/h"), ("HF_HOME", "/f")], "/f/hub"),
            (&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HOME", "/h"), ("HF_HOME", "")], "/h/.cache/huggingface/hub"),
        ];
        for (variables, cache) in caches {
            let hub = hub(variables).unwrap_or_else(|error| panic!("{variables:?}: {error}"));
            assert_eq!(hub.cache, Path::new(cache), "{variables:?}");
            assert_eq!(hub.endpoint, "https://huggingface.co");
            assert!(!hub.offline && hub.token.is_none(), "{variables:?}");
        }
        assert!(hub(&[]).is_err());
        for (value, offline) in [("1", true), ("True", true), ("0", false), ("no", false)] {
            let hub = hub(&[("HOME", "/h"), ("HF_HUB_OFFLINE", value)]).expect("a home");
            assert_eq!(hub.offline, offline, "{value}");
        }
        let hub = hub(&[
            ("HOME", "/h"),
            ("HF_ENDPOINT", "http://e/"),
            ("HF_TOKEN", " t\n"),
        ]);
        let hub = hub.expect("a home");
        assert_eq!(
            (&*hub.endpoint, hub.token.as_deref()),
            ("http://e", Some("t"))
        );
    }
}
