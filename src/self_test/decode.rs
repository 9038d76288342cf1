//! Steps of decoding with a key cache, on the device against the reference.
//!
//! Sequences lie in the cache but for their last positions, which the step appends and attends. Where rows turn, the tables have quarter turns alone:
//! in any arithmetic they only exchange elements and change signs, so that what is given, turned back, comes out exactly.

use super::cached::{Image, Places};
use super::sequences::{Oracle, Text, Walked, Written};
use super::{Judged, Unjudged};
use crate::gpu::{AppendBuffers, AttendBuffers, DecodePlan, Fetched, KvCache};
use crate::reference::{Got, Tensors};
use crate::wgsl::DecodeVariant;
use crate::{CacheShape, DecodeShape, Element, ElementType, Gpu, Result, RotaryPairs, Strides};

/// Keys of the long sequence, at most, and those of the short one.
const MOST_KEYS: usize = 1100;
const SHORT: usize = 37;

/// Between how many times the long sequence takes pages, other sequences do.
const TURNS: usize = 4;

/// cos and sin of quarter turns.
const QUARTERS: [[f64; 2]; 4] = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]];

impl Gpu {
    pub(super) async fn judge_decode(&self, small: Result<DecodePlan>) -> Judged {
        let plan = &small.map_err(Unjudged::of_small)?;
        let shape = plan.shape();
        let stored = shape.cache.storage.element();
        typed!(shape.input, Q => typed!(stored, KV => typed!(shape.output, O => {
            for oracle in Oracle::ALL {
                if let Some(found) = Step::<Q, KV>::new(self, plan, oracle)?.fault::<O>().await? {
                    return Ok(Some(format!("FAIL, {found}")));
                }
            }
            Ok(None)
        })))
    }
}

/// A step, and what the sequences are once it is done.
struct Step<'a, Q, KV> {
    gpu: &'a Gpu,
    plan: &'a DecodePlan,
    shape: DecodeShape,
    /// Positions that each sequence has before, and new ones.
    before: Vec<usize>,
    counts: Vec<usize>,
    texts: Vec<Text<Q, KV>>,
}

/// What a step left.
struct Left<O> {
    written: Written<O>,
    /// Keys, and values of their own.
    images: Vec<Image>,
    lengths: Vec<u32>,
}

impl<'a, Q: Element, KV: Element> Step<'a, Q, KV> {
    fn new(gpu: &'a Gpu, plan: &'a DecodePlan, oracle: Oracle) -> Result<Self> {
        let shape = *plan.shape();
        let most = (shape.cache.capacity - shape.new).min(MOST_KEYS);
        let before: Vec<_> = [most, SHORT][..shape.cache.batch].to_vec();
        let counts: Vec<_> = (0..shape.cache.batch).map(|b| count(&shape, b)).collect();
        let text = |b: usize| {
            let attention = shape.of_sequence(before[b] + counts[b], counts[b]);
            let mut text = Text::new(attention, &shape.pattern(), oracle, 1 + b as u64)?;
            fit(&mut text, &shape.cache);
            Ok(text)
        };
        let texts = (0..shape.cache.batch).map(text).collect::<Result<_>>()?;
        Ok(Self { gpu, plan, shape, before, counts, texts })
    }

    /// What is wrong after the step, if anything is.
    async fn fault<O: Element>(mut self) -> Result<Option<String>> {
        let mut cache = self.gpu.kernels().kv_cache(&self.shape.cache)?;
        let places = self.taken_places(&mut cache).await?;
        let images = self.fill(&cache, &places);
        let left = self.run::<O>(&mut cache).await?;
        if let Some(found) = self.cache_fault(&places, images, &left) {
            return Ok(Some(found));
        }
        // From here on sequences are what the cache holds.
        for b in 0..self.texts.len() {
            self.read(&places, &left.images, b);
        }
        self.output_fault(&left)
    }

    /// Pages for all positions before the step, in turns, so that those of one sequence do not lie one behind the other.
    async fn taken_places(&self, cache: &mut KvCache) -> Result<Places> {
        for turn in 0..TURNS {
            for b in (0..self.before.len()).rev() {
                let [from, to] = [turn, turn + 1].map(|turn| self.before[b] * turn / TURNS);
                let counts: Vec<_> =
                    (0..self.before.len()).map(|n| if n == b { to - from } else { 0 }).collect();
                self.gpu.submit(|encoder| cache.extend(self.gpu.queue(), encoder, &counts))?;
            }
        }
        // Those of the step, too: the tables are read once.
        cache.reserve(self.gpu.queue(), &self.counts)?;
        let tables = match cache.device_pages() {
            None => vec![],
            Some(pages) => self.gpu.fetch(&[pages], |_| ()).await?.take(0, self.shape.cache.len_tables())?,
        };
        Ok(Places { shape: self.shape.cache, tables })
    }

