//! Cases of recurrent networks: every cell, with all that it may have.

use anyhow::{Context, Result, ensure};
use half::{bf16, f16};
use wgpu_attention::ElementType::{self, Bf16, F16, F32};
use wgpu_attention::reference::recurrent;
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Element, Options, RecurrentBuffers, RecurrentCell, RecurrentInputs, RecurrentShape,
    RecurrentWeightBuffers, RecurrentWeights,
};

use crate::bench::Bench;
use crate::cases::{Case, Set};
use crate::tensor::{Tensor, normal};

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for cell in RecurrentCell::ALL {
        for (kind, batch) in [(TileKind::Staged, 2), (TileKind::Direct, 9)] {
            for element in [F32, F16, Bf16] {
                let full =
                    RecurrentShape::new(cell, batch, 3, 5, 6).layers(2).bidirectional(true).initial(true);
                let bare = RecurrentShape::new(cell, batch, 3, 4, 8).bias(false);
                for (name, shape) in [("all it may have", full), ("bare", bare)] {
                    let set = match (kind, element) {
                        (TileKind::Staged, F32) if cell == RecurrentCell::RnnRelu && !shape.bias => Set::Tiny,
                        (TileKind::Staged, _) => Set::small_if(shape.bias == (element == F32)),
                        _ => Set::small_if(shape.bias && element == F32),
                    };
                    let run = Box::new(move |bench: &Bench| match element {
                        F32 => network::<f32>(bench, &shape, kind),
                        F16 => network::<f16>(bench, &shape, kind),
                        Bf16 => network::<bf16>(bench, &shape, kind),
                    });
                    let name = format!("{cell}, {name}, {kind:?}");
                    cases.push(Case { kernel: "recurrent", element, name, set, run });
                }
            }
        }
    }
    cases
}

fn of<E: Element>(stream: u64, len: usize) -> Vec<E> {
    normal(stream, len, E::TYPE).into_iter().map(|x| E::from_f64(0.5 * x)).collect()
}

fn network<W: Element>(bench: &Bench, shape: &RecurrentShape, kind: TileKind) -> Result<f64> {
    if kind == TileKind::Direct {
        bench.compiles_direct_tiles()?;
    }
    let shape = shape.weight(W::TYPE);
    let gpu = bench.with(Options::default().tile_kind(kind))?;
    let bias = if shape.bias { shape.len_bias() } else { 1 };
    let lens = |n: usize| [shape.len_weight_ih(n / shape.directions()), shape.len_weight_hh(), bias, bias];
    let part = |n: usize| {
        let mut streams = 10 + 4 * n as u64..;
        lens(n).map(|len| of::<W>(streams.next().unwrap_or_default(), len))
    };
    let parts: Vec<_> = (0..shape.parts()).map(part).collect();
    let states = [3, 4].map(|stream| of::<f32>(stream, shape.len_state()));
    let x = of::<f32>(0, shape.len_x());
    let (initial, has_c) = (shape.initial, shape.cell.has_c());

    let uploaded: Vec<_> =
        parts.iter().map(|part| part.each_ref().map(|data| Tensor::elements(bench, data))).collect();
    let [h0, c0] = states.each_ref().map(|data| Tensor::elements(bench, data));
    let x_tensor = Tensor::elements(bench, &x);
    let output = |len| Tensor::output(bench, len, ElementType::F32);
    let outputs = [output(shape.len_out()), output(shape.len_state()), output(shape.len_state())];
    let weights = uploaded.iter().map(|[weight_ih, weight_hh, bias_ih, bias_hh]| {
        RecurrentWeightBuffers::new(weight_ih.binding(), weight_hh.binding())
            .bias_ih(shape.bias.then(|| bias_ih.binding()))
            .bias_hh(shape.bias.then(|| bias_hh.binding()))
    });
    let buffers = RecurrentBuffers::new(x_tensor.binding(), outputs[0].binding(), outputs[1].binding())
        .c_n(has_c.then(|| outputs[2].binding()))
        .h0(initial.then(|| h0.binding()))
        .c0((initial && has_c).then(|| c0.binding()))
        .weights(weights);
    let call = gpu.kernels().recurrent(&shape)?.bind(buffers)?;
    let there = if has_c { 3 } else { 2 };
    let read: Vec<_> = outputs[..there].iter().map(|output| &output.buffer).collect();
    let bytes = bench.run(|encoder| call.encode(encoder), &read)?;

    let weights = parts.iter().map(|[weight_ih, weight_hh, bias_ih, bias_hh]| {
        RecurrentWeights::new(weight_ih, weight_hh)
            .bias_ih(shape.bias.then_some(&bias_ih[..]))
            .bias_hh(shape.bias.then_some(&bias_hh[..]))
    });
    let weights: Vec<_> = weights.collect();
    let inputs = RecurrentInputs::new(&x, &weights)
        .h0(initial.then_some(&states[0][..]))
        .c0((initial && has_c).then_some(&states[1][..]));
    let exact = recurrent(&shape, &inputs)?;
    let mut worst = 0f64;
    for ((tensor, bytes), exact) in outputs.iter().zip(&bytes).zip([exact.out, exact.h_n, exact.c_n]) {
        let found = exact.compare(tensor.values(bytes)?, 0.0);
        ensure!(found.pass && found.unspecified == 0, "{found}");
        worst = worst.max(found.worst.context("nothing was compared")?.ratio);
    }
    Ok(worst)
}
