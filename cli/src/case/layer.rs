//! Cases of the kernels around attention.

use super::{Content, Gradient, Gradients, flag_of, number_of, size_of, text_of, unknown};
use crate::tensors::rounded;
use crate::tensors::{Tensors, wrong};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use wgpu_attention::{
    Activation, ActivationShape, AxialShape, Element, FeedForwardShape, NormKind, NormShape, RotaryPairs,
    RotaryShape, WeightOrder,
};

/// One operation and its expected values.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) op: LayerOp,
    tensors: BTreeMap<&'static str, Vec<f32>>,
    pub(crate) out: Vec<f32>,
    /// As in the file.
    pub(crate) out_shape: Vec<usize>,
    pub(crate) allowance: f64,
    /// By the tensors that the file has gradients of.
    pub(crate) gradients: Option<Gradients>,
}

/// What is computed; shapes are those of f32.
#[derive(Debug)]
pub(crate) enum LayerOp {
    /// Of `x`, with `weight` and maybe `bias`.
    Norm(NormShape),
    /// Of `x`, by `cos` and `sin`.
    Rotary(RotaryShape),
    /// Of `weight0` and `weight1`.
    Axial(AxialShape),
    /// Of `x`.
    Activation(ActivationShape),
    /// Of `x`, with `w1` and so on, and perhaps a norm with `norm_weight` and maybe `norm_bias`. A residual is x itself.
    FeedForward(FeedForwardShape, Option<(NormShape, NormPlace)>),
}

/// A tensor of an operation, and its gradient's name.
type Named = (&'static str, &'static str);

/// Where the norm of a feed-forward layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormPlace {
    /// Before the first product; not of the residual.
    Before,
    /// Of the result, with its residual.
    Behind,
}

/// The gradients of a feed-forward layer.
const FEED_FORWARD_GRADIENTS: [Named; 9] = [
    ("x", "dx"),
    ("w1", "dw1"),
    ("b1", "db1"),
    ("w2", "dw2"),
    ("b2", "db2"),
    ("w3", "dw3"),
    ("b3", "db3"),
    ("norm_weight", "dnorm_weight"),
    ("norm_bias", "dnorm_bias"),
];

