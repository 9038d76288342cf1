//! A forward pass in f64 on the CPU, by the library's reference. Only q, k and v are rounded to f32, which is what the
//! reference of attention takes.

use super::{Error, Layers, Machine, Pair, Piece, Table};
use std::cell::RefCell;
use std::rc::Rc;
use wgpu_attention::reference::{self, layer};
use wgpu_attention::{
    Attention, AxialShape, Combine, EmbedShape, FeedForwardShape, Inputs, LshInputs, LshOptions, MatmulShape,
    NormShape, Pattern, RotaryShape, Strides,
};

/// The states that a model left, by name.
#[derive(Default)]
pub struct Exact {
    /// What the model showed, by name.
    pub states: Vec<(String, Vec<f32>)>,
}

/// A tensor whose clones are the same one.
type Tensor = Rc<RefCell<Vec<f64>>>;

fn exact(tensor: &Tensor) -> layer::Bounded {
    layer::Bounded::exact(&tensor.borrow())
}

fn narrow(tensor: &Tensor) -> Vec<f32> {
    tensor.borrow().iter().map(|&x| x as f32).collect()
}

/// Rows `[B, H, L, width]` to where they belong.
pub(crate) fn place(rows: &[f64], [heads, len, width]: [usize; 3], strides: Strides, out: &mut [f64]) {
    for (n, row) in rows.chunks(width).enumerate() {
        out[strides.at(n / len / heads, n / len % heads, n % len)..][..width].copy_from_slice(row);
    }
}

/// What attention gives.
fn place_attended(call: &Attention, rows: &[f64], out: &Tensor) {
    let shape = &call.shape;
    place(rows, [shape.heads, shape.q_len, shape.value_dim], call.out_strides(), &mut out.borrow_mut());
}

impl Machine for Exact {
    type Tensor = Tensor;
    type Mask = Box<dyn Pattern>;

    fn upload(&mut self, values: &[f32]) -> Tensor {
        Rc::new(RefCell::new(values.iter().map(|&x| x.into()).collect()))
    }

    fn tensor(&mut self, elements: usize) -> Tensor {
        Rc::new(RefCell::new(vec![f64::NAN; elements]))
    }

    fn zeros(&mut self, elements: usize) -> Tensor {
        Rc::new(RefCell::new(vec![0.0; elements]))
    }

    fn mask(&mut self, _: &Attention, pattern: impl Pattern + 'static) -> Result<Box<dyn Pattern>, Error> {
        Ok(Box::new(pattern))
    }

    fn embed(
        &mut self,
        shape: &EmbedShape,
        ids: &[u32],
        table: &Table<Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        let before = (shape.combine == Combine::AddInto).then(|| exact(out));
        *out.borrow_mut() = layer::embed(shape, ids, &exact(&table.values), before.as_ref())?.out;
        Ok(())
    }

    fn rotary(
        &mut self,
        shape: &RotaryShape,
        x: &Tensor,
        [cos, sin]: &[Tensor; 2],
        out: &Tensor,
    ) -> Result<(), Error> {
        let rows = layer::rotary(shape, &exact(x), &exact(cos), &exact(sin))?.out;
        place(&rows, [shape.heads, shape.len, shape.head_dim], shape.strides_of_out(), &mut out.borrow_mut());
        Ok(())
    }

    fn add(&mut self, elements: usize, x: &Tensor, other: &Tensor, out: &Tensor) -> Result<(), Error> {
        let sum: Vec<f64> = x.borrow().iter().zip(&*other.borrow()).map(|(x, other)| x + other).collect();
        if sum.len() != elements {
            return Err(format!("add: need {elements} elements, found {}", sum.len()).into());
        }
        *out.borrow_mut() = sum;
        Ok(())
    }

    fn axial(
        &mut self,
        shape: &AxialShape,
        items: usize,
        tables: [&[f32]; 2],
        out: &Tensor,
    ) -> Result<(), Error> {
        let tables = tables.map(layer::Bounded::exact);
        let positions = layer::axial_positions(shape, tables.each_ref())?.out;
        let mut out = out.borrow_mut();
        if out.len() != items * positions.len() {
            return Err(
                format!("axial positions: need {} elements, found {}", positions.len(), out.len()).into()
            );
        }
        for item in out.chunks_mut(positions.len().max(1)) {
            item.iter_mut().zip(&positions).for_each(|(x, position)| *x += position);
        }
        Ok(())
    }

