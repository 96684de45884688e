//! Compiled kernels on disk.
//!
//! A file's name is a hash of everything the result depends on: source, headers, options, compiler
//! version, kind of output. Its content begins with its own hash, so a damaged file is compiled
//! again. Files are written beside and renamed: two processes may fill the cache at once.

use super::nvrtc::{Compiler, Job};
use std::path::{Path, PathBuf};

/// The folder of the cache; a subfolder of the user's cache unless set.
pub const DIR_VARIABLE: &str = "OFFSHOOT_KERNEL_CACHE";

/// FNV-1a, 128 bits.
struct Hash(u128);

impl Hash {
    fn new() -> Hash {
        Hash(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// Adds bytes, and their number, so that no two sequences of parts are alike.
    fn add(&mut self, part: &[u8]) {
        for &byte in part.iter().chain(&(part.len() as u64).to_le_bytes()) {
            self.0 ^= u128::from(byte);
            self.0 = self
                .0
                .wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
}

/// The folder of compiled kernels; `None` if no variable names one and there is no home folder.
pub fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|dir| !dir.is_empty());
    if let Some(dir) = set(DIR_VARIABLE) {
        return Some(dir.into());
    }
    if let Some(dir) = set("XDG_CACHE_HOME") {
        return Some(Path::new(&dir).join("offshoot/kernels"));
    }
    set("HOME").map(|home| Path::new(&home).join(".cache/offshoot/kernels"))
}

/// The compilation's result: from `folder` if it is there, else compiled and, if possible, stored.
///
/// # Errors
///
/// The compiler's log.
pub fn compile(
    compiler: &Compiler,
    job: &Job<'_>,
    folder: Option<&Path>,
) -> Result<Vec<u8>, String> {
    let Some(folder) = folder else {
        return compiler.compile(job);
    };
    let path = folder.join(format!("{:032x}.bin", key(compiler, job)));
    if let Some(image) = std::fs::read(&path).ok().and_then(opened) {
        return Ok(image);
    }
    let image = compiler.compile(job)?;
    // A cache that cannot be written only costs time.
    let _ = keep(folder, &path, &image);
    Ok(image)
}

fn key(compiler: &Compiler, job: &Job<'_>) -> u128 {
    let mut hash = Hash::new();
    let (major, minor) = compiler.version();
    hash.add(format!("{major}.{minor} {:?}", job.output).as_bytes());
    hash.add(job.name.as_bytes());
    hash.add(job.source.as_bytes());
    for (name, text) in job.headers {
        hash.add(name.as_bytes());
        hash.add(text.as_bytes());
    }
    for option in job.options {
        hash.add(option.as_bytes());
    }
    hash.0
}

fn keep(folder: &Path, path: &Path, image: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut hash = Hash::new();
    hash.add(image);
    let bytes = [&hash.0.to_le_bytes()[..], image].concat();
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&draft, bytes)?;
    std::fs::rename(&draft, path)
}

/// The content of a file, if it is undamaged.
fn opened(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    if bytes.len() < 16 {
        return None;
    }
    let image = bytes.split_off(16);
    let mut hash = Hash::new();
    hash.add(&image);
    (bytes == hash.0.to_le_bytes()).then_some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_are_opened() {
        let folder = std::env::temp_dir().join(format!("offshoot-cache-{}", std::process::id()));
        let path = folder.join("image.bin");
        keep(&folder, &path, b"machine code").expect("a temporary folder can be written");
        let whole = std::fs::read(&path).expect("it was written");
        assert_eq!(opened(whole.clone()), Some(b"machine code".to_vec()));
        for (at, _) in whole.iter().enumerate() {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            assert_eq!(opened(damaged), None, "byte {at}");
            assert_eq!(opened(whole[..at].to_vec()), None, "cut at {at}");
        }
        std::fs::remove_dir_all(&folder).expect("it is ours");
    }

    #[test]
    fn parts_do_not_run_together() {
        let hash = |parts: &[&str]| {
            let mut hash = Hash::new();
            parts.iter().for_each(|p| hash.add(p.as_bytes()));
            hash.0
        };
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["abc"]), hash(&["abc", ""]));
    }
}
