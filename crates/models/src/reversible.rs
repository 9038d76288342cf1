//! Cases of the op `reversible`: blocks of pre-norm feed-forward layers over two streams, x = [x1 | x2].

use super::device::{Forward, whole};
use super::{Error, File, Layers, Machine, Pair, Values};
use std::collections::BTreeMap;
use std::rc::Rc;
use wgpu_attention::reference::layer::Bounded;
use wgpu_attention::reference::reversible::{self as reference, FeedForward};
use wgpu_attention::{
    Activation, FeedForwardBranch, FeedForwardShape, Gpu, LayerBranch, NormKind, NormShape, WeightOrder,
};

/// The op of these cases.
pub(crate) const OP: &str = "reversible";

/// F or G of a block.
struct Side {
    /// `block0.f`, say.
    name: String,
    norm: NormShape,
    shape: FeedForwardShape,
    /// By the names of `FeedForwardBranch`.
    parameters: Vec<(&'static str, Vec<f32>)>,
}

/// A case: its blocks, and its input by streams.
struct Case {
    sizes: [usize; 2],
    blocks: Vec<[Side; 2]>,
    x: [Vec<f32>; 2],
}

/// Both streams of `[rows, 2 width]`.
fn split(both: &[f32], width: usize) -> [Vec<f32>; 2] {
    let side = |n: usize| both.chunks(2 * width).flat_map(|row| row[n * width..][..width].to_vec()).collect();
    [side(0), side(1)]
}

/// `[rows, 2 width]` of both streams.
fn joined(sides: [&[f64]; 2], width: usize) -> Vec<f32> {
    let rows = sides[0].chunks(width).zip(sides[1].chunks(width));
    rows.flat_map(|(first, second)| [first, second].concat()).map(|x| x as f32).collect()
}

impl Case {
    fn read(file: &File<'_>) -> Result<Self, Error> {
        let (x, shape) = file.values("x")?;
        let Some(width) = shape.last().filter(|&&width| width > 0 && width.is_multiple_of(2)) else {
            return Err(format!("tensor `x`: need an even last size, found {shape:?}").into());
        };
        let sizes = [x.len() / width, width / 2];
        let blocks = file.of_case("blocks");
        let blocks = blocks.as_u64().ok_or_else(|| format!("blocks: need a number, found {blocks}"))?;
        // Those that the file holds bound the number.
        let there = (0..blocks).take_while(|n| file.has(&format!("block{n}.f.w1"))).count();
        if there as u64 != blocks {
            return Err(format!("blocks: need {there}, which have tensors, found {blocks}").into());
        }
        let side = |n: usize, side: &str| Side::read(file, format!("block{n}.{side}"), sizes);
        let blocks = (0..there).map(|n| Ok([side(n, "f")?, side(n, "g")?]));
        Ok(Self { sizes, blocks: blocks.collect::<Result<_, Error>>()?, x: split(&x, sizes[1]) })
    }
}

impl Side {
    fn read(file: &File<'_>, name: String, [rows, width]: [usize; 2]) -> Result<Self, Error> {
        let word = |key: &str| {
            let found = file.of_case(key);
            found.as_str().ok_or_else(|| format!("{key}: need a word, found {found}"))
        };
        let kind = match word("norm")? {
            "layer_norm" => NormKind::Layer,
            "rms_norm" => NormKind::Rms,
            other => return Err(format!("norm: need layer_norm or rms_norm, found `{other}`").into()),
        };
        let order = match word("weights")? {
            "out_in" => WeightOrder::OutIn,
            "in_out" => WeightOrder::InOut,
            other => return Err(format!("weights: need out_in or in_out, found `{other}`").into()),
        };
        let eps = file.of_case("norm_eps");
        let eps = eps.as_f64().ok_or_else(|| format!("norm_eps: need a number, found {eps}"))?;
        let activation: Activation = word("activation")?.parse()?;
        let has = |part: &str| file.has(&format!("{name}.{part}"));
        if has("w3") {
            return Err(format!("tensor `{name}.w3`: need none: gates are not supported yet").into());
        }
        let (_, sizes) = file.values(&format!("{name}.w1"))?;
        let hidden = match (order, &sizes[..]) {
            (WeightOrder::OutIn, &[hidden, _]) | (WeightOrder::InOut, &[_, hidden]) => hidden,
            _ => return Err(format!("tensor `{name}.w1`: need a matrix, found {sizes:?}").into()),
        };
        let norm = NormShape::new(kind, rows, width, eps as f32).bias(has("norm_bias"));
        let shape = FeedForwardShape::new(rows, width, hidden, activation).weights(order).bias(has("b1"));
        let [first, second] = match order {
            WeightOrder::OutIn => [[hidden, width], [width, hidden]],
            WeightOrder::InOut => [[width, hidden], [hidden, width]],
        };
        let all: [(&'static str, &[usize], bool); 6] = [
            ("norm_weight", &[width], true),
            ("norm_bias", &[width], norm.bias),
            ("w1", &first, true),
            ("b1", &[hidden], shape.bias),
            ("w2", &second, true),
            ("b2", &[width], shape.bias),
        ];
        let read = |(part, sizes, _): (&'static str, &[usize], bool)| {
            Ok((part, file.tensor(&format!("{name}.{part}"), sizes)?))
        };
        let parameters = all.into_iter().filter(|it| it.2).map(read).collect::<Result<_, Error>>()?;
        Ok(Self { name, norm, shape, parameters })
    }

    fn get(&self, name: &str) -> Option<&[f32]> {
        self.parameters.iter().find(|it| it.0 == name).map(|it| &it.1[..])
    }

    /// A weight with its bias, on a machine.
    fn pair<M: Machine>(&self, machine: &mut M, weight: &str, bias: &str) -> Pair<M::Tensor> {
        let mut upload = |values: &[f32]| machine.upload(values);
        let weight = upload(self.get(weight).unwrap_or_default());
        Pair::new(weight).bias(self.get(bias).map(upload))
    }

    /// residual + F(x).
    fn forward<M: Machine>(
        &self,
        machine: &mut M,
        x: &M::Tensor,
        residual: &M::Tensor,
    ) -> Result<M::Tensor, Error> {
        let [normed, out] = [(); 2].map(|()| machine.tensor(self.shape.len_x()));
        let norm = self.pair(machine, "norm_weight", "norm_bias");
        machine.norm(&self.norm, x, &norm, &normed)?;
        let [first, second] = [("w1", "b1"), ("w2", "b2")].map(|(w, b)| self.pair(machine, w, b));
        machine.feed_forward(
            &self.shape.residual(true),
            &normed,
            Layers::new(&first, &second),
            residual,
            &out,
        )?;
        Ok(out)
    }
}

/// Runs the layers of a case of `reversible`, and keeps `out`.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn reversible<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    let case = Case::read(file)?;
    let [mut x1, mut x2] = case.x.each_ref().map(|x| machine.upload(x));
    for [f, g] in &case.blocks {
        x1 = f.forward(machine, &x2, &x1)?;
        x2 = g.forward(machine, &x1, &x2)?;
    }
    let out = machine.join(case.sizes, [&x1, &x2])?;
    machine.keep("out".into(), &out);
    Ok(())
}

/// `dout` by streams.
fn dout(file: &File<'_>, case: &Case) -> Result<[Vec<f32>; 2], Error> {
    let (dout, shape) = file.values("dout")?;
    let [rows, width] = case.sizes;
    if dout.len() != rows * 2 * width {
        return Err(format!("tensor `dout`: need the sizes of `x`, found {shape:?}").into());
    }
    Ok(split(&dout, width))
}

/// What the file does not expect is not judged.
fn expected(file: &File<'_>, mut states: Values) -> Values {
    states.retain(|(name, _)| file.has(name));
    states
}

/// The gradients of sum(out dout) on a device, by x and all parameters: through [`Reversible`](wgpu_attention::Reversible), which keeps no
/// activation.
pub(crate) fn on_device(gpu: &Gpu, file: &File<'_>) -> Result<Values, Error> {
    let case = Case::read(file)?;
    let ([rows, width], kernels) = (case.sizes, gpu.kernels());
    let mut stack = kernels.reversible(rows, width)?;
    let mut record = Forward::new(gpu);
    let branch = |record: &Forward, side: &Side, port| -> Result<LayerBranch, Error> {
        let plan = FeedForwardBranch::new(side.norm, side.shape).plan(kernels, &port)?;
        let values: Vec<_> = side.parameters.iter().map(|(name, values)| (*name, &values[..])).collect();
        let parameters = plan.layout().pack(&values)?;
        Ok(plan.branch(&record.store(&parameters), &record.store(&vec![0f32; parameters.len()]))?)
    };
    let mut branches = vec![];
    for [f, g] in &case.blocks {
        let (of_f, of_g) = (branch(&record, f, stack.f())?, branch(&record, g, stack.g())?);
        stack.push(of_f.clone(), of_g.clone())?;
        branches.extend([(f, of_f), (g, of_g)]);
    }
    let stack = Rc::new(stack);
    let buffers = stack.buffers();
    let given =
        case.x.iter().chain(&dout(file, &case)?).map(|values| record.store(values)).collect::<Vec<_>>();
    for (source, target) in given.iter().zip([&buffers.x1, &buffers.x2, &buffers.dx1, &buffers.dx2]) {
        record.copy(source, target, rows * width);
    }
    let [out, dx] = [(); 2].map(|()| record.tensor(rows * 2 * width));
    let run = stack.clone();
    record.record(move |encoder| run.forward(encoder));
    record.push(stack.join_streams(whole(&out))?)?;
    let run = stack.clone();
    record.record(move |encoder| run.backward(encoder));
    record.push(stack.join_gradients(whole(&dx))?)?;
    record.keep("out".into(), &out);
    record.keep("dx".into(), &dx);
    for (side, branch) in &branches {
        for parameter in branch.plan().layout().parameters() {
            let name = format!("d{}.{}", side.name, parameter.name);
            record.keep_range(name, branch.gradients(), parameter.range.clone());
        }
    }
    Ok(expected(file, record.run()?))
}

/// The same in f64.
pub(crate) fn in_f64(file: &File<'_>) -> Result<Values, Error> {
    let case = Case::read(file)?;
    let twin = |side: &Side| FeedForward::new(side.norm, side.shape, &side.parameters);
    let twins: Vec<_> = case.blocks.iter().map(|block| block.each_ref().map(twin)).collect();
    let mut y = case.x.each_ref().map(|x| Bounded::exact(x));
    for [f, g] in &twins {
        y = reference::forward([f, g], y.each_ref())?;
    }
    let mut dy = dout(file, &case)?.each_ref().map(|dy| Bounded::exact(dy));
    let mut gradients = BTreeMap::new();
    for (block, [f, g]) in case.blocks.iter().zip(&twins).rev() {
        let of_layer = reference::backward([f, g], y.each_ref(), dy.each_ref())?;
        for (side, parameters) in block.iter().zip(of_layer.parameters) {
            for (name, gradient) in parameters {
                gradients.insert(format!("d{}.{name}", side.name), gradient.out);
            }
        }
        (y, dy) = (of_layer.x, of_layer.dx);
    }
    let dx = joined([&dy[0].out, &dy[1].out], case.sizes[1]);
    let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
    let parameters = gradients.into_iter().map(|(name, values)| (name, narrow(values)));
    Ok(expected(file, [("dx".to_owned(), dx)].into_iter().chain(parameters).collect()))
}