    fn join(&mut self, [rows, width]: [usize; 2], [first, second]: [&Tensor; 2]) -> Result<Tensor, Error> {
        let (first, second) = (first.borrow(), second.borrow());
        let row = |n: usize| [&first[n * width..][..width], &second[n * width..][..width]].concat();
        Ok(Rc::new(RefCell::new((0..rows).flat_map(row).collect())))
    }

    fn norm(
        &mut self,
        shape: &NormShape,
        x: &Tensor,
        pair: &Pair<Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        let bias = pair.bias.as_ref().map(exact);
        *out.borrow_mut() = layer::norm(shape, &exact(x), &exact(&pair.weight), bias.as_ref())?.out;
        Ok(())
    }

    fn linear(
        &mut self,
        shape: &MatmulShape,
        a: &Tensor,
        pair: &Pair<Tensor>,
        residual: Option<&Tensor>,
        out: &Tensor,
    ) -> Result<(), Error> {
        let (a, b, bias) = (exact(a), exact(&pair.weight), pair.bias.as_ref().map(exact));
        let other = match shape.combine {
            Combine::Store | Combine::Add => residual.map(exact),
            Combine::AddInto | Combine::MultiplyInto => Some(exact(out)),
        };
        let inputs = layer::MatmulInputs { a: &a, b: &b, bias: bias.as_ref(), other: other.as_ref() };
        let rows = layer::matmul(shape, &inputs)?.out;
        let (strides, mut out) = (shape.strides_of_out(), out.borrow_mut());
        for (n, row) in rows.chunks(shape.columns).enumerate() {
            out[strides.at(n / shape.rows, n % shape.rows)..][..shape.columns].copy_from_slice(row);
        }
        Ok(())
    }

    fn attention(
        &mut self,
        call: &Attention,
        mask: &Box<dyn Pattern>,
        qkv: &[Tensor; 3],
        terms: &[(&'static str, &Tensor)],
        out: &Tensor,
    ) -> Result<(), Error> {
        let [q, k, v] = qkv.each_ref().map(narrow);
        let terms: Vec<_> = terms.iter().map(|(name, tensor)| (*name, narrow(tensor))).collect();
        let inputs = Inputs::new(&q, &k, &v);
        let inputs = terms.iter().fold(inputs, |all, (name, values)| all.tensor(name, values));
        let rows = reference::attention_with(call, &inputs, mask)?.out;
        place_attended(call, &rows, out);
        Ok(())
    }

    fn lsh(
        &mut self,
        call: &Attention,
        options: &LshOptions,
        [qk, v]: [&Tensor; 2],
        projections: &[f32],
        out: &Tensor,
        buckets: String,
    ) -> Result<(), Error> {
        let (qk, v) = (narrow(qk), narrow(v));
        let inputs = LshInputs::new(&qk, &v).projections(projections);
        let found = reference::lsh_buckets(call, options, &inputs)?.buckets;
        let rows = reference::lsh_with_buckets(call, options, &inputs, &found)?.out;
        place_attended(call, &rows, out);
        self.states.push((buckets, found.into_iter().map(f32::from_bits).collect()));
        Ok(())
    }

    fn feed_forward(
        &mut self,
        shape: &FeedForwardShape,
        x: &Tensor,
        Layers { first, gate, second }: Layers<'_, Tensor>,
        residual: &Tensor,
        out: &Tensor,
    ) -> Result<(), Error> {
        let [w1, w2] = [first, second].map(|pair| exact(&pair.weight));
        let [b1, b2] = [first, second].map(|pair| pair.bias.as_ref().map(exact));
        let w3 = gate.map(|gate| exact(&gate.weight));
        let b3 = gate.and_then(|gate| gate.bias.as_ref()).map(exact);
        let inputs = layer::FeedForwardInputs {
            x: &exact(x),
            w1: &w1,
            b1: b1.as_ref(),
            w3: w3.as_ref(),
            b3: b3.as_ref(),
            w2: &w2,
            b2: b2.as_ref(),
            residual: Some(&exact(residual)),
        };
        *out.borrow_mut() = layer::feed_forward(shape, &inputs)?.out;
        Ok(())
    }

    fn keep(&mut self, name: String, source: &Tensor) {
        self.states.push((name, narrow(source)));
    }

    fn keep_rows(&mut self, name: String, [batch, width]: [usize; 2], pieces: &[Piece<Tensor>]) {
        let rows = |item: usize, piece: &Piece<Tensor>| {
            let from = (item * piece.len + piece.first) * width;
            narrow(&piece.tensor)[from..][..piece.count * width].to_vec()
        };
        let items = (0..batch).flat_map(|item| pieces.iter().flat_map(move |piece| rows(item, piece)));
        self.states.push((name, items.collect()));
    }
}
