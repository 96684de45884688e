//! A row: the PTX of one instruction, the widths of its result and sources, the kind of values fed
//! in, and the model. 512 threads run it on awkward values and random bits.

use crate::common::{Random, download, gpu, upload};
use crate::model::{Feed, d, feed};
use cuda::Shape;

pub type Model = fn(u64, u64, u64) -> u64;

pub struct Row(
    pub &'static str,
    pub u32,
    pub &'static [(u32, Feed)],
    pub Model,
);

const THREADS: usize = 512;

pub fn check(row: &Row) -> Result<(), String> {
    let Row(ptx, result, sources, model) = row;
    check_one(ptx, *result, sources, &|a, b, c| Some(model(a, b, c)))
}

/// A kernel that runs the row's PTX with its sources in A, B, C and its result in D.
pub fn code(ptx: &str, result: u32, sources: &[(u32, Feed)]) -> String {
    let mut code = String::from(
        ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p) {\n.reg .b64 %rd<8>, %in<3>; .reg .b32 %t; .reg .b64 %out;\n",
    );
    let name = |i: usize| ["A", "B", "C"][i];
    code += &format!(".reg .b{result} D;\n");
    for (i, (width, _)) in sources.iter().enumerate() {
        code += &format!(".reg .b{width} {};\n", name(i));
    }
    code += "ld.param.u64 %rd1, [p]; mov.u32 %t, %tid.x; mul.wide.u32 %rd2, %t, 32; add.u64 %rd3, %rd1, %rd2;\n";
    for (i, (width, _)) in sources.iter().enumerate() {
        code += &format!("ld.global.b{width} {}, [%rd3+{}];\n", name(i), i * 8);
    }
    let end = if ptx.starts_with('{') { "" } else { ";" };
    code += &format!("{ptx}{end}\nst.global.b{result} [%rd3+24], D;\nret;\n}}\n");
    code
}

/// `model` yields nothing where an instruction's result is not worth a model.
pub fn check_one(
    ptx: &str,
    result: u32,
    sources: &[(u32, Feed)],
    model: &dyn Fn(u64, u64, u64) -> Option<u64>,
) -> Result<(), String> {
    let code = code(ptx, result, sources);
    let gpu = gpu();
    let kernel = gpu
        .load(&code)
        .and_then(|m| m.kernel("k"))
        .map_err(|e| e.to_string())?;
    let mut rng = Random(ptx.len() as u64);
    let mut data = vec![[0u64; 4]; THREADS];
    for values in &mut data {
        for (i, (width, kind)) in sources.iter().enumerate() {
            values[i] = feed(*kind, *width, &mut rng);
        }
    }
    let at = upload(&gpu, &data);
    gpu.launch(
        &kernel,
        Shape::line(1, THREADS as u32),
        kernel.pack(&[&at.to_le_bytes()]).unwrap(),
    )
    .map_err(|e| e.to_string())?;
    let got = download::<u64>(&gpu, at, THREADS * 4);
    for (i, values) in data.iter().enumerate() {
        let mask = if result == 64 {
            u64::MAX
        } else {
            (1 << result) - 1
        };
        let Some(want) = model(values[0], values[1], values[2]) else {
            continue;
        };
        let (have, want) = (got[i * 4 + 3] & mask, want & mask);
        let both_nan = result == 64 && d(have).is_nan() && d(want).is_nan();
        if have != want && !both_nan {
            return Err(format!(
                "on {:#x} {:#x} {:#x}: {have:#x}, expected {want:#x}",
                values[0], values[1], values[2]
            ));
        }
    }
    Ok(())
}

/// A row made for one of several types.
pub struct Made {
    pub ptx: String,
    pub result: u32,
    pub sources: Vec<(u32, Feed)>,
    pub model: Box<dyn Fn(u64, u64, u64) -> Option<u64>>,
}

pub fn made(
    ptx: impl Into<String>,
    result: u32,
    sources: &[(u32, Feed)],
    model: impl Fn(u64, u64, u64) -> u64 + 'static,
) -> Made {
    Made {
        ptx: ptx.into(),
        result,
        sources: sources.to_vec(),
        model: Box::new(move |a, b, c| Some(model(a, b, c))),
    }
}
