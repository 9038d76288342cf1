//! Errors of a device, caught where they arise instead of in the user's uncaptured-error handler.

use super::memory::filled_buffer;
use crate::{Error, Result};

/// Runs `create`, which makes device objects, and returns what the device says against it.
///
/// In a browser nothing can be waited for here: there the device's own uncaptured-error event reports, and this
/// returns the object.
pub(crate) fn checked<T>(device: &wgpu::Device, what: &str, create: impl FnOnce() -> T) -> Result<T> {
    caught(device, create).map_err(|error| named(device, what, error))
}

/// [`checked`] for what takes so many bytes: where the device has no room for them, the error says so.
pub(crate) fn allocated<T>(
    device: &wgpu::Device,
    what: &str,
    bytes: u64,
    create: impl FnOnce() -> T,
) -> Result<T> {
    caught(device, create).map_err(|error| match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: what.to_owned().into(), need: bytes },
        other => named(device, what, other),
    })
}

fn named(device: &wgpu::Device, what: &str, error: wgpu::Error) -> Error {
    let message = error.to_string();
    check_not_lost(device).err().unwrap_or_else(|| Error::Device { what: what.to_owned().into(), message })
}

/// An error where [`is_lost`].
pub(crate) fn check_not_lost(device: &wgpu::Device) -> Result<()> {
    if is_lost(device) { Err(Error::DeviceLost("it makes no buffers any more".into())) } else { Ok(()) }
}

/// Whether a device is lost, asked where something has failed. Only its one callback is ever told, which is the user's; but
/// all that a lost device makes is invalid, and says so when it is used. A browser cannot be asked so: there nothing is caught.
pub(crate) fn is_lost(device: &wgpu::Device) -> bool {
    if cfg!(target_arch = "wasm32") {
        return false;
    }
    let usage = wgpu::BufferUsages::COPY_SRC;
    let probe = caught(device, || filled_buffer(device, "probe", usage, &[0; 16]));
    matches!(probe, Err(wgpu::Error::Validation { .. }))
}

#[cfg(target_arch = "wasm32")]
fn caught<T>(_: &wgpu::Device, create: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    Ok(create())
}

#[cfg(not(target_arch = "wasm32"))]
fn caught<T>(device: &wgpu::Device, create: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let scopes = [Internal, Validation, OutOfMemory].map(|filter| device.push_error_scope(filter));
    let value = create();
    // Scopes are a stack: the last one pushed is popped first. All are popped, the first error counts: what there was no
    // memory for is invalid afterwards, too.
    let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
    errors.collect::<Vec<_>>().into_iter().flatten().next().map_or(Ok(value), Err)
}
