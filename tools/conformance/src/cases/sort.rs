//! Cases of the stable sort, which is exact.

use anyhow::{Result, ensure};
use wgpu_attention::{Counter, ElementType, SortBuffers, SortShape};

use crate::bench::Bench;
use crate::cases::{Case, Set};
use crate::tensor::Tensor;

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let list = [
        (6, 50, 2049, Set::Small),
        (17, 65_537, 6145, Set::Full),
        (32, 1 << 32, 3000, Set::Full),
        (6, 5, 31, Set::Tiny),
    ];
    let case = |(key_bits, below, len, set)| {
        let shape = SortShape::new(3, len).key_bits(key_bits).values(true);
        Case {
            kernel: "sort",
            element: ElementType::F32,
            name: format!("3 x {len}, {key_bits} bits"),
            set,
            run: Box::new(move |bench| run(bench, &shape, below)),
        }
    };
    list.map(case).into()
}

fn run(bench: &Bench, shape: &SortShape, below: u64) -> Result<f64> {
    let draw = Counter::new(5, 0);
    let keys: Vec<u32> = (0..shape.len_keys() as u64).map(|n| draw.below(n, below) as u32).collect();
    // Unlike the keys, and unlike the places.
    let values: Vec<u32> = (0..keys.len() as u64).map(|n| Counter::new(7, 1).bits(n) as u32).collect();
    let (keys_in, values_in) = (Tensor::words(bench, &keys), Tensor::words(bench, &values));
    let outputs = [(); 2].map(|()| Tensor::output(bench, keys.len(), ElementType::F32));
    let call = bench.kernels().sort(shape)?.bind(
        SortBuffers::new(keys_in.binding(), outputs[1].binding())
            .values(Some(values_in.binding()))
            .sorted_keys(Some(outputs[0].binding())),
    )?;
    let bytes =
        bench.run(|encoder| call.encode(encoder), &outputs.each_ref().map(|tensor| &tensor.buffer))?;

    let mut pairs: Vec<(u32, u32)> = keys.into_iter().zip(values).collect();
    pairs.chunks_mut(shape.len).for_each(|segment| segment.sort_by_key(|pair| pair.0));
    let got: [Vec<u32>; 2] = [
        bytemuck::pod_collect_to_vec(outputs[0].take(&bytes[0])?),
        bytemuck::pod_collect_to_vec(outputs[1].take(&bytes[1])?),
    ];
    let wrong = (0..pairs.len()).find(|&n| (got[0][n], got[1][n]) != pairs[n]);
    ensure!(wrong.is_none(), "place {wrong:?} is wrong");
    Ok(0.0)
}
