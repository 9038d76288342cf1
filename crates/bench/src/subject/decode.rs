//! Tokens of decoding: the queries of the last positions against a cache that is full. Nothing is appended, so that each call does the same.

use super::{Bytes, Subject, sample, tensors, verification};
use crate::call::{buffer, checked, poisoned, read};
use crate::cases::decode_sizes;
use crate::record::Cost;
use crate::typed;
use anyhow::{Result, ensure};
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::reference::{self, Got, VerifyOptions, int8_row, int8_scale};
use wgpu_attention::wgsl::DecodeVariant;
use wgpu_attention::{
    AttendBuffers, Attention, CacheStorage, DecodeShape, Element, ElementType, Gpu, Inputs, KvCache, Position,
};

pub(super) async fn prepare(gpu: &Gpu, shape: DecodeShape) -> Result<Subject<'_>> {
    let (cache, f32) = (shape.cache, ElementType::F32);
    let plain = shape.window.is_none() && shape.rotary.is_none() && !shape.counts && !shape.packed;
    ensure!(
        plain && cache.paging.is_none(),
        "only a cache in one piece is timed, all of whose keys are attended"
    );
    ensure!(shape.input == f32 && shape.output == f32, "only queries and outputs of f32 are timed");
    ensure!(cache.head_dim % 4 == 0 && cache.value_dim % 4 == 0, "only rows of whole groups of 4 are timed");
    let mut kv = checked(gpu.device(), "cache", || gpu.kernels().kv_cache(&cache)).await??;
    let plan = checked(gpu.device(), "plan", || gpu.kernels().decode(&shape)).await??;
    let attention = Attention::from(decode_sizes(&shape));
    let drawn = tensors::<f32>(&attention)?;
    let (keys, k) = stored(&drawn.k, cache.head_dim, cache.storage);
    let (values, v) = stored(&drawn.v, cache.value_dim, cache.storage);
    fill(gpu, &mut kv, [&keys, &values])?;
    let q = buffer(gpu, "q", bytemuck::cast_slice(&drawn.q), BufferUsages::STORAGE).await?;
    let out = poisoned(gpu, "out", shape.len_out(), f32).await?;
    let whole = Buffer::as_entire_buffer_binding;
    let attend = AttendBuffers::new(whole(&q), whole(&out));
    let call = checked(gpu.device(), "bind", || plan.attend(&kv, attend)).await??;
    let bytes = Bytes {
        tensors: (keys.len() + values.len() + 4 * (shape.len_q() + shape.len_out())) as u64,
        mask: 0,
        scratch: plan.scratch_bytes(),
    };
    // Query t of a sequence does not see the new keys behind its own.
    let of_row: usize = (0..shape.new).map(|t| cache.capacity - t).sum();
    let cost =
        Cost::new(attention.flops((cache.batch * shape.heads * of_row) as u64), bytes, call.dispatches());
    let verify = async move {
        let got: Vec<f32> = read(gpu, "out", &out, shape.len_out()).await?;
        let rows = attention.shape.len_lse();
        let sampled = sample(rows, cache.capacity * (cache.head_dim + cache.value_dim));
        let (length, splits) = (cache.capacity, plan.splits());
        let order = |_: Position| walk(length, splits);
        let tiles = |_: Position| length.div_ceil(128) + length.div_ceil(DecodeVariant::CHUNK);
        let options = VerifyOptions::default().rows(sampled).order(&order).tiles(&tiles);
        let inputs = Inputs::new(&drawn.q, &k, &v);
        let report = reference::verify(attention, &inputs, &shape.pattern(), Got::new(&got), options)?;
        Ok(verification(&report, rows))
    };
    Ok(Subject::on_one_path(gpu, cost, vec![call], verify))
}

/// Keys by the split that meets them: chunks are dealt out in turn.
fn walk(length: usize, splits: usize) -> Vec<Vec<u32>> {
    let split_of = |key: u32| key as usize / DecodeVariant::CHUNK % splits;
    let keys = |split| (0..length as u32).filter(|&key| split_of(key) == split).collect::<Vec<_>>();
    (0..splits).map(keys).filter(|keys| !keys.is_empty()).collect()
}

/// Rows as a cache has them; and their elements as a kernel reads them, in f32 without another rounding.
fn stored(x: &[f32], dim: usize, storage: CacheStorage) -> (Vec<u8>, Vec<f32>) {
    let CacheStorage::Elements(element) = storage else { return quantised(x, dim) };
    typed!(element, E => {
        let values: Vec<E> = x.iter().map(|&x| E::from_f64(x.into())).collect();
        let widened = values.iter().map(|&x| Into::<f64>::into(x) as f32).collect();
        (bytemuck::cast_slice(&values).to_vec(), widened)
    })
}

/// The same in int8: a row's scale, then 4 elements per word.
fn quantised(x: &[f32], dim: usize) -> (Vec<u8>, Vec<f32>) {
    let (mut all, mut widened) = (vec![], vec![]);
    for row in x.chunks(dim) {
        let scale = int8_scale(row);
        let bytes: Vec<u8> = row.iter().map(|x| (x / scale).round_ties_even() as i8 as u8).collect();
        let mut words = vec![scale.to_bits()];
        words.extend(bytemuck::pod_collect_to_vec::<u8, u32>(&bytes));
        widened.extend(int8_row(&words, dim).1);
        all.extend_from_slice(bytemuck::cast_slice(&words));
    }
    (all, widened)
}

/// Makes the cache full, on the device and as the host knows it.
fn fill(gpu: &Gpu, cache: &mut KvCache, [keys, values]: [&[u8]; 2]) -> Result<()> {
    let (batch, capacity) = (cache.shape().batch, cache.shape().capacity);
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    cache.extend(gpu.queue(), &mut encoder, &vec![capacity; batch])?;
    gpu.queue().submit([encoder.finish()]);
    gpu.queue().write_buffer(cache.keys(), 0, keys);
    if let Some(buffer) = cache.values() {
        gpu.queue().write_buffer(buffer, 0, values);
    }
    gpu.queue().write_buffer(cache.device_lengths(), 0, bytemuck::cast_slice(&vec![capacity as u32; batch]));
    Ok(())
}
