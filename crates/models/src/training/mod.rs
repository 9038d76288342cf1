//! A forward pass, and behind it the gradients of a scalar by all parameters.

mod gradients;

use super::device::{Forward, whole};
use super::pool::Tensor;
use super::{Error, File, Layers, Machine, Origin, Pair, Piece, Table, Values};
use gradients::{Gradients, Step};
use std::collections::{HashMap, HashSet};
use wgpu_attention::{
    Attention, AxialShape, Combine, EmbedGradients, EmbedShape, FeedForwardGradBuffers, FeedForwardShape,
    Gpu, LshOptions, MatmulGradBuffers, MatmulShape, NormGradBuffers, NormShape, Parts, Pattern,
    RotaryBuffers, RotaryShape, RowStrides,
};

/// A model whose forward pass is followed by its backward pass, both in one encoder: every operation of the pass notes how its
/// gradients are made, and [`Training::differentiate`] records them from the last to the first.
///
/// All activations are kept from one pass to the other. No gradient is added up in place: the sum of two is a third tensor, and
/// buffers that nobody needs any more serve again.
pub struct Training {
    forward: Forward,
    steps: Vec<Step>,
    /// Tensors that hold what some step will read again.
    needed: HashSet<wgpu::Buffer>,
    /// Tensors that an operation has written.
    written: HashSet<wgpu::Buffer>,
    parameters: Vec<(Origin, Tensor)>,
    states: HashMap<String, Tensor>,
    ids: Vec<Tensor>,
    contexts: Vec<Tensor>,
    backward: Vec<wgpu_attention::Call>,
}

/// The gradients of sum(last dout), `dout` as the file has it, by every parameter that the file has the gradient of.
pub(crate) fn gradients(gpu: &Gpu, file: &File<'_>) -> Result<Values, Error> {
    let mut model = Training::new(gpu);
    super::run(&mut model, file)?;
    let last = model.state("last").ok_or("gradients: need a state `last`, found none")?;
    let (dout, _) = file.values("dout")?;
    if 4 * dout.len() as u64 != last.size() {
        return Err(format!("tensor `dout`: need {} elements, found {}", last.size() / 4, dout.len()).into());
    }
    let dout = model.upload(&dout);
    let learnt = model.differentiate(&last, &dout)?;
    model.run()?;
    model.read_gradients(file, &learnt)
}

/// A parameter, and where its gradient is once the calls have run.
#[derive(Debug, Clone)]
pub struct Learnt {
    /// Where it stands in its file.
    pub origin: Origin,
    /// The values.
    pub values: Tensor,
    /// The gradient: none where the scalar does not depend on the parameter.
    pub gradient: Option<Tensor>,
}

