//! Memory-mapped files, so that the operating system pages weights in and they are never copied
//! whole.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The bytes of a file, read-only, mapped until dropped.
#[derive(Debug)]
pub struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the regular file at `path`.
    ///
    /// # Errors
    ///
    /// `path` cannot be opened or mapped, or is a directory, a pipe or a device.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        // Checked before opening, because opening a pipe would wait for its writer.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private to this value, and its bytes are only read as
        // plain numbers, for which every bit pattern is valid. The type system cannot rule out that
        // another process truncates the file meanwhile: a read past its new end would end this
        // process with a bus error. Every engine that maps its weights shares that condition; the
        // alternative is a second copy of the model in memory.
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
