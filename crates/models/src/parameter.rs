//! Parameters: where they stand in a file, and those that go together.

use wgpu_attention::IntegerFormat;

/// Which tensor of a file a parameter is, or which columns of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The tensor's name.
    pub name: String,
    /// Which of `parts` stretches of its last dimension, all of one length.
    pub part: usize,
    /// How many stretches there are; 1 where the parameter is the whole tensor.
    pub parts: usize,
}

impl Origin {
    /// All of a tensor.
    pub fn whole(name: impl Into<String>) -> Self {
        Self::part(name, 0, 1)
    }

    /// One of `parts` stretches of the last dimension.
    pub fn part(name: impl Into<String>, part: usize, parts: usize) -> Self {
        Self { name: name.into(), part, parts }
    }
}

/// Parameters of a norm or of a linear layer.
#[derive(Debug, Clone)]
pub struct Pair<T> {
    /// The weight.
    pub weight: T,
    /// What makes numbers of a weight of integers, `[out, in]`; none where it is of numbers.
    pub integers: Option<Integers<T>>,
    /// The weight lies `[out, in]`, whatever the shape of the product says.
    pub turned: bool,
    /// The bias, where there is one.
    pub bias: Option<T>,
}

impl<T> Pair<T> {
    /// A weight of numbers, no bias.
    pub fn new(weight: T) -> Self {
        Self { weight, integers: None, turned: false, bias: None }
    }

    /// Sets the bias.
    pub fn bias(mut self, bias: impl Into<Option<T>>) -> Self {
        self.bias = bias.into();
        self
    }
}

/// How a weight of integers stands for numbers.
#[derive(Debug, Clone)]
pub struct Integers<T> {
    /// The integers, and which of them share a scale.
    pub format: IntegerFormat,
    /// The scales.
    pub scales: T,
}

/// The rows of an embedding.
#[derive(Debug, Clone)]
pub struct Table<T> {
    /// The rows.
    pub values: T,
    /// The row that is not learnt, which PyTorch calls `padding_idx`: its gradient is 0.
    pub padding: Option<u32>,
}

impl<T> Table<T> {
    /// A table that is learnt row for row.
    pub fn new(values: T) -> Self {
        Self { values, padding: None }
    }
}

/// The products of a feed-forward layer.
#[derive(Debug)]
pub struct Layers<'a, T> {
    /// The first: W1 and b1.
    pub first: &'a Pair<T>,
    /// The gate, where there is one: W3 and b3.
    pub gate: Option<&'a Pair<T>>,
    /// The second: W2 and b2.
    pub second: &'a Pair<T>,
}

impl<'a, T> Layers<'a, T> {
    /// Two products with an activation between them.
    pub fn new(first: &'a Pair<T>, second: &'a Pair<T>) -> Self {
        Self { first, gate: None, second }
    }
}

// Not derived: that would ask the tensors to be copied, too.
impl<T> Clone for Layers<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Layers<'_, T> {}
