//! Buffers that are made, before anything is checked about them.

/// A buffer that holds these bytes from the start, without a queue. Padded to 16 bytes, at least 16 long.
pub(crate) fn filled_buffer(
    device: &wgpu::Device,
    label: &str,
    usage: wgpu::BufferUsages,
    bytes: &[u8],
) -> wgpu::Buffer {
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.len().next_multiple_of(16).max(16) as u64,
        usage,
        mapped_at_creation: true,
    });
    // On a lost or exhausted device there is no mapping; the surrounding error scope reports that.
    if let Ok(mut view) = buffer.slice(..).get_mapped_range_mut() {
        view.slice(..bytes.len()).copy_from_slice(bytes);
    }
    buffer.unmap();
    buffer
}
