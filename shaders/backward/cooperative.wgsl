// Products in cooperative matrices, as in tile/cooperative.wgsl: f16 operands, f32 sums, on the units that GPUs have for them.
//
// All products of the passes are made there. The products of the tensors themselves, q . k and do . v, lose nothing: f16 is how
// they are stored. The weights P and the derivatives dS that meet columns of tensors are rounded to f16, 11 bits. f16 has no range to
// spare, and a weight of 1 / n or a derivative of any size must keep its digits. So the weights of a row and a tile, exact in f32 in the
// lanes, are multiplied by the power of two that takes the largest of them to 2^14 or above, below 2^15, and the sums of the tile, in
// f32, by its inverse. Both are exact. Of two numbers of a row and a tile the smaller loses digits only from 2^-28 of the larger on.
//
// So a matrix holds the sums of one tile of columns, and lanes add them up: what tile/cooperative.wgsl does with sums in lanes. A tile by
// itself first is what the other tiles do, too.
//
// Of the tensors each row is staged once: a column as it lies is what rows are multiplied with, and what weights are.

const LANES_PER_ROW = LANES_C;

// In vec4s, from the constants *_AT on: the rows (ROWS x PITCH), the columns of a tile (KEYS x PITCH), their weights (ROWS x K_PITCH).
var<workgroup> halves: array<vec4<f16>, HALVES>;
// Inverse factors of the rows' weights: of P, and of dS behind them.
var<workgroup> row_factor: array<f32, 2u * ROWS>;

// Where those of the sums that are joined begin.
var<private> factors_at: u32;

var<private> head_sums: AllSums;
var<private> value_sums: AllSums;

// By column of matrices.
struct AllSums { a: Sums, b: Sums, c: Sums, d: Sums }

// Factors of the lane's 4 rows, and their inverse; NaN where a weight of the row is not finite.
struct Factors { up: vec4<f32>, back: vec4<f32> }

const SCALED_EXPONENT = 14u;

// The longest first, under a causal mask: what is left for the end should be short.
fn row_tile_at(place: u32) -> u32 { return select(place, params.kernel.row_tiles - 1u - place, ROWS_ARE_QUERIES); }

fn begin(at: Head, lane: Lane) {
    for (var e = lane.index; e < ROWS * WIDTH; e += LANES) {
        let row = e / WIDTH;
        let g = e % WIDTH;
        let place = query_at(at, min(at.first_row + row, params.kernel.q_count - 1u));
        var head = vec4(0.0);
        if (g < HEAD_GROUPS) { head = own_head(at, place, g); }
        halves[OWN_HEADS_AT + row * PITCH + g] = vec4<f16>(head);
        if (HAS_SLOPES) {
            var value = vec4(0.0);
            if (g < VALUE_GROUPS) { value = own_value(at, place, g); }
            halves[OWN_VALUES_AT + row * PITCH + g] = vec4<f16>(value);
        }
    }
}

fn attend(at: Head, lane: Lane, tile: KeyTile) {
    if (is_beyond(tile)) { return; }
    let share = share_of(lane);
    stage_columns(at, lane, tile); // the last ones are read to their end: patches with barriers have followed
    workgroupBarrier();
    let s = params.kernel.q_scale * multiplied(lane, share, OWN_HEADS_AT, HEADS_AT, HEAD_DEPTH);
    var d_p: mat4x4<f32>;
    if (HAS_SLOPES) {
        workgroupBarrier(); // all lanes have read their products
        d_p = multiplied(lane, share, OWN_VALUES_AT, VALUES_AT, VALUE_DEPTH);
    }
    let w = weights_of(at, lane, tile, vec4(4u * lane.c) + vec4(0u, 1u, 2u, 3u), s, d_p);
    store_weights(lane, transpose(w.p), transpose(w.ds));
    workgroupBarrier();
    if (HAS_VALUE) {
        weigh(share, P_AT, VALUES_AT);
        factors_at = 0u;
        value_sums = taken(lane, share, value_sums);
    }
    if (HAS_HEAD) {
        weigh(share, DS_AT, HEADS_AT);
        factors_at = ROWS;
        head_sums = taken(lane, share, head_sums);
    }
}

