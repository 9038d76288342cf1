// Products in cooperative matrices: f16 operands, f32 sums, on the units that GPUs have for them.
//
// Matrices have no elements that a lane could name, so scores pass through workgroup memory, where LANES_R x LANES_C lanes
// work on 4 queries by 4 keys each, as for tile/staged.wgsl, and weights pass back through it as f16 (lib/matrices.wgsl). A subgroup computes 2 by
// 1 or 2 (S_WIDE) matrices of the scores, and 2 by 2 or 4 (WIDE) of the output. Each matrix is a variable of its own: see
// attention.wgsl about arrays.
//
// All of workgroup memory is vec4s, of which every access is one. So the 4 keys of a lane, which are LANES_C apart in the
// tile, lie side by side there (`key_of`): no product minds in which order the keys come. And values lie by columns, the
// keys of a column side by side: a lane of a matrix unit takes neighbours then, not every so many elements one.
//
// What passes between the lanes of a row, and a rescale of the output, go through workgroup memory, too, so they must be rare: a
// maximum stays until a score is more than LATE above it. Any m is as good as the maximum as long as the weights 2^(s - m)
// stay in f16's range. They are kept times BOOST = 2^7: up to 2^(LATE + 7) = 2^15, below f16's 2^16, and weights down to
// 2^-21 are normal numbers of f16. So a tile is weighed against the old maxima, and a lane that finds a score too high for
// them asks for more: then all lanes `settle` the tile anew. Any other tile passes no maximum at all.
//
// The output's sums are CARRIED in the matrices over the whole walk. Otherwise a matrix holds the products of one tile, and lanes
// add them up: for devices whose compilers lose matrices that live on from tile to tile.

const LANES_PER_ROW = LANES_C;
const LATE = select(8.0, 5.545177444479562, BASE_E); // 8 in base 2, in the scores' base
const BOOST = 128.0;
const UNIT = BOOST;            // a weight of 1 in l
const WEIGHTS_TELL = true;     // who attends what
const UNBOOST = 0.0078125;

// What a tile may ask for: new maxima; that rows which have output get one; a look at values that are not finite.
const MAXIMUM = 1u;
const RESCALE = 2u;
const STRANGE = 4u;

// All pitches are in vec4s.
var<workgroup> queries: array<vec4<f16>, ROWS * D_PITCH>;
var<workgroup> staged: array<vec4<f16>, STAGED>;        // KEYS x D_PITCH keys; then columns of values over them, K_PITCH apart
var<workgroup> p16: array<vec4<f16>, ROWS * K_PITCH>;   // BOOST times the weights
var<workgroup> row_maximum: array<atomic<i32>, ROWS>;   // m, `in_order`
var<workgroup> row_factor: array<f32, ROWS>;            // what a new maximum makes of the output; at the end, the sum
// What the tile asks for, in its first word. A whole vec4, as all variables here are: drivers lay them out one behind the
// other, and matrices are loaded from multiples of 16 bytes.
var<workgroup> asked: array<atomic<u32>, 4>;

// Unless CARRIED: the output's sums, by column of matrices; whether they are scaled as they are joined.
var<private> sums0: Sums;
var<private> sums1: Sums;
var<private> sums2: Sums;
var<private> sums3: Sums;
var<private> joins_scaled: bool;

// The key of the tile that lies in a slot of workgroup memory.
fn key_of(slot: u32) -> u32 { return slot % 4u * LANES_C + slot / 4u; }

// The last rows come first: under a causal mask they take longest, and what is left for the end should be short.
fn row_tile_at(place: u32) -> u32 { return params.kernel.row_tiles - 1u - place; }

fn begin(at: Head, lane: Lane) {
    for (var e = lane.index; e < ROWS * DEPTH_GROUPS; e += LANES) {
        let row = e / DEPTH_GROUPS;
        let g = e % DEPTH_GROUPS;
        var x = vec4<f16>();
        if (g < HEAD_GROUPS) { x = vec4<f16>(query(at, row, g)); }
        queries[row * D_PITCH + g] = x;
    }
    for (var row = lane.index; row < ROWS; row += LANES) { atomicStore(&row_maximum[row], in_order(DROPPED)); }
    forget(lane);
}

// What the last tile asked for.
fn forget(lane: Lane) {
    forget_strange_keys(lane);
    if (lane.index == 0u) { atomicStore(&asked[0], 0u); }
}

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    let share = share_of(lane);
    workgroupBarrier(); // the last tile's values are read to their end
    stage_k(at, lane, tile);
    workgroupBarrier();
    multiply_keys(share);
    workgroupBarrier();
    let s = scores(at, lane, tile, lane_products(lane));
    stage_v(at, lane, tile);
    ask_for_maxima(lane, maxima(s));
    var more = store_weights(lane, weights(tile, s));
    let wanted = workgroupUniformLoad(&asked[0]); // with a barrier on both sides
    if (wanted != 0u) { more = settle(lane, share, tile, s, wanted); }
    l += more;
    add_values(share);
    if (!CARRIED) { take_products(lane, share, (wanted & RESCALE) != 0u); }
}

