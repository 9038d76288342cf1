//! A branch of a norm and attention with its projections.

use super::branch::BranchPort;
use super::feed_forward::{check_norm, norm_calls};
use super::parameters::ParameterLayout;
use super::shared::{BranchPlan, BranchTensors, tensor};
use crate::gpu::Kernels;
use crate::gpu::attention::{AttentionBuffers, AttentionGradBuffers, AttentionPlan};
use crate::gpu::bindings::whole;
use crate::gpu::call::Call;
use crate::gpu::layer::{MatmulBuffers, MatmulGradBuffers, MatmulPlan, NormPlan};
use crate::gpu::lsh::{LshBuffers, LshGradBuffers, LshPlan};
use crate::lsh::{LshOptions, Projections};
use crate::{
    AddShape, Attention, Error, Layout, MatmulShape, NormShape, Parts, Pattern, Result, Storage, WeightOrder,
};

/// F(x) = Attention(norm(x)): the attention half of a pre-norm layer, with its projections, without a residual of its own. All f32.
///
/// ```text
/// n = norm(x)      q = n Wq      k = n Wk      v = n Wv      y = attention(q, k, v) Wo      and biases, where asked for
/// ```
///
/// Its parameters are `norm_weight`, perhaps `norm_bias`, then `wq`, `wk`, `wv`, `wo` with perhaps `bq`, `bk`, `bv`, `bo`; of LSH attention
/// `wqk` and `bqk` for the first two, and the constant `projections`, where they are given.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionBranch {
    norm: NormShape,
    attention: Attention,
    weights: WeightOrder,
    bias: bool,
}

/// What attends.
#[derive(Debug)]
enum Kernel {
    Plain(AttentionPlan),
    Lsh(Box<LshPlan>),
}

/// A projection: the names of its weight and bias, and how wide it is.
type Projection = (&'static str, &'static str, usize);

impl AttentionBranch {
    /// A norm, and self-attention over the heads of `attention`, whose rows lie `[B, L, H, d]` whatever its layouts. Weights `[in, out]`, no
    /// biases.
    pub fn new(norm: NormShape, attention: impl Into<Attention>) -> Self {
        let attention = attention.into().layout(Layout::Blhd);
        Self { norm, attention, weights: WeightOrder::InOut, bias: false }
    }

    /// Sets how the weights lie.
    pub fn weights(self, weights: WeightOrder) -> Self {
        Self { weights, ..self }
    }

