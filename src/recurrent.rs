//! What a call of a recurrent network computes.

use crate::construct::constructed;
use crate::layout::check_u32;
use crate::lsh::check_optional;
use crate::{ElementType, Error, Result};
use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// What a unit of a recurrent network computes in each step, of `a = W_ih x + b_ih` and `u = W_hh h + b_hh`, whose rows are those of the gates, one
/// gate after the other, as PyTorch stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecurrentCell {
    /// `h' = tanh(a + u)` (Elman 1990).
    RnnTanh,
    /// `h' = max(a + u, 0)`.
    RnnRelu,
    /// Gates i, f, g, o: `c' = sigmoid(f) c + sigmoid(i) tanh(g)`, `h' = sigmoid(o) tanh(c')`, each gate `a + u` (Hochreiter 1997, Gers 2000).
    Lstm,
    /// Gates r, z, n: `n = tanh(a_n + sigmoid(r) u_n)`, `h' = (1 - sigmoid(z)) n + sigmoid(z) h` (Cho 2014). The reset gate scales the product with its
    /// bias, as PyTorch and cuDNN have it, not h before it.
    Gru,
}

impl RecurrentCell {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::RnnTanh, Self::RnnRelu, Self::Lstm, Self::Gru];

    /// `rnn_tanh`, `rnn_relu`, `lstm` or `gru`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RnnTanh => "rnn_tanh",
            Self::RnnRelu => "rnn_relu",
            Self::Lstm => "lstm",
            Self::Gru => "gru",
        }
    }

    /// Rows of the weights per unit: 1, 4 or 3.
    pub const fn gates(self) -> usize {
        match self {
            Self::RnnTanh | Self::RnnRelu => 1,
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }

    /// Whether there is a c beside h.
    pub const fn has_c(self) -> bool {
        matches!(self, Self::Lstm)
    }
}

impl Display for RecurrentCell {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RecurrentCell {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|cell| cell.name() == name);
        found.ok_or_else(|| {
            let need = crate::names::nearest_first(name, Self::ALL.map(Self::name));
            Error::argument("cell", format!("one of {need}"), format!("`{name}`"))
        })
    }
}

/// A recurrent network over sequences: one or more layers of one [cell](RecurrentCell), in one direction or both.
///
/// ```text
/// x [B, T, in]     out [B, T, D H]     h0, h_n, c0, c_n [layers D, B, H]          D = 2 if bidirectional, else 1
/// weight_ih [gates H, in]     weight_hh [gates H, H]     bias_ih, bias_hh [gates H]      of each layer and direction
/// ```
///
/// What `torch.nn.RNN`, `LSTM` and `GRU` compute, with their weights as they are: layer l and direction d (0 forward, 1 from the last position to the
/// first) have state and weights number `l D + d`. A layer's out is the next one's x, so that of both directions side by side where it is
/// bidirectional. (A stack for each direction by itself, as ELMo has it, is two calls of one direction, of which one is given the reversed sequence.)
///
/// ```
/// use wgpu_attention::{RecurrentCell, RecurrentShape};
/// let shape = RecurrentShape::new(RecurrentCell::Lstm, 16, 128, 300, 512).layers(2).bidirectional(true);
/// shape.check()?;
/// assert_eq!(shape.len_out(), 16 * 128 * 1024);
/// assert_eq!((shape.len_weight_ih(0), shape.len_weight_ih(1)), (2048 * 300, 2048 * 1024));
/// let none = RecurrentShape::new(RecurrentCell::Gru, 1, 0, 8, 8).check().unwrap_err().to_string();
/// assert!(none.contains("steps"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RecurrentShape {
    /// What a unit computes.
    pub cell: RecurrentCell,
    /// Sequences, B. May be 0: then nothing is written.
    pub batch: usize,
    /// Positions of each, T: at least 1.
    pub steps: usize,
    /// Elements of an x.
    pub input: usize,
    /// Units of a layer and direction, H.
    pub hidden: usize,
    /// Layers, each over the out of the one before. The default is 1.
    pub layers: usize,
    /// Whether each layer also walks from the last position to the first. The default is no.
    pub bidirectional: bool,
    /// Whether there are biases. The default is yes.
    pub bias: bool,
    /// Whether h0, and c0 of an LSTM, are given; else they are 0. The default is no.
    pub initial: bool,
    /// Whether x and out are `[T, B, ..]` instead of `[B, T, ..]`: PyTorch's `batch_first=False`. The default is no.
    pub steps_first: bool,
    /// Storage of weights and biases; all else is f32.
    pub weight: ElementType,
    /// Positions whose input products are made at once, which takes memory for them; `None` chooses. It changes no result.
    pub block: Option<usize>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $($(#[$doc])* pub fn $name(mut self, $name: $type) -> Self { self.$name = $name; self })*
    };
}

