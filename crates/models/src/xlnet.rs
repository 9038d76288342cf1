//! XLNet (Yang 2019) as Hugging Face's `XLNetModel`: two segments, the first of which the second remembers; in the second, where the
//! file has a `target_mapping`, a query stream beside the content stream.

use super::memory::{AnyPattern, Behind, Heads, Piece, last, project, rows, sinusoids};
use super::{Error, File, Machine, Pair, Sizes, Table, activation};
use wgpu_attention::{Attention, BiasStrides, Full, Mask, MatmulShape, Segments, WeightOrder};

/// How the products' weights lie.
const ORDER: WeightOrder = WeightOrder::InOut;

/// The weights, and what the configuration says.
struct Model<T> {
    width: usize,
    heads: Heads,
    eps: f32,
    /// -1: none.
    clamp: i64,
    causal: bool,
    words: Vec<f32>,
    mask_row: Vec<f32>,
    layers: Vec<Layer<T>>,
}

struct Layer<T> {
    /// q, k, v and r, each `[width, H d]`.
    products: [Pair<T>; 4],
    /// u, then w.
    biases: T,
    /// s, and e.
    segments: [Vec<f32>; 2],
    behind: Behind<T>,
}

/// Runs the XLNet of a file over both segments, and keeps their states: `seg1_hidden_0`, `seg2_hidden_0` and so on, those of the query stream
/// as `seg2_query_hidden_0` and so on, `mems1_0` and so on, the memory between the segments, and the last.
///
/// # Errors
/// What is missing or different in the file, by name, and what the machine refuses.
pub fn xlnet<M: Machine>(machine: &mut M, file: &File<'_>) -> Result<(), Error> {
    file.check_family("xlnet")?;
    for key in ["same_length", "bi_data", "reuse_len"] {
        file.refuse(key)?;
    }
    let vocabulary = file.size("vocab_size")?;
    let (first, [batch, first_len]) = file.tokens("input_ids_1", vocabulary)?;
    let (second, [second_batch, len]) = file.tokens("input_ids_2", vocabulary)?;
    file.expect_sizes("input_ids_2", [second_batch, len], [batch, len])?;
    let model = Model::read(machine, file)?;

    let types = |name: &str, len: usize| -> Result<Option<Vec<u32>>, Error> {
        if !file.has(name) {
            return Ok(None);
        }
        let (ids, sizes) = file.tokens(name, 1 << 24)?;
        file.expect_sizes(name, sizes, [batch, len])?;
        Ok(Some(ids))
    };
    let segment = Segment {
        name: "seg1",
        ids: &first,
        types: types("token_type_ids_1", first_len)?,
        batch,
        len: first_len,
    };
    let nothing = model.layers.iter().map(|_| vec![]).collect();
    let kept = model.run(machine, file, &segment, nothing, None)?;
    let limit = match file.size_or("mem_len", 0)? {
        0 if file.has("mems1_0") => first_len,
        limit => limit,
    };
    let memory: Vec<_> = kept.into_iter().map(|x| last(vec![Piece::all(x, first_len)], limit)).collect();
    if limit > 0 {
        for (n, pieces) in memory.iter().enumerate() {
            machine.keep_rows(format!("mems1_{n}"), [batch, model.width], pieces);
        }
    }
    let segment = Segment { name: "seg2", ids: &second, types: types("token_type_ids_2", len)?, batch, len };
    let targets =
        match file.has("target_mapping") {
            true => Some(file.integers("target_mapping", |sizes| {
                sizes.len() == 3 && sizes[0] == batch && sizes[2] == len
            })?),
            false => None,
        };
    model.run(machine, file, &segment, memory, targets)?;
    Ok(())
}

/// What one segment is given.
struct Segment<'a> {
    /// Of its states.
    name: &'a str,
    ids: &'a [u32],
    types: Option<Vec<u32>>,
    batch: usize,
    len: usize,
}

/// The query stream: which positions are predicted.
struct Targets<T> {
    /// `[B, m, L]`, and turned.
    gather: Pair<T>,
    scatter: Pair<T>,
    sizes: Sizes,
    x: T,
}

/// What the queries of a layer attend: projected keys and values, rows by distance, and the tensor of the segments.
struct Seen<T> {
    k: T,
    v: T,
    r: T,
    segments: Option<T>,
}

