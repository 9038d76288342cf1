//! What F and G are.

use crate::gpu::call::Call;

/// Where a branch F reads and writes: four tensors `[rows, width]`, f32 and contiguous, which all layers of a stack share.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BranchPort {
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Its input. The branch never writes it.
    pub x: wgpu::Buffer,
    /// Its output F(x).
    pub y: wgpu::Buffer,
    /// The gradient by its output. The branch never writes it.
    pub dy: wgpu::Buffer,
    /// Where it stores the gradient by its input, what came through F alone.
    pub dx: wgpu::Buffer,
}

impl BranchPort {
    /// A port over these buffers, x, y, dy and dx: [`Reversible::f`](super::Reversible::f) and [`Reversible::g`](super::Reversible::g)
    /// are those of a stack.
    pub fn new(rows: usize, width: usize, [x, y, dy, dx]: [wgpu::Buffer; 4]) -> Self {
        Self { rows, width, x, y, dy, dx }
    }

    /// Elements of each tensor.
    pub fn len(&self) -> usize {
        self.rows * self.width
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// F or G of a reversible layer: recorded calls between fixed buffers, its [port](Self::port).
///
/// It must compute the same bits each time: what it gave is subtracted from a sum to find what it was added to. All kernels of this
/// crate do.
///
/// ```
/// use wgpu_attention::wgpu::CommandEncoder;
/// use wgpu_attention::{Branch, BranchPort, Call};
///
/// /// F(x) = x W, of calls that are bound to the buffers of the port.
/// struct Linear {
///     port: BranchPort,
///     product: Call,
///     gradients: Call, // stores dx, and the gradient of W in a buffer of the layer's own
/// }
///
/// impl Branch for Linear {
///     fn port(&self) -> &BranchPort {
///         &self.port
///     }
///     fn forward(&self, encoder: &mut CommandEncoder) {
///         self.product.encode(encoder);
///     }
///     fn backward(&self, encoder: &mut CommandEncoder) {
///         self.gradients.encode(encoder);
///     }
/// }
/// ```
///
/// Where it is nothing but calls, [`CallBranch`] is shorter; where many layers are alike, [`BranchPlan`](super::BranchPlan) binds them once.
pub trait Branch {
    /// Where it reads and writes.
    fn port(&self) -> &BranchPort;

    /// Records y = F(x).
    fn forward(&self, encoder: &mut wgpu::CommandEncoder);

    /// Records dx = dy F'(x), and the gradients of its parameters, stored or added, as the branch likes. It always follows its own
    /// [`forward`](Self::forward) with the same x, and no other branch is between them: buffers of its own still hold what that left.
    fn backward(&self, encoder: &mut wgpu::CommandEncoder);
}

impl<B: Branch + ?Sized> Branch for Box<B> {
    fn port(&self) -> &BranchPort {
        (**self).port()
    }
    fn forward(&self, encoder: &mut wgpu::CommandEncoder) {
        (**self).forward(encoder);
    }
    fn backward(&self, encoder: &mut wgpu::CommandEncoder) {
        (**self).backward(encoder);
    }
}

/// A branch of calls and nothing else.
#[derive(Debug)]
pub struct CallBranch {
    port: BranchPort,
    forward: Vec<Call>,
    backward: Vec<Call>,
}

impl CallBranch {
    /// Calls that are bound to the buffers of the port: those of [`Branch::forward`], and those of [`Branch::backward`].
    pub fn new(
        port: BranchPort,
        forward: impl IntoIterator<Item = Call>,
        backward: impl IntoIterator<Item = Call>,
    ) -> Self {
        Self { port, forward: forward.into_iter().collect(), backward: backward.into_iter().collect() }
    }
}

impl Branch for CallBranch {
    fn port(&self) -> &BranchPort {
        &self.port
    }

    fn forward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.forward.iter().for_each(|call| call.encode(encoder));
    }

    fn backward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.backward.iter().for_each(|call| call.encode(encoder));
    }
}
