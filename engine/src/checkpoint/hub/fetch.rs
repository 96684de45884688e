//! Downloads into the hub's cache.
//!
//! The cache's layout is that of `huggingface_hub`: a file lies in `blobs` under its ETag, with
//! `.part` behind it until it is whole, and `snapshots/COMMIT` has a link to it. All files are
//! taken from one commit, an attempt that breaks is repeated where it broke, and a file's length is
//! checked.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, StatusCode};

use super::client::{CallFailure, Client, header};
use super::{Hub, HubName, Need, Watch, is_plain};
use crate::checkpoint::config::ModelConfig;
use crate::checkpoint::json::Fields;
use crate::checkpoint::safetensors::{self, INDEX, SINGLE};
use crate::checkpoint::source::{Source, TOKENIZER};
use crate::error::{Error, Result};

/// The files that are fetched besides the weights, where the repository has them.
const SMALL: [&str; 7] = [
    ModelConfig::FILE,
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];
/// Attempts in a row that bring no byte before a download is given up.
const MAX_IDLE_ATTEMPTS: u32 = 4;
/// Bytes that the list of a repository's files may have.
const MAX_LIST: u64 = 64 << 20;
/// How often it is tried, once a second, whether another process has finished the same file.
const LOCK_ATTEMPTS: u32 = 5;

impl Hub {
    /// Fetches what is needed of a model; the folder of its snapshot.
    pub(super) fn fetch(
        &self,
        name: &HubName,
        need: Need,
        watch: &mut dyn Watch,
    ) -> Result<PathBuf> {
        let client = Client::new(&self.endpoint, self.token.as_deref(), self.timeouts);
        let (commit, files) = persistent(watch, "the list of files", |_| self.list(&client, name))
            .map_err(|failure| self.explain(name, &failure))?;
        if !is_plain(&commit) {
            return Err(self.error(name, format!("the hub names the commit {commit:?}")));
        }
        let folder = self.folder(name);
        let fetching = Fetching {
            snapshot: folder.join("snapshots").join(&commit),
            folder,
            files,
            commit,
            hub: self,
            client,
            name,
        };
        fetching.run(need, watch)?;
        // Last, so that a name never refers to a snapshot that lacks files.
        let reference = fetching.folder.join("refs").join(&name.revision);
        (reference.parent().map_or(Ok(()), fs::create_dir_all))
            .and_then(|()| fs::write(&reference, &fetching.commit))
            .map_err(|error| self.error(name, format!("cannot write to the hub cache: {error}")))?;
        Ok(fetching.snapshot)
    }

    /// The commit of a revision, and the names of its files.
    fn list(&self, client: &Client, name: &HubName) -> Result<(String, Vec<String>), CallFailure> {
        let (repo, revision) = (&name.repo, name.revision.replace('/', "%2F"));
        let url = format!("{}/api/models/{repo}/revision/{revision}", self.endpoint);
        let mut response = client.get(&url, None, true)?;
        let body = (response.body_mut().with_config().limit(MAX_LIST)).read_to_vec()?;
        let nonsense = |error: Error| CallFailure::lasting(error.to_string());
        let fields = Fields::parse("its list of files".into(), &body).map_err(nonsense)?;
        let wrong = |field: &str| nonsense(fields.wrong(field, "a commit and names of files"));
        let commit = fields.string("sha").ok().flatten().map(str::to_string);
        let files = fields.get("siblings").and_then(|list| {
            let file = |entry: &serde_json::Value| Some(entry["rfilename"].as_str()?.to_string());
            list.as_array()?
                .iter()
                .map(file)
                .collect::<Option<Vec<_>>>()
        });
        match (commit, files) {
            (Some(commit), Some(files)) => Ok((commit, files)),
            (None, _) => Err(wrong("sha")),
            (_, None) => Err(wrong("siblings")),
        }
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
    client: Client,
    /// The one commit that all files are taken from.
    commit: String,
    /// The names of all its files.
    files: Vec<String>,
    folder: PathBuf,
    snapshot: PathBuf,
}

/// What the hub says of a file.
struct Metadata {
    /// A name of its content.
    etag: String,
    /// Its bytes.
    size: u64,
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

    fn attempt(&self, file: &str, target: &Path, meter: &mut Meter<'_>) -> Result<(), CallFailure> {
        let found = self.metadata(file)?;
        let blobs = self.folder.join("blobs");
        let blob = blobs.join(&found.etag);
        fs::create_dir_all(&blobs)?;
        let _lock = lock(&blobs.join(format!("{}.lock", found.etag)))?;
        if !fs::metadata(&blob).is_ok_and(|blob| blob.len() == found.size) {
            let part = blobs.join(format!("{}.part", found.etag));
            self.receive(file, &part, found.size, meter)?;
            fs::rename(&part, &blob)?;
        }
        link(&blob, target)?;
        Ok(())
    }

    fn url(&self, file: &str) -> String {
        let (hub, repo, commit) = (&self.hub.endpoint, &self.name.repo, &self.commit);
        format!("{hub}/{repo}/resolve/{commit}/{file}")
    }