    /// Writes the positions before the step; what else the cache has is NaN.
    fn fill(&self, cache: &KvCache, places: &Places) -> Vec<Image> {
        let shape = &self.shape.cache;
        let mut images = vec![Image::strange(shape.storage, shape.head_dim, shape.keys_bytes())];
        if shape.value_start.is_none() {
            images.push(Image::strange(shape.storage, shape.value_dim, shape.values_bytes()));
        }
        for (b, text) in self.texts.iter().enumerate() {
            for (image, rows) in images.iter_mut().zip([&text.tensors.k, &text.tensors.v]) {
                let length = self.before[b] + self.counts[b];
                for (head, p) in
                    (0..shape.kv_heads).flat_map(|head| (0..self.before[b]).map(move |p| (head, p)))
                {
                    image.put(places.row(b, head, p), &rows[(head * length + p) * image.dim..][..image.dim]);
                }
            }
        }
        let lengths: Vec<u32> = self.before.iter().map(|&length| length as u32).collect();
        let queue = self.gpu.queue();
        queue.write_buffer(cache.device_lengths(), 0, bytemuck::cast_slice(&lengths));
        for (buffer, image) in [Some(cache.keys()), cache.values()].into_iter().flatten().zip(&images) {
            queue.write_buffer(buffer, 0, &image.bytes);
        }
        images
    }

    async fn run<O: Element>(&self, cache: &mut KvCache) -> Result<Left<O>> {
        let (gpu, shape) = (self.gpu, &self.shape);
        let [q, k, v] = self.new_rows()?;
        let words =
            if shape.packed { self.offsets() } else { self.counts.iter().map(|&n| n as u32).collect() };
        let words = gpu.upload("counts", &words, words.len())?;
        let [cos, sin] = quarter_turns(shape);
        let cos = gpu.upload("cos", &cos, cos.len())?;
        let sin = gpu.upload("sin", &sin, sin.len())?;
        let out = gpu.output("out", shape.len_out(), O::TYPE)?;
        let lse = gpu.output("lse", shape.len_lse(), ElementType::F32)?;
        let whole = wgpu::Buffer::as_entire_buffer_binding;
        let turned = |table| shape.rotary.map(|_| whole(table));
        let [counts, offsets] = [shape.counts, shape.packed].map(|wanted| wanted.then(|| whole(&words)));
        let append = AppendBuffers::new(whole(&k), shape.cache.value_start.is_none().then(|| whole(&v)))
            .cos(turned(&cos))
            .sin(turned(&sin))
            .counts(counts.clone())
            .offsets(offsets.clone());
        let attend = AttendBuffers::new(whole(&q), whole(&out)).cos(turned(&cos)).sin(turned(&sin));
        let attend = attend.counts(counts).offsets(offsets).lse(shape.lse.then(|| whole(&lse)));
        let call = self.plan.bind(cache, append, attend)?;
        gpu.submit(|encoder| cache.extend(gpu.queue(), encoder, &self.counts))?;
        let kept = [Some(cache.keys()), cache.values()].into_iter().flatten();
        let buffers: Vec<_> = [&out, &lse, cache.device_lengths()].into_iter().chain(kept).collect();
        let fetched = gpu.fetch(&buffers, |encoder| call.encode(encoder)).await?;
        self.left(&fetched)
    }

    fn left<O: Element>(&self, fetched: &Fetched) -> Result<Left<O>> {
        let (shape, cache) = (&self.shape, &self.shape.cache);
        let image = |n, dim, bytes| Ok(Image { storage: cache.storage, dim, bytes: fetched.take(n, bytes)? });
        let mut images = vec![image(3, cache.head_dim, cache.keys_bytes())?];
        if cache.value_start.is_none() {
            images.push(image(4, cache.value_dim, cache.values_bytes())?);
        }
        let written = Written {
            out: fetched.take(0, shape.len_out())?,
            lse: shape.lse.then(|| fetched.take(1, shape.len_lse())).transpose()?,
            strides: shape.attention().out_strides(),
            heads: shape.heads,
            rows: shape.new,
            dim: cache.value_dim,
        };
        Ok(Left { written, lengths: fetched.take(2, cache.batch)?, images })
    }

