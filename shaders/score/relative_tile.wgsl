// Relative rows in a tile of the attention kernel, whose rows are queries.

// The query of a row of the tile with u, as k meets it.
fn content(at: Head, row: u32, group: u32) -> vec4<f32> {
    return with_u(query(at, row, group), head_of(at, at.first_row + row), group);
}

// The query of a row of the tile with w, times the factor, as r meets it.
fn related_query(at: Head, row: u32, group: u32) -> vec4<f32> {
    return with_w(query(at, row, group), head_of(at, at.first_row + row), group) * params.kernel.q_scale;
}
