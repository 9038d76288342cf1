// cos and sin of a rotary embedding (Su 2021) at positions first .. first + len, times a factor, one lane per position and pair:
//
//     cosines[t, k] = factor cos((first + t) f_k)        sines[t, k] = factor sin((first + t) f_k)
//
// f_k comes in turns, as a fraction of 64 bits: its product with a position wraps around where the angle does, so that whole turns
// are taken off without any rounding. WGSL's own cos and sin are promised to 2^-11 only; the polynomials are Taylor's, up to an eighth of a turn.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work, 64 lanes each
    end_work: u32,
    first: u32,
    len: u32,
    half: u32,              // r/2
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_frequencies) var<storage, read> frequencies: array<vec2<u32>>;   // [r/2], low word, high word
@group(0) @binding(BINDING_cosines) var<storage, read_write> cosines: array<f32>;           // [len, r/2]
@group(0) @binding(BINDING_sines) var<storage, read_write> sines: array<f32>;               // [len, r/2]

const TURN = 0x1.921fb6p-30f;       // 2 pi / 2^32

@compute @workgroup_size(64)
fn rotary_tables(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    let item = work * 64u + lane;
    let t = item / params.half;
    if (work >= params.end_work || t >= params.len) { return; }
    let f = frequencies[item % params.half];
    let position = params.first + t;
    // The angle, in turns of 2^32.
    let angle = position * f.y + high_product(position, f.x);
    // The nearest quarter, and how far the angle lies from it.
    let quarter = (angle + 0x20000000u) >> 30u;
    let x = f32(bitcast<i32>(angle - (quarter << 30u))) * TURN;
    let s = small_sine(x);
    let c = small_cosine(x);
    let is_odd = (quarter & 1u) == 1u;
    let cosine = select(c, s, is_odd);
    let sine = select(s, c, is_odd);
    cosines[item] = params.factor * select(cosine, -cosine, quarter == 1u || quarter == 2u);
    sines[item] = params.factor * select(sine, -sine, quarter >= 2u);
}

// The upper word of a product of 64 bits.
fn high_product(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let middle = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let other = (a & 0xffffu) * (b >> 16u) + (middle & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (middle >> 16u) + (other >> 16u);
}

// |x| <= pi / 4.
fn small_sine(x: f32) -> f32 {
    let y = x * x;
    let p = fma(y, fma(y, fma(y, 1.0 / 362880.0, -1.0 / 5040.0), 1.0 / 120.0), -1.0 / 6.0);
    return fma(x * y, p, x);
}

fn small_cosine(x: f32) -> f32 {
    let y = x * x;
    let p = fma(y, fma(y, fma(y, -1.0 / 3628800.0, 1.0 / 40320.0), -1.0 / 720.0), 1.0 / 24.0);
    return fma(y, fma(y, p, -0.5), 1.0);
}
