//! Instructions of a whole warp: a row is PTX that every lane runs, and what each must get.

use crate::common::{download, gpu, upload};
use cuda::{LaunchError, Shape};

/// A kernel around `body`, which sees `%t` (thread) and leaves its result in `%r`.
pub fn code(body: &str) -> String {
    format!(
        ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n.shared .align 128 .b8 sm[1024];\n.reg .b64 %rd<8>; .reg .b32 %t, %r, %x<16>; .reg .pred %q<4>;\nld.param.u64 %rd1, [p]; mov.u32 %t, %tid.x;\n{body}\nmul.wide.u32 %rd2, %t, 4; add.u64 %rd3, %rd1, %rd2; st.global.u32 [%rd3], %r;\nret;\n}}\n"
    )
}

/// The `u32` that each lane gets from `body`, see [`code`].
pub fn warp(body: &str) -> Result<Vec<u32>, String> {
    let code = code(body);
    let gpu = gpu();
    let kernel = gpu
        .load(&code)
        .and_then(|m| m.kernel("k"))
        .map_err(|e| e.to_string())?;
    let at = upload(&gpu, &[0u32; 64]);
    match gpu.launch(
        &kernel,
        Shape::line(1, 32),
        kernel.pack(&[&at.to_le_bytes()]).unwrap(),
    ) {
        Ok(()) => Ok(download(&gpu, at, 32)),
        Err(LaunchError::Check(r)) => Err(r.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

pub type Want = Box<dyn Fn(u32) -> u32>;

/// Name, PTX, and the result of each lane.
pub type WarpRow = (&'static str, String, Want);

/// What changes no result: the row shows that it is decoded and harmless.
pub fn harmless(hint: &str) -> WarpRow {
    (
        "harmless",
        format!("mov.u32 %r, %t; {hint}"),
        Box::new(|l| l),
    )
}

#[test]
fn warp_wide_instructions() {
    let rows = crate::warp_rows();
    let mut failed = Vec::new();
    for (name, body, want) in &rows {
        match warp(body) {
            Err(e) => failed.push(format!("{name}: {e}")),
            Ok(got) => {
                if let Some(l) = (0..32).find(|l| got[*l as usize] != want(*l)) {
                    failed.push(format!(
                        "{name}: lane {l} has {:#x}, expected {:#x}",
                        got[l as usize],
                        want(l)
                    ));
                }
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        rows.len(),
        failed.join("\n")
    );
}
