// Each lane works alone, without workgroup memory and barriers: what a CPU wants, where both are dear.
//
// A CPU runs the lanes of a workgroup as the elements of its vectors. Lanes differ in their queries only: which key comes
// next is the same for all, so that k and v are single loads, spread to all lanes, instead of one load a lane. A lane does
// what the LANES_C = 4 lanes of a row do together in tile/staged.wgsl: 4 queries by 16 keys. Its q and o are arrays that
// loops index, by the same index in all lanes: memory, but a CPU's nearest.

const LANES_A_ROW = 1u;

// By groups of 4 elements of a row: the columns are the elements, the rows are the lane's 4 queries.
var<private> own_q: array<mat4x4<f32>, HEAD_GROUPS>;
var<private> own_o: array<mat4x4<f32>, VALUE_GROUPS>;

// The last rows and the first by turns: a software adapter gives each core one stretch of the work, and under a causal mask
// every stretch then has as much to do.
fn row_tile_at(place: u32) -> u32 { return select(params.row_tiles - 1u - place / 2u, place / 2u, place % 2u == 1u); }

fn begin(at: Head, lane: Lane) {
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        own_q[g] = transpose(mat4x4(scaled_query(at, lane.r, g), scaled_query(at, lane.r + LANES_R, g),
                                    scaled_query(at, lane.r + 2u * LANES_R, g), scaled_query(at, lane.r + 3u * LANES_R, g)));
    }
    for (var g = 0u; g < VALUE_GROUPS; g++) { own_o[g] = mat4x4<f32>(); }
}

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    // The tile's keys: number t of column c, as for the staged tile's lane c.
    let j0 = keys_of(at, tile, 0u);
    let j1 = keys_of(at, tile, 1u);
    let j2 = keys_of(at, tile, 2u);
    let j3 = keys_of(at, tile, 3u);

    var x0: mat4x4<f32>;
    var x1: mat4x4<f32>;
    var x2: mat4x4<f32>;
    var x3: mat4x4<f32>;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let q_g = own_q[g];
        x0 = with_products(x0, q_g, at, j0, g);
        x1 = with_products(x1, q_g, at, j1, g);
        x2 = with_products(x2, q_g, at, j2, g);
        x3 = with_products(x3, q_g, at, j3, g);
    }
    let s0 = scores(at, Lane(lane.index, lane.r, 0u), tile, by_query(x0));
    let s1 = scores(at, Lane(lane.index, lane.r, 1u), tile, by_query(x1));
    let s2 = scores(at, Lane(lane.index, lane.r, 2u), tile, by_query(x2));
    let s3 = scores(at, Lane(lane.index, lane.r, 3u), tile, by_query(x3));

    let rescale = raise_maximum(max(m, max(max(maxima(s0), maxima(s1)), max(maxima(s2), maxima(s3)))));
    let p0 = weights(tile, s0);
    let p1 = weights(tile, s1);
    let p2 = weights(tile, s2);
    let p3 = weights(tile, s3);
    l = fma(l, rescale, (sums(p0) + sums(p1)) + (sums(p2) + sums(p3)));

    let w0 = by_key(p0);
    let w1 = by_key(p1);
    let w2 = by_key(p2);
    let w3 = by_key(p3);
    for (var g = 0u; g < VALUE_GROUPS; g++) {
        var o = own_o[g];
        o = mat4x4(o[0] * rescale, o[1] * rescale, o[2] * rescale, o[3] * rescale);
        o = with_values(o, w0, at, tile, j0, g);
        o = with_values(o, w1, at, tile, j1, g);
        o = with_values(o, w2, at, tile, j2, g);
        o = with_values(o, w3, at, tile, j3, g);
        own_o[g] = o;
    }
}

fn finish(at: Head, lane: Lane) {
    let row = at.first_row + lane.r;
    let a = row_end(at, row, m.x, l.x);
    let b = row_end(at, row + LANES_R, m.y, l.y);
    let c = row_end(at, row + 2u * LANES_R, m.z, l.z);
    let d = row_end(at, row + 3u * LANES_R, m.w, l.w);
    for (var g = 0u; g < VALUE_GROUPS; g++) {
        let o = transpose(own_o[g]);
        write_group(a, g, o[0]);
        write_group(b, g, o[1]);
        write_group(c, g, o[2]);
        write_group(d, g, o[3]);
    }
    write_stats(a);
    write_stats(b);
    write_stats(c);
    write_stats(d);
}

fn keys_of(at: Head, tile: KeyTile, c: u32) -> vec4<u32> {
    let key = tile.first + c;
    return vec4(key_at(at, key), key_at(at, key + LANES_C), key_at(at, key + 2u * LANES_C), key_at(at, key + 3u * LANES_C));
}

// Products of 4 queries (rows) with 4 keys (columns), with those of one more group of elements.
fn with_products(x: mat4x4<f32>, q_g: mat4x4<f32>, at: Head, j: vec4<u32>, g: u32) -> mat4x4<f32> {
    let row = vec4(at.k_at) + j * params.k_row;
    return mat4x4(product(x[0], q_g, load_k(row.x, g)), product(x[1], q_g, load_k(row.y, g)),
                  product(x[2], q_g, load_k(row.z, g)), product(x[3], q_g, load_k(row.w, g)));
}

fn product(x: vec4<f32>, q: mat4x4<f32>, k: vec4<f32>) -> vec4<f32> {
    return fma(q[3], vec4(k.w), fma(q[2], vec4(k.z), fma(q[1], vec4(k.y), fma(q[0], vec4(k.x), x))));
}

// One group of columns of o, with the values of 4 keys, weighed by `w` (columns: keys, rows: queries).
fn with_values(o: mat4x4<f32>, w: mat4x4<f32>, at: Head, tile: KeyTile, j: vec4<u32>, g: u32) -> mat4x4<f32> {
    return weighed(weighed(weighed(weighed(o, w[0], value(at, tile, j.x, g)), w[1], value(at, tile, j.y, g)),
                           w[2], value(at, tile, j.z, g)), w[3], value(at, tile, j.w, g));
}

fn weighed(o: mat4x4<f32>, p: vec4<f32>, v: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(p, vec4(v.x), o[0]), fma(p, vec4(v.y), o[1]), fma(p, vec4(v.z), o[2]), fma(p, vec4(v.w), o[3]));
}

// Between the two layouts: a matrix has the keys as columns, Scores the queries.
fn by_query(x: mat4x4<f32>) -> Scores {
    let s = transpose(x);
    return Scores(s[0], s[1], s[2], s[3]);
}

fn by_key(p: Scores) -> mat4x4<f32> { return transpose(mat4x4(p.a, p.b, p.c, p.d)); }
