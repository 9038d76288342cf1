//! The gradients that a backward pass has so far.

use crate::device::whole;
use crate::pool::{Pool, Tensor, zeros};
use crate::{Error, Pair};
use std::collections::HashMap;
use wgpu_attention::{AddShape, Attention, AttentionGradBuffers, Call, Gpu, Kernels, Parts};

type Record = dyn Fn(&mut Gradients) -> Result<(), Error>;

/// How the gradients of one operation are made.
pub(super) struct Step(Box<Record>);

impl Step {
    pub(super) fn new(record: impl Fn(&mut Gradients) -> Result<(), Error> + 'static) -> Self {
        Self(Box::new(record))
    }

    pub(super) fn record(&self, gradients: &mut Gradients) -> Result<(), Error> {
        self.0(gradients)
    }
}

/// The gradient of each tensor, of those that have one so far, and the calls that make them.
pub(super) struct Gradients {
    gpu: Gpu,
    pool: Pool,
    calls: Vec<Call>,
    of: HashMap<wgpu::Buffer, Tensor>,
    /// Of those tensors that somebody asks for, once all who read them have added to it.
    kept: Vec<(Tensor, Option<Tensor>)>,
}

impl Gradients {
    pub(super) fn new(gpu: &Gpu, asked: &[Tensor]) -> Self {
        let kept = asked.iter().map(|tensor| (tensor.clone(), None)).collect();
        Self { gpu: gpu.clone(), pool: Pool::default(), calls: vec![], of: HashMap::new(), kept }
    }

    pub(super) fn kernels(&self) -> &Kernels {
        self.gpu.kernels()
    }

    pub(super) fn push(&mut self, call: Call) {
        self.calls.push(call);
    }

    pub(super) fn calls(self) -> Vec<Call> {
        self.calls
    }

    /// The gradient by a tensor that more is to be added to.
    pub(super) fn of(&self, tensor: &Tensor) -> Option<Tensor> {
        self.of.get(&**tensor).cloned()
    }

    /// The gradient by a tensor that all who read it have added to.
    pub(super) fn take(&mut self, tensor: &Tensor) -> Option<Tensor> {
        let gradient = self.of.remove(&**tensor);
        if let Some((_, kept)) = self.kept.iter_mut().find(|(asked, _)| asked == tensor) {
            kept.clone_from(&gradient);
        }
        gradient
    }

    /// The gradient by a tensor that was asked for.
    pub(super) fn kept(&self, tensor: &Tensor) -> Option<Tensor> {
        self.kept.iter().find(|(asked, _)| asked == tensor)?.1.clone()
    }

    /// A tensor of another's size.
    pub(super) fn like(&mut self, tensor: &Tensor) -> Tensor {
        self.pool.take(self.gpu.device(), tensor.size())
    }

    pub(super) fn like_pair(&mut self, pair: &Pair<Tensor>) -> Pair<Tensor> {
        Pair::new(self.like(&pair.weight)).bias(pair.bias.as_ref().map(|bias| self.like(bias)))
    }

    /// Adds to the gradient by a tensor. The first is taken as it is, and the sum of two is a tensor of its own: what was given
    /// may be the gradient of others, too.
    pub(super) fn add(&mut self, tensor: &Tensor, gradient: Tensor) -> Result<(), Error> {
        let sum = match self.of(tensor) {
            None => gradient,
            Some(before) => {
                let sum = self.like(tensor);
                let plan = self.kernels().add(&AddShape::new(1, (tensor.size() / 4) as usize))?;
                self.push(plan.bind(whole(&before), whole(&gradient), whole(&sum))?);
                sum
            }
        };
        self.of.insert((**tensor).clone(), sum);
        Ok(())
    }

    pub(super) fn add_pair(
        &mut self,
        pair: &Pair<Tensor>,
        weight: Tensor,
        bias: Option<Tensor>,
    ) -> Result<(), Error> {
        self.add(&pair.weight, weight)?;
        match (&pair.bias, bias) {
            (Some(tensor), Some(gradient)) => self.add(tensor, gradient),
            _ => Ok(()),
        }
    }

    /// The gradients of attention: by q, k, v, and by the terms' tensors that are learnt.
    pub(super) fn attention(
        &mut self,
        call: &Attention,
        mask: &Parts,
        qkv: &[Tensor; 3],
        (terms, learnt): (&[(&'static str, Tensor)], &[bool]),
        [out, state, dout]: [&Tensor; 3],
    ) -> Result<(), Error> {
        let [q, k, v] = qkv;
        // Attention of some heads leaves the others' rows alone: 0.
        let some = call.heads.chosen().is_some();
        let gradients = qkv.each_ref().map(|tensor| match some {
            true => zeros(self.gpu.device(), tensor.size()),
            false => self.like(tensor),
        });
        let [dq, dk, dv] = gradients.each_ref().map(|tensor| whole(tensor));
        let by_terms: Vec<_> =
            terms.iter().zip(learnt).filter(|(_, learnt)| **learnt).map(|(term, _)| term).collect();
        let by_terms: Vec<_> =
            by_terms.into_iter().map(|(name, tensor)| (*name, tensor, self.like(tensor))).collect();
        let buffers =
            AttentionGradBuffers::new(whole(q), whole(k), whole(v), whole(out), whole(state), whole(dout))
                .dq(dq)
                .dk(dk)
                .dv(dv);
        let buffers = terms.iter().fold(buffers, |all, (name, tensor)| all.tensor(name, whole(tensor)));
        let buffers = by_terms
            .iter()
            .fold(buffers, |all, (name, _, gradient)| all.tensor_gradient(name, whole(gradient)));
        let plan = self.kernels().attention_parts(call, mask.clone())?.backward()?;
        self.push(plan.bind(buffers)?);
        for (_, tensor, gradient) in &by_terms {
            self.add(tensor, gradient.clone())?;
        }
        for (tensor, gradient) in qkv.iter().zip(gradients) {
            self.add(tensor, gradient)?;
        }
        Ok(())
    }
}
