// Keys with logarithms of weights, and decay by distance. Sums are kept relative to the largest weight in them, their top; DROPPED is that of no key.

@group(0) @binding(BINDING_weights) var<storage, read> weights: array<f32>;            // [B, Hkv, Lk]; DROPPED: no query sees the key
@group(0) @binding(BINDING_decays) var<storage, read> decays: array<f32>;              // ln of the decay per step [Hkv], at most 0
@group(0) @binding(BINDING_tops) var<storage, read_write> tops: array<vec2<f32>>;      // (of the chunk, of all before it) [B, Hkv, chunks]

const DROPPED = -0x1.fffffep+127f;

// The logarithm of a key's weight so many steps later.
fn log_weight_of(key: u32, kv_head: u32, steps: u32) -> f32 { return older(weights[key], kv_head, steps); }

fn older(log: f32, kv_head: u32, steps: u32) -> f32 {
    return select(fma(decays[kv_head], f32(steps), log), DROPPED, log == DROPPED);
}

// Relative to a top that is not below it: exactly 1 at the top, whatever exp(0) is.
fn weight(log: f32, top: f32) -> f32 {
    if (log == DROPPED) { return 0.0; }
    return select(exp(max(log - top, -100.0)), 1.0, log == top);
}

fn top_of_keys(keys_at: u32, kv_head: u32, first: u32, end: u32) -> f32 {
    var top = DROPPED;
    for (var j = first; j < end; j++) { top = max(top, log_weight_of(keys_at + placed(j, params.kernel.kv_len), kv_head, end - 1u - j)); }
    return top;
}

fn leave_top(of_chunk: u32, top: f32) { tops[of_chunk].x = top; }
fn leave_top_before(of_chunk: u32, top: f32) { tops[of_chunk].y = top; }
fn top_of_chunk(of_chunk: u32) -> f32 { return tops[of_chunk].x; }
fn top_before_chunk(of_chunk: u32) -> f32 { return tops[of_chunk].y; }
