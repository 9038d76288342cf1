// Lanes that hold 4 rows by 4 columns of a product, and the same rows by groups of 4 columns of a sum: what the staged tiles share.

// Sums of 4 rows (a, b, c, d) by two groups of 4 columns.
struct Columns { a0: vec4<f32>, a1: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>,
                 c0: vec4<f32>, c1: vec4<f32>, d0: vec4<f32>, d1: vec4<f32> }

// Of groups lane.c and, but where NARROW, lane.c + LANES_C. More: where WIDE, those at twice and three times LANES_C; where TALL, the same groups of the lane's
// lower 4 rows.
struct Sums { near: Columns, more: Columns }

fn dots(q: vec4<f32>, k0: vec4<f32>, k1: vec4<f32>, k2: vec4<f32>, k3: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    return vec4(dot_add(q, k0, s.x), dot_add(q, k1, s.y), dot_add(q, k2, s.z), dot_add(q, k3, s.w));
}

fn dot_add(a: vec4<f32>, b: vec4<f32>, sum: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}

fn accumulated(o: Columns, p: vec4<f32>, v0: vec4<f32>, v1: vec4<f32>) -> Columns {
    return Columns(fma(vec4(p.x), v0, o.a0), fma(vec4(p.x), v1, o.a1), fma(vec4(p.y), v0, o.b0), fma(vec4(p.y), v1, o.b1),
                   fma(vec4(p.z), v0, o.c0), fma(vec4(p.z), v1, o.c1), fma(vec4(p.w), v0, o.d0), fma(vec4(p.w), v1, o.d1));
}

// --- strips of workgroup memory: tile/staged.wgsl says why ---

// CHUNK columns of the product more: their weights are the strip p_at, their groups lane.c of v the strip v_at.
fn weighed_strip(x: Sums, p_at: u32, v_at: u32) -> Sums {
    var sum = with_column(x, p_at, v_at, 0u);
    if (CHUNK > 1u) { sum = with_column(sum, p_at, v_at, 1u); }
    if (CHUNK > 2u) { sum = with_column(with_column(sum, p_at, v_at, 2u), p_at, v_at, 3u); }
    if (CHUNK > 4u) {
        sum = with_column(with_column(sum, p_at, v_at, 4u), p_at, v_at, 5u);
        sum = with_column(with_column(sum, p_at, v_at, 6u), p_at, v_at, 7u);
    }
    return sum;
}

fn with_column(x: Sums, p_at: u32, v_at: u32, n: u32) -> Sums {
    let p = arena[p_at][n];
    let v0 = arena[v_at][n];
    var sum = x;
    if (NARROW) {
        sum.near.a0 = fma(vec4(p.x), v0, x.near.a0);
        sum.near.b0 = fma(vec4(p.y), v0, x.near.b0);
        sum.near.c0 = fma(vec4(p.z), v0, x.near.c0);
        sum.near.d0 = fma(vec4(p.w), v0, x.near.d0);
        return sum;
    }
    let v1 = arena[v_at + LANES_C][n];
    sum.near = accumulated(x.near, p, v0, v1);
    if (WIDE) { sum.more = accumulated(x.more, p, arena[v_at + 2u * LANES_C][n], arena[v_at + 3u * LANES_C][n]); }
    if (TALL) { sum.more = accumulated(x.more, arena[p_at + LANES_R / 2u][n], v0, v1); }
    return sum;
}

// The strip of the lane's rows that the weights of a column of the product are in, as number column % CHUNK.
fn strip_of_weights(lane: Lane, column: u32) -> u32 { return P_AT + column / CHUNK * LANES_R + lane.r; }

fn store_weight(lane: Lane, column: u32, w: vec4<f32>) { arena[strip_of_weights(lane, column)][column % CHUNK] = w; }
