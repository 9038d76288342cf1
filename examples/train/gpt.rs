//! A decoder as GPT-2 is one, with any pattern of attention.

use crate::Error;
use crate::model::{Config, Model, Piece, Place, Slot};
use wgpu_attention::{
    Activation, AttentionShape, Call, Combine, EmbedShape, FeedForwardShape, Gpu, Layout, MatmulShape,
    NormKind, NormShape, Pattern, WeightOrder,
};
use wgpu_attention_models::{DeviceTensor, Layers, Learnt, Machine, Origin, Pair, Table, Training};

/// The model: its passes, tokens, logits and parameters.
pub(crate) struct Gpt {
    passes: Training,
    tokens: wgpu::Buffer,
    logits: wgpu::Buffer,
    slots: Vec<Slot>,
}

impl Gpt {
    pub(crate) fn new(gpu: &Gpu, config: &Config, pattern: impl Pattern + 'static) -> Result<Self, Error> {
        let mut build = Build { machine: Training::new(gpu), config, first: Box::new(config.first_values()) };
        let logits = build.model(pattern)?;
        let mut passes = build.machine;
        // The loss leaves the gradient of the logits where they were.
        let learnt = passes.differentiate(&logits, &logits)?;
        let tokens = passes.ids().first().ok_or("the model embeds nothing")?;
        Ok(Self {
            tokens: (**tokens).clone(),
            logits: (*logits).clone(),
            slots: learnt.iter().map(slot).collect::<Result<_, _>>()?,
            passes,
        })
    }
}

fn slot(learnt: &Learnt) -> Result<Slot, Error> {
    let name = learnt.origin.name.clone();
    let place = |tensor: &DeviceTensor| Place { buffer: (**tensor).clone(), offset: 0 };
    let gradient = learnt.gradient.as_ref().ok_or_else(|| format!("`{name}` has no gradient"))?;
    Ok(Slot {
        len: (learnt.values.size() / 4) as usize,
        values: place(&learnt.values),
        gradient: place(gradient),
        name,
    })
}

impl Model for Gpt {
    fn tokens(&self) -> &wgpu::Buffer {
        &self.tokens
    }

    fn logits(&self) -> &wgpu::Buffer {
        &self.logits
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn forward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.passes.encode_forward(encoder);
    }

    fn backward(&self, encoder: &mut wgpu::CommandEncoder) {
        self.passes.encode_backward(encoder);
    }

    fn pieces(&self) -> [Vec<Piece<'_>>; 2] {
        self.passes.calls().map(|calls| calls.into_iter().map(piece).collect())
    }
}

fn piece(call: &Call) -> Piece<'_> {
    (call.label().to_owned(), Box::new(|encoder| call.encode(encoder)))
}

/// A model that is being written down.
struct Build<'c> {
    machine: Training,
    config: &'c Config,
    first: Box<dyn FnMut(usize, f64) -> Vec<f32> + 'c>,
}

