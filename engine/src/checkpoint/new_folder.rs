//! A folder that appears when all of it is written.

use std::io;
use std::path::{Path, PathBuf};

/// A folder being written. It has a name of its own beside the final one until
/// [`NewFolder::finish`], and is removed when this is dropped before. Ended from outside, the
/// process leaves the folder under that name, which no later call takes for its own.
#[derive(Debug)]
pub struct NewFolder {
    partial: PathBuf,
    to: PathBuf,
    finished: bool,
}

impl NewFolder {
    /// Makes an empty folder, to be called `to` in the end.
    ///
    /// # Errors
    /// `to` exists, or its folder cannot be written.
    pub fn new(to: &Path) -> io::Result<NewFolder> {
        // Without a slash at its end, which would make the partial folder a child.
        let to: PathBuf = to.components().collect();
        if to.symlink_metadata().is_ok() {
            let what = "exists already; expected a new folder";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        for number in 0.. {
            let mut partial = to.clone().into_os_string();
            partial.push(format!(".partial-{}-{number}", std::process::id()));
            match std::fs::create_dir(&partial) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made?;
                    let partial = partial.into();
                    return Ok(NewFolder {
                        partial,
                        to,
                        finished: false,
                    });
                }
            }
        }
        unreachable!("some name is free")
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Gives the folder its name, once its files are on the disk.
    ///
    /// # Errors
    /// A file that cannot be synced, or a folder that cannot be renamed.
    pub fn finish(mut self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.partial)? {
            std::fs::File::open(entry?.path())?.sync_all()?;
        }
        std::fs::rename(&self.partial, &self.to)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.finished {
            // The error that ended the writing counts.
            let _ = std::fs::remove_dir_all(&self.partial);
        }
    }
}
