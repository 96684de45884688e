//! Broken model directories are refused by the file's name.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::complaint;
use crate::common::{embedded, finish, offshoot, report, scratch, stdout_of};

/// A copy of nano-small with one thing broken.
struct Broken {
    name: &'static str,
    break_it: fn(&Path),
    says: &'static [&'static str],
}

pub(super) fn edit(folder: &Path, file: &str, change: impl FnOnce(String) -> String) {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).expect("a file of the copy");
    let changed = change(text.clone());
    assert_ne!(text, changed, "{file} was not changed");
    fs::write(path, changed).expect("the copy is writable");
}

/// Changes the weight file's bytes; its header starts at byte 8.
pub(super) fn edit_weights(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("the copy has weights");
    change(&mut bytes);
    fs::write(path, bytes).expect("the copy is writable");
}

/// Puts `new` for the first `old` of the weight file's header; both are of one length.
fn edit_header(folder: &Path, old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    edit_weights(folder, |bytes| {
        let at = (bytes.windows(old.len()))
            .position(|window| window == old.as_bytes())
            .unwrap_or_else(|| panic!("{old} is in the header"));
        bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
    });
}

pub(super) fn edit_json(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    edit(folder, file, |text| {
        let mut value: Value = serde_json::from_str(&text).expect("the copy's JSON");
        change(&mut value);
        value.to_string()
    });
}

/// What Git LFS leaves in place of a file that it has not fetched.
const LFS_POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

