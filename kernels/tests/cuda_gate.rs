//! The compile gate: every kernel, for every architecture, by the real compiler; no GPU is needed.

mod common;

use std::path::PathBuf;

use offshoot_kernels::cuda::catalog::{ARCHITECTURES, Architecture, Module};
use offshoot_kernels::cuda::{Compiler, cache_folder, compile_for, cubin};

#[test]
fn every_kernel_compiles_within_its_caps() {
    gate(&common::compiler());
}

/// CUDA 13's compiler allocates registers otherwise. Two tests, so that the compilers work side by
/// side.
#[test]
fn every_kernel_compiles_within_its_caps_by_cuda_13() {
    let variable = "OFFSHOOT_NVRTC13_DIR";
    let folder = std::env::var_os(variable).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| common::target().join("nvrtc13"));
    let file = folder.join("nvidia/cu13/lib/libnvrtc.so.13");
    let compiler = Compiler::load(&file).unwrap_or_else(|why| {
        panic!("{why}; expected the wheel nvidia-cuda-nvrtc of CUDA 13, unpacked there or in {variable}")
    });
    assert_eq!(compiler.version().0, 13);
    gate(&compiler);
}

fn gate(compiler: &Compiler) {
    let cache = cache_folder();
    let mut complaints = Vec::new();
    for architecture in &ARCHITECTURES {
        for module in architecture.modules() {
            let name = architecture.name;
            let compiled = compile_for(compiler, &module, name, cache.as_deref())
                .and_then(|image| cubin::kernels(&image));
            match compiled {
                Ok(compiled) => check(architecture, &module, &compiled, &mut complaints),
                Err(why) => complaints.push(format!("{name} {}: {why}", module.title())),
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn check(
    architecture: &Architecture,
    module: &Module,
    compiled: &[cubin::Compiled],
    complaints: &mut Vec<String>,
) {
    let mut complain = |kernel: &str, what: String| {
        let (name, module) = (architecture.name, module.title());
        complaints.push(format!("{name} {module} {kernel}: {what}"));
    };
    for kernel in module.kernels() {
        let Some(compiled) = compiled.iter().find(|c| c.name == kernel.name) else {
            complain(kernel.name, "not in the cubin".into());
            continue;
        };
        for what in architecture.complaints(&kernel, compiled) {
            complain(kernel.name, what);
        }
    }
    // A kernel that is not in the catalogue would escape its caps.
    for compiled in compiled {
        if !module.kernels().iter().any(|k| k.name == compiled.name) {
            complain(&compiled.name, "not in the catalogue".into());
        }
    }
}

#[test]
fn a_kernel_that_breaks_its_caps_is_found() {
    let compiler = common::compiler();
    for architecture in &ARCHITECTURES {
        let name = architecture.name;
        let source = r#"
            extern "C" __global__ void sample(int* p, int n) {
                int a[64];
                for (int i = 0; i < 64; i++) a[i * n % 64] = p[i];
                int sum = 0;
                for (int i = 0; i < 64; i++) sum += a[p[i] % 64];
                p[0] = sum;
            }"#;
        let image = compiler.compile(&offshoot_kernels::cuda::Job {
            name: "broken.cu",
            source,
            headers: &[],
            options: &[format!("-arch={name}")],
            output: offshoot_kernels::cuda::Output::Cubin,
        });
        let compiled = cubin::kernels(&image.expect("it compiles")).expect("a cubin");
        let mut kernel = offshoot_kernels::cuda::catalog::sample()
            .kernels()
            .remove(0);
        kernel.tensor = true;
        let complaints = architecture.complaints(&kernel, &compiled[0]).join("; ");
        for expected in [
            "256 bytes of stack",
            "accesses to local memory",
            "0 tensor-core instructions",
        ] {
            assert!(complaints.contains(expected), "{name}: {complaints}");
        }
        kernel.registers = 4;
        kernel.shared = Some(1 << 20);
        let complaints = architecture.complaints(&kernel, &compiled[0]).join("; ");
        for expected in ["the cap is 4", "bytes of shared memory", "0 blocks fit"] {
            assert!(complaints.contains(expected), "{name}: {complaints}");
        }
    }
}
