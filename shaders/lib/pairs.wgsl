// What a term of the score is asked, forward and backward.

// 4 pairs whose score is asked for: a query with 4 keys. `distance` counts from the aligned ends: (i + Lk - Lq) - j.
struct Pairs { batch: u32, head: u32, i: u32, j: vec4<u32>, distance: vec4<i32> }

// Which of the pairs of `score` a term has removed from S.
var<private> removed: vec4<bool>;

fn pairs_of(batch: u32, head: u32, i: u32, j: vec4<u32>) -> Pairs {
    let position = i32(i + params.kernel.kv_len - params.kernel.q_len);
    return Pairs(batch, head, i, j, vec4(position) - vec4<i32>(j));
}

// By the bits: compilers may take for granted that numbers are finite.
fn not_finite(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4(0x7f800000u)) == vec4(0x7f800000u);
}