impl Training {
    /// An empty pass on a device.
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            forward: Forward::new(gpu),
            steps: vec![],
            needed: HashSet::new(),
            written: HashSet::new(),
            parameters: vec![],
            states: HashMap::new(),
            ids: vec![],
            contexts: vec![],
            backward: vec![],
        }
    }

    /// A state that the model has shown.
    pub fn state(&self, name: &str) -> Option<Tensor> {
        self.states.get(name).cloned()
    }

    /// The ids of the embeddings, in their order, for a caller who writes others: [`wgpu::BufferUsages::COPY_DST`].
    pub fn ids(&self) -> &[Tensor] {
        &self.ids
    }

    /// The parameters, each once, however many layers it serves.
    pub fn parameters(&self) -> impl Iterator<Item = (&Origin, &Tensor)> {
        self.parameters.iter().map(|(origin, tensor)| (origin, tensor))
    }

    /// What attention of each layer gives, `[B, L, H, d]`.
    pub fn contexts(&self) -> &[Tensor] {
        &self.contexts
    }

    /// Records the gradients of sum(out * dout) by all parameters, behind what is recorded.
    ///
    /// # Errors
    /// What an operation on the way has no gradient for.
    pub fn differentiate(&mut self, out: &Tensor, dout: &Tensor) -> Result<Vec<Learnt>, Error> {
        Ok(self.differentiate_by(out, dout, &[])?.0)
    }

    /// [`differentiate`](Self::differentiate), and the gradients by these tensors that the model computes, of those that have one.
    ///
    /// # Errors
    /// As [`differentiate`](Self::differentiate).
    pub fn differentiate_by(
        &mut self,
        out: &Tensor,
        dout: &Tensor,
        by: &[Tensor],
    ) -> Result<(Vec<Learnt>, Vec<Option<Tensor>>), Error> {
        let mut gradients = Gradients::new(self.forward.gpu(), by);
        gradients.add(out, dout.clone())?;
        for step in self.steps.iter().rev() {
            step.record(&mut gradients)?;
        }
        let learnt = |(origin, values): &(Origin, Tensor)| Learnt {
            origin: origin.clone(),
            values: values.clone(),
            gradient: gradients.of(values),
        };
        let learnt = self.parameters.iter().map(learnt).collect();
        let by = by.iter().map(|tensor| gradients.kept(tensor)).collect();
        self.backward.extend(gradients.calls());
        Ok((learnt, by))
    }

    /// Records both passes into an encoder: the forward pass, and then what was asked for of the backward pass.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.encode_forward(encoder);
        self.encode_backward(encoder);
    }

    /// Records the forward pass alone: what comes between the two, a loss, is the caller's.
    pub fn encode_forward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.forward.encode(encoder);
    }

    /// Records the backward pass alone.
    pub fn encode_backward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.backward.iter().for_each(|call| call.encode(encoder));
    }

    /// Records both passes into one encoder, submits it, and reads the states back.
    ///
    /// # Errors
    /// What the device reports.
    pub fn run(&self) -> Result<Values, Error> {
        let mut encoder = self.forward.gpu().device().create_command_encoder(&Default::default());
        self.encode(&mut encoder);
        self.forward.finish(encoder)
    }

    /// The values of tensors of the device. Blocks.
    ///
    /// # Errors
    /// What the device reports.
    pub fn read(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>, Error> {
        let mut pass = Forward::new(self.forward.gpu());
        tensors.iter().for_each(|tensor| pass.keep(String::new(), tensor));
        Ok(pass.run()?.into_iter().map(|(_, values)| values).collect())
    }

    /// The gradients that a file expects, by its names: columns that are parameters of their own lie side by side there.
    ///
    /// # Errors
    /// For a gradient of the file that no parameter has.
    pub fn read_gradients(&self, file: &File<'_>, learnt: &[Learnt]) -> Result<Values, Error> {
        let mut named = vec![];
        for name in file.names("d.") {
            let (_, shape) = file.values(&name)?;
            let of_name = |one: &&Learnt| format!("d.{}", one.origin.name) == name;
            let mut parts: Vec<&Learnt> = learnt.iter().filter(of_name).collect();
            parts.sort_by_key(|one| one.origin.part);
            let gradients: Vec<&Tensor> = parts.iter().filter_map(|one| one.gradient.as_ref()).collect();
            let Some(first) = parts.first().filter(|one| one.origin.parts == gradients.len()) else {
                return Err(format!("tensor `{name}`: need a gradient, found none").into());
            };
            let columns = shape.last().copied().unwrap_or(1) / first.origin.parts;
            let values = self.read(&gradients)?;
            let rows = values[0].len() / columns.max(1);
            let row = |row: usize| values.iter().flat_map(move |part| &part[row * columns..][..columns]);
            named.push((name, (0..rows).flat_map(row).copied().collect()));
        }
        Ok(named)
    }

    /// The kernels' calls of both passes, in their order.
    pub fn calls(&self) -> [Vec<&wgpu_attention::Call>; 2] {
        [self.forward.kernels().collect(), self.backward.iter().collect()]
    }

    /// Notes an operation that reads and writes these tensors.
    fn note(
        &mut self,
        combine: Combine,
        reads: &[&Tensor],
        out: &Tensor,
        step: impl Fn(&mut Gradients) -> Result<(), Error> + 'static,
    ) -> Result<(), Error> {
        let before = self.written.insert((**out).clone());
        match combine {
            Combine::Store | Combine::Add if !before => {
                return Err(
                    "gradients: need a new tensor for each result, found one that is written twice".into()
                );
            }
            Combine::AddInto if self.needed.contains(&**out) => {
                return Err("gradients: need a tensor that no operation reads where one is added to in place, found one that is read".into());
            }
            _ => {}
        }
        self.needed.extend(reads.iter().map(|tensor| (***tensor).clone()));
        self.steps.push(Step::new(step));
        Ok(())
    }

    /// Whether a tensor has a gradient that anybody wants.
    fn depends(&self, tensor: &Tensor) -> bool {
        self.written.contains(&**tensor) || self.parameters.iter().any(|(_, other)| other == tensor)
    }
}

