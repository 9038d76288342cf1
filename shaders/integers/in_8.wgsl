// `TENSOR`: bytes. Elements 4 group .. 4 group + 3 of the row that begins at a word.
fn four_of_TENSOR(row_at: u32, group: u32) -> vec4<i32> {
    let word = TENSOR[row_at + group];
    return select(vec4<i32>(unpack4xU8(word)), unpack4xI8(word), SIGNED_TENSOR);
}

struct EightOf_TENSOR { low: vec4<i32>, high: vec4<i32> }

// Elements 8 group .. 8 group + 7.
fn eight_of_TENSOR(row_at: u32, group: u32) -> EightOf_TENSOR {
    return EightOf_TENSOR(four_of_TENSOR(row_at, 2u * group), four_of_TENSOR(row_at, 2u * group + 1u));
}
