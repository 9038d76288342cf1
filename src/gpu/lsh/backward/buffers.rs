//! The buffers of a backward call.

/// The buffers of one backward call of LSH attention. All need `BufferUsages::STORAGE`; those that are written may not be buffers that are
/// also read, unless [`Options::shared_buffers`](crate::Options::shared_buffers) is set. Only gradients that are asked for are
/// computed. Offsets and sizes as [`AttentionBuffers`](crate::AttentionBuffers) has them.
///
/// The tensors of the score's terms are read, and have no gradients here.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LshGradBuffers<'a> {
    /// Shared queries and keys `[B, H, L, d]`, as the forward call had them.
    pub qk: wgpu::BufferBinding<'a>,
    /// v `[B, H, L, dv]`.
    pub v: wgpu::BufferBinding<'a>,
    /// The projections that the forward call had, if and only if the options say that they are given.
    pub projections: Option<wgpu::BufferBinding<'a>>,
    /// The key mask that it had, if and only if the options say that there is one.
    pub key_mask: Option<wgpu::BufferBinding<'a>>,
    /// Those of the score's terms, f32, by name.
    pub tensors: Vec<(&'a str, wgpu::BufferBinding<'a>)>,
    /// out `[B, H, L, dv]`, as the forward call left it. In 16 bits it costs the gradients digits.
    pub out: wgpu::BufferBinding<'a>,
    /// (m, l) `[B, H, L, 2]`, as the forward call left it: see [`LshBuffers::state`](crate::LshBuffers::state).
    pub state: wgpu::BufferBinding<'a>,
    /// The gradient of out, `[B, H, L, dv]`.
    pub dout: wgpu::BufferBinding<'a>,
    /// dqk `[B, H, L, d]`, where wanted: what a position gets as a query, and as a key through its norm.
    pub dqk: Option<wgpu::BufferBinding<'a>>,
    /// dv `[B, H, L, dv]`, where wanted; 0 for keys that no query sees.
    pub dv: Option<wgpu::BufferBinding<'a>>,
}

impl<'a> LshGradBuffers<'a> {
    /// What every call reads.
    pub fn new(
        qk: wgpu::BufferBinding<'a>,
        v: wgpu::BufferBinding<'a>,
        out: wgpu::BufferBinding<'a>,
        state: wgpu::BufferBinding<'a>,
        dout: wgpu::BufferBinding<'a>,
    ) -> Self {
        let (projections, key_mask, tensors) = (None, None, vec![]);
        Self { qk, v, projections, key_mask, tensors, out, state, dout, dqk: None, dv: None }
    }

    /// Sets where the projections lie.
    pub fn projections(self, projections: wgpu::BufferBinding<'a>) -> Self {
        Self { projections: Some(projections), ..self }
    }

    /// Sets where the key mask lies.
    pub fn key_mask(self, key_mask: wgpu::BufferBinding<'a>) -> Self {
        Self { key_mask: Some(key_mask), ..self }
    }

    /// Adds a tensor of one of the score's terms.
    pub fn tensor(mut self, name: &'a str, tensor: wgpu::BufferBinding<'a>) -> Self {
        self.tensors.push((name, tensor));
        self
    }

    /// Asks for dqk.
    pub fn dqk(self, dqk: wgpu::BufferBinding<'a>) -> Self {
        Self { dqk: Some(dqk), ..self }
    }

    /// Asks for dv.
    pub fn dv(self, dv: wgpu::BufferBinding<'a>) -> Self {
        Self { dv: Some(dv), ..self }
    }
}
