// The scale, and the zero point, of an element of a tensor of integers: one for all, for a row, or for GROUP elements of a row.
fn scale_at(row: u32, k: u32) -> u32 {
    switch SCALES {
        case BY_TENSOR: { return 0u; }
        case BY_ROWS: { return row; }
        default: { return row * (params.inner / GROUP) + k / GROUP; }
    }
}