impl Build<'_> {
    fn model(&mut self, pattern: impl Pattern + 'static) -> Result<DeviceTensor, Error> {
        let (rows, width, len) = (self.config.rows(), self.config.width, self.config.len);
        let vocabulary = self.config.vocabulary;
        let words = self.drawn("words", vocabulary * width, 0.1);
        let places = Table::new(self.drawn("positions", len * width, 0.02));
        let mut x = self.machine.tensor(rows * width);
        let shape = EmbedShape::new(rows, vocabulary, width);
        self.machine.embed(&shape, &vec![0; rows], &Table::new(words.clone()), &x)?;
        let positions: Vec<u32> = (0..rows).map(|row| (row % len) as u32).collect();
        let shape = EmbedShape::new(rows, len, width).combine(Combine::AddInto);
        self.machine.embed(&shape, &positions, &places, &x)?;
        let attention =
            AttentionShape::new(self.config.batch, self.config.heads, len, width / self.config.heads);
        let attention = attention.layout(Layout::Blhd);
        let mask = self.machine.mask(&attention, pattern)?;
        for n in 0..self.config.layers {
            let normed = self.norm(&format!("{n}.attention.norm"), &x)?;
            let mut qkv = vec![];
            for part in ["q", "k", "v"] {
                qkv.push(self.linear(&format!("{n}.attention.{part}"), &normed, None)?);
            }
            let qkv: [DeviceTensor; 3] = qkv.try_into().map_err(|_| "three projections")?;
            let context = self.machine.tensor(rows * width);
            self.machine.attention(&attention, &mask, &qkv, &[], &context)?;
            let attended = self.linear(&format!("{n}.attention.out"), &context, Some(&x))?;
            x = self.feed_forward(n, &attended)?;
        }
        let normed = self.norm("norm", &x)?;
        let logits = self.machine.tensor(rows * vocabulary);
        let head = MatmulShape::new(rows, width, vocabulary).weights(WeightOrder::OutIn);
        self.machine.linear(&head, &normed, &Pair::new(words), None, &logits)?;
        Ok(logits)
    }

    fn drawn(&mut self, name: &str, len: usize, deviation: f64) -> DeviceTensor {
        let values = (self.first)(len, deviation);
        self.machine.parameter(Origin::whole(name), &values)
    }

    /// A weight `[inner, columns]` and a bias of 0.
    fn pair(&mut self, name: &str, [inner, columns]: [usize; 2]) -> Pair<DeviceTensor> {
        let weight = self.drawn(&format!("{name}.weight"), inner * columns, (inner as f64).powf(-0.5));
        let bias = self.machine.parameter(Origin::whole(format!("{name}.bias")), &vec![0.0; columns]);
        Pair::new(weight).bias(bias)
    }

    fn norm(&mut self, name: &str, x: &DeviceTensor) -> Result<DeviceTensor, Error> {
        let (rows, width) = (self.config.rows(), self.config.width);
        let parameter = |machine: &mut Training, part: &str, value| {
            machine.parameter(Origin::whole(format!("{name}.{part}")), &vec![value; width])
        };
        let weight = parameter(&mut self.machine, "weight", 1.0);
        let pair = Pair::new(weight).bias(parameter(&mut self.machine, "bias", 0.0));
        let out = self.machine.tensor(rows * width);
        self.machine.norm(&NormShape::new(NormKind::Layer, rows, width, 1e-5).bias(true), x, &pair, &out)?;
        Ok(out)
    }

    fn linear(
        &mut self,
        name: &str,
        x: &DeviceTensor,
        residual: Option<&DeviceTensor>,
    ) -> Result<DeviceTensor, Error> {
        let (rows, width) = (self.config.rows(), self.config.width);
        let pair = self.pair(name, [width, width]);
        let out = self.machine.tensor(rows * width);
        let combine = if residual.is_some() { Combine::Add } else { Combine::Store };
        let shape = MatmulShape::new(rows, width, width).bias(true).combine(combine);
        self.machine.linear(&shape, x, &pair, residual, &out)?;
        Ok(out)
    }

    fn feed_forward(&mut self, n: usize, x: &DeviceTensor) -> Result<DeviceTensor, Error> {
        let (rows, width) = (self.config.rows(), self.config.width);
        let normed = self.norm(&format!("{n}.feed_forward.norm"), x)?;
        let first = self.pair(&format!("{n}.feed_forward.1"), [width, 4 * width]);
        let second = self.pair(&format!("{n}.feed_forward.2"), [4 * width, width]);
        let out = self.machine.tensor(rows * width);
        let shape =
            FeedForwardShape::new(rows, width, 4 * width, Activation::GeluTanh).bias(true).residual(true);
        self.machine.feed_forward(&shape, &normed, Layers::new(&first, &second), x, &out)?;
        Ok(out)
    }
}