// The weights of a tile against new maxima, or whose values are not all finite; what they add up to. What was stored of them before, a
// weight that f16 does not hold perhaps, is gone then.
fn settle(lane: Lane, share: Share, tile: KeyTile, s: Scores, wanted: u32) -> vec4<f32> {
    let factor = raise_maximum(agreed_maxima(lane));
    l *= factor;
    let p = weights(tile, s);
    note_values(lane, tile, p);
    let added = store_weights(lane, p);
    if ((wanted & RESCALE) != 0u) {
        tell_rows(lane, factor);
        if (CARRIED) { rescale(lane, share); }
    }
    workgroupBarrier(); // the weights are stored, and what the tile asked for is read
    forget(lane);
    return added;
}

// q . k of all rows and keys of the tile into `products`.
fn multiply_keys(share: Share) {
    var s00: mat_c;
    var s01: mat_c;
    var s10: mat_c;
    var s11: mat_c;
    for (var g = 0u; g < DEPTH_GROUPS; g += STEP) {
        let q0 = coopLoadT<mat_a>(&queries[share.row * D_PITCH + g], D_PITCH);
        let q1 = coopLoadT<mat_a>(&queries[(share.row + MATRIX) * D_PITCH + g], D_PITCH);
        // Column-major: keys lie as rows, and are the columns of the operand.
        let k0 = coopLoad<mat_b>(&staged[share.key * D_PITCH + g], D_PITCH);
        s00 = coopMultiplyAdd(q0, k0, s00);
        s10 = coopMultiplyAdd(q1, k0, s10);
        if (S_WIDE) {
            let k1 = coopLoad<mat_b>(&staged[(share.key + MATRIX) * D_PITCH + g], D_PITCH);
            s01 = coopMultiplyAdd(q0, k1, s01);
            s11 = coopMultiplyAdd(q1, k1, s11);
        }
    }
    lay_products(share, s00, s01, s10, s11);
}