impl RecurrentShape {
    /// One layer in one direction, with biases and from zeros, `[B, T, ..]`, in f32.
    pub fn new(cell: RecurrentCell, batch: usize, steps: usize, input: usize, hidden: usize) -> Self {
        let (layers, bidirectional, bias, initial, steps_first) = (1, false, true, false, false);
        let (weight, block) = (ElementType::F32, None);
        Self {
            cell,
            batch,
            steps,
            input,
            hidden,
            layers,
            bidirectional,
            bias,
            initial,
            steps_first,
            weight,
            block,
        }
    }

    setters! {
        /// Sets the number of positions.
        steps: usize,
        /// Sets the number of elements of an x.
        input: usize,
        /// Sets the number of layers.
        layers: usize,
        /// Sets whether each layer has both directions.
        bidirectional: bool,
        /// Sets whether there are biases.
        bias: bool,
        /// Sets whether h0, and c0 of an LSTM, are given.
        initial: bool,
        /// Sets whether x and out are `[T, B, ..]`.
        steps_first: bool,
        /// Sets the storage of weights and biases.
        weight: ElementType,
        /// Sets how many positions' input products are made at once.
        block: Option<usize>,
    }

    /// D: 1 or 2.
    pub fn directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }

    /// Sets of weights, and rows of states of an item: layers times D.
    pub fn parts(&self) -> usize {
        self.layers.saturating_mul(self.directions())
    }

    /// Elements of a row of out, D H.
    pub fn width(&self) -> usize {
        self.directions().saturating_mul(self.hidden)
    }

    /// Elements of a row that a layer reads.
    pub fn input_of(&self, layer: usize) -> usize {
        if layer == 0 { self.input } else { self.width() }
    }

    /// Rows of a weight, gates H.
    pub fn rows(&self) -> usize {
        self.cell.gates().saturating_mul(self.hidden)
    }

    fn positions(&self) -> usize {
        self.batch.saturating_mul(self.steps)
    }

    /// Elements of x.
    pub fn len_x(&self) -> usize {
        self.positions().saturating_mul(self.input)
    }

    /// Elements of out.
    pub fn len_out(&self) -> usize {
        self.positions().saturating_mul(self.width())
    }

    /// Elements of h0, c0, h_n and c_n.
    pub fn len_state(&self) -> usize {
        self.parts().saturating_mul(self.batch).saturating_mul(self.hidden)
    }

    /// Elements of weight_ih of a layer, in each direction.
    pub fn len_weight_ih(&self, layer: usize) -> usize {
        self.rows().saturating_mul(self.input_of(layer))
    }

    /// Elements of weight_hh of a layer and direction.
    pub fn len_weight_hh(&self) -> usize {
        self.rows().saturating_mul(self.hidden)
    }

    /// Elements of each of its two biases.
    pub fn len_bias(&self) -> usize {
        self.rows()
    }

    /// Floating-point operations of a call's products, two per multiplication and addition.
    pub fn flops(&self) -> f64 {
        let elements = |layer| (self.len_weight_ih(layer) + self.len_weight_hh()) as f64;
        let of_position: f64 = (0..self.layers).map(elements).sum();
        2.0 * (self.positions() * self.directions()) as f64 * of_position
    }

    /// Checks everything that can be said without a device.
    ///
    /// # Errors
    /// [`Error::Argument`] for no step, input, unit or layer; [`Error::Limit`] where an index would pass 32 bits.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("steps", self.steps),
            ("input", self.input),
            ("hidden", self.hidden),
            ("layers", self.layers),
            ("block", self.block.unwrap_or(1)),
        ];
        for (name, size) in sizes {
            if size == 0 {
                return Err(Error::argument(name, "at least 1", 0));
            }
        }
        let widest = self.input.max(if self.layers > 1 { self.width() } else { 1 });
        check_u32("x", self.positions() as u128 * widest as u128)?;
        check_u32("out", self.positions() as u128 * self.width() as u128)?;
        check_u32("states", self.parts() as u128 * self.batch as u128 * self.hidden as u128)?;
        check_u32("weights", self.rows() as u128 * widest.max(self.hidden) as u128)
    }
}

