//! Launches of kernels.

use super::{Card, driver_message};
use crate::Error;
use cudarc::driver::{result, sys};
use std::ffi::c_void;

/// A loaded kernel.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    pub(super) handle: sys::CUfunction,
    pub(super) name: &'static str,
}

impl Function {
    /// The driver's handle.
    pub(crate) fn handle(self) -> sys::CUfunction {
        self.handle
    }
}

/// Thread blocks (x, y), threads per block, dynamic shared memory per block in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub blocks: (usize, usize),
    pub threads: usize,
    pub shared: usize,
}

impl Card {
    /// Enqueues a kernel; does nothing if there are no blocks. `describe` gives the shape for the
    /// message of a failure.
    ///
    /// # Safety
    ///
    /// `arguments` point to values of the kernel's parameters' types, in order; the device memory
    /// they point to is large enough and lives until the work is done.
    pub(crate) unsafe fn launch(
        &self,
        function: Function,
        grid: Grid,
        describe: &dyn Fn() -> String,
        arguments: &mut [*mut c_void],
    ) -> Result<(), Error> {
        if grid.blocks.0 == 0 || grid.blocks.1 == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: a loaded function and the card's stream; the rest is the caller's promise.
        unsafe {
            result::launch_kernel(
                function.handle,
                (grid.blocks.0 as u32, grid.blocks.1 as u32, 1),
                (grid.threads as u32, 1, 1),
                grid.shared as u32,
                self.stream,
                arguments,
            )
        }
        .map_err(|e| {
            let what = format!("kernel {} ({})", function.name, describe());
            self.failure(&what, &driver_message(&e))
        })
    }
}

/// Enqueues a kernel with its arguments by value.
///
/// The caller keeps the promises of [`Card::launch`].
macro_rules! launch {
    ($card:expr, $function:expr, $grid:expr, $describe:expr, $($argument:expr),* $(,)?) => {{
        let arguments = ($($argument,)*);
        // SAFETY: every call of this macro passes the parameters of the kernel it names, in
        // order, with buffers whose sizes it has checked.
        unsafe {
            $crate::cuda::device::Arguments::launch(arguments, $card, $function, $grid, $describe)
        }
    }};
}
pub(crate) use launch;

/// A tuple of kernel arguments.
pub(crate) trait Arguments: Sized {
    /// [`Card::launch`] with pointers to the members.
    ///
    /// # Safety
    ///
    /// That of [`Card::launch`].
    unsafe fn launch(
        self,
        card: &Card,
        function: Function,
        grid: Grid,
        describe: &dyn Fn() -> String,
    ) -> Result<(), Error>;
}

macro_rules! arguments {
    ($($name:ident)*) => {
        impl<$($name: Copy),*> Arguments for ($($name,)*) {
            unsafe fn launch(
                mut self,
                card: &Card,
                function: Function,
                grid: Grid,
                describe: &dyn Fn() -> String,
            ) -> Result<(), Error> {
                #[allow(non_snake_case)]
                let ($($name,)*) = &mut self;
                let mut pointers = [$(std::ptr::from_mut($name).cast::<c_void>()),*];
                // SAFETY: the caller's promise; the driver reads the values before it returns.
                unsafe { card.launch(function, grid, describe, &mut pointers) }
            }
        }
    };
}
arguments!(A);
arguments!(A B);
arguments!(A B C);
arguments!(A B C D);
arguments!(A B C D E);
arguments!(A B C D E F);
arguments!(A B C D E F G);
arguments!(A B C D E F G H);
arguments!(A B C D E F G H I);
arguments!(A B C D E F G H I J K);
arguments!(A B C D E F G H I J K L);
