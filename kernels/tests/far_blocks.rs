//! Blocks beyond 128 GiB and beyond 2^31 of the kernel's units, on the emulated B200: a file of its own,
//! since the emulator reads its card once per process. It commits only memory that is touched.
#![allow(clippy::unwrap_used)] // A failed operation fails the test.

mod common;

use offshoot_kernels::cuda::study::large;

#[test]
fn blocks_at_the_end_of_a_large_arena_are_read_as_those_at_its_beginning() {
    // SAFETY: no other thread of this process reads the environment yet.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("OFFSHOOT_EMULATOR_DEVICE", "b200");
    }
    let (_one, mut backend) = common::emulated();
    let compared = large::far_blocks(&mut backend, 170 << 30, (32, 8, 64)).unwrap();
    assert!(compared.right(), "{compared:?}");
}
