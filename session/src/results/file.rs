//! A results file being written: locked, appended to, resumed, put in order.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use strategies::{Object, Problem};

use super::{Line, Numbered, Settings, not_blank, numbered_lines, read_line, unfit};
use crate::Error;

/// A results file being written.
pub struct Results {
    path: PathBuf,
    file: File,
    /// A device or a pipe takes results but holds none.
    regular: bool,
    regraded: Vec<String>,
}

impl Results {
    /// Opens `path`, making it if need be. Returns what is in it already, by id.
    ///
    /// A line whose problem has another answer in `problems` is graded anew; [`Results::regraded`]
    /// names them.
    ///
    /// # Errors
    /// A file of other settings, with another problem under the id of one of `problems`, or with
    /// a line that is no result, is refused untouched.
    pub fn open(
        path: &Path,
        settings: &Settings,
        trees: bool,
        problems: &[Problem],
    ) -> Result<(Results, HashMap<String, Line>), Error> {
        let failed = |e: io::Error| failed(path, &e);
        let mut file = open_locked(path)?;
        let regular = file.metadata().map_err(failed)?.is_file();
        let mut bytes = Vec::new();
        if regular {
            file.read_to_end(&mut bytes).map_err(failed)?;
        }
        let end = whole_lines(path, &bytes)?;
        let mut lines = numbered_lines("out", path, &bytes[..end])?;
        let by_id: HashMap<&str, &Problem> = problems.iter().map(|p| (p.id.as_str(), p)).collect();
        for there in &lines {
            if let Some(why) = unfit(&there.line, settings, trees, &by_id) {
                return Err(Error::File {
                    setting: "out",
                    file: path.display().to_string(),
                    line: Some(there.number),
                    problem: format!("{why}; name another file"),
                });
            }
        }
        refuse_contradictions(path, &lines)?;
        let mut results = Results {
            path: path.into(),
            file,
            regular,
            regraded: Vec::new(),
        };
        results.regrade(&mut lines, &by_id).map_err(failed)?;
        if regular && results.regraded.is_empty() {
            results.file.set_len(end as u64).map_err(failed)?;
            results.file.seek(SeekFrom::End(0)).map_err(failed)?;
            if !bytes[..end].ends_with(b"\n") && end > 0 {
                results.file.write_all(b"\n").map_err(failed)?;
            }
        }
        let lines = lines.into_iter().map(|there| there.line);
        Ok((results, lines.map(|line| (line.id.clone(), line)).collect()))
    }

    /// The ids of the lines that were graded anew, as their problems have another answer now.
    pub fn regraded(&self) -> &[String] {
        &self.regraded
    }

    /// Grades anew the lines whose problems have another answer now, and writes them.
    fn regrade(
        &mut self,
        lines: &mut [Numbered<'_>],
        by_id: &HashMap<&str, &Problem>,
    ) -> io::Result<()> {
        let mut written: Vec<Cow<'_, [u8]>> = Vec::new();
        for Numbered { bytes, line, .. } in lines {
            let answer = by_id.get(line.id.as_str()).and_then(|p| p.answer.as_ref());
            written.push(
                match answer.filter(|answer| line.answer.as_ref() != Some(answer)) {
                    None => Cow::Borrowed(bytes),
                    Some(answer) => {
                        line.regrade(answer);
                        self.regraded.push(line.id.clone());
                        Cow::Owned(patched(bytes, line)?)
                    }
                },
            );
        }
        match self.regraded.is_empty() {
            true => Ok(()),
            false => self.replace(written.iter().map(|line| &**line)),
        }
    }

    /// Appends a line; it is on the disk when this returns.
    ///
    /// # Errors
    /// The line cannot be written.
    pub fn append(&mut self, line: &Line) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec(line).map_err(|e| failed(&self.path, &e.into()))?;
        bytes.push(b'\n');
        let written = self
            .file
            .write_all(&bytes)
            .and_then(|()| match self.regular {
                true => self.file.sync_data(),
                false => Ok(()),
            });
        written.map_err(|e| failed(&self.path, &e))
    }

    /// Puts the lines into the order of `ids`, once all of them are there.
    ///
    /// # Errors
    /// The lines cannot be written in that order; they are there as before.
    pub fn sort(&mut self, ids: &[&str]) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        if !self.regular {
            return Ok(());
        }
        let failed = |e: io::Error| failed(&self.path, &e);
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.file.read_to_end(&mut bytes).map_err(failed)?;
        let rank: HashMap<&str, usize> = ids.iter().enumerate().map(|(i, id)| (*id, i)).collect();
        let mut lines: Vec<(usize, &[u8])> = Vec::new();
        for (_, line) in not_blank(&bytes) {
            let Id { id } = serde_json::from_slice(line).map_err(|e| failed(e.into()))?;
            lines.push((rank.get(id.as_str()).copied().unwrap_or(usize::MAX), line));
        }
        if lines.is_sorted_by_key(|(rank, _)| *rank) {
            return Ok(());
        }
        lines.sort_by_key(|(rank, _)| *rank);
        let sorted = self.replace(lines.into_iter().map(|(_, line)| line));
        sorted.map_err(|e| self::failed(&self.path, &e))
    }

    /// Puts `lines` in place of all that is in the file: written beside it, then renamed, so that
    /// there is no moment at which less is there.
    fn replace<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
        let old = self.file.metadata()?;
        if links(&old) > 1 {
            let what = "it has another name (a hard link), which would keep the old lines";
            return Err(io::Error::other(what));
        }
        // A symbolic link stays one.
        let place = std::fs::canonicalize(&self.path)?;
        let (temporary, file) = create_beside(&place)?;
        let write = || -> io::Result<()> {
            let mut writer = BufWriter::new(&file);
            for line in lines {
                writer.write_all(line)?;
                writer.write_all(b"\n")?;
            }
            writer.flush()?;
            drop(writer);
            keep_mode_and_owner(&file, &old)?;
            file.sync_data()?;
            lock(&file)?;
            std::fs::rename(&temporary, &place)
        };
        match write() {
            Ok(()) => {
                self.file = file;
                Ok(())
            }
            Err(error) => {
                // The first error counts.
                let _ = std::fs::remove_file(&temporary);
                Err(error)
            }
        }
    }
}

