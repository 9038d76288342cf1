// The end of a row of gradients: its sums as they are, over all its key heads, relative to the largest weight, whose logarithm is left behind
// them. The denominator's eps counts where one of the query's features says how much (linear/vectors.wgsl). `end` is what earlier heads' sums are
// multiplied by, what these are, the logarithm, what is added.
fn row_end(at: At, q_at: u32, out_at: u32, sum: f32, top: f32) -> vec4<f32> {
    let of_eps = params.kernel.denominator_eps * q_phi[q_at + params.kernel.last / 4u][params.kernel.last % 4u];
    if (params.kernel.nth_kv_head == 0u) { return vec4(0.0, 1.0, top, of_eps); }
    let before = load_out(out_at + 4u * VALUE_GROUPS, 4u).z;
    let most = max(before, top);
    return vec4(weight(before, most), weight(top, most), most, 0.0);
}

fn ended(at: u32, sum: vec4<f32>, end: vec4<f32>) -> vec4<f32> {
    let own = fma(sum, vec4(end.y), vec4(end.w));
    return select(fma(load_out(at, 4u), vec4(end.x), own), own, vec4(end.x == 0.0)); // nothing is there before the first
}

fn leave_row(at: u32, end: vec4<f32>) { store_out(at + 4u * VALUE_GROUPS, 4u, end); }
