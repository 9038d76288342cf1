//! Cases of linear attention and its gradients: feature maps, sums over keys, blocks of causal rows, a state carried from piece to piece.

use anyhow::{Result, ensure};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::{self, Rows};
use wgpu_attention::wgsl::TileKind;
use wgpu_attention::{
    Attention, AttentionShape, Element, FeatureMap, LinearBuffers, LinearGradBuffers, LinearInputs,
    LinearOptions, LinearState, Options, Projection, Storage,
};

use crate::bench::Bench;
use crate::cases::training::judged;
use crate::cases::{Case, Set};
use crate::tensor::{Tensor, normal};

const KERNEL: &str = "linear attention";
const GRADIENTS: &str = "linear attention gradients";

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let few = AttentionShape::new(1, 1, 5, 4);
    let shape = AttentionShape::new(2, 4, 70, 12).kv_heads(2).value_dim(8);
    let elu = LinearOptions::new(FeatureMap::Elu);
    let given = FeatureMap::favor(9).projection(Projection::Given);
    let calls = [
        ("elu + 1, 5 keys", Set::Tiny, few, elu.clone()),
        ("elu + 1, masked", Set::Small, shape.kv_len(90), elu.clone().key_mask(true)),
        ("FAVOR+, causal", Set::Small, shape, LinearOptions::new(FeatureMap::favor(22)).causal(true)),
        ("FAVOR+ of a given projection", Set::Full, shape.kv_len(90), LinearOptions::new(given)),
        ("elu + 1, causal, decay", Set::Full, shape, elu.clone().causal(true).decay(vec![0.5, 0.9])),
    ];
    let mut cases = vec![];
    for element in [F32, F16, Bf16] {
        let mut add = |kernel, name: &str, set: Set, attention: Attention, options: LinearOptions| {
            let set = if element == F32 { set } else { set.max(Set::Small) };
            let run = Box::new(move |bench: &Bench| of_type(bench, kernel, &attention, &options));
            cases.push(Case { kernel, element, name: name.into(), set, run });
        };
        for (name, set, shape, options) in &calls {
            for kernel in [KERNEL, GRADIENTS] {
                add(kernel, name, *set, shape.storage(Storage::all(element)), options.clone());
            }
        }
        let pieces = elu.clone().causal(true).state(LinearState::Carried);
        add(KERNEL, "elu + 1, in two pieces", Set::Small, shape.storage(Storage::all(element)), pieces);
    }
    cases
}

fn of_type(bench: &Bench, kernel: &str, attention: &Attention, options: &LinearOptions) -> Result<f64> {
    match attention.storage.q {
        F32 => run::<f32>(bench, kernel, attention, options),
        F16 => run::<half::f16>(bench, kernel, attention, options),
        Bf16 => run::<half::bf16>(bench, kernel, attention, options),
    }
}

/// Tensors as the kernel has them.
struct Given<E> {
    q: Vec<E>,
    k: Vec<E>,
    v: Vec<E>,
    projection: Option<Vec<f32>>,
    mask: Option<Vec<bool>>,
}

impl<E: Element> Given<E> {
    fn new(attention: &Attention, options: &LinearOptions) -> Self {
        let numbers = |stream, len| normal(stream, len, E::TYPE).into_iter().map(E::from_f64).collect();
        let shape = &attention.shape;
        let projected =
            || normal(4, options.len_projection(shape), F32).into_iter().map(|x| x as f32).collect();
        let given = matches!(options.map, FeatureMap::Favor { projection: Projection::Given, .. });
        let mask = (0..options.len_key_mask(shape)).map(|n| n % 4 != 1).collect();
        Self {
            q: numbers(1, attention.len_q()),
            k: numbers(2, attention.len_k()),
            v: numbers(3, attention.len_v()),
            projection: given.then(projected),
            mask: options.key_mask.then_some(mask),
        }
    }

    fn inputs(&self) -> LinearInputs<'_, E> {
        LinearInputs::new(&self.q, &self.k, &self.v)
            .projection(self.projection.as_deref())
            .key_mask(self.mask.as_deref())
    }
}

fn run<E: Element>(
    bench: &Bench,
    kernel: &str,
    attention: &Attention,
    options: &LinearOptions,
) -> Result<f64> {
    let given = Given::<E>::new(attention, options);
    match kernel {
        GRADIENTS => gradients(bench, attention, options, &given),
        _ if options.state == LinearState::Carried => pieces(bench, attention, options, &given),
        _ => forward(bench, attention, options, &given),
    }
}

/// Its plan is of the kind of tile that runs everywhere.
fn plan(bench: &Bench, attention: &Attention, options: &LinearOptions) -> Result<wgpu_attention::LinearPlan> {
    let gpu = bench.with(Options::default().tile_kind(TileKind::Staged))?;
    Ok(gpu.kernels().linear_attention(attention, options.clone())?)
}

