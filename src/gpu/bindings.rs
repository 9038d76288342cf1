//! Buffers by name: what a call binds, checked once, and which of them may share a buffer.

use super::memory::filled_buffer;
use super::scope::allocated;
use crate::{ElementType, Error, Result};

/// The buffers of one kernel, by the names under which its shader declares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bindings<'a>(Vec<(&'static str, wgpu::BufferBinding<'a>)>);

impl<'a> Bindings<'a> {
    pub(crate) fn with(mut self, name: &'static str, binding: wgpu::BufferBinding<'a>) -> Self {
        self.0.push((name, binding));
        self
    }

    /// With a binding that only some variants have.
    pub(crate) fn with_some(self, name: &'static str, binding: Option<wgpu::BufferBinding<'a>>) -> Self {
        match binding {
            Some(binding) => self.with(name, binding),
            None => self,
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&wgpu::BufferBinding<'a>> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, binding)| binding)
    }
}

/// All of a buffer.
pub(crate) fn whole(buffer: &wgpu::Buffer) -> wgpu::BufferBinding<'_> {
    buffer.as_entire_buffer_binding()
}

/// What a call does with a buffer of the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Every dispatch that uses it reads it.
    Read,
    /// Every dispatch that uses it writes it.
    Write,
    /// One dispatch writes it, and another reads it.
    Both,
}

/// The one rule for buffers that a call uses twice. A dispatch may use a buffer either to read or to write, whatever the
/// ranges, and may not write the same bytes through two bindings. Where all storage is declared writable (`shared`,
/// [`Options::shared_buffers`](crate::Options::shared_buffers)), ranges of one buffer that do not meet may be used together.
pub(crate) fn check_aliasing(
    named: &[(&str, Option<&wgpu::BufferBinding<'_>>, Access)],
    shared: bool,
) -> Result<()> {
    for (n, (name, binding, access)) in named.iter().enumerate() {
        let Some(binding) = binding else { continue };
        for (other_name, other, other_access) in &named[..n] {
            let Some(other) = other.filter(|other| other.buffer == binding.buffer) else { continue };
            let (mine, theirs) = (bytes(binding), bytes(other));
            let meet = mine.start < theirs.end && theirs.start < mine.end;
            let allowed = match (access, other_access) {
                (Access::Read, Access::Read) => true,
                (Access::Write, Access::Write) => !meet,
                _ => shared && !meet,
            };
            if allowed {
                continue;
            }
            // The one that is written is at fault.
            let (name, other_name) =
                if *access == Access::Read { (other_name, name) } else { (name, other_name) };
            let error = if shared || (*access == Access::Write && *other_access == Access::Write) {
                let got = format!("bytes {mine:?} beside {theirs:?} of one buffer");
                Error::argument(name.to_string(), format!("bytes apart from those of {other_name}"), got)
            } else {
                let need = format!("a buffer other than that of {other_name}");
                Error::argument(name.to_string(), need, "the same buffer")
            };
            return Err(error);
        }
    }
    Ok(())
}

fn bytes(binding: &wgpu::BufferBinding<'_>) -> std::ops::Range<u64> {
    let behind = binding.buffer.size().saturating_sub(binding.offset);
    binding.offset..binding.offset + binding.size.map_or(behind, |size| size.get())
}

/// The binding cut to the bytes that the tensor has, or what is wrong with it.
pub(crate) fn checked_binding<'a>(
    limits: &wgpu::Limits,
    name: &str,
    binding: &wgpu::BufferBinding<'a>,
    elements: usize,
    element: ElementType,
) -> Result<wgpu::BufferBinding<'a>> {
    let buffer = binding.buffer;
    if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        let got = format!("{:?}", buffer.usage());
        return Err(Error::argument(name.to_owned(), "a buffer with BufferUsages::STORAGE", got));
    }
    let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
    if !binding.offset.is_multiple_of(alignment) {
        let need =
            format!("an offset that is a multiple of {alignment} (min_storage_buffer_offset_alignment)");
        return Err(Error::argument(name.to_owned(), need, format!("offset {}", binding.offset)));
    }
    // Whole words: the last 16-bit element of an odd tensor shares its word with padding. An empty tensor is bound all the
    // same, as one vector of 4.
    let bytes = (elements as u64 * element.size_bytes() as u64).next_multiple_of(4);
    let need = if elements == 0 { 16 } else { bytes };
    let behind = buffer.size().saturating_sub(binding.offset);
    let size = binding.size.map_or(behind, |size| size.get());
    if size < need || size > behind {
        let needed = format!("{need} bytes ({elements} elements of {element})");
        let got = format!("{size} bytes at offset {} of a buffer of {}", binding.offset, buffer.size());
        return Err(Error::argument(name.to_owned(), needed, got));
    }
    if need > limits.max_storage_buffer_binding_size {
        let have = limits.max_storage_buffer_binding_size;
        return Err(Error::limit(name.to_owned(), "max_storage_buffer_binding_size", need, have));
    }
    Ok(wgpu::BufferBinding { buffer, offset: binding.offset, size: wgpu::BufferSize::new(need) })
}

/// An input that is there if and only if it is wanted.
pub(crate) fn optional_binding<'a>(
    limits: &wgpu::Limits,
    name: &'static str,
    binding: &Option<wgpu::BufferBinding<'a>>,
    wanted: bool,
    elements: usize,
    element: ElementType,
) -> Result<Option<wgpu::BufferBinding<'a>>> {
    match (binding, wanted) {
        (Some(binding), true) => checked_binding(limits, name, binding, elements, element).map(Some),
        (None, false) => Ok(None),
        (None, true) => Err(Error::argument(name, "a buffer, since the shape has one", "none")),
        (Some(_), false) => Err(Error::argument(name, "none, since the shape has none", "a buffer")),
    }
}

/// Scratch on the device, or which limit it passes.
pub(crate) fn scratch(device: &wgpu::Device, what: &'static str, bytes: u64) -> Result<wgpu::Buffer> {
    let limits = device.limits();
    let have = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    if bytes > have {
        return Err(Error::limit(format!("scratch: {what}"), "max_storage_buffer_binding_size", bytes, have));
    }
    let size = bytes.next_multiple_of(16).max(16);
    let usage = wgpu::BufferUsages::STORAGE;
    let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
    allocated(device, what, bytes, || device.create_buffer(&descriptor))
}

/// Values on the device that a plan keeps, or which limit they pass.
pub(crate) fn upload(device: &wgpu::Device, what: &'static str, bytes: &[u8]) -> Result<wgpu::Buffer> {
    let (need, have) = (bytes.len() as u64, device.limits().max_storage_buffer_binding_size);
    if need > have {
        return Err(Error::limit(what, "max_storage_buffer_binding_size", need, have));
    }
    let fill = || filled_buffer(device, what, wgpu::BufferUsages::STORAGE, bytes);
    allocated(device, what, need, fill)
}