    /// Sets whether all four projections have biases.
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Plans it with a pattern, and binds it to a stack's port.
    ///
    /// # Errors
    /// [`Error::Argument`] for sizes other than the port's, tensors that are not f32, and a score with dropout or with terms that have tensors; as
    /// [`Kernels::attention`], [`AttentionPlan::backward`] and [`BranchPlan::new`].
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionBranch, AttentionShape, Causal, Kernels, NormKind, NormShape, Reversible};
    /// # fn example(kernels: &Kernels, stack: &Reversible) -> wgpu_attention::Result<()> {
    /// let norm = NormShape::new(NormKind::Rms, 4096, 512, 1e-6);
    /// let plan = AttentionBranch::new(norm, AttentionShape::new(1, 8, 4096, 64)).plan(kernels, &stack.f(), &Causal)?;
    /// assert_eq!(plan.layout().range("wq")?.len(), 512 * 512);
    /// # Ok(())
    /// # }
    /// ```
    pub fn plan(&self, kernels: &Kernels, port: &BranchPort, pattern: &dyn Pattern) -> Result<BranchPlan> {
        self.check(port)?;
        self.of(kernels, port, Kernel::Plain(kernels.attention(&self.attention, pattern)?))
    }

    /// [`plan`](Self::plan), of a pattern that is lowered already.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub fn parts(&self, kernels: &Kernels, port: &BranchPort, parts: Parts) -> Result<BranchPlan> {
        self.check(port)?;
        self.of(kernels, port, Kernel::Plain(kernels.attention_parts(&self.attention, parts)?))
    }

    /// Plans it with LSH attention, and binds it to a stack's port.
    ///
    /// # Errors
    /// As [`plan`](Self::plan) and [`Kernels::lsh`]; [`Error::Argument`] for a key mask.
    pub fn lsh(&self, kernels: &Kernels, port: &BranchPort, options: LshOptions) -> Result<BranchPlan> {
        self.check(port)?;
        if options.key_mask {
            return Err(Error::argument("key_mask", "none in a branch", "one"));
        }
        self.of(kernels, port, Kernel::Lsh(Box::new(kernels.lsh(&self.attention, options)?)))
    }

    fn check(&self, port: &BranchPort) -> Result<()> {
        check_norm(&self.norm, port)?;
        self.attention.heads.check_all("a branch")?;
        let shape = &self.attention.shape;
        if shape.q_len != shape.kv_len {
            return Err(Error::argument(
                "kv_len",
                format!("q_len ({}) in a branch", shape.q_len),
                shape.kv_len,
            ));
        }
        if shape.batch * shape.q_len != port.rows {
            let need = format!("{} rows in all, as the port has", port.rows);
            return Err(Error::argument("attention", need, shape.batch * shape.q_len));
        }
        if self.attention.storage != Storage::default() {
            let got = format!("{:?}", self.attention.storage);
            return Err(Error::argument("storage", "f32 in a branch", got));
        }
        if self.attention.score.dropout_term().is_some() {
            let need = "no dropout in a branch: its seed is bound, so every layer and step would drop the same pairs";
            return Err(Error::argument("score", need, "dropout"));
        }
        match self.attention.score.tensors(shape).first() {
            Some(tensor) => Err(Error::argument("score", "terms without tensors in a branch", tensor.name)),
            None => Ok(()),
        }
    }

    fn of(&self, kernels: &Kernels, port: &BranchPort, kernel: Kernel) -> Result<BranchPlan> {
        let products = Products::new(self, kernels, port.width, &kernel)?;
        let layout = self.layout(&kernel, port.width);
        let shape = &self.attention.shape;
        let projected: usize = self.projections(&kernel).iter().map(|it| port.rows * it.2).sum();
        // The normalised rows, what is projected of them, the attention's rows and (m, l) of each.
        let kept = port.len() + projected + port.rows * shape.heads * shape.value_dim + 2 * shape.len_lse();
        BranchPlan::keeping(kernels, port, layout, 4 * kept as u64, |tensors| {
            Binder::new(self, kernels, port, tensors, &kernel)?.calls(&products)
        })
    }

    fn projections(&self, kernel: &Kernel) -> Vec<Projection> {
        let shape = &self.attention.shape;
        let (q, k) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let v = ("wv", "bv", shape.kv_heads * shape.value_dim);
        match kernel {
            Kernel::Plain(_) => vec![("wq", "bq", q), ("wk", "bk", k), v],
            Kernel::Lsh(_) => vec![("wqk", "bqk", q), v],
        }
    }

    fn layout(&self, kernel: &Kernel, width: usize) -> ParameterLayout {
        let shape = &self.attention.shape;
        let mut trainable = vec![("norm_weight", width)];
        trainable.extend(self.norm.bias.then_some(("norm_bias", width)));
        let mut push = |weight, bias, inner: usize, outer: usize| {
            trainable.push((weight, inner * outer));
            trainable.extend(self.bias.then_some((bias, outer)));
        };
        self.projections(kernel)
            .into_iter()
            .for_each(|(weight, bias, outer)| push(weight, bias, width, outer));
        push("wo", "bo", shape.heads * shape.value_dim, width);
        let constant = match kernel {
            Kernel::Lsh(plan) if matches!(plan.options().projections, Projections::Given { .. }) => {
                vec![("projections", plan.options().len_projections(shape))]
            }
            _ => vec![],
        };
        ParameterLayout::new(&trainable, &constant)
    }
}

/// The norm and the products of a branch, planned.
struct Products {
    norm: NormPlan,
    projections: Vec<(Projection, MatmulPlan)>,
    output: MatmulPlan,
}

impl Products {
    fn new(branch: &AttentionBranch, kernels: &Kernels, width: usize, kernel: &Kernel) -> Result<Self> {
        let (rows, shape) = (branch.norm.rows, &branch.attention.shape);
        let product = |inner, outer| {
            kernels.matmul(&MatmulShape::new(rows, inner, outer).weights(branch.weights).bias(branch.bias))
        };
        let projections = branch.projections(kernel).into_iter();
        Ok(Self {
            norm: kernels.norm(&branch.norm)?,
            projections: projections.map(|it| Ok((it, product(width, it.2)?))).collect::<Result<_>>()?,
            output: product(shape.heads * shape.value_dim, width)?,
        })
    }
}

/// The buffers of a branch, each a tensor of the forward or of the backward pass.
struct Binder<'a> {
    branch: &'a AttentionBranch,
    kernels: &'a Kernels,
    port: &'a BranchPort,
    tensors: &'a BranchTensors,
    kernel: &'a Kernel,
    normed: wgpu::Buffer,
    dnormed: wgpu::Buffer,
    /// The same gradient, of one projection after the first.
    part: wgpu::Buffer,
    /// q, k and v, or qk and v; and their gradients.
    projected: Vec<[wgpu::Buffer; 2]>,
    rows: [wgpu::Buffer; 2],
    state: wgpu::Buffer,
}

