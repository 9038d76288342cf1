// Each lane works alone, without workgroup memory and barriers: what a CPU wants, where both are dear.
//
// A CPU runs the lanes of a workgroup as the elements of its vectors. Lanes differ in their queries only: which key comes
// next is the same for all, so that k and v are single loads, spread to all lanes, instead of one load per lane. A lane does
// what the LANES_C = 4 lanes of a row do together in tile/staged.wgsl: 4 queries by 16 keys. Its q and o are arrays that
// loops index, by the same index in all lanes: memory, but a CPU's nearest.

const LANES_PER_ROW = 1u;
const UNIT = 1.0;              // a weight of 1 in l
const WEIGHTS_TELL = true;     // who attends what

// By groups of 4 elements of a row: the columns are the elements, the rows are the lane's 4 queries.
var<private> own_q: array<mat4x4<f32>, HEAD_GROUPS>;
var<private> own_o: array<mat4x4<f32>, VALUE_GROUPS>;
// Bit 4 c + t: some value of key t of column c is not finite, in a tile of which some queries leave keys out.
var<private> strange_keys: u32;

// The last rows and the first by turns: a software adapter gives each core one stretch of the work, and under a causal mask
// every stretch then has as much to do.
fn row_tile_at(place: u32) -> u32 { return select(params.kernel.row_tiles - 1u - place / 2u, place / 2u, place % 2u == 1u); }

fn begin(at: Head, lane: Lane) {
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        own_q[g] = transpose(mat4x4(scaled_query(at, lane.r, g), scaled_query(at, lane.r + LANES_R, g),
                                    scaled_query(at, lane.r + 2u * LANES_R, g), scaled_query(at, lane.r + 3u * LANES_R, g)));
    }
    for (var g = 0u; g < VALUE_GROUPS; g++) { own_o[g] = mat4x4<f32>(); }
    strange_keys = 0u;
    begin_related(at, lane);
}

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    // Where the tile's keys begin: number t of column c, as for the staged tile's lane c.
    let k0 = keys_of(at, tile, 0u);
    let k1 = keys_of(at, tile, 1u);
    let k2 = keys_of(at, tile, 2u);
    let k3 = keys_of(at, tile, 3u);

    var x0: mat4x4<f32>;
    var x1: mat4x4<f32>;
    var x2: mat4x4<f32>;
    var x3: mat4x4<f32>;
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let q_g = own_q[g];
        x0 = add_products(x0, q_g, k0, g);
        x1 = add_products(x1, q_g, k1, g);
        x2 = add_products(x2, q_g, k2, g);
        x3 = add_products(x3, q_g, k3, g);
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

    let w0 = by_key(met(at, Lane(lane.index, lane.r, 0u), tile, p0));
    let w1 = by_key(met(at, Lane(lane.index, lane.r, 1u), tile, p1));
    let w2 = by_key(met(at, Lane(lane.index, lane.r, 2u), tile, p2));
    let w3 = by_key(met(at, Lane(lane.index, lane.r, 3u), tile, p3));
    let v0 = values_of(at, tile, 0u);
    let v1 = values_of(at, tile, 1u);
    let v2 = values_of(at, tile, 2u);
    let v3 = values_of(at, tile, 3u);
    for (var g = 0u; g < VALUE_GROUPS; g++) {
        // A sum of the tile by itself, then added: a chain of additions as long as the row would lose digits.
        var x = mat4x4<f32>();
        x = add_values(x, w0, tile, v0, g, 0u);
        x = add_values(x, w1, tile, v1, g, 1u);
        x = add_values(x, w2, tile, v2, g, 2u);
        x = add_values(x, w3, tile, v3, g, 3u);
        let o = own_o[g];
        own_o[g] = mat4x4(fma(o[0], rescale, x[0]), fma(o[1], rescale, x[1]), fma(o[2], rescale, x[2]), fma(o[3], rescale, x[3]));
    }
    // No loads here: lanes differ in their tiles, and Mesa's software adapter takes a buffer's address from a lane that is elsewhere.
    if (strange_keys != 0u) {
        note_values(by_key(p0), 0u);
        note_values(by_key(p1), 1u);
        note_values(by_key(p2), 2u);
        note_values(by_key(p3), 3u);
        strange_keys = 0u;
    }
}