fn forward<E: Element>(
    bench: &Bench,
    attention: &Attention,
    options: &LinearOptions,
    given: &Given<E>,
) -> Result<f64> {
    judged_rows(attention, options, given, &computed(bench, attention, options, given, None)?)
}

/// Every row within its bound.
fn judged_rows<E: Element>(
    attention: &Attention,
    options: &LinearOptions,
    given: &Given<E>,
    got: &[E],
) -> Result<f64> {
    let report = reference::verify_linear(attention, options, &given.inputs(), got, Rows::All, None)?;
    ensure!(report.pass && report.unspecified == 0, "{report}");
    Ok(report.ratio())
}

/// What a call gives, with the state that its options ask for.
fn computed<E: Element>(
    bench: &Bench,
    attention: &Attention,
    options: &LinearOptions,
    given: &Given<E>,
    state: Option<&Tensor>,
) -> Result<Vec<E>> {
    let [q, k, v] = [&given.q, &given.k, &given.v].map(|x| Tensor::elements(bench, x));
    let (projection, mask) = optional(bench, given);
    let out = Tensor::output(bench, attention.len_out(), E::TYPE);
    let buffers = LinearBuffers::new(q.binding(), k.binding(), v.binding(), out.binding())
        .projection(projection.as_ref().map(Tensor::binding))
        .key_mask(mask.as_ref().map(Tensor::binding))
        .state(state.map(Tensor::binding));
    let call = plan(bench, attention, options)?.bind(buffers)?;
    let bytes = bench.run(|encoder| call.encode(encoder), &[&out.buffer])?;
    Ok(bytemuck::pod_collect_to_vec(out.take(&bytes[0])?))
}

fn optional<E>(bench: &Bench, given: &Given<E>) -> (Option<Tensor>, Option<Tensor>) {
    let words = |mask: &Vec<bool>| mask.iter().map(|&counts| counts.into()).collect::<Vec<u32>>();
    let mask = given.mask.as_ref().map(|mask| Tensor::words(bench, &words(mask)));
    (given.projection.as_ref().map(|projection| Tensor::elements(bench, projection)), mask)
}

/// The same rows in two calls, of which the second goes on from the first one's state.
fn pieces<E: Element>(
    bench: &Bench,
    attention: &Attention,
    options: &LinearOptions,
    given: &Given<E>,
) -> Result<f64> {
    let shape = &attention.shape;
    let first = shape.q_len / 3;
    let state = Tensor::elements(bench, &vec![0f32; options.len_state(shape)]);
    // [lines, rows, dim], some rows of each line.
    let cut = |x: &[E], dim: usize, rows: std::ops::Range<usize>| -> Vec<E> {
        let line = |line: &[E]| line[rows.start * dim..rows.end * dim].to_vec();
        x.chunks(shape.q_len * dim).flat_map(line).collect()
    };
    let mut got = vec![vec![]; shape.batch * shape.heads];
    for rows in [0..first, first..shape.q_len] {
        let piece: Attention = shape.q_len(rows.len()).kv_len(rows.len()).storage(attention.storage);
        let piece_of = Given {
            q: cut(&given.q, shape.head_dim, rows.clone()),
            k: cut(&given.k, shape.head_dim, rows.clone()),
            v: cut(&given.v, shape.value_dim, rows.clone()),
            projection: None,
            mask: None,
        };
        let part = computed(bench, &piece, options, &piece_of, Some(&state))?;
        let lines = part.chunks(rows.len() * shape.value_dim);
        got.iter_mut().zip(lines).for_each(|(line, rows)| line.extend_from_slice(rows));
    }
    let whole = options.clone().state(LinearState::Absent);
    judged_rows(attention, &whole, given, &got.concat())
}

fn gradients<E: Element>(
    bench: &Bench,
    attention: &Attention,
    options: &LinearOptions,
    given: &Given<E>,
) -> Result<f64> {
    let [q, k, v] = [&given.q, &given.k, &given.v].map(|x| Tensor::elements(bench, x));
    let (projection, mask) = optional(bench, given);
    let dout: Vec<E> = normal(6, attention.len_out(), E::TYPE).into_iter().map(E::from_f64).collect();
    let dout_ = Tensor::elements(bench, &dout);
    let lens = [attention.len_q(), attention.len_k(), attention.len_v()];
    let [dq, dk, dv] = lens.map(|len| Tensor::output(bench, len, E::TYPE));
    let buffers = LinearGradBuffers::new(q.binding(), k.binding(), v.binding(), dout_.binding())
        .projection(projection.as_ref().map(Tensor::binding))
        .key_mask(mask.as_ref().map(Tensor::binding))
        .dq(dq.binding())
        .dk(dk.binding())
        .dv(dv.binding());
    let call = plan(bench, attention, options)?.backward()?.bind(buffers)?;
    let exact = reference::linear_gradient(attention, options, &given.inputs(), &dout, E::TYPE)?;
    judged(bench, &call, &[(&dq, &exact.dq), (&dk, &exact.dk), (&dv, &exact.dv)])
}
