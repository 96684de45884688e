//! Models by hub name: `org/name[@revision]`, found in the local Hugging Face cache or fetched
//! into it.
//!
//! The cache has the layout of `huggingface_hub`
//! (<https://huggingface.co/docs/huggingface_hub/guides/manage-cache>), so that models that Python
//! has fetched are not fetched again: `models--org--name/refs/REVISION` holds a commit, whose files
//! are links in `snapshots/COMMIT`. A snapshot that has everything is used as it is, without a
//! request to the hub.
//!
//! Here: names, the environment's variables, offline mode, the cache. `client`: HTTP. `fetch`:
//! downloads.

mod client;
mod fetch;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::client::Timeouts;
use super::config::ModelConfig;
use super::safetensors::{self, INDEX, SINGLE};
use super::source::{Source, TOKENIZER};
use crate::error::{Error, Result};

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

/// The files of a model that are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Config, tokenizer and templates.
    Description,
    /// The weights too.
    Weights,
}

/// Observes downloads.
pub trait Watch {
    /// The download of a file of `bytes` begins or continues.
    fn begin(&mut self, file: &str, bytes: u64);
    /// `bytes` more have arrived; the first call counts those of an earlier, broken download.
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
    timeouts: Timeouts,
}

impl Hub {
    /// As configured by the environment: `HF_HUB_CACHE`, `HF_HOME` (also for the token that
    /// `hf auth login` stored), `XDG_CACHE_HOME`; `HF_ENDPOINT`; `HF_TOKEN`; `HF_HUB_OFFLINE`; the
    /// seconds that the hub may take for an answer and be silent in a download, each 10 unless set:
    /// `HF_HUB_ETAG_TIMEOUT`, `HF_HUB_DOWNLOAD_TIMEOUT`.
    ///
    /// # Errors
    /// No folder for the cache, a time that is no number above 0.
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
            timeouts: Timeouts {
                answer: seconds(get, "HF_HUB_ETAG_TIMEOUT")?,
                idle: seconds(get, "HF_HUB_DOWNLOAD_TIMEOUT")?,
            },
        })
    }

    /// A directory with the files that `need` names: in the cache, else fetched into it.
    ///
    /// # Errors
    /// No such model, no access, no connection, or a cache that cannot be written.
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
        let folder = self.folder(name);
        let commit = std::fs::read_to_string(folder.join("refs").join(&name.revision));
        // A commit may be named itself.
        let commit = commit.map_or(name.revision.clone(), |commit| commit.trim().to_string());
        let snapshot = folder.join("snapshots").join(&commit);
        (is_plain(&commit) && snapshot.is_dir()).then_some(snapshot)
    }

    /// A model's folder in the cache.
    fn folder(&self, name: &HubName) -> PathBuf {
        (self.cache).join(format!("models--{}", name.repo.replace('/', "--")))
    }

    fn error(&self, name: &HubName, problem: String) -> Error {
        Error::Hub {
            name: name.to_string(),
            problem,
        }
    }
}

/// A time that an environment variable gives in seconds; `huggingface_hub`'s 10 without it.
fn seconds(get: impl Fn(&str) -> Option<String>, name: &'static str) -> Result<Duration> {
    let Some(text) = get(name) else {
        return Ok(Duration::from_secs(10));
    };
    let seconds = text.trim().parse().ok().filter(|&seconds| seconds > 0.0);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let expected = "a number of seconds above 0";
    time.ok_or_else(|| kernels::Setting::new(name, text, expected).into())
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
        for (seconds, expected) in [
            ("3", Some(3000)),
            ("0.5", Some(500)),
            ("0", None),
            ("x", None),
        ] {
            let hub = hub(&[("HOME", "/h"), ("HF_HUB_DOWNLOAD_TIMEOUT", seconds)]);
            let idle = hub.ok().map(|hub| hub.timeouts.idle.as_millis());
            assert_eq!(idle, expected, "{seconds}");
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
