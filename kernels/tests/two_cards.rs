//! Two cards in one process, on one thread. A file of its own: the emulator reads its number of
//! devices once per process.
#![allow(clippy::unwrap_used)] // A failed operation fails the test.

mod common;

use offshoot_kernels::cases;
use offshoot_kernels::cuda::{CudaBackend, Which};
use offshoot_kernels::{Backend, Dtype};

#[test]
fn cards_take_turns_on_a_thread() {
    // SAFETY: no other thread of this process reads the environment yet.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("OFFSHOOT_EMULATOR_DEVICES", "2");
    }
    let (_one, mut first) = common::emulated();
    first.set_cublaslt(Some(common::cublaslt())).unwrap();
    let mut second = CudaBackend::open(Which::Card(1)).unwrap();
    second.set_cublaslt(Some(common::cublaslt())).unwrap();
    let linear: Vec<_> = cases::linear_cases().into_iter().step_by(9).collect();
    let mut attention = (cases::attention_cases().into_iter())
        .find(|case| case.heads.2 == 64)
        .unwrap();
    attention.dtype = first.kv_dtype(Dtype::Bf16);
    let nodes: Vec<usize> = (0..attention.tree.nodes.len()).collect();
    for case in &linear {
        let outputs = [&mut first, &mut second].map(|card| {
            cases::check_attention(card, &attention, &nodes).unwrap();
            cases::check_linear(card, case).unwrap()
        });
        assert_eq!(outputs[0], outputs[1], "{case:?}");
    }
    // Memory is freed and graphs are destroyed in the context of their own card.
    drop(first);
    cases::check_linear(&mut second, &linear[0]).unwrap();
    assert!(CudaBackend::open(Which::Card(2)).is_err());
}
