//! Two cards in one process, on one thread. A file of its own: the emulator reads its number of
//! devices once per process.
#![allow(clippy::unwrap_used)] // A failed operation fails the test.

mod common;

use offshoot_kernels::cases::{self, Device};
use offshoot_kernels::cuda::{CudaBackend, Which};
use offshoot_kernels::{Backend, BatchPlan, BlockId, Dtype, MatrixView, SequenceRows};

/// A card with a linear layer and its buffers.
struct Card {
    backend: CudaBackend,
    weight: <CudaBackend as Backend>::Weight,
    x: <CudaBackend as Backend>::Activations,
    out: <CudaBackend as Backend>::Activations,
    recordings: <CudaBackend as Backend>::Recordings,
}

impl Card {
    fn open(mut backend: CudaBackend) -> Card {
        backend.set_cublaslt(Some(common::cublaslt())).unwrap();
        let bytes = cases::matrix_bytes(&cases::numbers(1, 48 * 64), Dtype::Bf16);
        let view = MatrixView {
            rows: 48,
            cols: 64,
            dtype: Dtype::Bf16,
            bytes: &bytes,
        };
        Card {
            weight: backend.load_matrix(&[view]).unwrap(),
            x: backend.half_activations(32, 64).unwrap(),
            out: backend.activations(32, 48).unwrap(),
            recordings: Default::default(),
            backend,
        }
    }

    fn linear(&mut self, rows: usize) {
        let (x, out) = (&self.x, &mut self.out);
        self.backend.linear(x, &self.weight, None, rows, false, out);
    }
}

/// Every call to one card comes after one to the other.
#[test]
fn cards_take_turns_on_a_thread() {
    // SAFETY: no other thread of this process reads the environment yet.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("OFFSHOOT_EMULATOR_DEVICES", "2");
    }
    let (_one, first) = common::emulated();
    let second = CudaBackend::open(Which::Card(1)).unwrap();
    let mut cards = [Card::open(first), Card::open(second)];
    let entries = [(BlockId(0), 1)];
    let sequence = SequenceRows {
        table: &entries,
        token_ids: &[1],
        write: true,
        outputs: &[0],
    };
    let (plan, _) = BatchPlan::build(&[sequence; 1], 1);
    for round in 0..4 {
        // By our kernel, by the library, and as a recorded pass.
        for rows in [8, 32, 1] {
            let numbers = cases::numbers(10 + round, 32 * 64);
            for card in &mut cards {
                Device::write(&mut card.backend, &mut card.x, &numbers);
            }
            if rows == 1 {
                let mut plans: Vec<_> = (cards.iter_mut())
                    .map(|card| card.backend.upload(&plan).unwrap())
                    .collect();
                for (card, plan) in cards.iter_mut().zip(&mut plans) {
                    let Card {
                        backend,
                        weight,
                        x,
                        out,
                        recordings,
                    } = card;
                    backend.record(recordings, plan, &mut |backend| {
                        backend.linear(x, weight, None, 1, false, out);
                    });
                }
            } else {
                cards.iter_mut().for_each(|card| card.linear(rows));
            }
            let pending: Vec<_> = (cards.iter_mut())
                .map(|card| card.backend.read(&card.out, 0..rows))
                .collect();
            let read: Vec<Vec<f32>> = (cards.iter_mut().zip(pending))
                .map(|(card, pending)| card.backend.finish_read(pending).unwrap())
                .collect();
            assert_eq!(read[0], read[1], "round {round}, {rows} rows");
            assert!(read[0].iter().any(|&v| v != 0.0));
        }
    }
    // Memory is freed and graphs are destroyed in the context of their own card.
    let [first, mut second] = cards;
    drop(first);
    second.linear(8);
    second.backend.synchronize().unwrap();
    assert!(CudaBackend::open(Which::Card(2)).is_err());
}