impl Machine for Training {
    type Tensor = Tensor;
    type Mask = Parts;

    fn upload(&mut self, values: &[f32]) -> Tensor {
        self.forward.upload(values)
    }

    fn parameter(&mut self, origin: Origin, values: &[f32]) -> Tensor {
        let tensor = self.forward.upload(values);
        self.parameters.push((origin, tensor.clone()));
        tensor
    }

    fn tensor(&mut self, elements: usize) -> Tensor {
        self.forward.tensor(elements)
    }

    fn zeros(&mut self, elements: usize) -> Tensor {
        self.forward.zeros(elements)
    }

    fn attended(&mut self, context: &Tensor) {
        self.contexts.push(context.clone());
    }

    fn mask(&mut self, call: &Attention, pattern: impl Pattern + 'static) -> Result<Parts, Error> {
        self.forward.mask(call, pattern)
    }

    fn embed(
        &mut self,
        shape: &EmbedShape,
        ids: &[u32],
        table: &Table<Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        let ids = self.forward.store(ids);
        self.forward.embed_stored(shape, &ids, &table.values, out)?;
        self.ids.push(ids.clone());
        let (shape, table, out) = (*shape, table.clone(), out.clone());
        let to = out.clone();
        self.note(shape.combine, &[], &to, move |gradients| {
            let Some(dout) = gradients.of(&out) else { return Ok(()) };
            let dtable = gradients.like(&table.values);
            let wanted = EmbedGradients::of(&shape).padding(table.padding);
            let plan = gradients.kernels().embed(&shape)?.backward_with(wanted)?;
            gradients.push(plan.bind(whole(&ids), whole(&dout), whole(&dtable))?);
            gradients.add(&table.values, dtable)
        })
    }

    fn rotary(
        &mut self,
        shape: &RotaryShape,
        x: &Tensor,
        tables: &[Tensor; 2],
        out: &Tensor,
    ) -> Result<(), Error> {
        self.forward.rotary(shape, x, tables, out)?;
        let (back, x, out) = (shape.inverse(!shape.inverse), x.clone(), out.clone());
        let back = back.x_layout(shape.out_layout).out_layout(shape.x_layout);
        let [cos, sin] = tables.clone();
        let to = out.clone();
        self.note(Combine::Store, &[], &to, move |gradients| {
            let Some(dout) = gradients.take(&out) else { return Ok(()) };
            let dx = gradients.like(&x);
            let buffers = RotaryBuffers::new(whole(&dout), whole(&cos), whole(&sin), whole(&dx));
            let plan = gradients.kernels().rotary(&back)?;
            gradients.push(plan.bind(buffers)?);
            gradients.add(&x, dx)
        })
    }

