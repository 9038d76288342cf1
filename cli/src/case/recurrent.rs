//! Cases of recurrent networks.

use super::{Content, flag_of, text_of, unknown};
use crate::tensors::{Tensors, rounded, wrong};
use anyhow::Result;
use serde_json::{Map, Value};
use wgpu_attention::{Element, RecurrentInputs, RecurrentShape, RecurrentWeights};

/// A recurrent network and what it gives.
#[derive(Debug)]
pub(crate) struct Recurrent {
    /// With weights in f32.
    pub(crate) shape: RecurrentShape,
    x: Vec<f32>,
    parts: Vec<Part<f32>>,
    h0: Option<Vec<f32>>,
    c0: Option<Vec<f32>>,
    /// out, h_n, and c_n of an LSTM.
    pub(crate) expected: Vec<Expected>,
}

/// A tensor of the result.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) name: &'static str,
    /// As in the file.
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
    pub(crate) allowance: f64,
}

/// The weights of a layer and direction.
#[derive(Debug)]
pub(crate) struct Part<W> {
    weights: [Vec<W>; 2],
    biases: Option<[Vec<W>; 2]>,
}

/// PyTorch's names of the tensors of a layer and direction: weight_ih, weight_hh, bias_ih, bias_hh.
fn names(layer: usize, direction: usize) -> [String; 4] {
    let reverse = if direction == 1 { "_reverse" } else { "" };
    ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|name| format!("{name}_l{layer}{reverse}"))
}

/// Reads a case of the op `recurrent`.
pub(super) fn recurrent(file: &Tensors<'_>, keys: &Map<String, Value>) -> Result<Content> {
    let is_there = |name: &str| file.find(name).is_some();
    let layers = (0..).take_while(|&layer| is_there(&names(layer, 0)[0])).count().max(1);
    let bidirectional = is_there(&names(0, 1)[0]);
    let places = || (0..layers).flat_map(|layer| (0..=usize::from(bidirectional)).map(move |d| (layer, d)));
    let of_parts: Vec<String> = places().flat_map(|(layer, direction)| names(layer, direction)).collect();
    let known = ["x", "h0", "c0", "out", "h_n", "c_n"].into_iter().chain(of_parts.iter().map(String::as_str));
    if let Some(reason) = unknown(file, keys, &["cell", "steps_first"], &known.collect::<Vec<_>>()) {
        return Ok(Content::Unsupported(reason));
    }
    let cell = text_of(keys, "cell")?.parse()?;
    let steps_first = flag_of(keys, "steps_first")?.unwrap_or(false);
    let (x, own) = (file.need("x")?, file.need(&names(0, 0)[1])?);
    let &[first, second, input] = &x.shape[..] else {
        return Err(wrong("x", "[B, T, in] or [T, B, in]", format!("{:?}", x.shape)));
    };
    let &[_, hidden] = &own.shape[..] else {
        return Err(wrong(&own.name, "[gates H, H]", format!("{:?}", own.shape)));
    };
    let (batch, steps) = if steps_first { (second, first) } else { (first, second) };
    let shape = RecurrentShape::new(cell, batch, steps, input, hidden)
        .layers(layers)
        .bidirectional(bidirectional)
        .bias(is_there(&names(0, 0)[2]))
        .initial(is_there("h0"))
        .steps_first(steps_first);
    shape.check()?;
    let sizes = [shape.parts(), batch, hidden];
    let state = |name: &'static str, wanted: bool| match (file.find(name), wanted) {
        (None, false) => Ok(None),
        (Some(_), false) => Err(wrong(name, "none: the cell has no c, or there is no h0", "a tensor")),
        _ => {
            let tensor = file.need(name)?;
            tensor.expect(&sizes, "[layers D, B, H]")?;
            Ok(Some(tensor))
        }
    };
    let floats = |name, wanted| state(name, wanted)?.map(|tensor| tensor.floats()).transpose();
    let mut expected = vec![file.need("out")?];
    expected[0].expect(&[first, second, shape.width()], "[B, T, D H], or [T, B, D H]")?;
    expected.extend(state("h_n", true)?);
    expected.extend(state("c_n", cell.has_c())?);
    let expected = ["out", "h_n", "c_n"].into_iter().zip(expected).map(|(name, tensor)| {
        let allowance = super::allowance(keys, name)?.unwrap_or(0.0);
        Ok(Expected { name, values: tensor.floats()?, shape: tensor.shape, allowance })
    });
    Ok(Content::Recurrent(Box::new(Recurrent {
        parts: places()
            .map(|(layer, direction)| part(file, &shape, layer, direction))
            .collect::<Result<_>>()?,
        x: x.floats()?,
        h0: floats("h0", shape.initial)?,
        c0: floats("c0", shape.initial && cell.has_c())?,
        expected: expected.collect::<Result<_>>()?,
        shape,
    })))
}

/// The weights of a layer and direction.
fn part(file: &Tensors<'_>, shape: &RecurrentShape, layer: usize, direction: usize) -> Result<Part<f32>> {
    let names = names(layer, direction);
    let tensor = |name: &str, sizes: &[usize], meaning: &str| {
        let tensor = file.need(name)?;
        tensor.expect(sizes, meaning)?;
        tensor.floats()
    };
    let (rows, input) = (shape.rows(), shape.input_of(layer));
    let weights = [
        tensor(&names[0], &[rows, input], "[gates H, in], or [gates H, D H] above the first layer")?,
        tensor(&names[1], &[rows, shape.hidden], "[gates H, H]")?,
    ];
    let bias = |name: &str| tensor(name, &[rows], "[gates H]");
    let biases = match shape.bias {
        true => Some([bias(&names[2])?, bias(&names[3])?]),
        false => match names[2..].iter().find(|name| file.find(name).is_some()) {
            Some(name) => return Err(wrong(name, "none, as there is no bias_ih_l0", "a tensor")),
            None => None,
        },
    };
    Ok(Part { weights, biases })
}

impl Recurrent {
    /// The weights rounded to an element type.
    pub(crate) fn rounded<E: Element>(&self) -> Result<Vec<Part<E>>, String> {
        let part = |part: &Part<f32>| {
            let [weight_ih, weight_hh] = &part.weights;
            let biases = |[bias_ih, bias_hh]: &[Vec<f32>; 2]| {
                Ok::<_, String>([rounded("bias_ih", bias_ih)?, rounded("bias_hh", bias_hh)?])
            };
            Ok(Part {
                weights: [rounded("weight_ih", weight_ih)?, rounded("weight_hh", weight_hh)?],
                biases: part.biases.as_ref().map(biases).transpose()?,
            })
        };
        self.parts.iter().map(part).collect()
    }

    /// Calls `with` with the tensors, and the weights of any type.
    pub(crate) fn with<E: Element, T>(
        &self,
        parts: &[Part<E>],
        with: impl FnOnce(&RecurrentInputs<'_, E>) -> T,
    ) -> T {
        let mut all = vec![];
        for part in parts {
            let [bias_ih, bias_hh] = match &part.biases {
                Some(biases) => biases.each_ref().map(|bias| Some(&bias[..])),
                None => [None; 2],
            };
            let [weight_ih, weight_hh] = &part.weights;
            all.push(RecurrentWeights::new(weight_ih, weight_hh).bias_ih(bias_ih).bias_hh(bias_hh));
        }
        with(&RecurrentInputs::new(&self.x, &all).h0(self.h0.as_deref()).c0(self.c0.as_deref()))
    }
}
