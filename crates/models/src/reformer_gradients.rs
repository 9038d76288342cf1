//! A Reformer's gradients by all its weights, on a device: reversible layers, none of whose activations are kept.

use super::device::{Forward, whole};
use super::reformer::{Config, FEED_FORWARD, Kind, Names, WORDS, position_table};
use super::{DeviceTensor, Error, File, Machine, Values};
use std::rc::Rc;
use wgpu_attention::{
    AddShape, AttentionBranch, AxialPlan, BranchPlan, Combine, EmbedShape, FeedForwardBranch, Gpu,
    LayerBranch, NormBuffers, NormGradBuffers, Reversible, WeightOrder,
};

/// The gradients of sum(last dout) by all weights of a Reformer, `dout` being the file's. Their names are `d.` and the weight's name. The states
/// `hidden_i` and `last`, which the reversible layers leave, are beside them. One submission.
///
/// # Errors
/// What is missing or different in the file, by name, and what the device refuses.
pub fn reformer_gradients(gpu: &Gpu, file: &File<'_>) -> Result<Values, Error> {
    let (config, ids) = Config::read(file)?;
    let mut pass = Pass::new(gpu, file, &config)?;
    let tables = pass.embed(&config, &ids, &config.tables(file)?)?;
    pass.layers(&config);
    pass.last(file, &config)?;
    pass.backward()?;
    pass.by_tables(&config, &tables)?;
    let mut states = pass.record.run()?;
    // A weight whose gradient is not expected is not judged.
    states.retain(|(name, _)| file.has(name));
    Ok(states)
}

/// The branch of a layer, with its parameters from the file.
fn branch(
    record: &Forward,
    file: &File<'_>,
    layer: usize,
    plan: &BranchPlan,
    names: Names,
    projections: Option<Vec<f32>>,
) -> Result<LayerBranch, Error> {
    let read = |(part, parameter): &(&str, &'static str)| {
        Ok((*parameter, file.weight(&format!("encoder.layers.{layer}.{part}"))?))
    };
    let mut values = names.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
    values.extend(projections.map(|projections| ("projections", projections)));
    let slices: Vec<(&str, &[f32])> = values.iter().map(|(name, values)| (*name, &values[..])).collect();
    let parameters = plan.layout().pack(&slices)?;
    Ok(plan.branch(&record.store(&parameters), &record.store(&vec![0f32; parameters.len()]))?)
}

/// A layer's branches, each with the names of its parameters.
type Layer = [(LayerBranch, Names); 2];

/// What is recorded, over one stack.
struct Pass {
    record: Forward,
    stack: Rc<Reversible>,
    layers: Vec<Layer>,
}

/// What the embedding looked up, and how.
struct Tables {
    ids: DeviceTensor,
    /// The position of each row.
    places: DeviceTensor,
    axial: AxialPlan,
    words_of: EmbedShape,
    places_of: EmbedShape,
}

impl Pass {
    fn new(gpu: &Gpu, file: &File<'_>, config: &Config) -> Result<Self, Error> {
        let kernels = gpu.kernels();
        let mut stack = kernels.reversible(config.sizes.rows(), config.sizes.width)?;
        let (f, norm) = (stack.f(), config.sizes.norm());
        let attention = |kind| AttentionBranch::new(norm, config.attention(kind)).weights(WeightOrder::OutIn);
        // One plan for all layers of a kind.
        let plan = |kind| -> Result<BranchPlan, Error> {
            Ok(match kind {
                Kind::Lsh(_) => attention(kind).lsh(kernels, &f, config.lsh(file)?)?,
                Kind::Local => attention(kind).plan(kernels, &f, &*config.local(file)?)?,
            })
        };
        let is_lsh = |kind: &Kind| matches!(kind, Kind::Lsh(_));
        let first = |lsh| config.kinds.iter().copied().find(|kind| is_lsh(kind) == lsh);
        let lsh = first(true).map(plan).transpose()?;
        let local = first(false).map(plan).transpose()?;
        let feed_forward = FeedForwardBranch::new(norm, config.feed_forward()).plan(kernels, &stack.g())?;

        let record = Forward::new(gpu);
        let mut layers = vec![];
        for (n, &kind) in config.kinds.iter().enumerate() {
            let (plan, projections) = match kind {
                Kind::Lsh(hashed) => (&lsh, Some(config.projections(file, hashed)?)),
                Kind::Local => (&local, None),
            };
            let names = kind.names();
            let plan = plan.as_ref().ok_or("attn_layers: no plan of this kind")?;
            let f = branch(&record, file, n, plan, names, projections)?;
            let g = branch(&record, file, n, &feed_forward, FEED_FORWARD, None)?;
            stack.push(f.clone(), g.clone())?;
            layers.push([(f, names), (g, FEED_FORWARD)]);
        }
        Ok(Self { record, stack: Rc::new(stack), layers })
    }