/// The weights of a layer and direction, as PyTorch has them.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RecurrentWeights<'a, W> {
    /// `[gates H, in]`, in being D H above the first layer.
    pub weight_ih: &'a [W],
    /// `[gates H, H]`.
    pub weight_hh: &'a [W],
    /// `[gates H]`, if and only if [`RecurrentShape::bias`].
    pub bias_ih: Option<&'a [W]>,
    /// `[gates H]`, if and only if [`RecurrentShape::bias`].
    pub bias_hh: Option<&'a [W]>,
}

constructed! {
    RecurrentWeights ['a, W] { weight_ih: &'a [W], weight_hh: &'a [W] } { bias_ih: &'a [W], bias_hh: &'a [W] }
}

/// The tensors of one call of a recurrent network.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RecurrentInputs<'a, W> {
    /// x `[B, T, in]`, or `[T, B, in]` with [`RecurrentShape::steps_first`].
    pub x: &'a [f32],
    /// The weights of each layer and direction: layer l and direction d are number l D + d.
    pub weights: &'a [RecurrentWeights<'a, W>],
    /// h before the first step, `[layers D, B, H]`, if and only if [`RecurrentShape::initial`].
    pub h0: Option<&'a [f32]>,
    /// c before the first step, `[layers D, B, H]`, if and only if [`RecurrentShape::initial`] and the cell is an LSTM.
    pub c0: Option<&'a [f32]>,
}

constructed! {
    RecurrentInputs ['a, W] { x: &'a [f32], weights: &'a [RecurrentWeights<'a, W>] } { h0: &'a [f32], c0: &'a [f32] }
}

impl<W> RecurrentInputs<'_, W> {
    /// Checks the lengths.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the tensor.
    pub fn check(&self, shape: &RecurrentShape) -> Result<()> {
        check_optional("x", true, Some(self.x.len()), shape.len_x())?;
        check_parts(shape, self.weights.len())?;
        for (n, weights) in self.weights.iter().enumerate() {
            let need = shape.len_weight_ih(n / shape.directions());
            check_optional("weight_ih", true, Some(weights.weight_ih.len()), need)?;
            check_optional("weight_hh", true, Some(weights.weight_hh.len()), shape.len_weight_hh())?;
            for (name, bias) in [("bias_ih", weights.bias_ih), ("bias_hh", weights.bias_hh)] {
                check_optional(name, shape.bias, bias.map(<[_]>::len), shape.len_bias())?;
            }
        }
        let (len, has_c) = (shape.len_state(), shape.initial && shape.cell.has_c());
        check_optional("h0", shape.initial, self.h0.map(<[_]>::len), len)?;
        check_optional("c0", has_c, self.c0.map(<[_]>::len), len)
    }
}

/// Whether there are weights for each layer and direction.
pub(crate) fn check_parts(shape: &RecurrentShape, got: usize) -> Result<()> {
    if got == shape.parts() {
        return Ok(());
    }
    let need = format!("{} sets, one for each layer and direction", shape.parts());
    Err(Error::argument("weights", need, got))
}