    /// q, k and v as they are given. Rows that are nobody's are NaN.
    fn new_rows(&self) -> Result<[wgpu::Buffer; 3]> {
        let (shape, cache, all) = (&self.shape, &self.shape.cache, self.shape.new_rows());
        let mut rows =
            [shape.len_q(), shape.len_k(), shape.len_v()].map(|len| vec![Q::from_f64(f64::NAN); len.max(4)]);
        let [q, k, v] = &mut rows;
        for (b, Text { tensors, .. }) in self.texts.iter().enumerate() {
            let (count, length) = (self.counts[b], self.before[b] + self.counts[b]);
            let own = Own {
                values: &tensors.q,
                heads: shape.heads,
                length: count,
                dim: cache.head_dim,
                turn: true,
            };
            self.put(b, q, all.q_strides(), &own);
            let own =
                Own { values: &tensors.k, heads: cache.kv_heads, length, dim: cache.head_dim, turn: true };
            self.put(b, k, all.k_strides(), &own);
            if cache.value_start.is_none() {
                let own = Own { values: &tensors.v, turn: false, dim: cache.value_dim, ..own };
                self.put(b, v, all.v_strides(), &own);
            }
        }
        let [q, k, v] = rows.map(|rows| self.gpu.upload("new rows", &rows, rows.len()));
        Ok([q?, k?, v?])
    }

    /// Where each sequence's rows begin, and where the last ones end.
    fn offsets(&self) -> Vec<u32> {
        (0..=self.counts.len()).map(|b| self.counts[..b].iter().sum::<usize>() as u32).collect()
    }

    /// Batch item and row of a sequence's new position t.
    fn place(&self, b: usize, t: usize) -> [usize; 2] {
        if self.shape.packed { [0, self.counts[..b].iter().sum::<usize>() + t] } else { [b, t] }
    }

    /// What is wrong with the cache: a new row, another row that was written, a length.
    fn cache_fault<O>(&self, places: &Places, mut before: Vec<Image>, left: &Left<O>) -> Option<String> {
        for (b, text) in self.texts.iter().enumerate() {
            let length = self.before[b] + self.counts[b];
            if left.lengths[b] as usize != length {
                return Some(format!("length of sequence {b}: got {}, expected {length}", left.lengths[b]));
            }
            let tensors = [("keys", &text.tensors.k), ("values", &text.tensors.v)];
            for ((name, rows), (after, before)) in
                tensors.into_iter().zip(left.images.iter().zip(&mut before))
            {
                let new = |head| (self.before[b]..length).map(move |p| (head, p));
                for (head, p) in (0..self.shape.cache.kv_heads).flat_map(new) {
                    let row = places.row(b, head, p);
                    if let Some(found) =
                        after.fault(row, &rows[(head * length + p) * after.dim..][..after.dim])
                    {
                        return Some(format!(
                            "appended {name}, sequence {b}, head {head}, position {p}, {found}"
                        ));
                    }
                    let at = after.of(row);
                    before.bytes[at.clone()].copy_from_slice(&after.bytes[at]);
                }
            }
        }
        let changed = left.images.iter().zip(&before).any(|(after, before)| after != before);
        changed.then(|| "a row of the cache that is not new was written".into())
    }

    /// Makes keys and values of a sequence those of the cache.
    fn read(&mut self, places: &Places, images: &[Image], b: usize) {
        let (cache, length) = (self.shape.cache, self.before[b] + self.counts[b]);
        let rows = |image: &Image| -> Vec<KV> {
            let all = (0..cache.kv_heads).flat_map(|head| (0..length).map(move |p| (head, p)));
            all.flat_map(|(head, p)| image.get::<KV>(places.row(b, head, p))).collect()
        };
        let tensors = &mut self.texts[b].tensors;
        tensors.k = rows(&images[0]);
        tensors.v = match cache.value_start {
            None => rows(&images[1]),
            Some(start) => {
                let part = |key: &[KV]| key[start..start + cache.value_dim].to_vec();
                tensors.k.chunks(cache.head_dim).flat_map(part).collect()
            }
        };
    }