/// A case, of the tensors that `names` lists: those that the file has; and of gradients by those that `gradients` lists.
fn layer(
    file: &Tensors<'_>,
    keys: &Map<String, Value>,
    op: LayerOp,
    names: &[&'static str],
    gradients: &[Named],
) -> Result<Content> {
    let out = file.need("out")?;
    match &op {
        LayerOp::Axial(shape) => out.expect(&[shape.positions, shape.width()], "[positions, d0 + d1]")?,
        _ => out.expect(&file.need("x")?.shape, "the shape of x")?,
    }
    let there = names.iter().filter_map(|&name| Some((name, file.find(name)?)));
    let tensors = there.map(|(name, tensor)| Ok((name, tensor.floats()?))).collect::<Result<_>>()?;
    let (out_shape, allowance) = (out.shape.clone(), super::allowance(keys, "out")?.unwrap_or(0.0));
    let gradients = gradients_of(file, keys, gradients)?;
    Ok(Content::Layer(Box::new(Layer { op, tensors, out: out.floats()?, out_shape, allowance, gradients })))
}

/// The gradients that the file has: dout, and by some tensor at least; or none of all this.
fn gradients_of(file: &Tensors<'_>, keys: &Map<String, Value>, names: &[Named]) -> Result<Option<Gradients>> {
    let mut each = vec![];
    for &(of, name) in names {
        let Some(tensor) = file.find(name) else { continue };
        let shape = file.need(of)?.shape.clone();
        tensor.expect(&shape, "that of its tensor")?;
        let allowance = super::allowance(keys, name)?;
        each.push(Gradient { name, of_term: None, shape, values: tensor.floats()?, allowance });
    }
    match (file.find("dout"), each.is_empty()) {
        (None, true) => Ok(None),
        (Some(dout), true) => {
            let names: Vec<_> = names.iter().map(|(_, name)| *name).collect();
            Err(wrong(
                "dout",
                format!("one of {} beside it", names.join(", ")),
                format!("dout {:?} alone", dout.shape),
            ))
        }
        _ => {
            let dout = file.need("dout")?;
            dout.expect(&file.need("out")?.shape, "the shape of out")?;
            Ok(Some(Gradients { dout: dout.floats()?, each }))
        }
    }
}

/// x as rows of its last axis.
fn rows(file: &Tensors<'_>) -> Result<[usize; 2]> {
    let x = file.need("x")?;
    match x.shape.split_last() {
        Some((&width, rows)) => Ok([rows.iter().product(), width]),
        None => Err(wrong("x", "at least one axis", "none")),
    }
}

/// The epsilon of a norm.
fn eps(keys: &Map<String, Value>, key: &str) -> Result<f32> {
    Ok(number_of(keys, key)?.with_context(|| format!("{key}: need a number, got none"))? as f32)
}

/// A norm over rows of x, whose parameters have these names.
fn norm_shape(file: &Tensors<'_>, kind: NormKind, eps: f32, [weight, bias]: [&str; 2]) -> Result<NormShape> {
    let [rows, width] = rows(file)?;
    file.need(weight)?.expect(&[width], "[width of x]")?;
    let bias = file.find(bias);
    bias.as_ref().map(|bias| bias.expect(&[width], "[width of x]")).transpose()?;
    let shape = NormShape::new(kind, rows, width, eps).bias(bias.is_some());
    shape.check()?;
    Ok(shape)
}

/// Reads a case of the op `layer_norm` or `rms_norm`.
pub(super) fn norm(file: &Tensors<'_>, keys: &Map<String, Value>, op: &str) -> Result<Content> {
    const TENSORS: [&str; 8] = ["x", "weight", "bias", "out", "dout", "dx", "dweight", "dbias"];
    if let Some(reason) = unknown(file, keys, &["eps"], &TENSORS) {
        return Ok(Content::Unsupported(reason));
    }
    let kind = if op == "layer_norm" { NormKind::Layer } else { NormKind::Rms };
    let shape = norm_shape(file, kind, eps(keys, "eps")?, ["weight", "bias"])?;
    let gradients = [("x", "dx"), ("weight", "dweight"), ("bias", "dbias")];
    layer(file, keys, LayerOp::Norm(shape), &TENSORS[..3], &gradients)
}

/// Reads a case of the op `rotary`.
pub(super) fn rotary(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    const TENSORS: [&str; 6] = ["x", "cos", "sin", "out", "dout", "dx"];
    const KEYS: [&str; 4] = ["interleaved", "rotary_dim", "theta", "first_position"];
    if let Some(reason) = unknown(file, keys, &KEYS, &TENSORS) {
        return Ok(Content::Unsupported(reason));
    }
    let x = file.need("x")?;
    let &[batch, heads, len, head_dim] = &x.shape[..] else {
        return Err(wrong("x", "[B, H, L, d]", format!("{:?}", x.shape)));
    };
    let rotary_dim = size_of(keys, "rotary_dim")?.unwrap_or(head_dim);
    let interleaved = flag_of(keys, "interleaved")?.unwrap_or(false);
    let cos = file.need("cos")?;
    let per_item = cos.shape.len() == 3;
    let shape = RotaryShape::new(batch, heads, len, head_dim)
        .rotary_dim(rotary_dim)
        .pairs(if interleaved { RotaryPairs::Interleaved } else { RotaryPairs::HalfSplit })
        .tables_per_item(per_item);
    shape.check()?;
    for table in [cos, file.need("sin")?] {
        let sizes = [batch, len, rotary_dim / 2];
        table
            .expect(&sizes[usize::from(!per_item)..], "[L, rotary_dim / 2], or such a table for each item")?;
    }
    if let Some(theta) = number_of(keys, "theta")? {
        check_tables(file, &shape, theta, size_of(keys, "first_position")?.unwrap_or(0))?;
    }
    layer(file, keys, LayerOp::Rotary(shape), &TENSORS[..3], &[("x", "dx")])
}

/// Reads a case of the op `axial_positions`.
pub(super) fn axial(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    const TENSORS: [&str; 6] = ["weight0", "weight1", "out", "dout", "dweight0", "dweight1"];
    if let Some(reason) = unknown(file, keys, &["positions"], &TENSORS) {
        return Ok(Content::Unsupported(reason));
    }
    let table = |name: &str| {
        let table = file.need(name)?;
        match table.shape[..] {
            [rows, width] => Ok([rows, width]),
            _ => Err(wrong(name, "[rows, width]", format!("{:?}", table.shape))),
        }
    };
    let ([n0, d0], [n1, d1]) = (table("weight0")?, table("weight1")?);
    let shape = AxialShape::new([n0, n1], [d0, d1]);
    let shape = shape.positions(size_of(keys, "positions")?.unwrap_or(shape.positions));
    shape.check()?;
    let gradients = [("weight0", "dweight0"), ("weight1", "dweight1")];
    layer(file, keys, LayerOp::Axial(shape), &TENSORS[..2], &gradients)
}

/// Whether cos and sin are those of the angles that the case says, made in f32.
fn check_tables(file: &Tensors<'_>, shape: &RotaryShape, theta: f64, first: usize) -> Result<()> {
    let (cos, sin) = (file.need("cos")?.floats()?, file.need("sin")?.floats()?);
    let half = shape.rotary_dim / 2;
    for (n, (&cos, &sin)) in cos.iter().zip(&sin).enumerate() {
        let position = first + n / half % shape.len;
        let angle = position as f64 * theta.powf(-2.0 * (n % half) as f64 / shape.rotary_dim as f64);
        // An angle is rounded a few times before its cosine is taken.
        let bound = 4.0 * f64::from(f32::EPSILON) * (1.0 + angle);
        for (name, got, need) in [("cos", cos, angle.cos()), ("sin", sin, angle.sin())] {
            if (f64::from(got) - need).is_nan() || (f64::from(got) - need).abs() > bound {
                let need = format!("{need} at element {n}, as theta and first_position say");
                return Err(wrong(name, need, got.to_string()));
            }
        }
    }
    Ok(())
}

/// Why a case of the op `reversible` is not supported, where it is not.
pub(super) fn reversible(file: &Tensors<'_>, keys: &Map<String, Value>) -> Option<String> {
    const PARTS: [&str; 6] = ["norm_weight", "norm_bias", "w1", "b1", "w2", "b2"];
    // What it has of each block is known by the part of its name behind the block's.
    let of_block = |name: &&str| {
        let (block, part) = name.split_once('.').unwrap_or((name, ""));
        let block = block.strip_prefix('d').unwrap_or(block);
        let is_block = block.strip_prefix("block").is_some_and(|number| number.parse::<usize>().is_ok());
        let part = part.strip_prefix("f.").or(part.strip_prefix("g.")).unwrap_or("");
        is_block && PARTS.contains(&part)
    };
    let known: Vec<&str> =
        file.names().into_iter().filter(of_block).chain(["x", "out", "dout", "dx"]).collect();
    unknown(file, keys, &["blocks", "activation", "norm", "norm_eps", "weights"], &known)
}

/// Reads a case of the op `activation`.
pub(super) fn activation(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    if let Some(reason) = unknown(file, keys, &["activation"], &["x", "out", "dout", "dx"]) {
        return Ok(Content::Unsupported(reason));
    }
    match activation_of(keys)? {
        Ok(activation) => {
            let len = file.need("x")?.shape.iter().product();
            let op = LayerOp::Activation(ActivationShape::new(len, activation));
            layer(file, keys, op, &["x"], &[("x", "dx")])
        }
        Err(reason) => Ok(Content::Unsupported(reason)),
    }
}

/// The activation by its name, or why it is not supported.
fn activation_of(keys: &Map<String, Value>) -> Result<Result<Activation, String>> {
    let name = text_of(keys, "activation")?;
    Ok(name.parse().map_err(|_| format!("activation `{name}` is not supported yet")))
}

/// Reads a case of the op `feed_forward`.
pub(super) fn feed_forward(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    const KEYS: [&str; 7] = ["activation", "weights", "gated", "norm", "norm_eps", "norm_place", "residual"];
    const TENSORS: [&str; 9] = ["x", "w1", "b1", "w2", "b2", "w3", "b3", "norm_weight", "norm_bias"];
    let gradients = FEED_FORWARD_GRADIENTS.map(|(_, gradient)| gradient);
    let known = [&TENSORS[..], &["out", "dout"], &gradients].concat();
    if let Some(reason) = unknown(file, keys, &KEYS, &known) {
        return Ok(Content::Unsupported(reason));
    }
    let activation = match activation_of(keys)? {
        Ok(activation) => activation,
        Err(reason) => return Ok(Content::Unsupported(reason)),
    };
    let [rows, width] = rows(file)?;
    let (weights, axis) = match keys.get("weights").map(Value::as_str) {
        None | Some(Some("in_out")) => (WeightOrder::InOut, 1),
        Some(Some("out_in")) => (WeightOrder::OutIn, 0),
        Some(_) => bail!("weights: need `in_out` or `out_in`, got {}", keys["weights"]),
    };
    let w1 = file.need("w1")?;
    let Some(&hidden) = w1.shape.get(axis) else {
        return Err(wrong("w1", "[width of x, hidden width] or its transpose", format!("{:?}", w1.shape)));
    };
    let (gated, bias) = (file.find("w3").is_some(), file.find("b1").is_some());
    if flag_of(keys, "gated")?.is_some_and(|says| says != gated) {
        bail!(
            "gated: need {gated}, as there is {} w3, got {}",
            if gated { "a" } else { "no" },
            keys["gated"]
        );
    }
    let residual = flag_of(keys, "residual")?.unwrap_or(false);
    let shape = FeedForwardShape::new(rows, width, hidden, activation).weights(weights).gated(gated);
    let shape = shape.bias(bias).residual(residual);
    shape.check()?;
    let into = if weights == WeightOrder::InOut { [width, hidden] } else { [hidden, width] };
    let back = [into[1], into[0]];
    let there = |name: &str, wanted: bool, sizes: &[usize], meaning: &str| -> Result<()> {
        match (file.find(name), wanted) {
            (Some(_), false) => {
                Err(wrong(name, "none, as there is no b1, w3 or norm that it goes with", "a tensor"))
            }
            (None, false) => Ok(()),
            _ => file.need(name)?.expect(sizes, meaning),
        }
    };
    there("w1", true, &into, "the widths of x and of the hidden layer, as `weights` says")?;
    there("w2", true, &back, "the widths of the hidden layer and of x, as `weights` says")?;
    there("w3", gated, &into, "the shape of w1")?;
    there("b1", bias, &[hidden], "[hidden width]")?;
    there("b2", bias, &[width], "[width of x]")?;
    there("b3", bias && gated, &[hidden], "[hidden width]")?;
    let kind = match keys.get("norm").map(Value::as_str) {
        None => None,
        Some(Some("layer_norm")) => Some(NormKind::Layer),
        Some(Some("rms_norm")) => Some(NormKind::Rms),
        Some(_) => bail!("norm: need `layer_norm` or `rms_norm`, got {}", keys["norm"]),
    };
    there("norm_weight", kind.is_some(), &[width], "[width of x], as there is a norm")?;
    there("norm_bias", kind.is_some() && file.find("norm_bias").is_some(), &[width], "[width of x]")?;
    let norm = |kind| norm_shape(file, kind, eps(keys, "norm_eps")?, ["norm_weight", "norm_bias"]);
    let place = match keys.get("norm_place").map(Value::as_str) {
        None | Some(Some("pre")) => NormPlace::Before,
        Some(Some("post")) => NormPlace::Behind,
        Some(_) => bail!("norm_place: need `pre` or `post`, got {}", keys["norm_place"]),
    };
    let norm = kind.map(norm).transpose()?.map(|norm| (norm, place));
    layer(file, keys, LayerOp::FeedForward(shape, norm), &TENSORS, &FEED_FORWARD_GRADIENTS)
}

impl Layer {
    /// A tensor that the operation has.
    pub(crate) fn tensor(&self, name: &str) -> &[f32] {
        self.find(name).unwrap_or_default()
    }

    /// A tensor, if the case has it.
    pub(crate) fn find(&self, name: &str) -> Option<&[f32]> {
        self.tensors.get(name).map(Vec::as_slice)
    }

    /// Every tensor rounded to an element type, but for the tables of a rotary embedding, which are always f32.
    pub(crate) fn rounded<E: Element>(&self) -> Result<BTreeMap<&'static str, Vec<E>>, String> {
        let rounded = |(&name, values): (&&'static str, &Vec<f32>)| Ok((name, rounded(name, values)?));
        self.tensors.iter().filter(|(name, _)| !["cos", "sin"].contains(name)).map(rounded).collect()
    }
}