fn write_rows(at: Head, lane: Lane) {
    // Values that are not finite are in o by now.
    for (var g = 0u; g < VALUE_GROUPS; g++) {
        let o = own_o[g];
        strange_rows = strange_rows | not_finite(o[0]) | not_finite(o[1]) | not_finite(o[2]) | not_finite(o[3]);
    }
    l = marked(l);
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
    return vec4(key_offset(at, key), key_offset(at, key + LANES_C),
                key_offset(at, key + 2u * LANES_C), key_offset(at, key + 3u * LANES_C));
}

fn values_of(at: Head, tile: KeyTile, c: u32) -> vec4<u32> {
    let key = tile.first + c;
    return vec4(value_offset(at, key), value_offset(at, key + LANES_C),
                value_offset(at, key + 2u * LANES_C), value_offset(at, key + 3u * LANES_C));
}

// Products of 4 queries (rows) with 4 keys (columns), with those of one more group of elements.
fn add_products(x: mat4x4<f32>, q_g: mat4x4<f32>, keys: vec4<u32>, g: u32) -> mat4x4<f32> {
    let at = keys + vec4(4u * g);
    let count = HEAD_DIM - 4u * g;
    return mat4x4(product(x[0], q_g, load_k(at.x, count)), product(x[1], q_g, load_k(at.y, count)),
                  product(x[2], q_g, load_k(at.z, count)), product(x[3], q_g, load_k(at.w, count)));
}

fn product(x: vec4<f32>, q: mat4x4<f32>, k: vec4<f32>) -> vec4<f32> {
    return fma(q[3], vec4(k.w), fma(q[2], vec4(k.z), fma(q[1], vec4(k.y), fma(q[0], vec4(k.x), x))));
}

// One group of columns, with the values of column c's 4 keys, weighed by `w` (columns: keys, rows: queries).
fn add_values(x: mat4x4<f32>, w: mat4x4<f32>, tile: KeyTile, values: vec4<u32>, g: u32, c: u32) -> mat4x4<f32> {
    let at = values + vec4(4u * g);
    let count = VALUE_DIM - 4u * g;
    var v = mat4x4(load_v(at.x, count), load_v(at.y, count), load_v(at.z, count), load_v(at.w, count));
    // Queries that leave a key out weigh it by 0, and 0 x NaN is not 0: there, what is not finite becomes 0, and is seen to
    // later. One branch for all four, since it costs as much as the sums.
    if ((is_masked(tile) || SCORES_MAY_DROP) && some_not_finite(v)) {
        v = mat4x4(finite(v[0], 4u * c), finite(v[1], 4u * c + 1u), finite(v[2], 4u * c + 2u), finite(v[3], 4u * c + 3u));
    }
    return add_value(add_value(add_value(add_value(x, w[0], v[0]), w[1], v[1]), w[2], v[2]), w[3], v[3]);
}

fn add_value(x: mat4x4<f32>, p: vec4<f32>, v: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(p, vec4(v.x), x[0]), fma(p, vec4(v.y), x[1]), fma(p, vec4(v.z), x[2]), fma(p, vec4(v.w), x[3]));
}

fn finite(v: vec4<f32>, key: u32) -> vec4<f32> {
    let strange = not_finite(v);
    strange_keys |= select(0u, 1u << key, any(strange));
    return select(v, vec4(0.0), strange);
}

// The queries that attend those of column c's 4 keys, weighed by `w`, of which some value is not finite.
fn note_values(w: mat4x4<f32>, c: u32) {
    let strange = ((vec4(strange_keys) >> (vec4(4u * c) + vec4(0u, 1u, 2u, 3u))) & vec4(1u)) == vec4(1u);
    let none = vec4(0.0);
    strange_rows = strange_rows | (vec4(strange.x) & (w[0] != none)) | (vec4(strange.y) & (w[1] != none))
                                | (vec4(strange.z) & (w[2] != none)) | (vec4(strange.w) & (w[3] != none));
}

// Between the two layouts: a matrix has the keys as columns, Scores the queries.
fn by_query(x: mat4x4<f32>) -> Scores {
    let s = transpose(x);
    return Scores(s[0], s[1], s[2], s[3]);
}

fn by_key(p: Scores) -> mat4x4<f32> { return transpose(mat4x4(p.a, p.b, p.c, p.d)); }