/// A call, its mask, and the tensors of its score, but for those that each layer has.
struct Stream<M: Machine> {
    call: Attention,
    mask: M::Mask,
    bias: Option<M::Tensor>,
}

impl<T: Clone> Model<T> {
    fn read<M: Machine<Tensor = T>>(machine: &mut M, file: &File<'_>) -> Result<Self, Error> {
        let width = file.size("d_model")?;
        let heads = file.size("n_head")?;
        let dim = file.size_or("d_head", (width / heads).max(1))?;
        let words = file.tensor("word_embedding.weight", &[file.size("vocab_size")?, width])?;
        let mask_row = match file.has("mask_emb") {
            true => file.tensor("mask_emb", &[1, 1, width])?,
            false => vec![],
        };
        let heads = Heads { heads, dim };
        let layers = (0..file.size("n_layer")?).map(|n| Layer::read(machine, file, n, width, heads));
        Ok(Self {
            width,
            heads,
            eps: file.eps()?,
            clamp: file.whole_or("clamp_len", -1)?,
            causal: file.word_or("attn_type", "bi")? == "uni",
            words,
            mask_row,
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    fn sizes(&self, batch: usize, len: usize) -> Sizes {
        Sizes { batch, len, width: self.width, heads: self.heads.heads, eps: self.eps }
    }

    /// A segment behind a memory per layer; the inputs of its layers.
    fn run<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        file: &File<'_>,
        segment: &Segment<'_>,
        memory: Vec<Vec<Piece<T>>>,
        targets: Option<(Vec<i32>, Vec<usize>)>,
    ) -> Result<Vec<T>, Error> {
        let &Segment { name, batch, len, .. } = segment;
        let (width, sizes) = (self.width, self.sizes(batch, len));
        let keys = memory.first().map_or(0, |pieces| rows(pieces)) + len;
        let mut x = machine.tensor(sizes.rows() * width);
        let words = Table::new(machine.upload(&self.words));
        machine.embed(&sizes.embed(self.words.len() / width), segment.ids, &words, &x)?;
        machine.keep(format!("{name}_hidden_0"), &x);
        let mut queries = match targets {
            Some((mapping, shape)) => Some(self.targets(machine, batch, len, mapping, shape[1])?),
            None => None,
        };
        if let Some(queries) = &queries {
            machine.keep(format!("{name}_query_hidden_0"), &queries.x);
        }

        let (positions, count) = self.positions(machine, len, keys);
        let mut call = self.heads.attention([batch, len, keys], keys, count);
        if segment.types.is_some() {
            call.score = call.score.with(Segments);
        }
        let permuted = match file.has("perm_mask") && (queries.is_some() || name == "seg2") {
            true => Some(file.integers("perm_mask", |sizes| sizes == [batch, len, len])?.0),
            false => None,
        };
        let content = self.stream(machine, &call, permuted.as_deref(), true)?;
        let query = match &queries {
            Some(_) => Some(self.stream(machine, &call, permuted.as_deref(), false)?),
            None => None,
        };

        let mut inputs = vec![];
        for (n, (layer, memory)) in self.layers.iter().zip(memory).enumerate() {
            let mut pieces = memory;
            pieces.push(Piece::all(x.clone(), len));
            let size = [batch, width, self.heads.width()];
            let seen = layer.seen(machine, size, &pieces, &positions, segment, keys)?;
            if let (Some(targets), Some(stream)) = (&mut queries, &query) {
                targets.x = layer.query(machine, size, &seen, stream, targets, self.heads)?;
                machine.keep(format!("{name}_query_hidden_{}", n + 1), &targets.x);
            }
            let q = project(machine, size, &[Piece::all(x.clone(), len)], ORDER, &layer.products[0])?;
            let context = layer.attend(machine, &content, &seen, q)?;
            let next = layer.behind.finish(machine, &sizes, self.heads, &x, &context)?;
            inputs.push(std::mem::replace(&mut x, next));
            machine.keep(format!("{name}_hidden_{}", n + 1), &x);
        }
        let end = if name == "seg1" { "seg1_last" } else { "last" };
        machine.keep(end.into(), queries.as_ref().map_or(&x, |queries| &queries.x));
        Ok(inputs)
    }

    /// Sinusoids of the distances from Lk down, and how many there are; XLNet's first row meets no pair.
    fn positions<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        len: usize,
        keys: usize,
    ) -> (Vec<Piece<T>>, usize) {
        let count = if self.causal { keys + 1 } else { keys + len };
        let clamped =
            |distance: i64| if self.clamp > 0 { distance.clamp(-self.clamp, self.clamp) } else { distance };
        let positions = sinusoids((0..count as i64).map(|t| clamped(keys as i64 - t)), self.width);
        (vec![Piece::all(machine.upload(&positions), count)], count)
    }

    /// Rows of `mask_emb`, and the mapping of queries to positions.
    fn targets<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        batch: usize,
        len: usize,
        mapping: Vec<i32>,
        targets: usize,
    ) -> Result<Targets<T>, Error> {
        if self.mask_row.is_empty() {
            return Err("tensor `mask_emb`: need one, as there is a target_mapping, found none".into());
        }
        let mapping: Vec<f32> = mapping.into_iter().map(|x| x as f32).collect();
        let turned = |n: usize| {
            let (item, i, t) = (n / (len * targets), n / targets % len, n % targets);
            mapping[(item * targets + t) * len + i]
        };
        let turned: Vec<f32> = (0..mapping.len()).map(turned).collect();
        Ok(Targets {
            gather: Pair::new(machine.upload(&mapping)),
            scatter: Pair::new(machine.upload(&turned)),
            sizes: self.sizes(batch, targets),
            x: machine.upload(&self.mask_row.repeat(batch * targets)),
        })
    }

