// Relative rows on the direct tile in natural order: each product of a query with a row of r is made once.
//
// The lanes of a tile differ in their queries, and so in the rows that they meet: loads that differ by lane are dear on a CPU.
// But from one tile of keys to the next the rows that some lane meets move on by KEYS. So every lane multiplies its 4 queries
// with those new rows, the same for all lanes, and keeps the products in a ring, from which it takes those that its pairs need.

// The rows that a tile meets, in whole steps of KEYS; and a power of 2 that holds them.
const SPAN = (ROWS + 2u * KEYS - 1u) / KEYS * KEYS;
const RING = max(8u * LANES_R, 2u * KEYS);
const_assert RING >= SPAN;

// By row t of r, modulo RING: products with the lane's 4 queries.
var<private> ring: array<vec4<f32>, RING>;
// The first row that is not in the ring yet; all before it are that a tile behind the last one could meet.
var<private> ring_end: i32;
// As own_q, with w in place of u.
var<private> own_w: array<mat4x4<f32>, HEAD_GROUPS>;

fn begin_related(at: Head, lane: Lane) {
    ring_end = -0x40000000 - 0x40000000; // before every row
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        own_w[g] = transpose(mat4x4(related_query(at, lane.r, g), related_query(at, lane.r + LANES_R, g),
                                    related_query(at, lane.r + 2u * LANES_R, g), related_query(at, lane.r + 3u * LANES_R, g)));
    }
}

// The row of the tile's first key for the first query.
fn first_related(at: Head, tile: KeyTile) -> i32 {
    let position = at.first_row + params.kernel.kv_len - params.kernel.q_len;
    return params.relative.first_distance + i32(tile.first) - i32(position);
}

fn related(at: Head, lane: Lane, tile: KeyTile, s: Scores) -> Scores {
    if (lane.c == 0u) { meet_rows(at, tile); }
    // Rows past either end are products, too, of the row at that end.
    let t = u32(first_related(at, tile) + i32(lane.c) - i32(lane.r));
    let a = ring_places(t);
    let b = ring_places(t - LANES_R);
    let c = ring_places(t - 2u * LANES_R);
    let d = ring_places(t - 3u * LANES_R);
    return Scores(s.a + vec4(ring[a.x].x, ring[a.y].x, ring[a.z].x, ring[a.w].x),
                  s.b + vec4(ring[b.x].y, ring[b.y].y, ring[b.z].y, ring[b.w].y),
                  s.c + vec4(ring[c.x].z, ring[c.y].z, ring[c.z].z, ring[c.w].z),
                  s.d + vec4(ring[d.x].w, ring[d.y].w, ring[d.z].w, ring[d.w].w));
}

// Where the rows of 4 keys of a column lie, from row t on.
fn ring_places(t: u32) -> vec4<u32> { return (vec4(t) + vec4(0u, LANES_C, 2u * LANES_C, 3u * LANES_C)) % vec4(RING); }

// Brings the rows into the ring that the tile meets: KEYS of them where it follows the tile before.
fn meet_rows(at: Head, tile: KeyTile) {
    let end = first_related(at, tile) + i32(KEYS);
    let first = end - i32(SPAN);
    let follows = ring_end >= first && ring_end <= end && (end - ring_end) % i32(KEYS) == 0;
    for (var t = select(first, ring_end, follows); t < end; t += i32(KEYS)) {
        let rows = vec4(row_at(params.relative.rows, at.batch, at.head, 0u));
        let r0 = rows + new_rows(t);
        let r1 = rows + new_rows(t + 1);
        let r2 = rows + new_rows(t + 2);
        let r3 = rows + new_rows(t + 3);
        var x0: mat4x4<f32>;
        var x1: mat4x4<f32>;
        var x2: mat4x4<f32>;
        var x3: mat4x4<f32>;
        for (var g = 0u; g < HEAD_GROUPS; g++) {
            let q_g = own_w[g];
            x0 = add_related(x0, q_g, r0, g);
            x1 = add_related(x1, q_g, r1, g);
            x2 = add_related(x2, q_g, r2, g);
            x3 = add_related(x3, q_g, r3, g);
        }
        keep_related(u32(t), x0);
        keep_related(u32(t + 1), x1);
        keep_related(u32(t + 2), x2);
        keep_related(u32(t + 3), x3);
    }
    ring_end = end;
}

// Where every fourth row from t on begins; those past the ends are the rows there.
fn new_rows(t: i32) -> vec4<u32> {
    let rows = clamp(vec4(t) + vec4(0, 4, 8, 12), vec4(0), vec4(i32(params.relative.count) - 1));
    return vec4<u32>(rows) * params.relative.rows.row;
}

fn add_related(x: mat4x4<f32>, q_g: mat4x4<f32>, rows: vec4<u32>, g: u32) -> mat4x4<f32> {
    let from_g = rows + vec4(4u * g);
    let count = HEAD_DIM - 4u * g;
    return mat4x4(product(x[0], q_g, load_relative_rows(from_g.x, count)), product(x[1], q_g, load_relative_rows(from_g.y, count)),
                  product(x[2], q_g, load_relative_rows(from_g.z, count)), product(x[3], q_g, load_relative_rows(from_g.w, count)));
}

fn keep_related(t: u32, x: mat4x4<f32>) {
    let to = ring_places(t);
    ring[to.x] = x[0];
    ring[to.y] = x[1];
    ring[to.z] = x[2];
    ring[to.w] = x[3];
}
