// Element c of a row that turns by the rotary embedding (rotary.wgsl has the formula), of `dim` elements, the first `rotary_dim` of which turn;
// past its end, anything.
fn turned(x_at: u32, table_at: u32, c: u32, dim: u32, rotary_dim: u32) -> f32 {
    let own = load_x(x_at + min(c, dim - 1u), 1u).x;
    if (c >= rotary_dim) { return own; }
    let half = rotary_dim / 2u;
    let is_first = select(c < half, c % 2u == 0u, INTERLEAVED);
    let pair = select(c % half, c / 2u, INTERLEAVED);
    let distance = select(half, 1u, INTERLEAVED);
    let partner = load_x(x_at + select(c - distance, c + distance, is_first), 1u).x;
    return fma(own, cosines[table_at + pair], select(partner, -partner, is_first != INVERSE) * sines[table_at + pair]);
}
