// What a term of the score is asked, forward and backward.

// 4 pairs whose score is asked for: a query with 4 keys. `distance` counts from the aligned ends: (i + Lk - Lq) - j.
struct Pairs { batch: u32, head: u32, i: u32, j: vec4<u32>, distance: vec4<i32> }

// Which of the pairs of `score` a term has removed from S.
var<private> removed: vec4<bool>;
// Of which pairs a term has read a number that is not finite: later terms may hide it, as a cap does.
var<private> spoilt: vec4<bool>;

fn pairs_of(batch: u32, head: u32, i: u32, j: vec4<u32>) -> Pairs {
    let position = i32(i + params.kernel.kv_len - params.kernel.q_len);
    return Pairs(batch, head, i, j, vec4(position) - vec4<i32>(j));
}

// By the bits: compilers may take for granted that numbers are finite.
fn not_finite(x: vec4<f32>) -> vec4<bool> {
    return exponents(x) == vec4(0x7f800000u);
}

// Whether that holds of any of 16 numbers: the largest exponent tells, for less than 16 comparisons.
fn some_not_finite(x: mat4x4<f32>) -> bool {
    let by_column = max(max(exponents(x[0]), exponents(x[1])), max(exponents(x[2]), exponents(x[3])));
    let by_two = max(by_column.xy, by_column.zw);
    return max(by_two.x, by_two.y) == 0x7f800000u;
}

fn exponents(x: vec4<f32>) -> vec4<u32> { return bitcast<vec4<u32>>(x) & vec4(0x7f800000u); }
