//! A Reformer's gradients by all its weights in f64, by the library's reference. Only q, k, v and the gradient of attention's output are rounded to f32, which
//! is what the reference of attention takes.

use super::exact::place;
use super::reformer::{Config, FEED_FORWARD, Kind, Names, WORDS, position_table};
use super::{Error, File, Values};
use wgpu_attention::reference::gradient::attention_gradient;
use wgpu_attention::reference::layer::backward::{embed_backward, matmul_backward, norm_backward};
use wgpu_attention::reference::layer::{self, Bounded, MatmulInputs};
use wgpu_attention::reference::reversible::{self as reversible, Branch, BranchGradients, FeedForward};
use wgpu_attention::reference::{attention_with, lsh_buckets, lsh_gradient, lsh_with_buckets};
use wgpu_attention::{
    Attention, EmbedShape, Inputs, LshInputs, LshOptions, MatmulShape, NormShape, Pattern, Result,
    RowGradients, WeightOrder,
};

/// Parameters by the names of the device's branch.
type Parameters = Vec<(&'static str, Vec<f32>)>;

/// What attends.
enum Kernel {
    Lsh { options: LshOptions, projections: Vec<f32> },
    Local(Box<dyn Pattern>),
}

/// Attention behind a norm.
struct AttentionTwin {
    norm: NormShape,
    call: Attention,
    kernel: Kernel,
    width: usize,
    inner: usize,
    parameters: Vec<(&'static str, Bounded)>,
}

/// Rows `[B, L, H, d]` of a tensor `[B, H, L, d]`.
fn placed(call: &Attention, values: &[f64]) -> Vec<f64> {
    let (shape, mut rows) = (&call.shape, vec![0.0; values.len()]);
    place(values, [shape.heads, shape.q_len, shape.value_dim], call.out_strides(), &mut rows);
    rows
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

fn sum(all: &mut Vec<f64>, part: &[f64]) {
    if all.is_empty() {
        all.resize(part.len(), 0.0);
    }
    all.iter_mut().zip(part).for_each(|(all, part)| *all += part);
}

impl AttentionTwin {
    fn get(&self, name: &str) -> &Bounded {
        const NONE: &Bounded = &Bounded { out: vec![], bound: vec![] };
        self.parameters.iter().find(|it| it.0 == name).map_or(NONE, |it| &it.1)
    }

    /// The weights of what attention takes.
    fn projections(&self) -> &'static [&'static str] {
        match self.kernel {
            Kernel::Lsh { .. } => &["wqk", "wv"],
            Kernel::Local(_) => &["wq", "wk", "wv"],
        }
    }

    fn product(&self, inner: usize, columns: usize) -> MatmulShape {
        MatmulShape::new(self.norm.rows, inner, columns).weights(WeightOrder::OutIn)
    }

    fn normed(&self, x: &Bounded) -> Result<Bounded> {
        layer::norm(&self.norm, x, self.get("norm_weight"), Some(self.get("norm_bias")))
    }

    /// What attention takes, in f32.
    fn projected(&self, normed: &Bounded) -> Result<Vec<Vec<f32>>> {
        let shape = self.product(self.width, self.inner);
        let project = |name: &&'static str| {
            let inputs = MatmulInputs { a: normed, b: self.get(name), bias: None, other: None };
            Ok(narrow(&layer::matmul(&shape, &inputs)?.out))
        };
        self.projections().iter().map(project).collect()
    }

    fn attended(&self, projected: &[Vec<f32>]) -> Result<Bounded> {
        let out = match (&self.kernel, projected) {
            (Kernel::Local(pattern), [q, k, v]) => {
                attention_with(&self.call, &Inputs::new(q, k, v), pattern)?.out
            }
            (Kernel::Lsh { options, projections }, [qk, .., v]) => {
                let inputs = LshInputs::new(qk, v).projections(&projections[..]);
                let buckets = lsh_buckets(&self.call, options, &inputs)?.buckets;
                lsh_with_buckets(&self.call, options, &inputs, &buckets)?.out
            }
            _ => vec![],
        };
        Ok(Bounded::exact(&placed(&self.call, &out)))
    }

    /// The gradients by what attention took.
    fn by_projected(&self, projected: &[Vec<f32>], dout: &[f32]) -> Result<Vec<Bounded>> {
        let all = match (&self.kernel, projected) {
            (Kernel::Local(pattern), [q, k, v]) => {
                let exact = attention_gradient(&self.call, &Inputs::new(q, k, v), dout, pattern)?;
                vec![exact.dq, exact.dk, exact.dv]
            }
            (Kernel::Lsh { options, projections }, [qk, .., v]) => {
                let inputs = LshInputs::new(qk, v).projections(&projections[..]);
                let buckets = lsh_buckets(&self.call, options, &inputs)?.buckets;
                let exact = lsh_gradient(&self.call, options, &inputs, dout, &buckets)?;
                vec![exact.dqk, exact.dv]
            }
            _ => vec![],
        };
        Ok(all.iter().map(|values| Bounded::exact(&placed(&self.call, values))).collect())
    }
}

impl Branch for AttentionTwin {
    fn forward(&self, x: &Bounded) -> Result<Bounded> {
        let rows = self.attended(&self.projected(&self.normed(x)?)?)?;
        let inputs = MatmulInputs { a: &rows, b: self.get("wo"), bias: None, other: None };
        layer::matmul(&self.product(self.inner, self.width), &inputs)
    }

    fn backward(&self, x: &Bounded, dy: &Bounded) -> Result<BranchGradients> {
        let normed = self.normed(x)?;
        let projected = self.projected(&normed)?;
        let rows = self.attended(&projected)?;
        let inputs = MatmulInputs { a: &rows, b: self.get("wo"), bias: None, other: None };
        let of_output = matmul_backward(&self.product(self.inner, self.width), &inputs, dy)?;
        let mut parameters = vec![("wo", of_output.db)];
        let mut dnormed = vec![];
        let gradients = self.by_projected(&projected, &narrow(&of_output.da.out))?;
        for (&name, dout) in self.projections().iter().zip(&gradients) {
            let inputs = MatmulInputs { a: &normed, b: self.get(name), bias: None, other: None };
            let of_product = matmul_backward(&self.product(self.width, self.inner), &inputs, dout)?;
            parameters.push((name, of_product.db));
            sum(&mut dnormed, &of_product.da.out);
        }
        let (rows, weight) = (RowGradients::of_norm(&self.norm), self.get("norm_weight"));
        let of_norm = norm_backward(&self.norm, &rows, x, weight, &Bounded::exact(&dnormed), None)?;
        parameters.extend([("norm_weight", of_norm.dweight), ("norm_bias", of_norm.dbias)]);
        Ok(BranchGradients::new(of_norm.dx, parameters))
    }
}

/// The parameters of a branch.
fn parameters(file: &File<'_>, layer: usize, names: Names) -> Result<Parameters, Error> {
    let read = |&(part, name): &(&str, &'static str)| {
        Ok((name, file.weight(&format!("encoder.layers.{layer}.{part}"))?))
    };
    names.iter().map(read).collect()
}

/// F and G of every layer.
fn twins(file: &File<'_>, config: &Config) -> Result<Vec<(AttentionTwin, FeedForward)>, Error> {
    let norm = config.sizes.norm();
    let twin = |(n, &kind): (usize, &Kind)| {
        let given = parameters(file, n, kind.names())?;
        let kernel = match kind {
            Kind::Lsh(hashed) => {
                Kernel::Lsh { options: config.lsh(file)?, projections: config.projections(file, hashed)? }
            }
            Kind::Local => Kernel::Local(config.local(file)?),
        };
        let f = AttentionTwin {
            norm,
            call: config.attention(kind),
            kernel,
            width: config.sizes.width,
            inner: config.inner(),
            parameters: given.iter().map(|(name, values)| (*name, Bounded::exact(values))).collect(),
        };
        Ok((f, FeedForward::new(norm, config.feed_forward(), &parameters(file, n, FEED_FORWARD)?)))
    };
    config.kinds.iter().enumerate().map(twin).collect()
}

/// Rows `[rows, 2 width]` of two streams beside each other, or a side of such rows.
fn joined([first, second]: [&Bounded; 2], width: usize) -> Bounded {
    let rows = first.out.chunks(width).zip(second.out.chunks(width));
    Bounded::exact(&rows.flat_map(|(first, second)| [first, second].concat()).collect::<Vec<_>>())
}

fn side(both: &Bounded, width: usize, n: usize) -> Bounded {
    Bounded::exact(
        &both.out.chunks(2 * width).flat_map(|row| row[n * width..][..width].to_vec()).collect::<Vec<_>>(),
    )
}

/// The gradients of sum(last dout) by all weights, by the names that the file has for them.
pub(crate) fn in_f64(file: &File<'_>) -> Result<Values, Error> {
    let (config, ids) = Config::read(file)?;
    let (sizes, width) = (config.sizes, config.sizes.width);
    let [words, first, second] = config.tables(file)?;
    let looked_up = layer::embed(&sizes.embed(config.vocabulary), &ids, &Bounded::exact(&words), None)?;
    let tables = [first, second].map(|table| Bounded::exact(&table));
    let positions = layer::axial_positions(&config.axial, tables.each_ref())?;
    let places = sizes.positions();
    let added = EmbedShape::new(sizes.rows(), sizes.len, width);
    let placed = layer::embed(&added, &places, &positions, None)?;
    let x: Vec<f64> = looked_up.out.iter().zip(&placed.out).map(|(x, position)| x + position).collect();

    let twins = twins(file, &config)?;
    let mut y = [Bounded::exact(&x), Bounded::exact(&x)];
    for (f, g) in &twins {
        y = reversible::forward([f, g], y.each_ref())?;
    }
    let norm = config.last_norm();
    let weight = file.tensor("encoder.layer_norm.weight", &[2 * width])?;
    let both = joined(y.each_ref(), width);
    let dout = Bounded::exact(&file.values("dout")?.0);
    let of_last =
        norm_backward(&norm, &RowGradients::of_norm(&norm), &both, &Bounded::exact(&weight), &dout, None)?;
    let mut all = vec![
        ("encoder.layer_norm.weight".to_owned(), of_last.dweight.out),
        ("encoder.layer_norm.bias".to_owned(), of_last.dbias.out),
    ];
    let mut dy = [0, 1].map(|n| side(&of_last.dx, width, n));
    for (n, (f, g)) in twins.iter().enumerate().rev() {
        let of_layer = reversible::backward([f, g], y.each_ref(), dy.each_ref())?;
        for (names, found) in [config.kinds[n].names(), FEED_FORWARD].into_iter().zip(of_layer.parameters) {
            for (part, name) in names {
                let gradient =
                    found.iter().find(|it| it.0 == *name).ok_or("a branch without this gradient")?;
                all.push((format!("encoder.layers.{n}.{part}"), gradient.1.out.clone()));
            }
        }
        (y, dy) = (of_layer.x, of_layer.dx);
    }
    // The embedding went into both streams.
    let [mut by_words, second] = dy;
    sum(&mut by_words.out, &second.out);
    let by = |shape: &EmbedShape, ids: &[u32], dout: &Bounded| embed_backward(shape, ids, dout, None, None);
    all.push((WORDS.to_owned(), by(&sizes.embed(config.vocabulary), &ids, &by_words)?.out));
    let dpositions = by(&added, &places, &by_words)?;
    for (axis, gradient) in layer::axial_backward(&config.axial, &dpositions)?.into_iter().enumerate() {
        all.push((position_table(axis), gradient.out));
    }
    let named = all.into_iter().map(|(name, values)| (format!("d.{name}"), narrow(&values)));
    Ok(named.filter(|(name, _)| file.has(name)).collect())
}