impl<'a> Binder<'a> {
    fn new(
        branch: &'a AttentionBranch,
        kernels: &'a Kernels,
        port: &'a BranchPort,
        tensors: &'a BranchTensors,
        kernel: &'a Kernel,
    ) -> Result<Self> {
        let shape = &branch.attention.shape;
        let pair = |what, elements| Ok([tensor(kernels, what, elements)?, tensor(kernels, what, elements)?]);
        let projected = branch.projections(kernel).into_iter();
        let projected = projected.map(|it| pair("projected rows", port.rows * it.2));
        let [normed, dnormed] = pair("normalised rows", port.len())?;
        Ok(Self {
            branch,
            kernels,
            port,
            tensors,
            kernel,
            normed,
            dnormed,
            part: tensor(kernels, "gradient by normalised rows", port.len())?,
            projected: projected.collect::<Result<_>>()?,
            rows: pair("attention's rows", port.rows * shape.heads * shape.value_dim)?,
            state: tensor(kernels, "(m, l) of attention's rows", 2 * shape.len_lse())?,
        })
    }

    /// Forward and backward.
    fn calls(&self, products: &Products) -> Result<[Vec<Call>; 2]> {
        let (port, [rows, drows]) = (self.port, &self.rows);
        let [norm, of_norm] = norm_calls(&products.norm, port, self.tensors, [&self.normed, &self.dnormed])?;
        let [attention, of_attention] = self.attention_calls()?;
        let mut forward = vec![norm];
        let mut last = vec![];
        for (n, ((names, product), [out, dout])) in
            products.projections.iter().zip(&self.projected).enumerate()
        {
            let dx = if n == 0 { &self.dnormed } else { &self.part };
            let [call, gradients] = self.product_calls(product, *names, [&self.normed, out], [dx, dout])?;
            forward.push(call);
            last.push(gradients);
            if n > 0 {
                let sum = self.kernels.add(&AddShape::new(port.rows, port.width).in_place(true))?;
                last.push(sum.bind_in_place(whole(&self.dnormed), whole(&self.part))?);
            }
        }
        let names = ("wo", "bo", port.width);
        let [output, of_output] =
            self.product_calls(&products.output, names, [rows, &port.y], [drows, &port.dy])?;
        forward.extend([attention, output]);
        let mut backward = vec![of_output, of_attention];
        backward.append(&mut last);
        backward.push(of_norm);
        Ok([forward, backward])
    }

    /// A product, and its gradients.
    fn product_calls(
        &self,
        product: &MatmulPlan,
        (weight, bias, _): Projection,
        [x, y]: [&wgpu::Buffer; 2],
        [dx, dy]: [&wgpu::Buffer; 2],
    ) -> Result<[Call; 2]> {
        let has_bias = self.branch.bias;
        let weights = self.tensors.parameter(weight)?;
        let biases = has_bias.then(|| self.tensors.parameter(bias)).transpose()?;
        let dbiases = has_bias.then(|| self.tensors.gradient(bias)).transpose()?;
        let forward = MatmulBuffers::new(whole(x), weights.clone(), whole(y)).bias(biases);
        let gradients = MatmulGradBuffers::new(whole(x), weights, whole(dy))
            .da(whole(dx))
            .db(self.tensors.gradient(weight)?)
            .dbias(dbiases);
        Ok([product.bind(forward)?, product.backward()?.bind(gradients)?])
    }

    /// Attention over what is projected, and its gradients.
    fn attention_calls(&self) -> Result<[Call; 2]> {
        let ([rows, drows], state) = (self.rows.each_ref().map(whole), whole(&self.state));
        let projected: Vec<_> = self.projected.iter().map(|pair| pair.each_ref().map(whole)).collect();
        match (self.kernel, &projected[..]) {
            (Kernel::Plain(plan), [[q, dq], [k, dk], [v, dv]]) => {
                let forward = AttentionBuffers::new(q.clone(), k.clone(), v.clone(), rows.clone());
                let inputs = [q, k, v].map(Clone::clone);
                let [q, k, v] = inputs;
                let gradients = AttentionGradBuffers::new(q, k, v, rows, state.clone(), drows);
                let gradients = gradients.dq(dq.clone()).dk(dk.clone()).dv(dv.clone());
                Ok([plan.bind(forward.state(state))?, plan.backward()?.bind(gradients)?])
            }
            (Kernel::Lsh(plan), [[qk, dqk], .., [v, dv]]) => {
                let mut forward = LshBuffers::new(qk.clone(), v.clone(), rows.clone()).state(state.clone());
                let mut gradients = LshGradBuffers::new(qk.clone(), v.clone(), rows, state, drows);
                if matches!(plan.options().projections, Projections::Given { .. }) {
                    forward = forward.projections(self.tensors.parameter("projections")?);
                    gradients = gradients.projections(self.tensors.parameter("projections")?);
                }
                let gradients = gradients.dqk(dqk.clone()).dv(dv.clone());
                Ok([plan.bind(forward)?, plan.backward()?.bind(gradients)?])
            }
            (Kernel::Plain(_), all) | (Kernel::Lsh(_), all) => {
                Err(Error::argument("projections", "those of the kernel", all.len()))
            }
        }
    }
}
