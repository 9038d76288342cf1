//! Sequences whose queries attend their own keys: what their tensors hold, and what may come out.

use crate::pattern::Pattern;
use crate::reference::oracle::{self, Gather};
use crate::reference::{self, Got, Kind, Report, Rows, Tensors, VerifyOptions, WeightFormat};
use crate::wgsl::DecodeVariant;
use crate::{Attention, Element, Position, Result, Strides};

/// By what a result is judged: see [`oracle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Oracle {
    Bound,
    Count,
    Gather,
}

impl Oracle {
    pub(super) const ALL: [Self; 3] = [Self::Count, Self::Gather, Self::Bound];
}

/// How a kernel walks the keys of a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walked {
    pub(super) splits: usize,
    /// Keys that lie one behind the other, at most.
    pub(super) piece: usize,
}

/// A sequence.
pub(super) struct Text<Q, KV> {
    oracle: Oracle,
    attention: Attention,
    pub(super) tensors: Tensors<Q, KV>,
    /// The keys that rows address.
    targets: Vec<u32>,
}

impl<Q: Element, KV: Element> Text<Q, KV> {
    pub(super) fn new(
        attention: Attention,
        pattern: &dyn Pattern,
        oracle: Oracle,
        seed: u64,
    ) -> Result<Self> {
        let random = || reference::random(&attention, Kind::Normal, seed);
        let (oracle, tensors, targets) = match oracle {
            Oracle::Bound => (oracle, random()?, vec![]),
            Oracle::Count => (oracle, oracle::count_inputs(&attention, seed)?, vec![]),
            Oracle::Gather => match oracle::gather_inputs(&attention, pattern, seed) {
                Ok(gather) => (oracle, gather.tensors, gather.targets),
                // Rows too short for the code of a key, or a scale that leaves it no room: the bound, on other numbers.
                Err(_) => (Oracle::Bound, random()?, vec![]),
            },
        };
        Ok(Self { oracle, attention, tensors, targets })
    }

    pub(super) fn oracle(&self) -> Oracle {
        self.oracle
    }

    /// What is wrong with out `[H, queries, dv]` and lse, if anything is.
    pub(super) fn fault<O: Element>(
        &self,
        pattern: &dyn Pattern,
        walked: Walked,
        got: Got<'_, O>,
    ) -> Result<Option<String>> {
        let report = self.report(pattern, walked, got)?;
        let name = match self.oracle {
            Oracle::Bound => "values",
            Oracle::Count => "counts of keys",
            Oracle::Gather => "planted keys",
        };
        Ok((!report.pass).then(|| format!("{name}: {report}")))
    }

    fn report<O: Element>(&self, pattern: &dyn Pattern, walked: Walked, got: Got<'_, O>) -> Result<Report> {
        let (attention, inputs, rows) = (&self.attention, self.tensors.inputs(), Rows::All);
        match self.oracle {
            Oracle::Count => oracle::check_count(attention, &inputs, pattern, got, rows),
            Oracle::Gather => {
                let gather = Gather { tensors: self.tensors.clone(), targets: self.targets.clone() };
                oracle::check_gather(attention, &gather, pattern, got, rows, WeightFormat::F32)
            }
            Oracle::Bound => {
                let length = attention.shape.kv_len;
                let order = |_: Position| walked.order(length);
                let tiles =
                    |_: Position| length.div_ceil(walked.piece) + length.div_ceil(DecodeVariant::CHUNK);
                let options = VerifyOptions::default().rows(rows).order(&order).tiles(&tiles);
                reference::verify(attention, &inputs, pattern, got, options)
            }
        }
    }
}

impl Walked {
    /// Keys by the split that meets them: chunks are dealt out in turn.
    fn order(self, length: usize) -> Vec<Vec<u32>> {
        let split_of = |key: u32| key as usize / DecodeVariant::CHUNK % self.splits;
        let keys = |split| (0..length as u32).filter(|&key| split_of(key) == split).collect::<Vec<_>>();
        (0..self.splits).map(keys).filter(|keys| !keys.is_empty()).collect()
    }
}

/// The rows that a call wrote, of all sequences.
pub(super) struct Written<O> {
    pub(super) out: Vec<O>,
    /// `[B, H, rows]`, if it was asked for.
    pub(super) lse: Option<Vec<f32>>,
    pub(super) strides: Strides,
    pub(super) heads: usize,
    /// Per batch item.
    pub(super) rows: usize,
    pub(super) dim: usize,
}

impl<O: Element> Written<O> {
    /// out `[H, n, dv]` and lse `[H, n]` of n places: batch items and rows.
    pub(super) fn taken(&self, places: &[[usize; 2]]) -> (Vec<O>, Option<Vec<f32>>) {
        let all =
            || (0..self.heads).flat_map(|head| places.iter().map(move |&[item, row]| (item, head, row)));
        let out = |(item, head, row)| &self.out[self.strides.at(item, head, row)..][..self.dim];
        let lse = |lse: &Vec<f32>| {
            all().map(|(item, head, row)| lse[(item * self.heads + head) * self.rows + row]).collect()
        };
        (all().flat_map(out).copied().collect(), self.lse.as_ref().map(lse))
    }

    /// What is wrong with places that are nobody's, if anything is: they are empty.
    pub(super) fn empty_fault(&self, places: &[[usize; 2]]) -> Option<String> {
        places.iter().find_map(|&[item, row]| {
            let (out, lse) = self.taken(&[[item, row]]);
            let empty = out.iter().all(|&x| Into::<f64>::into(x) == 0.0)
                && lse.iter().flatten().all(|&lse| lse == f32::MIN);
            (!empty).then(|| format!("row {row} of batch item {item} is no sequence's, and not empty"))
        })
    }
}
