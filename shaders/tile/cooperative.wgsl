// Products in cooperative matrices: f16 operands, f32 sums, on the units that GPUs have for them.
//
// Matrices have no elements that a lane could name, so scores pass through workgroup memory, where LANES_R x LANES_C lanes
// work on 4 queries by 4 keys each, as for tile/staged.wgsl, and weights pass back through it as f16. A subgroup holds 2 by
// 2 or 4 (WIDE) matrices of the output over the whole walk, and computes 2 by 1 or 2 (S_WIDE) of the scores. Each matrix is
// a variable of its own: see attention.wgsl about arrays.
//
// A rescale of the output passes through workgroup memory, too, so it must be rare: a maximum stays until a score is more
// than LATE above it. Any m is as good as the maximum as long as the weights 2^(s - m) stay in f16's range. They are kept
// times BOOST = 2^7: up to 2^(LATE + 7) = 2^15, below f16's 2^16, and weights down to 2^-21 are normal numbers of f16.

const LANES_PER_ROW = LANES_C;
const LATE = select(8.0, 5.545177444479562, BASE_E); // 8 in base 2, in the scores' base
const BOOST = 128.0;
const UNIT = BOOST;            // a weight of 1 in l
const UNBOOST = 0.0078125;

const S_COLUMNS = select(1u, 2u, S_WIDE);       // matrices of a subgroup along the keys
const O_COLUMNS = select(2u, 4u, WIDE);         // and along the output's columns
const PATCH = 2u * MATRIX * MATRIX;             // of a subgroup in `products`: two matrices

var<workgroup> queries: array<f16, ROWS * Q_PITCH>;
var<workgroup> staged: array<f16, KEYS * KV_PITCH>;     // keys, then values over them
var<workgroup> products: array<f32, PRODUCTS>;          // ROWS x S_PITCH; or patches of the output
var<workgroup> p16: array<f16, ROWS * P_PITCH>;         // BOOST times the weights
var<workgroup> row_factor: array<f32, ROWS>;
var<workgroup> row_sum: array<f32, ROWS>;
var<workgroup> raised: atomic<u32>;                     // whether a row with output got a new maximum

var<private> o00: mat_c;
var<private> o01: mat_c;
var<private> o02: mat_c;
var<private> o03: mat_c;
var<private> o10: mat_c;
var<private> o11: mat_c;
var<private> o12: mat_c;
var<private> o13: mat_c;

// Where a subgroup works, in elements: its rows begin at `row`, its keys and its columns of the output at these.
struct Share { row: u32, key: u32, column: u32, patch_at: u32 }

// SUBGROUP is the largest that the device may use. Where the compiler takes a smaller one, neighbours do the same work,
// which is slow but right.
fn share_of(lane: Lane) -> Share {
    let subgroup = lane.index / SUBGROUP;
    let column = subgroup % SUBGROUPS_C;
    return Share(subgroup / SUBGROUPS_C * 2u * MATRIX, column * S_COLUMNS * MATRIX, column * O_COLUMNS * MATRIX,
                 subgroup * PATCH);
}

// The last rows come first: under a causal mask they take longest, and what is left for the end should be short.
fn row_tile_at(place: u32) -> u32 { return params.kernel.row_tiles - 1u - place; }

fn begin(at: Head, lane: Lane) {
    for (var e = lane.index; e < ROWS * DEPTH_GROUPS; e += LANES) {
        let row = e / DEPTH_GROUPS;
        let g = e % DEPTH_GROUPS;
        var x = vec4<f16>();
        if (g < HEAD_GROUPS) { x = vec4<f16>(query(at, row, g)); }
        let to = row * Q_PITCH + 4u * g;
        queries[to] = x.x;
        queries[to + 1u] = x.y;
        queries[to + 2u] = x.z;
        queries[to + 3u] = x.w;
    }
}

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    let share = share_of(lane);
    workgroupBarrier(); // the last tile's values are read to their end
    forget_strange_keys(lane);
    stage_k(at, lane, tile);
    workgroupBarrier();
    multiply_keys(share);
    workgroupBarrier();
    let s = scores(at, lane, tile, lane_products(lane));
    stage_v(at, lane, tile);
    raise_late(lane, max_over_lanes(lane, maxima(s)));
    let p = weights(tile, s);
    note_values(lane, tile, p); // max_over_lanes has waited for the values of all
    store_weights(lane, p);
    if (workgroupUniformLoad(&raised) != 0u) { rescale(lane, share); } // with a barrier on both sides
    add_values(share);
}

