//! Files mapped into memory, so that weights are paged in by the system and never copied whole.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// A file's bytes, read-only, mapped for as long as this lives.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the regular file at `path`. A directory, a pipe or a device is refused.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        // Asked before opening: opening a pipe would wait for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private to this value, and the bytes are only ever read
        // as plain numbers, for which every bit pattern is valid. What the type system cannot
        // promise is that no other process truncates the file meanwhile: a read past its new end
        // would end this process with a bus error. Every engine that maps its weights shares that
        // condition; the alternative is a second copy of the model in memory.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(MappedFile(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_files_and_nothing_else() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let map = MappedFile::open(&here.join("Cargo.toml")).expect("a file maps");
        assert!(map.starts_with(b"[package]"));
        assert!(MappedFile::open(here).is_err());
        assert!(MappedFile::open(&here.join("no such file")).is_err());
    }
}
