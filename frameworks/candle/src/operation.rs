//! Attention, as an operation of candle's: up, over, back down.

use candle_core::{CpuStorage, CustomOp3, DType, Error, Layout, Result, Shape, Tensor, WithDType};
use wgpu_attention::half::{bf16, f16};
use wgpu_attention::pattern::Pattern;
use wgpu_attention::{Attention, Element, Gpu, Inputs, Layouts};

use crate::rows;

/// A call, but for its tensors.
pub(crate) struct Operation {
    pub(crate) gpu: Gpu,
    /// Of contiguous tensors.
    pub(crate) attention: Attention,
    pub(crate) pattern: Box<dyn Pattern>,
}

/// By q, k and v.
type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl CustomOp3 for Operation {
    fn name(&self) -> &'static str {
        "wgpu-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (storage, layouts) = ([q, k, v], [q_layout, k_layout, v_layout]);
        match q {
            CpuStorage::F16(_) => self.forward::<f16>(storage, layouts),
            CpuStorage::BF16(_) => self.forward::<bf16>(storage, layouts),
            _ => self.forward::<f32>(storage, layouts),
        }
    }

    fn bwd(&self, q: &Tensor, k: &Tensor, v: &Tensor, _out: &Tensor, dout: &Tensor) -> Result<Three> {
        match q.dtype() {
            DType::F16 => self.backward::<f16>([q, k, v], dout),
            DType::BF16 => self.backward::<bf16>([q, k, v], dout),
            _ => self.backward::<f32>([q, k, v], dout),
        }
    }
}

impl Operation {
    fn forward<E: Element + WithDType>(
        &self,
        storage: [&CpuStorage; 3],
        layouts: [&Layout; 3],
    ) -> Result<(CpuStorage, Shape)> {
        let elements = |n: usize| Ok(&E::cpu_storage_as_slice(storage[n])?[rows::reach(layouts[n])]);
        let (q, k, v): (Result<_>, Result<_>, Result<_>) = (elements(0), elements(1), elements(2));
        let [q_layout, k_layout, v_layout] = layouts.map(rows::layout);
        let layouts = Layouts::default().q(q_layout).k(k_layout).v(v_layout);
        let attention = self.attention.clone().layouts(layouts);
        let out: Vec<E> = self.gpu.attention(attention, q?, k?, v?, &*self.pattern).map_err(Error::wrap)?;
        let shape = &self.attention.shape;
        let dims = (shape.batch, shape.heads, shape.q_len, shape.value_dim);
        Ok((E::to_cpu_storage_owned(out), dims.into()))
    }

    fn backward<E: Element + WithDType>(&self, inputs: [&Tensor; 3], dout: &Tensor) -> Result<Three> {
        let [q, k, v] = inputs.map(Tensor::contiguous);
        let tensors = [q?, k?, v?, dout.contiguous()?];
        // Held while their elements are uploaded.
        let held = tensors.each_ref().map(Tensor::storage_and_layout);
        let [q, k, v, dout] = held.each_ref().map(|(storage, layout)| rows::elements::<E>(storage, layout));
        let (q, k, v, dout) = (q?, k?, v?, dout?);
        let gradients = self.gpu.attention_backward::<E, E, E, E>(
            self.attention.clone(),
            &Inputs::new(q, k, v),
            dout,
            &*self.pattern,
        );
        let gradients = gradients.map_err(Error::wrap)?;
        let tensor =
            |values: Vec<E>, like: &Tensor| Tensor::from_vec(values, like.dims(), like.device()).map(Some);
        let [q, k, v] = inputs;
        Ok((tensor(gradients.dq, q)?, tensor(gradients.dk, k)?, tensor(gradients.dv, v)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use wgpu_attention::AttentionShape;
    use wgpu_attention::pattern::Causal;

    /// candle 0.11 hands over gradients in the order of their axes, but does not promise it.
    #[test]
    fn the_gradient_of_out_may_lie_in_any_order() {
        let dims = [1, 5, 2, 8];
        let lying = [0, 1, 2, 3].map(|seed| {
            let values: Vec<f32> = (0..80).map(|n| ((n + 80 * seed) as f32).sin()).collect();
            Tensor::from_vec(values, &dims, &Device::Cpu).unwrap()
        });
        let [q, k, v, dout] = lying.map(|x| x.transpose(1, 2).unwrap());
        let operation = Operation {
            gpu: crate::options::shared().unwrap(),
            attention: AttentionShape::new(1, 2, 5, 8).into(),
            pattern: Box::new(Causal),
        };
        let gradients = |dout: &Tensor| {
            let (dq, dk, dv) = operation.bwd(&q, &k, &v, &q, dout).unwrap();
            [dq, dk, dv].map(|x| x.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        let (got, want) = (gradients(&dout), gradients(&dout.contiguous().unwrap()));
        assert_eq!(got, want);
        assert!(want.iter().flatten().any(|x| x.abs() > 0.1));
    }
}