// q . k of all rows and keys of the tile into `products`.
fn multiply_keys(share: Share) {
    var s00: mat_c;
    var s01: mat_c;
    var s10: mat_c;
    var s11: mat_c;
    for (var c = 0u; c < 4u * DEPTH_GROUPS; c += MATRIX) {
        let q0 = coopLoadT<mat_a>(&queries[share.row * Q_PITCH + c], Q_PITCH);
        let q1 = coopLoadT<mat_a>(&queries[(share.row + MATRIX) * Q_PITCH + c], Q_PITCH);
        // Column-major: keys lie as rows, and are the columns of the operand.
        let k0 = coopLoad<mat_b>(&staged[share.key * KV_PITCH + c], KV_PITCH);
        s00 = coopMultiplyAdd(q0, k0, s00);
        s10 = coopMultiplyAdd(q1, k0, s10);
        if (S_WIDE) {
            let k1 = coopLoad<mat_b>(&staged[(share.key + MATRIX) * KV_PITCH + c], KV_PITCH);
            s01 = coopMultiplyAdd(q0, k1, s01);
            s11 = coopMultiplyAdd(q1, k1, s11);
        }
    }
    let to = share.row * S_PITCH + share.key;
    coopStoreT(s00, &products[to], S_PITCH);
    coopStoreT(s10, &products[to + MATRIX * S_PITCH], S_PITCH);
    if (S_WIDE) {
        coopStoreT(s01, &products[to + MATRIX], S_PITCH);
        coopStoreT(s11, &products[to + MATRIX * S_PITCH + MATRIX], S_PITCH);
    }
}

// The output's products with the weights and values of the tile.
fn add_values(share: Share) {
    for (var key = 0u; key < KEYS; key += MATRIX) {
        let p0 = coopLoadT<mat_a>(&p16[share.row * P_PITCH + key], P_PITCH);
        let p1 = coopLoadT<mat_a>(&p16[(share.row + MATRIX) * P_PITCH + key], P_PITCH);
        let from_v = key * KV_PITCH + share.column;
        let v0 = coopLoadT<mat_b>(&staged[from_v], KV_PITCH);
        let v1 = coopLoadT<mat_b>(&staged[from_v + MATRIX], KV_PITCH);
        o00 = coopMultiplyAdd(p0, v0, o00);
        o10 = coopMultiplyAdd(p1, v0, o10);
        o01 = coopMultiplyAdd(p0, v1, o01);
        o11 = coopMultiplyAdd(p1, v1, o11);
        if (WIDE) {
            let v2 = coopLoadT<mat_b>(&staged[from_v + 2u * MATRIX], KV_PITCH);
            let v3 = coopLoadT<mat_b>(&staged[from_v + 3u * MATRIX], KV_PITCH);
            o02 = coopMultiplyAdd(p0, v2, o02);
            o12 = coopMultiplyAdd(p1, v2, o12);
            o03 = coopMultiplyAdd(p0, v3, o03);
            o13 = coopMultiplyAdd(p1, v3, o13);
        }
    }
}

// --- between matrices and lanes ---

// The products of the lane's 4 queries and 4 keys, times scale (and log2(e), see score/plain.wgsl).
fn lane_products(lane: Lane) -> Scores {
    return Scores(row_products(lane, 0u), row_products(lane, 1u), row_products(lane, 2u), row_products(lane, 3u));
}

fn row_products(lane: Lane, k: u32) -> vec4<f32> {
    let i = (lane.r + k * LANES_R) * S_PITCH + lane.c;
    return params.kernel.q_scale * vec4(products[i], products[i + LANES_C], products[i + 2u * LANES_C], products[i + 3u * LANES_C]);
}

// The row maxima over the LANES_C lanes of a row. They pass through the places of `products` that this lane alone has read.
fn max_over_lanes(lane: Lane, x: vec4<f32>) -> vec4<f32> {
    let row = lane.r * S_PITCH;
    products[row + lane.c] = x.x;
    products[row + LANES_R * S_PITCH + lane.c] = x.y;
    products[row + 2u * LANES_R * S_PITCH + lane.c] = x.z;
    products[row + 3u * LANES_R * S_PITCH + lane.c] = x.w;
    if (lane.index == 0u) { atomicStore(&raised, 0u); }
    workgroupBarrier();
    var result = vec4(DROPPED);
    for (var c = 0u; c < LANES_C; c++) {
        result = max(result, vec4(products[row + c], products[row + LANES_R * S_PITCH + c],
                                  products[row + 2u * LANES_R * S_PITCH + c], products[row + 3u * LANES_R * S_PITCH + c]));
    }
    return result;
}