    fn add(&mut self, elements: usize, x: &Tensor, other: &Tensor, out: &Tensor) -> Result<(), Error> {
        self.forward.add(elements, x, other, out)?;
        let (x, other, out) = (x.clone(), other.clone(), out.clone());
        let to = out.clone();
        self.note(Combine::Store, &[], &to, move |gradients| {
            let Some(dout) = gradients.take(&out) else { return Ok(()) };
            gradients.add(&x, dout.clone())?;
            gradients.add(&other, dout)
        })
    }

    fn axial(&mut self, _: &AxialShape, _: usize, _: [&[f32]; 2], _: &Tensor) -> Result<(), Error> {
        Err("gradients: need reversible layers for a Reformer, found its operations one by one".into())
    }

    fn join(&mut self, _: [usize; 2], _: [&Tensor; 2]) -> Result<Tensor, Error> {
        Err("gradients: need reversible layers for two streams, found them joined".into())
    }

    fn lsh(
        &mut self,
        _: &Attention,
        _: &LshOptions,
        _: [&Tensor; 2],
        _: &[f32],
        _: &Tensor,
        _: String,
    ) -> Result<(), Error> {
        Err("gradients: need reversible layers for LSH attention, found it alone".into())
    }

    fn norm(
        &mut self,
        shape: &NormShape,
        x: &Tensor,
        pair: &Pair<Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        self.forward.norm(shape, x, pair, out)?;
        let (shape, x, pair, out) = (*shape, x.clone(), pair.clone(), out.clone());
        let (of, to) = (x.clone(), out.clone());
        self.note(Combine::Store, &[&of], &to, move |gradients| {
            let Some(dout) = gradients.take(&out) else { return Ok(()) };
            let (dx, dweight) = (gradients.like(&x), gradients.like(&pair.weight));
            let dbias = pair.bias.as_ref().map(|bias| gradients.like(bias));
            let buffers = NormGradBuffers::new(whole(&x), whole(&pair.weight), whole(&dout), whole(&dx))
                .dweight(whole(&dweight))
                .dbias(dbias.as_deref().map(whole));
            let plan = gradients.kernels().norm(&shape)?.backward()?;
            gradients.push(plan.bind(buffers)?);
            gradients.add(&x, dx)?;
            gradients.add_pair(&pair, dweight, dbias)
        })
    }

    fn linear(
        &mut self,
        shape: &MatmulShape,
        a: &Tensor,
        pair: &Pair<Tensor>,
        residual: Option<&Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        self.forward.linear(shape, a, pair, residual, out)?;
        let dense = shape.strides_of_a() == RowStrides::contiguous(shape.rows, shape.inner);
        let (shape, a, pair, out) = (*shape, a.clone(), pair.clone(), out.clone());
        let (residual, of, to) = (residual.cloned(), a.clone(), out.clone());
        let weight = pair.weight.clone();
        self.note(shape.combine, &[&of, &weight], &to, move |gradients| {
            let kept = shape.combine == Combine::AddInto;
            let dout = if kept { gradients.of(&out) } else { gradients.take(&out) };
            let Some(dout) = dout else { return Ok(()) };
            if !dense {
                return Err("gradients: need the rows of a product without gaps, found strides".into());
            }
            let (da, db) = (gradients.like(&a), gradients.like(&pair.weight));
            let dbias = pair.bias.as_ref().map(|bias| gradients.like(bias));
            let buffers = MatmulGradBuffers::new(whole(&a), whole(&pair.weight), whole(&dout))
                .bias(pair.bias.as_deref().filter(|_| shape.activation.is_some()).map(whole))
                .da(whole(&da))
                .db(whole(&db))
                .dbias(dbias.as_deref().map(whole));
            let plan = gradients.kernels().matmul(&shape)?.backward()?;
            gradients.push(plan.bind(buffers)?);
            gradients.add(&a, da)?;
            gradients.add_pair(&pair, db, dbias)?;
            residual.as_ref().map_or(Ok(()), |residual| gradients.add(residual, dout))
        })
    }