    /// The call of one stream. The content stream sees its own position, whatever the permutation hides.
    fn stream<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        call: &Attention,
        permuted: Option<&[i32]>,
        content: bool,
    ) -> Result<Stream<M>, Error> {
        let shape = call.shape;
        let (batch, len, keys) = (shape.batch, shape.q_len, shape.kv_len);
        if permuted.is_none() && !self.causal {
            return Ok(Stream { call: call.clone(), mask: machine.mask(call, Full)?, bias: None });
        }
        let memory = keys - len;
        let sees = |n: usize| {
            let (item, i, j) = (n / (len * keys), n / keys % len, n % keys);
            let Some(j) = j.checked_sub(memory) else { return true };
            let hidden = permuted.is_some_and(|hides| hides[(item * len + i) * len + j] != 0);
            content && i == j || !(hidden || self.causal && j > i)
        };
        let seen: Vec<bool> = (0..batch * len * keys).map(sees).collect();
        if seen.chunks(keys).all(|row| row.contains(&true)) {
            let pattern: AnyPattern = Box::new(Mask::new([batch, 1, len, keys], seen)?);
            return Ok(Stream { call: call.clone(), mask: machine.mask(call, pattern)?, bias: None });
        }
        // Hugging Face takes 1e30 from what is hidden: a row that sees nothing is the mean of all.
        let mut call = call.clone();
        call.score = call.score.bias(BiasStrides::broadcast([batch, 1, len, keys]));
        let bias: Vec<f32> = seen.iter().map(|&seen| if seen { 0.0 } else { -1e30 }).collect();
        let bias = Some(machine.upload(&bias));
        Ok(Stream { mask: machine.mask(&call, Full)?, call, bias })
    }
}

impl<T: Clone> Targets<T> {
    /// A matrix per item, `[to, from]`, times rows `[from, H d]`.
    fn mapped<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        from: &T,
        by: &Pair<T>,
        [to_len, from_len]: [usize; 2],
        heads: Heads,
    ) -> Result<T, Error> {
        let out = machine.tensor(self.sizes.batch * to_len * heads.width());
        let shape = MatmulShape::new(to_len, from_len, heads.width()).batch(self.sizes.batch);
        let rows = Pair::new(from.clone());
        machine.linear(&shape, &by.weight, &rows, None, &out)?;
        Ok(out)
    }
}