// Products of all rows with all columns of the tile, of so many groups of elements: those of the lane.
fn multiplied(lane: Lane, share: Share, rows_at: u32, columns_at: u32, depth: u32) -> mat4x4<f32> {
    var s00: mat_c;
    var s01: mat_c;
    var s10: mat_c;
    var s11: mat_c;
    for (var g = 0u; g < depth; g += STEP) {
        let from_row = rows_at + share.row * PITCH + g;
        let r0 = coopLoadT<mat_a>(&halves[from_row], PITCH);
        let r1 = coopLoadT<mat_a>(&halves[from_row + MATRIX * PITCH], PITCH);
        // Column-major: columns of the tile lie as rows, and are the columns of the operand.
        let from_column = columns_at + share.key * PITCH + g;
        let c0 = coopLoad<mat_b>(&halves[from_column], PITCH);
        s00 = coopMultiplyAdd(r0, c0, s00);
        s10 = coopMultiplyAdd(r1, c0, s10);
        if (S_WIDE) {
            let c1 = coopLoad<mat_b>(&halves[from_column + MATRIX * PITCH], PITCH);
            s01 = coopMultiplyAdd(r0, c1, s01);
            s11 = coopMultiplyAdd(r1, c1, s11);
        }
    }
    lay_products(share, s00, s01, s10, s11);
    workgroupBarrier();
    return transpose(mat4x4(row_products(lane, 0u), row_products(lane, 1u), row_products(lane, 2u), row_products(lane, 3u)));
}

// Of the tile's columns, weighed, what this subgroup makes: of the weights that begin at one place, the columns at the other.
fn weigh(share: Share, weights_at: u32, columns_at: u32) {
    forget_products();
    for (var column = 0u; column < KEYS; column += MATRIX) {
        let from_weight = weights_at + share.row * K_PITCH + column / 4u;
        let w0 = coopLoadT<mat_a>(&halves[from_weight], K_PITCH);
        let w1 = coopLoadT<mat_a>(&halves[from_weight + MATRIX * K_PITCH], K_PITCH);
        // Row-major: here columns of the tile are the rows of the operand.
        let from_column = columns_at + column * PITCH + share.column / 4u;
        let c0 = coopLoadT<mat_b>(&halves[from_column], PITCH);
        let c1 = coopLoadT<mat_b>(&halves[from_column + STEP], PITCH);
        o00 = coopMultiplyAdd(w0, c0, o00);
        o10 = coopMultiplyAdd(w1, c0, o10);
        o01 = coopMultiplyAdd(w0, c1, o01);
        o11 = coopMultiplyAdd(w1, c1, o11);
        if (WIDE) {
            let c2 = coopLoadT<mat_b>(&halves[from_column + 2u * STEP], PITCH);
            let c3 = coopLoadT<mat_b>(&halves[from_column + 3u * STEP], PITCH);
            o02 = coopMultiplyAdd(w0, c2, o02);
            o12 = coopMultiplyAdd(w1, c2, o12);
            o03 = coopMultiplyAdd(w0, c3, o03);
            o13 = coopMultiplyAdd(w1, c3, o13);
        }
    }
}

// --- between matrices and lanes ---

// Of a row of the lane, the products with its 4 columns, which are neighbours.
fn row_products(lane: Lane, k: u32) -> vec4<f32> { return products[(lane.r + k * LANES_R) * S_PITCH + lane.c]; }

// The weights of the lane's 4 rows (columns of these matrices are rows), times their factors, rounded. The largest of each row pass through
// places of `products` that this lane alone has read.
fn store_weights(lane: Lane, p: mat4x4<f32>, ds: mat4x4<f32>) {
    let place = lane.r * S_PITCH + lane.c;
    if (HAS_VALUE) { products[place] = bitcast<vec4<f32>>(largest_exponents(p)); }
    if (HAS_HEAD) { products[place + LANES_R * S_PITCH] = bitcast<vec4<f32>>(largest_exponents(ds)); }
    workgroupBarrier();
    if (HAS_VALUE) {
        let factors = factors_of(lane.r * S_PITCH);
        store_rows(lane, P_AT, p, factors.up);
        tell_factors(lane, 0u, factors.back);
    }
    if (HAS_HEAD) {
        let factors = factors_of((lane.r + LANES_R) * S_PITCH);
        store_rows(lane, DS_AT, ds, factors.up);
        tell_factors(lane, ROWS, factors.back);
    }
}

// Of each row the largest exponent, in its place among the bits.
fn largest_exponents(x: mat4x4<f32>) -> vec4<u32> {
    return vec4(largest4(exponents(x[0])), largest4(exponents(x[1])), largest4(exponents(x[2])), largest4(exponents(x[3])));
}

fn largest4(x: vec4<u32>) -> u32 { return max(max(x.x, x.y), max(x.z, x.w)); }