    /// What is wrong with out or lse, if anything is.
    fn output_fault<O: Element>(&self, left: &Left<O>) -> Result<Option<String>> {
        let (shape, cache) = (&self.shape, &self.shape.cache);
        let piece =
            cache.paging.map_or(DecodeVariant::STRETCH, |paging| paging.page.min(DecodeVariant::STRETCH));
        let walked = Walked { splits: self.plan.splits(), piece };
        let mut nobodys: Vec<[usize; 2]> =
            (0..shape.row_batch()).flat_map(|item| (0..shape.new).map(move |row| [item, row])).collect();
        for (b, text) in self.texts.iter().enumerate() {
            let own: Vec<_> = (0..self.counts[b]).map(|t| self.place(b, t)).collect();
            nobodys.retain(|place| !own.contains(place));
            let (out, lse) = left.written.taken(&own);
            let got = Got { out: &out, lse: lse.as_deref() };
            if let Some(found) = text.fault(&shape.pattern(), walked, got)? {
                return Ok(Some(format!("sequence {b}, {found}")));
            }
        }
        Ok(left.written.empty_fault(&nobodys))
    }

    /// Puts a sequence's new rows where they are given: the last of `[heads, length, dim]`.
    fn put<E: Element>(&self, b: usize, to: &mut [Q], strides: Strides, rows: &Own<'_, E>) {
        for (head, t) in (0..rows.heads).flat_map(|head| (0..self.counts[b]).map(move |t| (head, t))) {
            let p = self.before[b] + t;
            let from = (head * rows.length + rows.length - self.counts[b] + t) * rows.dim;
            let mut x: Vec<f64> = rows.values[from..][..rows.dim].iter().map(|&x| x.into()).collect();
            if let Some((dim, pairs)) = self.shape.rotary.filter(|_| rows.turn) {
                turn_back(&mut x[..dim], pairs, p);
            }
            let [item, row] = self.place(b, t);
            let at = strides.at(item, head, row);
            to[at..at + rows.dim].iter_mut().zip(x).for_each(|(to, x)| *to = Q::from_f64(x));
        }
    }
}

/// Rows of one sequence, `[heads, length, dim]`.
struct Own<'a, E> {
    values: &'a [E],
    heads: usize,
    length: usize,
    dim: usize,
    /// Whether they turn.
    turn: bool,
}

/// New positions of a sequence. Rows of packed steps, and counts, leave some that are nobody's.
fn count(shape: &DecodeShape, b: usize) -> usize {
    match (shape.packed, shape.counts, b) {
        (true, _, 0) => shape.new.div_ceil(2),
        (true, ..) => (shape.new - 1) / 2,
        (_, true, 1) => shape.new - 1,
        _ => shape.new,
    }
}

/// Rounds keys and values to what a step can append; and makes values a part of keys where they are.
fn fit<Q: Element, KV: Element>(text: &mut Text<Q, KV>, cache: &CacheShape) {
    let oracle = text.oracle();
    let Tensors { k, v, .. } = &mut text.tensors;
    for x in k.iter_mut().chain(v.iter_mut()) {
        *x = KV::from_f64(Q::from_f64((*x).into()).into());
    }
    let Some(start) = cache.value_start else { return };
    for (key, value) in k.chunks_mut(cache.head_dim).zip(v.chunks_mut(cache.value_dim)) {
        let part = &mut key[start..start + cache.value_dim];
        // Counts are of values, whatever keys are.
        match oracle {
            Oracle::Count => part.copy_from_slice(value),
            _ => value.copy_from_slice(part),
        }
    }
}

/// Pair n at position p makes so many quarter turns.
fn quarters(n: usize, p: usize) -> [f64; 2] {
    QUARTERS[(p + n) % QUARTERS.len()]
}

/// cos and sin, `[capacity, r/2]`; an element where nothing turns.
fn quarter_turns(shape: &DecodeShape) -> [Vec<f32>; 2] {
    let half = shape.rotary.map_or(1, |(dim, _)| dim / 2);
    [0, 1]
        .map(|of| (0..shape.len_table().max(1)).map(|at| quarters(at % half, at / half)[of] as f32).collect())
}

/// What turns into this at position p.
fn turn_back(x: &mut [f64], pairs: RotaryPairs, p: usize) {
    let half = x.len() / 2;
    for n in 0..half {
        let [a, b] = match pairs {
            RotaryPairs::Interleaved => [2 * n, 2 * n + 1],
            RotaryPairs::HalfSplit => [n, n + half],
        };
        let [cos, sin] = quarters(n, p);
        (x[a], x[b]) = (x[a] * cos + x[b] * sin, x[b] * cos - x[a] * sin);
    }
}
