//! Keys and values that stay on the device from token to token.

use crate::decode::{CacheShape, Changes, Ledger};
use crate::gpu::kernels::Kernels;
use crate::gpu::scope::allocated;
use crate::{Error, Result};

/// A cache of keys and values: its buffers, and what the host knows of them. Made by [`Kernels::kv_cache`].
///
/// Lengths and page tables lie on the device, where kernels read them and raise the lengths. The host has a copy of its own, since it knows what
/// it appends: [`extend`](Self::extend) says so before each call that appends. Where that needs a page, or a copy of one that is shared, it writes
/// a few words through the queue, or records a copy; otherwise it does nothing on the device.
///
/// Writes through the queue land before the next submission: what was recorded before a change (`extend`, [`truncate`](Self::truncate),
/// [`fork`](Self::fork)) must be submitted before it. On an error nothing has changed.
///
/// ```no_run
/// use wgpu_attention::{CacheShape, Kernels};
/// # fn example(kernels: &Kernels, queue: &wgpu::Queue) -> wgpu_attention::Result<()> {
/// // 4 sequences of up to 8,192 positions, in 300 pages of 64.
/// let mut cache = kernels.kv_cache(&CacheShape::new(4, 8, 8192, 128).paged(64, 300))?;
/// // .. a prompt is appended to sequence 0 ..
/// cache.fork(queue, 0, 1)?; // sequence 1 goes on from the same prompt, and shares its pages
/// cache.truncate(queue, 0, 0)?; // sequence 0 is free for another text
/// assert_eq!(cache.lengths()[0], 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KvCache {
    shape: CacheShape,
    ledger: Ledger,
    buffers: CacheBuffers,
    /// Through which pages are copied: a buffer is not copied within itself.
    spare: Vec<wgpu::Buffer>,
    /// What changes took, for tests and for those who want to know.
    uploads: usize,
}

/// The buffers of a cache.
#[derive(Debug, Clone)]
pub(super) struct CacheBuffers {
    pub(super) keys: wgpu::Buffer,
    /// None where values are a part of keys.
    pub(super) values: Option<wgpu::Buffer>,
    /// `[B]`, u32.
    pub(super) lengths: wgpu::Buffer,
    /// `[B, capacity / page]`, u32.
    pub(super) pages: Option<wgpu::Buffer>,
}

impl Kernels {
    /// A cache of empty sequences.
    ///
    /// # Errors
    /// As [`CacheShape::check`]; [`Error::Limit`] past the device's limits, [`Error::OutOfMemory`].
    pub fn kv_cache(&self, shape: &CacheShape) -> Result<KvCache> {
        shape.check()?;
        let [keys, values] = [shape.keys_bytes(), shape.values_bytes()];
        let make = |what, bytes| self.cache_buffer(what, bytes);
        let buffers = CacheBuffers {
            keys: make("keys", keys as u64)?,
            values: shape.value_start.is_none().then(|| make("values", values as u64)).transpose()?,
            lengths: make("lengths", 4 * shape.batch as u64)?,
            pages: shape.paging.map(|_| make("pages", 4 * shape.len_tables() as u64)).transpose()?,
        };
        let mut spare = vec![];
        if let Some(paging) = shape.paging {
            spare.push(make("a page of keys", (keys / paging.pages) as u64)?);
            if buffers.values.is_some() {
                spare.push(make("a page of values", (values / paging.pages) as u64)?);
            }
        }
        Ok(KvCache { shape: *shape, ledger: Ledger::new(shape), buffers, spare, uploads: 0 })
    }

    fn cache_buffer(&self, what: &'static str, bytes: u64) -> Result<wgpu::Buffer> {
        let limits = self.device().limits();
        let have = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        if bytes > have {
            return Err(Error::limit(
                format!("the cache: {what}"),
                "max_storage_buffer_binding_size",
                bytes,
                have,
            ));
        }
        use wgpu::BufferUsages as Usage;
        let descriptor = wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes.next_multiple_of(16).max(16),
            usage: Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
            mapped_at_creation: false,
        };
        allocated(self.device(), what, bytes, || self.device().create_buffer(&descriptor))
    }
}

impl KvCache {
    /// The sizes.
    pub fn shape(&self) -> &CacheShape {
        &self.shape
    }

    /// The length of each sequence, as the device has it once all is submitted that was recorded after [`extend`](Self::extend).
    pub fn lengths(&self) -> &[usize] {
        self.ledger.lengths()
    }

