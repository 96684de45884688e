//! The cards of this machine, listed without panics where there is no driver.

use super::driver_message;
use crate::cuda::libraries::Version;
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};

/// A card as `offshoot devices` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory: usize,
    /// Whether it is the emulator's, whose library was found in place of a driver's.
    pub emulated: bool,
    /// Why it cannot be used, if it cannot.
    pub unfit: Option<String>,
}

/// The cards of the driver.
///
/// # Errors
///
/// There is no driver, or it does not start.
pub fn cards() -> Result<Vec<Found>, String> {
    start_driver()?;
    let count = result::device::get_count().map_err(|e| driver_message(&e))?;
    (0..count).map(card).collect()
}

fn card(index: i32) -> Result<Found, String> {
    let device = result::device::get(index).map_err(|e| driver_message(&e))?;
    let attribute = |which| {
        // SAFETY: a device that the driver just returned.
        unsafe { result::device::get_attribute(device, which) }.map_err(|e| driver_message(&e))
    };
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let name = result::device::get_name(device).map_err(|e| driver_message(&e))?;
    Ok(Found {
        index: index as usize,
        emulated: name.contains("(emulated)"),
        name,
        capability,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }.map_err(|e| driver_message(&e))?,
        unfit: too_old(capability),
    })
}

/// The version of CUDA that the driver serves; `None` if there is no driver that says so.
pub fn driver_version() -> Option<Version> {
    start_driver().ok()?;
    let mut version = 0;
    // SAFETY: the driver is loaded; a place for its answer.
    let asked = unsafe { sys::cuDriverGetVersion(&mut version) };
    asked.result().ok()?;
    Some((version / 1000, version % 1000 / 10))
}

/// Loads and initialises the driver.
fn start_driver() -> Result<(), String> {
    // SAFETY: tries to load the library; its initialisers have no preconditions.
    if !unsafe { sys::is_culib_present() } {
        return Err("libcuda.so is not on the library path: no NVIDIA driver is installed".into());
    }
    result::init().map_err(|e| format!("the driver does not start: {}", driver_message(&e)))
}

fn too_old((major, minor): (i32, i32)) -> Option<String> {
    (major < 8).then(|| format!("compute capability {major}.{minor}, expected 8.0 or more"))
}