// Takes new maxima where they are needed. Halves cannot overflow, and tell exactly whether a weight would pass 2^LATE.
fn raise_late(lane: Lane, seen_max: vec4<f32>) {
    let late = seen_max * 0.5 - m * 0.5 > vec4(0.5 * LATE);
    let empty = m == vec4(DROPPED);
    let factor = raise_maximum(select(m, seen_max, late | empty));
    l *= factor;
    if (lane.c == 0u) {
        row_factor[lane.r] = factor.x;
        row_factor[lane.r + LANES_R] = factor.y;
        row_factor[lane.r + 2u * LANES_R] = factor.z;
        row_factor[lane.r + 3u * LANES_R] = factor.w;
        // A row that was empty has no output yet: nothing to scale.
        if (any(late & !empty)) { atomicStore(&raised, 1u); }
    }
}

// The sums add up the same rounded weights that the values are multiplied with: their rounding then shifts the mean less.
fn store_weights(lane: Lane, p: Scores) {
    l += vec4(store_row(lane, 0u, p.a), store_row(lane, 1u, p.b), store_row(lane, 2u, p.c), store_row(lane, 3u, p.d));
}

fn store_row(lane: Lane, k: u32, p: vec4<f32>) -> f32 {
    let i = (lane.r + k * LANES_R) * P_PITCH + lane.c;
    let rounded = eleven_bits(BOOST * p);
    p16[i] = f16(rounded.x);
    p16[i + LANES_C] = f16(rounded.y);
    p16[i + 2u * LANES_C] = f16(rounded.z);
    p16[i + 3u * LANES_C] = f16(rounded.w);
    return sum4(rounded);
}

// To the nearest number that f16 has. Not by a conversion there and back, which compilers take for nothing at all.
fn eleven_bits(x: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>((bitcast<vec4<u32>>(x) + vec4(0x1000u)) & vec4(0xffffe000u));
}

// Multiplies the output by the rows' factors: two matrices at a time through the subgroup's patch of `products`.
fn rescale(lane: Lane, share: Share) {
    write_patch(share, o00, o10);
    scale_patch(lane, share);
    o00 = coopLoadT<mat_c>(&products[share.patch_at], MATRIX);
    o10 = coopLoadT<mat_c>(&products[share.patch_at + MATRIX * MATRIX], MATRIX);
    write_patch(share, o01, o11);
    scale_patch(lane, share);
    o01 = coopLoadT<mat_c>(&products[share.patch_at], MATRIX);
    o11 = coopLoadT<mat_c>(&products[share.patch_at + MATRIX * MATRIX], MATRIX);
    if (WIDE) {
        write_patch(share, o02, o12);
        scale_patch(lane, share);
        o02 = coopLoadT<mat_c>(&products[share.patch_at], MATRIX);
        o12 = coopLoadT<mat_c>(&products[share.patch_at + MATRIX * MATRIX], MATRIX);
        write_patch(share, o03, o13);
        scale_patch(lane, share);
        o03 = coopLoadT<mat_c>(&products[share.patch_at], MATRIX);
        o13 = coopLoadT<mat_c>(&products[share.patch_at + MATRIX * MATRIX], MATRIX);
    }
}

// Two matrices, one below the other: 2 MATRIX rows of MATRIX columns.
fn write_patch(share: Share, upper: mat_c, lower: mat_c) {
    workgroupBarrier(); // all lanes have read what was here
    coopStoreT(upper, &products[share.patch_at], MATRIX);
    coopStoreT(lower, &products[share.patch_at + MATRIX * MATRIX], MATRIX);
    workgroupBarrier();
}

fn scale_patch(lane: Lane, share: Share) {
    for (var e = lane.index; e < SUBGROUPS * PATCH; e += LANES) {
        let subgroup = e / PATCH;
        products[e] *= row_factor[subgroup / SUBGROUPS_C * 2u * MATRIX + e % PATCH / MATRIX];
    }
    workgroupBarrier();
}

// --- the end ---