    /// Pages that no sequence has; none without pages.
    pub fn free_pages(&self) -> Option<usize> {
        self.ledger.free_pages()
    }

    /// Announces how many positions the next call appends to each sequence: those of the plan, or of its counts. Takes pages where new ones begin,
    /// and copies a page that another sequence has, too, before it is written: record the call behind it, into the same encoder or a later one.
    ///
    /// # Errors
    /// [`Error::Argument`] for a number of counts other than the batch; [`Error::Limit`] where a sequence would pass the capacity, or no page is left.
    pub fn extend(
        &mut self,
        queue: &wgpu::Queue,
        encoder: &mut wgpu::CommandEncoder,
        counts: &[usize],
    ) -> Result<()> {
        let changes = self.ledger.extend(counts)?;
        changes.copies.iter().for_each(|copy| self.copy_page(encoder, *copy));
        self.write_entries(queue, &changes);
        Ok(())
    }

    /// Takes pages for this many more positions of each sequence, so that [`extend`](Self::extend) finds them.
    ///
    /// # Errors
    /// As [`extend`](Self::extend).
    pub fn reserve(&mut self, queue: &wgpu::Queue, counts: &[usize]) -> Result<()> {
        let changes = self.ledger.reserve(counts)?;
        self.write_entries(queue, &changes);
        Ok(())
    }

    /// Shortens a sequence to a length (speculative decoding), and gives back its pages past that, reserved ones too. A length of 0 frees the sequence
    /// for another text.
    ///
    /// # Errors
    /// [`Error::Argument`] for no such sequence, or a length past its own.
    pub fn truncate(&mut self, queue: &wgpu::Queue, sequence: usize, length: usize) -> Result<()> {
        self.ledger.truncate(sequence, length)?;
        self.write_length(queue, sequence);
        Ok(())
    }

    /// Makes sequence `to` a copy of `from`: they share pages until one of them writes. What `to` held is forgotten.
    ///
    /// # Errors
    /// [`Error::Argument`] for no such sequence, the same one twice, a cache without pages.
    pub fn fork(&mut self, queue: &wgpu::Queue, from: usize, to: usize) -> Result<()> {
        let changes = self.ledger.fork(from, to)?;
        self.write_entries(queue, &changes);
        self.write_length(queue, to);
        Ok(())
    }

    /// How many writes through the queue the cache has made so far.
    pub fn uploads(&self) -> usize {
        self.uploads
    }

    /// The keys, as [`CacheShape`] has them.
    pub fn keys(&self) -> &wgpu::Buffer {
        &self.buffers.keys
    }

    /// The values; none where they are [a part of keys](CacheShape::values_in_keys).
    pub fn values(&self) -> Option<&wgpu::Buffer> {
        self.buffers.values.as_ref()
    }

    /// The lengths on the device, `[B]` in u32.
    pub fn device_lengths(&self) -> &wgpu::Buffer {
        &self.buffers.lengths
    }

    /// The page tables on the device, `[B, capacity / page]` in u32.
    pub fn device_pages(&self) -> Option<&wgpu::Buffer> {
        self.buffers.pages.as_ref()
    }

    pub(super) fn buffers(&self) -> &CacheBuffers {
        &self.buffers
    }

    fn write_length(&mut self, queue: &wgpu::Queue, sequence: usize) {
        let length = self.ledger.lengths()[sequence] as u32;
        queue.write_buffer(&self.buffers.lengths, 4 * sequence as u64, &length.to_ne_bytes());
        self.uploads += 1;
    }

    fn write_entries(&mut self, queue: &wgpu::Queue, changes: &Changes) {
        let Some(pages) = &self.buffers.pages else { return };
        for (at, page) in &changes.entries {
            queue.write_buffer(pages, 4 * *at as u64, &page.to_ne_bytes());
            self.uploads += 1;
        }
    }

    fn copy_page(&self, encoder: &mut wgpu::CommandEncoder, [from, to]: [u32; 2]) {
        let Some(paging) = self.shape.paging else { return };
        let bytes = [self.shape.keys_bytes(), self.shape.values_bytes()];
        let all = [&self.buffers.keys].into_iter().chain(&self.buffers.values);
        for ((buffer, spare), bytes) in all.zip(&self.spare).zip(bytes) {
            let bytes = (bytes / paging.pages) as u64;
            encoder.copy_buffer_to_buffer(buffer, u64::from(from) * bytes, spare, 0, bytes);
            encoder.copy_buffer_to_buffer(spare, 0, buffer, u64::from(to) * bytes, bytes);
        }
    }
}