const BROKEN: [Broken; 29] = [
    Broken {
        name: "empty",
        break_it: |d| {
            for entry in fs::read_dir(d).expect("the copy") {
                fs::remove_file(entry.expect("an entry").path()).expect("the copy is writable");
            }
        },
        says: &["config.json"],
    },
    Broken {
        name: "config-cut",
        break_it: |d| edit(d, "config.json", |t| t[..t.len() / 2].into()),
        says: &["config.json", "JSON"],
    },
    Broken {
        name: "config-directory",
        break_it: |d| {
            fs::remove_file(d.join("config.json")).expect("the copy is writable");
            fs::create_dir(d.join("config.json")).expect("the copy is writable");
        },
        says: &["config.json"],
    },
    Broken {
        name: "config-loop",
        break_it: |d| {
            fs::remove_file(d.join("config.json")).expect("the copy is writable");
            std::os::unix::fs::symlink("config.json", d.join("config.json")).expect("a link");
        },
        says: &["config.json"],
    },
    Broken {
        name: "architecture",
        break_it: |d| edit(d, "config.json", |t| t.replace("LlamaFor", "MambaFor")),
        says: &["config.json", "MambaForCausalLM", "LlamaForCausalLM"],
    },
    Broken {
        name: "no-layers",
        break_it: |d| edit_json(d, "config.json", |c| c["num_hidden_layers"] = json!(-1)),
        says: &["config.json", "num_hidden_layers", "-1"],
    },
    Broken {
        name: "more-layers",
        break_it: |d| edit_json(d, "config.json", |c| c["num_hidden_layers"] = json!(4)),
        says: &["model.layers.3", "missing", "model.safetensors"],
    },
    Broken {
        name: "wider",
        break_it: |d| edit_json(d, "config.json", |c| c["intermediate_size"] = json!(65)),
        says: &["model.safetensors", "mlp", "[64, 32]", "[65, 32]"],
    },
    Broken {
        name: "no-weights",
        break_it: |d| fs::remove_file(d.join("model.safetensors")).expect("the copy is writable"),
        says: &["safetensors"],
    },
    Broken {
        name: "weights-empty",
        break_it: |d| edit_weights(d, Vec::clear),
        says: &["model.safetensors"],
    },
    Broken {
        name: "weights-cut",
        break_it: |d| edit_weights(d, |b| b.truncate(b.len() / 2)),
        says: &["model.safetensors"],
    },
    Broken {
        name: "weights-cut-by-one",
        break_it: |d| edit_weights(d, |b| b.truncate(b.len() - 1)),
        says: &["model.safetensors"],
    },
    Broken {
        name: "weights-cut-in-the-header",
        break_it: |d| edit_weights(d, |b| b.truncate(100)),
        says: &["model.safetensors"],
    },
    Broken {
        name: "header-beyond-the-file",
        break_it: |d| edit_weights(d, |b| b[..8].copy_from_slice(&u64::MAX.to_le_bytes())),
        says: &["model.safetensors"],
    },
    Broken {
        name: "header-not-json",
        break_it: |d| edit_weights(d, |b| b[8] = b'!'),
        says: &["model.safetensors"],
    },
    Broken {
        name: "header-lies-about-a-shape",
        break_it: |d| edit_header(d, "\"shape\":[480,32]", "\"shape\":[480,33]"),
        says: &["model.safetensors"],
    },
    Broken {
        name: "header-lies-about-an-offset",
        break_it: |d| edit_header(d, "\"data_offsets\":[0,", "\"data_offsets\":[9,"),
        says: &["model.safetensors"],
    },
    Broken {
        name: "dtype",
        break_it: |d| edit_header(d, "\"BF16\"", "\"I16\" "),
        says: &["model.safetensors", "I16", "BF16"],
    },
    Broken {
        name: "tensor-renamed",
        break_it: |d| edit_header(d, "model.norm.weight", "model.Norm.weight"),
        says: &["model.norm.weight", "missing", "model.safetensors"],
    },
    Broken {
        name: "no-tokenizer",
        break_it: |d| fs::remove_file(d.join("tokenizer.json")).expect("the copy is writable"),
        says: &["tokenizer.json"],
    },
    Broken {
        name: "tokenizer-cut",
        break_it: |d| edit(d, "tokenizer.json", |t| t[..t.len() / 2].into()),
        says: &["tokenizer.json"],
    },
    Broken {
        name: "tokenizer-of-another",
        break_it: |d| {
            edit_json(d, "tokenizer.json", |t| {
                let mut token = t["added_tokens"][3].clone();
                token["id"] = json!(1234);
                token["content"] = json!("<beyond>");
                let tokens = t["added_tokens"].as_array_mut().expect("a list");
                tokens.push(token);
                // The tokenizer crate numbers added tokens itself; a word cannot be argued with.
                t["model"]["vocab"]["<beyond>"] = json!(1234);
            });
        },
        says: &["tokenizer.json", "<beyond>", "1234", "480"],
    },
    Broken {
        name: "pointer-for-weights",
        break_it: |d| fs::write(d.join("model.safetensors"), LFS_POINTER).expect("writable"),
        says: &[
            "model.safetensors is a pointer of Git LFS",
            "`git lfs pull`",
        ],
    },
    Broken {
        name: "pointer-for-tokenizer",
        break_it: |d| fs::write(d.join("tokenizer.json"), LFS_POINTER).expect("writable"),
        says: &["tokenizer.json is a pointer of Git LFS", "`git lfs pull`"],
    },
    Broken {
        name: "pointer-for-config",
        break_it: |d| fs::write(d.join("config.json"), LFS_POINTER).expect("writable"),
        says: &["config.json is a pointer of Git LFS", "`git lfs pull`"],
    },
    Broken {
        name: "pointer-for-pickle",
        break_it: |d| {
            fs::remove_file(d.join("model.safetensors")).expect("the copy is writable");
            fs::write(d.join("pytorch_model.bin"), LFS_POINTER).expect("writable");
        },
        says: &[
            "pytorch_model.bin is a pointer of Git LFS",
            "`git lfs pull`",
        ],
    },
    Broken {
        name: "classifier-without-class",
        break_it: |d| {
            edit_json(d, "config.json", |c| {
                c["architectures"] = Value::Null;
            });
            edit_header(d, "\"model.norm.weight\"", "\"score.weight\"     ");
        },
        says: &["config.json", "architectures", "score.weight"],
    },
    Broken {
        name: "template-syntax",
        break_it: |d| {
            edit_json(d, "tokenizer_config.json", |c| {
                c["chat_template"] = json!("{% for message in %}{{ message }}");
            });
        },
        says: &["tokenizer_config.json", "line 1"],
    },
    Broken {
        name: "template-refuses",
        break_it: |d| {
            edit_json(d, "tokenizer_config.json", |c| {
                c["chat_template"] = json!("{{ raise_exception('only in verse') }}");
            });
        },
        says: &["only in verse"],
    },
];