// The products of the tile's weights and values, added to the output's matrices or instead of what they held.
fn add_values(share: Share) {
    if (!CARRIED) { forget_products(); }
    for (var slot = 0u; slot < KEYS / 4u; slot += STEP) {
        let p0 = coopLoadT<mat_a>(&p16[share.row * K_PITCH + slot], K_PITCH);
        let p1 = coopLoadT<mat_a>(&p16[(share.row + MATRIX) * K_PITCH + slot], K_PITCH);
        // Column-major: columns lie as rows.
        let from_v = share.column * K_PITCH + slot;
        let v0 = coopLoad<mat_b>(&staged[from_v], K_PITCH);
        let v1 = coopLoad<mat_b>(&staged[from_v + MATRIX * K_PITCH], K_PITCH);
        o00 = coopMultiplyAdd(p0, v0, o00);
        o10 = coopMultiplyAdd(p1, v0, o10);
        o01 = coopMultiplyAdd(p0, v1, o01);
        o11 = coopMultiplyAdd(p1, v1, o11);
        if (WIDE) {
            let v2 = coopLoad<mat_b>(&staged[from_v + 2u * MATRIX * K_PITCH], K_PITCH);
            let v3 = coopLoad<mat_b>(&staged[from_v + 3u * MATRIX * K_PITCH], K_PITCH);
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
    return params.kernel.q_scale * products[(lane.r + k * LANES_R) * S_PITCH + lane.c];
}

// Asks for new maxima where a score is too high for the old ones. Halves cannot overflow, and tell exactly whether a weight would
// pass 2^LATE. NaN asks for nothing: it is in the sum anyway.
fn ask_for_maxima(lane: Lane, seen: vec4<f32>) {
    let late = seen * 0.5 - m * 0.5 > vec4(0.5 * LATE);
    if (!any(late)) { return; }
    ask_for_maximum(lane.r, late.x, seen.x);
    ask_for_maximum(lane.r + LANES_R, late.y, seen.y);
    ask_for_maximum(lane.r + 2u * LANES_R, late.z, seen.z);
    ask_for_maximum(lane.r + 3u * LANES_R, late.w, seen.w);
    // A row that was empty has no output yet: nothing to scale.
    atomicOr(&asked[0], select(MAXIMUM, RESCALE, any(late & (m != vec4(DROPPED)))));
}

// All lanes of a row ask at the same place, where their largest stays.
fn ask_for_maximum(row: u32, late: bool, seen: f32) {
    if (late) { atomicMax(&row_maximum[row], in_order(seen)); }
}

fn agreed_maxima(lane: Lane) -> vec4<f32> {
    return vec4(agreed_maximum(lane.r), agreed_maximum(lane.r + LANES_R),
                agreed_maximum(lane.r + 2u * LANES_R), agreed_maximum(lane.r + 3u * LANES_R));
}

fn agreed_maximum(row: u32) -> f32 { return bitcast<f32>(turned(atomicLoad(&row_maximum[row]))); }

// Integers in the order of numbers.
fn in_order(x: f32) -> i32 { return turned(bitcast<i32>(x)); }

// Negative numbers have their bits but the sign's turned over, and back.
fn turned(bits: i32) -> i32 { return bits ^ ((bits >> 31u) & 0x7fffffff); }

// A number of each row, for the lanes that hold other parts of it; before a barrier.
fn tell_rows(lane: Lane, x: vec4<f32>) {
    if (lane.c > 0u) { return; }
    row_factor[lane.r] = x.x;
    row_factor[lane.r + LANES_R] = x.y;
    row_factor[lane.r + 2u * LANES_R] = x.z;
    row_factor[lane.r + 3u * LANES_R] = x.w;
}

// What the rows' weights add up to: the same rounded weights that the values are multiplied with, as their rounding then shifts
// the mean less.
fn store_weights(lane: Lane, p: Scores) -> vec4<f32> {
    return vec4(store_row(lane, 0u, p.a), store_row(lane, 1u, p.b), store_row(lane, 2u, p.c), store_row(lane, 3u, p.d));
}

fn store_row(lane: Lane, k: u32, p: vec4<f32>) -> f32 {
    let rounded = eleven_bits(BOOST * p);
    p16[(lane.r + k * LANES_R) * K_PITCH + lane.c] = vec4<f16>(rounded);
    return sum4(rounded);
}

// Multiplies the output by the rows' factors: two matrices at a time through the subgroup's patch of `products`.
fn rescale(lane: Lane, share: Share) {
    write_patch(share, o00, o10);
    scale_patch(lane, share);
    o00 = coopLoadT<mat_c>(&products[share.patch_at], STEP);
    o10 = coopLoadT<mat_c>(&products[share.patch_at + MATRIX * STEP], STEP);
    write_patch(share, o01, o11);
    scale_patch(lane, share);
    o01 = coopLoadT<mat_c>(&products[share.patch_at], STEP);
    o11 = coopLoadT<mat_c>(&products[share.patch_at + MATRIX * STEP], STEP);
    if (WIDE) {
        write_patch(share, o02, o12);
        scale_patch(lane, share);
        o02 = coopLoadT<mat_c>(&products[share.patch_at], STEP);
        o12 = coopLoadT<mat_c>(&products[share.patch_at + MATRIX * STEP], STEP);
        write_patch(share, o03, o13);
        scale_patch(lane, share);
        o03 = coopLoadT<mat_c>(&products[share.patch_at], STEP);
        o13 = coopLoadT<mat_c>(&products[share.patch_at + MATRIX * STEP], STEP);
    }
}

fn scale_patch(lane: Lane, share: Share) {
    for (var n = 0u; n < PIECES; n++) {
        let e = lane.index + n * LANES;
        products[e] *= row_factor[row_of_piece(e)];
    }
    workgroupBarrier();
}

// Unless CARRIED: adds the products of the tile to the lane's own sums, which a new maximum scales first.
fn take_products(lane: Lane, share: Share, scaled: bool) {
    joins_scaled = scaled;
    write_patch(share, o00, o10);
    sums0 = joined(lane, sums0);
    write_patch(share, o01, o11);
    sums1 = joined(lane, sums1);
    if (WIDE) {
        write_patch(share, o02, o12);
        sums2 = joined(lane, sums2);
        write_patch(share, o03, o13);
        sums3 = joined(lane, sums3);
    }
}

fn joined_piece(e: u32, sum: vec4<f32>) -> vec4<f32> {
    if (!joins_scaled) { return sum + products[e]; }
    return fma(sum, vec4(row_factor[row_of_piece(e)]), products[e]);
}

// --- the end ---

fn write_rows(at: Head, lane: Lane) {
    let share = share_of(lane);
    if (!CARRIED) { workgroupBarrier(); } // all lanes have taken the last tile's products
    l = sum_over_lanes(lane, marked(l)) * UNBOOST;
    let row = at.first_row + lane.r;
    let a = row_end(at, row, m.x, l.x);
    let b = row_end(at, row + LANES_R, m.y, l.y);
    let c = row_end(at, row + 2u * LANES_R, m.z, l.z);
    let d = row_end(at, row + 3u * LANES_R, m.w, l.w);
    tell_rows(lane, l);
    lay_down(lane, share, o00, o10, sums0);
    write_columns(at, lane, 0u);
    lay_down(lane, share, o01, o11, sums1);
    write_columns(at, lane, 1u);
    if (WIDE) {
        lay_down(lane, share, o02, o12, sums2);
        write_columns(at, lane, 2u);
        lay_down(lane, share, o03, o13, sums3);
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

// A column of matrices of the output into the patches, from where its sums are.
fn lay_down(lane: Lane, share: Share, upper: mat_c, lower: mat_c, sums: Sums) {
    if (CARRIED) {
        write_patch(share, upper, lower);
    } else {
        workgroupBarrier(); // all lanes have read their rows' sums
        products[lane.index] = sums.a;
        products[lane.index + LANES] = sums.b;
        if (PIECES == 4u) {
            products[lane.index + 2u * LANES] = sums.c;
            products[lane.index + 3u * LANES] = sums.d;
        }
        workgroupBarrier();
    }
}

// Writes the patches of all subgroups: column `matrix` of each one's matrices.
fn write_columns(at: Head, lane: Lane, matrix: u32) {
    for (var e = lane.index; e < SUBGROUPS * PATCH; e += LANES) {
        let row = row_of_piece(e);
        let end = row_end(at, at.first_row + row, agreed_maximum(row), row_factor[row]);
        write_group(end, group_of_piece(e, matrix), UNBOOST * products[e]);
    }
}

fn sum_over_lanes(lane: Lane, x: vec4<f32>) -> vec4<f32> {
    let row = lane.r * S_PITCH;
    products[row + lane.c] = x;
    workgroupBarrier();
    var result = vec4(0.0);
    for (var c = 0u; c < LANES_C; c++) { result += products[row + c]; }
    return result;
}

// --- staging: workgroup memory filled by all lanes together ---
//
// The tensors are f16: nothing is rounded here. Turns of these loops are counted for all lanes alike, so that a compiler which spells
// them out knows how many there are.

const K_PIECES = KEYS * DEPTH_GROUPS;
const V_PIECES = LANES_C * COLUMN_GROUPS;
const K_TURNS = (K_PIECES + LANES - 1u) / LANES;
const V_TURNS = (V_PIECES + LANES - 1u) / LANES;

fn stage_k(at: Head, lane: Lane, tile: KeyTile) {
    for (var n = 0u; n < K_TURNS; n++) {
        let e = lane.index + n * LANES;
        if (K_PIECES % LANES != 0u && e >= K_PIECES) { break; }
        let slot = e / DEPTH_GROUPS;
        let g = e % DEPTH_GROUPS;
        var x = vec4(0.0);
        if (g < HEAD_GROUPS) { x = load_k(key_offset(at, tile.first + key_of(slot)) + 4u * g, HEAD_DIM - 4u * g); }
        staged[slot * D_PITCH + g] = vec4<f16>(x);
    }
}

// 4 keys by 4 columns at a time, turned over. Of neighbouring lanes 4 read on in the same rows, 32 bytes of each, and the next
// ones in the next rows: that few lanes write to the same bank.
fn stage_v(at: Head, lane: Lane, tile: KeyTile) {
    for (var n = 0u; n < V_TURNS; n++) {
        let e = lane.index + n * LANES;
        if (V_PIECES % LANES != 0u && e >= V_PIECES) { break; }
        let stripe = e / (4u * LANES_C);
        let key = e / 4u - stripe * LANES_C;
        let g = 4u * stripe + e % 4u;
        var a = value_group(at, tile, key, g);
        var b = value_group(at, tile, key + LANES_C, g);
        var c = value_group(at, tile, key + 2u * LANES_C, g);
        var d = value_group(at, tile, key + 3u * LANES_C, g);
        // The sum of 4 numbers of f16 is finite in f32.
        if (any(not_finite(a + b + c + d))) {
            atomicOr(&asked[0], STRANGE);
            a = finite_or_noted(key, a);
            b = finite_or_noted(key + LANES_C, b);
            c = finite_or_noted(key + 2u * LANES_C, c);
            d = finite_or_noted(key + 3u * LANES_C, d);
        }
        let to = 4u * g * K_PITCH + key;
        staged[to] = vec4<f16>(vec4(a.x, b.x, c.x, d.x));
        staged[to + K_PITCH] = vec4<f16>(vec4(a.y, b.y, c.y, d.y));
        staged[to + 2u * K_PITCH] = vec4<f16>(vec4(a.z, b.z, c.z, d.z));
        staged[to + 3u * K_PITCH] = vec4<f16>(vec4(a.w, b.w, c.w, d.w));
    }
}

// 4 elements of a value of the tile; 0 where there are none.
fn value_group(at: Head, tile: KeyTile, key: u32, g: u32) -> vec4<f32> {
    var x = vec4(0.0);
    if (g < VALUE_GROUPS) { x = load_v(value_offset(at, tile.first + key) + 4u * g, VALUE_DIM - 4u * g); }
    return x;
}
