//! Helpers of the tests that load files.

use std::path::Path;

use crate::checkpoint::source::Source;

/// A directory of `tests/golden/data`.
pub(crate) fn golden(case: &str) -> Source {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/data");
    Source::directory(root.join(case)).expect("the golden files are there")
}

/// File names and contents.
pub(crate) type Files = Vec<(&'static str, Vec<u8>)>;

/// A checkpoint of files made up by a test, named `test`.
pub(crate) fn embedded(files: Files) -> Source {
    let files: Vec<(&'static str, &'static [u8])> = files
        .into_iter()
        .map(|(name, bytes)| (name, &*Box::leak(bytes.into_boxed_slice())))
        .collect();
    Source::Embedded {
        name: "test",
        files: Box::leak(files.into_boxed_slice()),
    }
}
