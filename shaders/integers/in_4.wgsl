// `TENSOR`: nibbles, the first in the lowest bits. Elements 4 group .. 4 group + 3 of the row that begins at a word.
fn four_of_TENSOR(row_at: u32, group: u32) -> vec4<i32> {
    return low_four_of_TENSOR(TENSOR[row_at + group / 2u] >> (16u * (group % 2u)));
}

struct EightOf_TENSOR { low: vec4<i32>, high: vec4<i32> }

// Elements 8 group .. 8 group + 7.
fn eight_of_TENSOR(row_at: u32, group: u32) -> EightOf_TENSOR {
    let word = TENSOR[row_at + group];
    return EightOf_TENSOR(low_four_of_TENSOR(word), low_four_of_TENSOR(word >> 16u));
}

// Each at the top of a word of its own, and down again with its sign, or without.
fn low_four_of_TENSOR(word: u32) -> vec4<i32> {
    let top = vec4(word) << vec4(28u, 24u, 20u, 16u);
    return select(vec4<i32>(top >> vec4(28u)), bitcast<vec4<i32>>(top) >> vec4(28u), SIGNED_TENSOR);
}