impl<T: Clone> Layer<T> {
    fn read<M: Machine<Tensor = T>>(
        machine: &mut M,
        file: &File<'_>,
        n: usize,
        width: usize,
        heads: Heads,
    ) -> Result<Self, Error> {
        let Heads { heads: h, dim: d } = heads;
        let name = |part: &str| format!("layer.{n}.{part}");
        let matrix = |machine: &mut M, part: &str| -> Result<Pair<T>, Error> {
            let weight = file.tensor(&name(&format!("rel_attn.{part}")), &[width, h, d])?;
            Ok(Pair::new(machine.upload(&weight)))
        };
        let products = ["q", "k", "v", "r"].map(|part| matrix(machine, part));
        let [q, k, v, r] = products;
        let o = matrix(machine, "o")?;
        let rows = |part: &str, sizes: &[usize]| file.tensor(&name(&format!("rel_attn.{part}")), sizes);
        let biases = [rows("r_w_bias", &[h, d])?, rows("r_r_bias", &[h, d])?].concat();
        let has_segments = file.has(&name("rel_attn.seg_embed"));
        let of_segments =
            |part: &str, sizes: &[usize]| if has_segments { rows(part, sizes) } else { Ok(vec![]) };
        let hidden = file.size("d_inner")?;
        Ok(Self {
            products: [q?, k?, v?, r?],
            biases: machine.upload(&biases),
            segments: [of_segments("r_s_bias", &[h, d])?, of_segments("seg_embed", &[2, h, d])?],
            behind: Behind {
                o,
                order: WeightOrder::OutIn,
                norm: machine.pair(file, &name("rel_attn.layer_norm"), &[width], width)?,
                first: machine.pair(file, &name("ff.layer_1"), &[hidden, width], hidden)?,
                second: machine.pair(file, &name("ff.layer_2"), &[width, hidden], width)?,
                last_norm: machine.pair(file, &name("ff.layer_norm"), &[width], width)?,
                hidden,
                activation: activation(file.word_or("ff_activation", "gelu")?)?,
                norm_first: false,
            },
        })
    }

    /// What both streams attend.
    fn seen<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        size: [usize; 3],
        pieces: &[Piece<T>],
        positions: &[Piece<T>],
        segment: &Segment<'_>,
        keys: usize,
    ) -> Result<Seen<T>, Error> {
        let [_, by_k, by_v, by_r] = &self.products;
        let sizes = [segment.batch, segment.len, keys];
        Ok(Seen {
            k: project(machine, size, pieces, ORDER, by_k)?,
            v: project(machine, size, pieces, ORDER, by_v)?,
            r: project(machine, [1, size[1], size[2]], positions, ORDER, by_r)?,
            segments: segment.types.as_ref().map(|ids| machine.upload(&self.segments(ids, sizes))),
        })
    }

    /// The context of a stream's queries.
    fn attend<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        stream: &Stream<M>,
        seen: &Seen<T>,
        q: T,
    ) -> Result<T, Error> {
        let Seen { k, v, r, segments } = seen;
        let mut terms = vec![("relative_rows", r), ("relative_biases", &self.biases)];
        terms.extend(segments.as_ref().map(|segments| ("segments", segments)));
        terms.extend(stream.bias.as_ref().map(|bias| ("bias", bias)));
        let context = machine.tensor(stream.call.len_out());
        machine.attention(&stream.call, &stream.mask, &[q, k.clone(), v.clone()], &terms, &context)?;
        Ok(context)
    }

    /// The query stream: at the targets' positions, and back.
    fn query<M: Machine<Tensor = T>>(
        &self,
        machine: &mut M,
        size: [usize; 3],
        seen: &Seen<T>,
        stream: &Stream<M>,
        targets: &Targets<T>,
        heads: Heads,
    ) -> Result<T, Error> {
        let (len, count) = (stream.call.shape.q_len, targets.sizes.len);
        let own = [Piece::all(targets.x.clone(), count)];
        let q = project(machine, size, &own, ORDER, &self.products[0])?;
        let scattered = targets.mapped(machine, &q, &targets.scatter, [len, count], heads)?;
        let context = self.attend(machine, stream, seen, scattered)?;
        let gathered = targets.mapped(machine, &context, &targets.gather, [count, len], heads)?;
        self.behind.finish(machine, &targets.sizes, heads, &targets.x, &gathered)
    }

    /// The tensor of the score's segments: those of the memory are 0.
    fn segments(&self, ids: &[u32], [batch, len, keys]: [usize; 3]) -> Vec<f32> {
        let [s, e] = &self.segments;
        let of_keys =
            |n: usize| (n % keys).checked_sub(keys - len).map_or(0, |own| ids[n / keys * len + own]);
        let of_keys: Vec<u32> = (0..batch * keys).map(of_keys).collect();
        Segments::tensor(s, e, ids, &of_keys)
    }
}