// By the largest exponents of the lanes of 4 rows, which begin at this place. No factor passes 2^126, so that its inverse is a normal
// number: what is smaller still does not come to lie that high.
fn factors_of(from_lane: u32) -> Factors {
    var largest = vec4(0u);
    for (var c = 0u; c < LANES_C; c++) { largest = max(largest, bitcast<vec4<u32>>(products[from_lane + c])); }
    let up = min(vec4(254u + SCALED_EXPONENT) - (largest >> vec4(23u)), vec4(253u));
    // The bits of some NaN, which no constant may hold.
    let strange = select(vec4(0u), largest | vec4(0x00400000u), largest == vec4(0x7f800000u));
    return Factors(bitcast<vec4<f32>>(up << vec4(23u)), bitcast<vec4<f32>>(((vec4(254u) - up) << vec4(23u)) | strange));
}

fn store_rows(lane: Lane, weights_at: u32, x: mat4x4<f32>, factors: vec4<f32>) {
    let to = weights_at + lane.r * K_PITCH + lane.c;
    halves[to] = vec4<f16>(eleven_bits(factors.x * x[0]));
    halves[to + LANES_R * K_PITCH] = vec4<f16>(eleven_bits(factors.y * x[1]));
    halves[to + 2u * LANES_R * K_PITCH] = vec4<f16>(eleven_bits(factors.z * x[2]));
    halves[to + 3u * LANES_R * K_PITCH] = vec4<f16>(eleven_bits(factors.w * x[3]));
}

// For the lanes that hold other parts of these rows; before a barrier.
fn tell_factors(lane: Lane, first: u32, back: vec4<f32>) {
    if (lane.c > 0u) { return; }
    let to = first + lane.r;
    row_factor[to] = back.x;
    row_factor[to + LANES_R] = back.y;
    row_factor[to + 2u * LANES_R] = back.z;
    row_factor[to + 3u * LANES_R] = back.w;
}

// The tile's products in matrices joined to the lane's own sums.
fn taken(lane: Lane, share: Share, sums: AllSums) -> AllSums {
    var all = sums;
    write_patch(share, o00, o10);
    all.a = joined(lane, sums.a);
    write_patch(share, o01, o11);
    all.b = joined(lane, sums.b);
    if (WIDE) {
        write_patch(share, o02, o12);
        all.c = joined(lane, sums.c);
        write_patch(share, o03, o13);
        all.d = joined(lane, sums.d);
    }
    return all;
}

fn joined_piece(e: u32, sum: vec4<f32>) -> vec4<f32> {
    return fma(products[e], vec4(row_factor[factors_at + row_of_piece(e)]), sum);
}

// --- the end ---

fn end(at: Head, lane: Lane) {
    if (HAS_VALUE) { write_sums(at, lane, value_sums, true); }
    if (HAS_HEAD) { write_sums(at, lane, head_sums, false); }
}

fn write_sums(at: Head, lane: Lane, sums: AllSums, values: bool) {
    write_pieces(at, lane, 0u, sums.a, values);
    write_pieces(at, lane, 1u, sums.b, values);
    if (WIDE) {
        write_pieces(at, lane, 2u, sums.c, values);
        write_pieces(at, lane, 3u, sums.d, values);
    }
}

// A lane's pieces of a column of matrices.
fn write_pieces(at: Head, lane: Lane, matrix: u32, sums: Sums, values: bool) {
    write_piece(at, lane.index, matrix, sums.a, values);
    write_piece(at, lane.index + LANES, matrix, sums.b, values);
    if (PIECES == 4u) {
        write_piece(at, lane.index + 2u * LANES, matrix, sums.c, values);
        write_piece(at, lane.index + 3u * LANES, matrix, sums.d, values);
    }
}

fn write_piece(at: Head, e: u32, matrix: u32, x: vec4<f32>, values: bool) {
    write_group(at, at.first_row + row_of_piece(e), group_of_piece(e, matrix), x, values);
}

// --- staging: workgroup memory filled by all lanes together ---
//
// The tensors are f16: nothing is rounded here.

// Rows that leave a column out weigh it by 0, and 0 x NaN is not 0: there, what is not finite becomes 0. Rows that see it have a weight
// that is NaN, by the query's record.
fn stage_columns(at: Head, lane: Lane, tile: KeyTile) {
    for (var e = lane.index; e < KEYS * WIDTH; e += LANES) {
        let column = tile.first + e / WIDTH;
        let g = e % WIDTH;
        let to = e / WIDTH * PITCH + g;
        var head = vec4(0.0);
        if (g < HEAD_GROUPS) { head = finite_where_masked(tile, column_head(at, column_head_at(at, column), g)); }
        halves[HEADS_AT + to] = vec4<f16>(head);
        var value = vec4(0.0);
        if (g < VALUE_GROUPS) { value = finite_where_masked(tile, column_value(column_value_at(at, column), g)); }
        halves[VALUES_AT + to] = vec4<f16>(value);
    }
}
