// `TENSOR`: bytes. Elements 4 group .. 4 group + 3 of the row that begins at a word.
fn four_of_TENSOR(row_at: u32, group: u32) -> vec4<i32> {
    let word = TENSOR[row_at + group];
    return select(vec4<i32>(unpack4xU8(word)), unpack4xI8(word), SIGNED_TENSOR);
}
