//! Where NVIDIA's libraries are installed, and which of them a driver can serve.

use super::nvrtc::DIR_VARIABLE;
use std::path::{Path, PathBuf};

/// Major and minor version of CUDA, as a toolkit or a driver has it.
pub type Version = (i32, i32);

/// Files to try for a library of NVIDIA's, those that a driver of the version `driver` serves first,
/// and of these the most specific: below `OFFSHOOT_NVRTC_DIR`, beside the program, in Python
/// environments (as `nvidia/WHEEL/lib`), in the CUDA toolkit, on the system's library path.
///
/// A driver serves the toolkits of its own major version and of older ones (NVIDIA's "CUDA
/// compatibility": minor version compatibility); it refuses what a newer one has compiled.
pub(super) fn candidates(
    wheels: &[&str],
    names: &[&str],
    driver: Option<Version>,
) -> std::vec::IntoIter<PathBuf> {
    let in_folders = folders(wheels).into_iter().flat_map(|folder| {
        let files = names.iter().map(move |name| folder.join(name));
        files.filter(|file| file.exists()).collect::<Vec<_>>()
    });
    let mut files: Vec<PathBuf> = in_folders
        .map(|file| std::path::absolute(&file).unwrap_or(file))
        .chain(names.iter().map(PathBuf::from))
        .collect();
    if let Some((served, _)) = driver {
        files.sort_by_key(|file| major(file).is_some_and(|major| major > served));
    }
    files.into_iter()
}

/// The major version in a file's name (`libnvrtc.so.12`), or in the name it links to.
fn major(file: &Path) -> Option<i32> {
    let number = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        let (_, version) = name.split_once(".so.")?;
        version.split('.').next()?.parse().ok()
    };
    number(file).or_else(|| number(&file.canonicalize().ok()?))
}

/// The folders that may hold the library, whether they are there or not.
fn folders(wheels: &[&str]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut below = |root: PathBuf| {
        for wheel in wheels {
            folders.push(root.join("nvidia").join(wheel).join("lib"));
        }
        folders.push(root);
    };
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    if let Some(dir) = variable(DIR_VARIABLE) {
        below(dir);
    }
    if let Ok(program) = std::env::current_exe() {
        // Beside an installed program; in `target` for a program that cargo built.
        let above = program.ancestors().skip(1).take(3);
        above.for_each(|dir| below(dir.join("nvrtc")));
    }
    environments()
        .iter()
        .for_each(|root| packages(root, &mut below));
    for toolkit in ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(variable) {
        folders.push(toolkit.join("lib64"));
    }
    folders.push("/usr/local/cuda/lib64".into());
    folders
}

/// Roots of Python environments: the active one, those whose programs are on the path, the user's.
fn environments() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let active = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .into_iter()
        .filter_map(variable);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path)
        .filter_map(|dir| Some(dir.parent()?.to_owned()))
        .collect::<Vec<_>>();
    let user = variable("HOME").map(|home| home.join(".local"));
    let mut all: Vec<PathBuf> = Vec::new();
    for root in active.chain(programs).chain(user) {
        if !all.contains(&root) {
            all.push(root);
        }
    }
    all
}

/// Calls `found` for every folder of packages in a Python environment.
fn packages(root: &Path, found: &mut impl FnMut(PathBuf)) {
    let Ok(entries) = std::fs::read_dir(root.join("lib")) else {
        return;
    };
    let mut pythons: Vec<PathBuf> = (entries.flatten())
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("python3"))
        })
        .collect();
    pythons.sort();
    for python in pythons {
        for folder in ["site-packages", "dist-packages"] {
            let folder = python.join(folder);
            if folder.join("nvidia").is_dir() {
                found(folder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_states_its_major_version() {
        for (name, expected) in [
            ("libnvrtc.so.13", Some(13)),
            ("/opt/libnvrtc.so.11.2", Some(11)),
            ("libnvrtc.so.12.9.86", Some(12)),
            ("libnvrtc.so", None),
        ] {
            assert_eq!(major(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn what_the_driver_serves_comes_first() {
        let names = ["libx.so.13", "libx.so.12", "libx.so.11.2", "libx.so"];
        let order = |driver| -> Vec<String> {
            candidates(&[], &names, driver)
                .filter(|path| !path.is_absolute())
                .map(|path| path.display().to_string())
                .collect()
        };
        assert_eq!(order(None), names);
        assert_eq!(order(Some((13, 0))), names);
        let [a, b, c, d] = names;
        assert_eq!(order(Some((12, 4))), [b, c, d, a]);
        assert_eq!(order(Some((11, 8))), [c, d, a, b]);
    }

    #[test]
    fn wheels_of_an_environment_are_found() {
        let root = std::env::temp_dir().join(format!("offshoot-venv-{}", std::process::id()));
        let lib = root.join("lib/python3.11/site-packages");
        std::fs::create_dir_all(lib.join("nvidia/cuda_nvrtc/lib")).expect("a temporary folder");
        let mut found = Vec::new();
        packages(&root, &mut |folder| found.push(folder));
        std::fs::remove_dir_all(&root).expect("it is ours");
        assert_eq!(found, [lib]);
    }
}
