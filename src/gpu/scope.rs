//! Errors of a device, caught where they arise instead of in the user's uncaptured-error handler.

use crate::Result;

/// Runs `create`, which makes device objects, and returns what the device says against it.
///
/// In a browser nothing can be waited for here: there the device's own uncaptured-error event reports, and this
/// returns the object.
pub(crate) fn checked<T>(device: &wgpu::Device, what: &str, create: impl FnOnce() -> T) -> Result<T> {
    #[cfg(target_arch = "wasm32")]
    {
        let _ = (device, what);
        Ok(create())
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let scopes = [Internal, OutOfMemory, Validation].map(|filter| device.push_error_scope(filter));
        let value = create();
        // Scopes are a stack: the last one pushed is popped first. All are popped, the first error counts.
        let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
        match errors.collect::<Vec<_>>().into_iter().flatten().next() {
            None => Ok(value),
            Some(error) => {
                Err(crate::Error::Device { what: what.to_owned().into(), message: error.to_string() })
            }
        }
    }
}