/// The line `bytes` with the verdicts of `line`. The rest stays as it is written: no number is read
/// and written again.
fn patched(bytes: &[u8], line: &Line) -> io::Result<Vec<u8>> {
    let mut object: Object = serde_json::from_slice(bytes)?;
    let mut solutions: Option<Vec<Object>> = match object.get("solutions") {
        Some(solutions) => serde_json::from_str(solutions.get())?,
        None => None,
    };
    let graded = line.solutions.iter().flatten();
    for (object, solution) in solutions.iter_mut().flatten().zip(graded) {
        object.insert("correct", &solution.correct)?;
    }
    if solutions.is_some() {
        object.insert("solutions", &solutions)?;
    }
    object.insert("answer", &line.answer)?;
    object.insert("correct", &line.correct)?;
    object.insert("verdicts", &line.verdicts)?;
    object.insert("by_n", &line.by_n)?;
    object.insert("any_correct", &line.any_correct)?;
    Ok(serde_json::to_vec(&object)?)
}

/// Files that were put together may have a problem twice: with one result, or not at all.
fn refuse_contradictions(path: &Path, lines: &[Numbered<'_>]) -> Result<(), Error> {
    let mut firsts: HashMap<&str, &Numbered<'_>> = HashMap::new();
    for there in lines {
        let first = firsts.entry(&there.line.id).or_insert(there);
        if first.line != there.line {
            let (id, number) = (&there.line.id, first.number);
            return Err(Error::File {
                setting: "out",
                file: path.display().to_string(),
                line: Some(there.number),
                problem: format!("{id:?} has another result on line {number}; keep one of them"),
            });
        }
    }
    Ok(())
}

/// Opens and locks `path`: two runs on one file would each redo the other's problems.
fn open_locked(path: &Path) -> Result<File, Error> {
    let failed = |e: io::Error| failed(path, &e);
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(failed)?;
        lock(&file).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => refused(path, "another run is writing this file"),
            _ => failed(e),
        })?;
        // A run that has just ended may have put another file there.
        let there = std::fs::metadata(path).map_err(failed)?;
        if is_same(&there, &file.metadata().map_err(failed)?) {
            return Ok(file);
        }
    }
}

/// Locks a file, where its file system has locks.
fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        // ENOLCK and the like: a network file system without them.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(()),
    }
}

/// A new file in the folder of `place`, of a name that nothing there has.
fn create_beside(place: &Path) -> io::Result<(PathBuf, File)> {
    let folder = place.parent().unwrap_or(Path::new("."));
    for number in 0.. {
        let path = folder.join(format!(".offshoot-{}-{number}", std::process::id()));
        let file = (OpenOptions::new().read(true).write(true).create_new(true)).open(&path);
        match file {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            file => return Ok((path, file?)),
        }
    }
    unreachable!("some name is free")
}

#[cfg(unix)]
fn links(file: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(file)
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(unix)]
fn keep_mode_and_owner(file: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    file.set_permissions(old.permissions())
}

#[cfg(not(unix))]
fn links(_: &Metadata) -> u64 {
    1
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(not(unix))]
fn keep_mode_and_owner(file: &File, old: &Metadata) -> io::Result<()> {
    file.set_permissions(old.permissions())
}

/// How many of `bytes` are whole lines: what a crash cut short at the end is not.
fn whole_lines(path: &Path, bytes: &[u8]) -> Result<usize, Error> {
    /// How a line begins, in version 1 and in version 0.
    const STARTS: [&[u8]; 2] = [b"{\"schema\":", b"{\"id\":\""];
    let end = bytes
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |at| at + 1);
    let tail = &bytes[end..];
    // Whole, but for the line break that an editor took away.
    if tail.trim_ascii().is_empty() || read_line(tail).is_ok() {
        return Ok(bytes.len());
    }
    let begun = (STARTS.iter()).any(|start| start.starts_with(tail) || tail.starts_with(start));
    if begun && serde_json::from_slice::<IgnoredAny>(tail).is_err() {
        return Ok(end);
    }
    // Somebody's file, which happens to end without a line break: never cut it.
    let problem = match read_line(tail) {
        Err(why) => why,
        Ok(_) => "not a result of offshoot solve".into(),
    };
    Err(Error::File {
        setting: "out",
        file: path.display().to_string(),
        line: Some(1 + bytes[..end].iter().filter(|&&b| b == b'\n').count()),
        problem,
    })
}

fn failed(path: &Path, error: &io::Error) -> Error {
    refused(path, error.to_string())
}

fn refused(path: &Path, problem: impl Into<String>) -> Error {
    Error::File {
        setting: "out",
        file: path.display().to_string(),
        line: None,
        problem: problem.into(),
    }
}
