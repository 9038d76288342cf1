// `TENSOR`: nibbles, the first in the lowest bits. Elements 4 group .. 4 group + 3 of the row that begins at a word.
fn four_of_TENSOR(row_at: u32, group: u32) -> vec4<i32> {
    // Each at the top of a word of its own, and down again with its sign, or without.
    let top = vec4(TENSOR[row_at + group / 2u] >> (16u * (group % 2u))) << vec4(28u, 24u, 20u, 16u);
    return select(vec4<i32>(top >> vec4(28u)), bitcast<vec4<i32>>(top) >> vec4(28u), SIGNED_TENSOR);
}