pub(super) fn copy_of(word: &str, folder: &Path) {
    fs::create_dir(folder).expect("a folder in the scratch folder");
    for entry in fs::read_dir(embedded(word)).expect("an embedded model") {
        let from = entry.expect("a readable entry").path();
        let name = from.file_name().expect("a file has a name");
        fs::copy(&from, folder.join(name)).expect("the scratch folder is writable");
    }
}

#[test]
fn broken_models_are_refused_by_name() {
    let folder = scratch("broken");
    let mut complaints = Vec::new();
    copy_of("nano-small", &folder.join("whole"));
    stdout_of(&offshoot(&folder, &["inspect", "whole"], ""));
    for Broken {
        name,
        break_it,
        says,
    } in BROKEN
    {
        copy_of("nano-small", &folder.join(name));
        break_it(&folder.join(name));
        // A template that refuses is a fault of its messages: inspect shows none. And it describes
        // a model without weights as far as the config goes.
        let described = ["template-refuses", "no-weights"].contains(&name);
        let generate = ["generate", "--model", name, "1 + 1"];
        let inspect = ["inspect", name];
        let calls: [&[&str]; 2] = [&generate, &inspect];
        for arguments in &calls[..2 - usize::from(described)] {
            let output = offshoot(&folder, arguments, "");
            if let Some(what) = complaint(&output, says, Some(1)) {
                complaints.push(format!("{name}, {}: {what}", arguments[0]));
            }
        }
    }

    // A pipe in place of the weights must not be waited for.
    copy_of("nano-small", &folder.join("pipe"));
    let pipe = folder.join("pipe/model.safetensors");
    fs::remove_file(&pipe).expect("the copy is writable");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo runs").success());
    let output = offshoot(&folder, &["inspect", "pipe"], "");
    if let Some(what) = complaint(&output, &["model.safetensors"], Some(1)) {
        complaints.push(format!("pipe: {what}"));
    }
    report(&complaints);
}

/// Permissions do not bind root, so a test run by root becomes somebody else for the call. The
/// binary is copied to where anybody may run it.
#[test]
fn an_unreadable_model_is_refused() {
    let folder = std::env::temp_dir().join(format!("offshoot-unreadable-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder for temporary files");
    let binary = folder.join("offshoot");
    // By a process: a file that this one has open for writing would be inherited by the children of
    // other tests, and cannot be run until they let go of it.
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_offshoot")).arg(&binary);
    assert!(copy.status().expect("cp runs").success());
    let root = fs::metadata(&folder).expect("the folder").uid() == 0;
    let everyone = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
    };
    everyone(&folder, 0o755);
    everyone(&binary, 0o755);

    let call = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.current_dir(&folder).args(arguments);
        if root {
            command.uid(65534).gid(65534);
        }
        finish(&mut command, "")
    };
    let mut complaints = Vec::new();
    let closed: [(&str, &str); 3] = [
        ("directory", "."),
        ("config", "config.json"),
        ("weights", "model.safetensors"),
    ];
    for (name, what) in closed {
        copy_of("nano-small", &folder.join(name));
        everyone(&folder.join(name).join(what), 0o000);
        let output = call(&["generate", "--model", name, "1 + 1"]);
        everyone(&folder.join(name).join(what), 0o755);
        let says = [name, "ermission denied"];
        if let Some(what) = complaint(&output, &says, Some(1)) {
            complaints.push(format!("{name}: {what}"));
        }
    }
    fs::remove_dir_all(&folder).expect("our own folder");
    report(&complaints);
}
