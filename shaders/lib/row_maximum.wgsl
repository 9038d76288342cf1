// The lane's share of the maximum of a row of `TENSOR`.
fn max_of_TENSOR(at: u32, lane: u32, width: u32) -> f32 {
    var m = vec4(LOWEST);
    for (var c = 4u * lane; c < width; c += 4u * LANES) {
        let count = width - c;
        m = max(m, select(vec4(LOWEST), load_TENSOR(at + c, count), inside(count)));
    }
    return max(max(m.x, m.y), max(m.z, m.w));
}