    fn attention(
        &mut self,
        call: &Attention,
        mask: &Parts,
        qkv: &[Tensor; 3],
        terms: &[(&'static str, &Tensor)],
        out: &Tensor,
    ) -> Result<(), Error> {
        let rows = call.shape.batch * call.shape.heads * call.shape.q_len;
        let state = self.forward.tensor(2 * rows);
        self.forward.attend(call, mask, qkv, terms, out, Some(&state))?;
        let learnt: Vec<bool> = terms.iter().map(|(_, tensor)| self.depends(tensor)).collect();
        let terms: Vec<(&'static str, Tensor)> =
            terms.iter().map(|(name, it)| (*name, (*it).clone())).collect();
        let needed: Vec<Tensor> = qkv.iter().chain([out]).cloned().collect();
        let (call, mask, qkv, out) = (call.clone(), mask.clone(), qkv.clone(), out.clone());
        let to = out.clone();
        self.note(Combine::Store, &needed.iter().collect::<Vec<_>>(), &to, move |gradients| {
            let Some(dout) = gradients.take(&out) else { return Ok(()) };
            gradients.attention(&call, &mask, &qkv, (&terms, &learnt), [&out, &state, &dout])
        })
    }

    fn feed_forward(
        &mut self,
        shape: &FeedForwardShape,
        x: &Tensor,
        layers: Layers<'_, Tensor>,
        residual: &Tensor,
        out: &Tensor,
    ) -> Result<(), Error> {
        self.forward.feed_forward(shape, x, layers, residual, out)?;
        let (shape, x, residual, out) = (*shape, x.clone(), residual.clone(), out.clone());
        let (first, gate, second) = (layers.first.clone(), layers.gate.cloned(), layers.second.clone());
        let (of, to) = (x.clone(), out.clone());
        self.note(Combine::Store, &[&of], &to, move |gradients| {
            let Some(dout) = gradients.take(&out) else { return Ok(()) };
            let dx = gradients.like(&x);
            let [d1, d2] = [&first, &second].map(|pair| gradients.like_pair(pair));
            let d3 = gate.as_ref().map(|pair| gradients.like_pair(pair));
            let buffers = FeedForwardGradBuffers::new(
                whole(&x),
                whole(&first.weight),
                whole(&second.weight),
                whole(&dout),
            )
            .b1(first.bias.as_deref().map(whole))
            .w3(gate.as_ref().map(|gate| whole(&gate.weight)))
            .b3(gate.as_ref().and_then(|gate| gate.bias.as_deref()).map(whole))
            .dx(whole(&dx))
            .dw1(whole(&d1.weight))
            .db1(d1.bias.as_deref().map(whole))
            .dw2(whole(&d2.weight))
            .db2(d2.bias.as_deref().map(whole))
            .dw3(d3.as_ref().map(|d3| whole(&d3.weight)))
            .db3(d3.as_ref().and_then(|d3| d3.bias.as_deref()).map(whole));
            let plan = gradients.kernels().feed_forward(&shape)?.backward()?;
            gradients.push(plan.bind(buffers)?);
            gradients.add(&x, dx)?;
            gradients.add_pair(&first, d1.weight, d1.bias)?;
            gradients.add_pair(&second, d2.weight, d2.bias)?;
            if let (Some(gate), Some(d3)) = (&gate, d3) {
                gradients.add_pair(gate, d3.weight, d3.bias)?;
            }
            gradients.add(&residual, dout)
        })
    }

    fn keep(&mut self, name: String, source: &Tensor) {
        self.states.insert(name.clone(), source.clone());
        self.forward.keep(name, source);
    }

    fn keep_rows(&mut self, name: String, sizes: [usize; 2], pieces: &[Piece<Tensor>]) {
        self.forward.keep_rows(name, sizes, pieces);
    }
}