fn write_rows(at: Head, lane: Lane) {
    let share = share_of(lane);
    workgroupBarrier(); // the last tile's `products` and factors are read to their end
    l = sum_over_lanes(lane, marked(l)) * UNBOOST;
    let row = at.first_row + lane.r;
    let a = row_end(at, row, m.x, l.x);
    let b = row_end(at, row + LANES_R, m.y, l.y);
    let c = row_end(at, row + 2u * LANES_R, m.z, l.z);
    let d = row_end(at, row + 3u * LANES_R, m.w, l.w);
    if (lane.c == 0u) {
        keep_row(lane.r, m.x, l.x);
        keep_row(lane.r + LANES_R, m.y, l.y);
        keep_row(lane.r + 2u * LANES_R, m.z, l.z);
        keep_row(lane.r + 3u * LANES_R, m.w, l.w);
    }
    write_patch(share, o00, o10);
    write_columns(at, lane, 0u);
    write_patch(share, o01, o11);
    write_columns(at, lane, 1u);
    if (WIDE) {
        write_patch(share, o02, o12);
        write_columns(at, lane, 2u);
        write_patch(share, o03, o13);
        write_columns(at, lane, 3u);
    }
    if (ACCUMULATE) { storageBarrier(); } // every lane of a row has read the earlier parts' (m, l)
    if (lane.c == 0u) {
        write_stats(a);
        write_stats(b);
        write_stats(c);
        write_stats(d);
    }
}

fn keep_row(row: u32, row_m: f32, row_l: f32) {
    row_factor[row] = row_m;
    row_sum[row] = row_l;
}

// Writes the patches of all subgroups: column `matrix` of each one's matrices.
fn write_columns(at: Head, lane: Lane, matrix: u32) {
    for (var e = lane.index; e < SUBGROUPS * PATCH / 4u; e += LANES) {
        let subgroup = e / (PATCH / 4u);
        let row = subgroup / SUBGROUPS_C * 2u * MATRIX + e % (PATCH / 4u) / (MATRIX / 4u);
        let column = (subgroup % SUBGROUPS_C * O_COLUMNS + matrix) * MATRIX + 4u * (e % (MATRIX / 4u));
        let x = vec4(products[4u * e], products[4u * e + 1u], products[4u * e + 2u], products[4u * e + 3u]);
        write_group(row_end(at, at.first_row + row, row_factor[row], row_sum[row]), column / 4u, UNBOOST * x);
    }
}

fn sum_over_lanes(lane: Lane, x: vec4<f32>) -> vec4<f32> {
    let row = lane.r * S_PITCH;
    products[row + lane.c] = x.x;
    products[row + LANES_R * S_PITCH + lane.c] = x.y;
    products[row + 2u * LANES_R * S_PITCH + lane.c] = x.z;
    products[row + 3u * LANES_R * S_PITCH + lane.c] = x.w;
    workgroupBarrier();
    var result = vec4(0.0);
    for (var c = 0u; c < LANES_C; c++) {
        result += vec4(products[row + c], products[row + LANES_R * S_PITCH + c],
                       products[row + 2u * LANES_R * S_PITCH + c], products[row + 3u * LANES_R * S_PITCH + c]);
    }
    return result;
}

// --- staging: workgroup memory filled by all lanes together ---

fn stage_k(at: Head, lane: Lane, tile: KeyTile) {
    for (var e = lane.index; e < KEYS * DEPTH_GROUPS; e += LANES) {
        let key = e / DEPTH_GROUPS;
        let g = e % DEPTH_GROUPS;
        var x = vec4(0.0);
        if (g < HEAD_GROUPS) { x = load_k(key_offset(at, tile.first + key) + 4u * g, HEAD_DIM - 4u * g); }
        stage(key * KV_PITCH + 4u * g, x);
    }
}

fn stage_v(at: Head, lane: Lane, tile: KeyTile) {
    for (var e = lane.index; e < KEYS * COLUMN_GROUPS; e += LANES) {
        let key = e / COLUMN_GROUPS;
        let g = e % COLUMN_GROUPS;
        var x = vec4(0.0);
        if (g < VALUE_GROUPS) {
            x = load_v(value_offset(at, tile.first + key) + 4u * g, VALUE_DIM - 4u * g);
            x = finite_or_noted(key, x);
        }
        stage(key * KV_PITCH + 4u * g, x);
    }
}

// The tensors are f16: nothing is rounded here.
fn stage(to: u32, wide: vec4<f32>) {
    let x = vec4<f16>(wide);
    staged[to] = x.x;
    staged[to + 1u] = x.y;
    staged[to + 2u] = x.z;
    staged[to + 3u] = x.w;
}