    /// Both streams are the embedding.
    fn embed(&mut self, config: &Config, ids: &[u32], tables: &[Vec<f32>; 3]) -> Result<Tables, Error> {
        let (record, sizes) = (&mut self.record, config.sizes);
        let kernels = record.gpu().kernels().clone();
        let [words, first, second] = tables.each_ref().map(|table| record.store(table));
        let places: Vec<u32> = (0..sizes.batch).flat_map(|_| 0..sizes.len as u32).collect();
        let (ids, places) = (record.store(ids), record.store(&places));
        let (words_of, places_of) = (sizes.embed(config.vocabulary), sizes.embed(sizes.len));
        let x = self.stack.buffers();
        record.push(kernels.embed(&words_of)?.bind(whole(&ids), whole(&words), whole(&x.x1))?)?;
        let axial = kernels.axial_positions(&config.axial)?;
        let positions = record.tensor(sizes.len * sizes.width);
        record.push(axial.bind([whole(&first), whole(&second)], whole(&positions))?)?;
        let added = kernels.embed(&places_of.combine(Combine::AddInto))?;
        record.push(added.bind(whole(&places), whole(&positions), whole(&x.x1))?)?;
        let elements = sizes.rows() * sizes.width;
        record.copy(&x.x1, &x.x2, elements);
        record.keep_range("hidden_0".into(), &x.x2, 0..elements);
        Ok(Tables { ids, places, axial, words_of, places_of })
    }

    /// Forward, with the states between the layers.
    fn layers(&mut self, config: &Config) {
        let elements = config.sizes.rows() * config.sizes.width;
        for n in 0..self.stack.len() {
            let stack = self.stack.clone();
            self.record.record(move |encoder| stack.forward_layer(encoder, n));
            self.record.keep_range(format!("hidden_{}", n + 1), &self.stack.buffers().x2, 0..elements);
        }
    }

    /// The last norm, and its gradients: those by both streams are where the stack's backward pass begins.
    fn last(&mut self, file: &File<'_>, config: &Config) -> Result<(), Error> {
        let (record, width) = (&mut self.record, 2 * config.sizes.width);
        let elements = config.sizes.rows() * width;
        let [both, last, dboth] = [(); 3].map(|()| record.tensor(elements));
        let [dweight, dbias] = [(); 2].map(|()| record.tensor(width));
        let pair = record.pair(file, "encoder.layer_norm", &[width], width)?;
        let (dout, sizes) = file.values("dout")?;
        if dout.len() != elements {
            return Err(format!("tensor `dout`: need {elements} elements, found {sizes:?}").into());
        }
        let dout = record.store(&dout);
        record.push(self.stack.join_streams(whole(&both))?)?;
        let plan = record.gpu().kernels().norm(&config.last_norm())?;
        let forward = NormBuffers::new(whole(&both), whole(&pair.weight), whole(&last));
        record.push(plan.bind(forward.bias(pair.bias.as_deref().map(whole)))?)?;
        record.keep("last".into(), &last);
        let gradients = NormGradBuffers::new(whole(&both), whole(&pair.weight), whole(&dout), whole(&dboth));
        let gradients = gradients.dweight(whole(&dweight)).dbias(whole(&dbias));
        record.push(plan.backward()?.bind(gradients)?)?;
        record.keep("d.encoder.layer_norm.weight".into(), &dweight);
        record.keep("d.encoder.layer_norm.bias".into(), &dbias);
        record.push(self.stack.split_gradients(whole(&dboth))?)
    }

    /// Backward, through all layers.
    fn backward(&mut self) -> Result<(), Error> {
        let stack = self.stack.clone();
        self.record.record(move |encoder| stack.backward(encoder));
        for (n, layer) in self.layers.iter().enumerate() {
            for (branch, names) in layer {
                for (part, parameter) in *names {
                    let range = branch.plan().layout().range(parameter)?;
                    let name = format!("d.encoder.layers.{n}.{part}");
                    self.record.keep_range(name, branch.gradients(), range);
                }
            }
        }
        Ok(())
    }

    /// The embedding went into both streams.
    fn by_tables(&mut self, config: &Config, tables: &Tables) -> Result<(), Error> {
        let (record, x, sizes) = (&mut self.record, self.stack.buffers(), config.sizes);
        let kernels = record.gpu().kernels().clone();
        let sum = kernels.add(&AddShape::new(sizes.rows(), sizes.width).in_place(true))?;
        record.push(sum.bind_in_place(whole(&x.dx1), whole(&x.dx2))?)?;
        let dwords = record.tensor(config.vocabulary * sizes.width);
        let of_words = kernels.embed(&tables.words_of)?.backward()?;
        record.push(of_words.bind(whole(&tables.ids), whole(&x.dx1), whole(&dwords))?)?;
        record.keep(format!("d.{WORDS}"), &dwords);
        let dpositions = record.tensor(sizes.len * sizes.width);
        let of_places = kernels.embed(&tables.places_of)?.backward()?;
        record.push(of_places.bind(whole(&tables.places), whole(&x.dx1), whole(&dpositions))?)?;
        let lens = config.axial.lookups().map(|lookup| lookup.len_table());
        let by_axis = lens.map(|len| record.tensor(len));
        let of_axial = tables.axial.backward()?;
        record.push(of_axial.bind(whole(&dpositions), by_axis.each_ref().map(|table| whole(table)))?)?;
        for (axis, gradient) in by_axis.iter().enumerate() {
            record.keep(format!("d.{}", position_table(axis)), gradient);
        }
        Ok(())
    }
}