    /// What the hub itself says of a file, before it sends a client elsewhere for it.
    fn metadata(&self, file: &str) -> Result<Metadata, CallFailure> {
        const FIRST: Option<&str> = Some("bytes=0-0");
        let answer = self.client.get(&self.url(file), FIRST, false)?;
        let etag = header(&answer, "X-Linked-Etag").or_else(|| header(&answer, "ETag"));
        let etag = etag.unwrap_or_default().replace('"', "");
        let commit = header(&answer, "X-Repo-Commit").unwrap_or_default();
        // A path is made of the ETag.
        let etag = etag.strip_prefix("W/").unwrap_or(&etag).to_string();
        if !is_plain(&etag) || commit != self.commit {
            let what = format!("{file} has the ETag {etag:?} and is of commit {commit:?}");
            return Err(CallFailure::lasting(what));
        }
        let size = match whole_length(&answer) {
            Some(size) => size,
            None => whole_length(&self.client.get(&self.url(file), FIRST, true)?)
                .ok_or_else(|| CallFailure::lasting(format!("it hides the length of {file}")))?,
        };
        Ok(Metadata { etag, size })
    }

    /// Completes the `part` of a file of `size` bytes.
    fn receive(
        &self,
        file: &str,
        part: &Path,
        size: u64,
        meter: &mut Meter<'_>,
    ) -> Result<(), CallFailure> {
        let mut out = (OpenOptions::new().create(true).write(true).truncate(false)).open(part)?;
        let kept = out.metadata()?.len();
        let mut length = if kept < size { kept } else { 0 };
        if size > 0 {
            let range = format!("bytes={length}-");
            let response = self.client.get(&self.url(file), Some(&range), true)?;
            // Who does not know ranges sends the file from its beginning.
            if response.status() != StatusCode::PARTIAL_CONTENT {
                length = 0;
            }
            out.set_len(length)?;
            out.seek(SeekFrom::Start(length))?;
            meter.begin(file, size, length);
            let mut body = response.into_body().into_reader();
            let mut buffer = vec![0; 1 << 16];
            while length <= size {
                let taken = match body.read(&mut buffer)? {
                    0 => break,
                    taken => taken,
                };
                out.write_all(&buffer[..taken])?;
                length += taken as u64;
                meter.advance(taken as u64);
            }
            meter.end();
        }
        out.sync_all()?;
        if length > size {
            fs::remove_file(part)?;
        }
        match length == size {
            true => Ok(()),
            false => Err(CallFailure::passing(format!(
                "{length} of {size} bytes of {file} came"
            ))),
        }
    }
}

/// The length of the whole file that an answer is, or is a part of.
fn whole_length(answer: &Response<Body>) -> Option<u64> {
    if answer.status().is_redirection() {
        return header(answer, "X-Linked-Size")?.parse().ok();
    }
    match header(answer, "Content-Range") {
        Some(range) => range.rsplit('/').next()?.parse().ok(),
        None => header(answer, "Content-Length")?.parse().ok(),
    }
}

/// A lock against other processes, held until it is dropped. On a file system without locks there
/// is none.
fn lock(path: &Path) -> Result<File, CallFailure> {
    let file = File::create(path)?;
    for attempt in 0..=LOCK_ATTEMPTS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => {
                std::thread::sleep(Duration::from_secs(1));
            }
            Err(TryLockError::WouldBlock) => break,
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(file),
        }
    }
    Err(CallFailure::passing(format!(
        "another process is fetching the same file (it holds {})",
        path.display()
    )))
}

/// Puts a link to a blob into a snapshot; a copy where there are no links.
fn link(blob: &Path, target: &Path) -> std::io::Result<()> {
    target.parent().map_or(Ok(()), fs::create_dir_all)?;
    // A link to nothing, or what an interrupted copy has left.
    match fs::remove_file(target) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(
        Path::new("../../blobs").join(blob.file_name().unwrap_or_default()),
        target,
    );
    #[cfg(not(unix))]
    let linked = Err(std::io::Error::from(ErrorKind::Unsupported));
    linked.or_else(|_| fs::copy(blob, target).map(|_| ()))
}

/// Reports a download's progress and counts new bytes.
struct Meter<'a> {
    watch: &'a mut dyn Watch,
    fresh: u64,
}

impl Meter<'_> {
    /// `kept` bytes of `file` are there already.
    fn begin(&mut self, file: &str, size: u64, kept: u64) {
        self.watch.begin(file, size);
        self.watch.advance(kept);
    }

    fn advance(&mut self, bytes: u64) {
        self.watch.advance(bytes);
        self.fresh += bytes;
    }

    fn end(&mut self) {
        self.watch.end();
    }
}

/// Retries until a call succeeds, fails for good, or several attempts in a row bring no byte.
fn persistent<T>(
    watch: &mut dyn Watch,
    what: &str,
    mut attempt: impl FnMut(&mut Meter<'_>) -> Result<T, CallFailure>,
) -> Result<T, CallFailure> {
    let mut idle = 0;
    loop {
        let mut meter = Meter {
            watch: &mut *watch,
            fresh: 0,
        };
        let failure = match attempt(&mut meter) {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        idle = if meter.fresh > 0 { 0 } else { idle + 1 };
        if failure.lasting || idle == MAX_IDLE_ATTEMPTS {
            return Err(failure);
        }
        let wait = Duration::from_millis(250 << idle);
        watch.retry(what, &failure.what, wait);
        std::thread::sleep(wait);
    }
}
