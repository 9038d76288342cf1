// From products to scores: the terms of the score, at the tensors' positions behind the orders; DROPPED for pairs that are
// left out; and a note of scores that are not finite.

// Of the lane's 4 queries: the lowest score. At minus infinity a key would weigh nothing, and nothing else would tell.
var<private> lowest: vec4<f32>;
// Of the lane's 4 queries: whether one attends a value that is not finite, where that is known.
var<private> strange_rows: vec4<bool>;

// Whether some pairs of the tile are left out.
fn is_masked(tile: KeyTile) -> bool { return tile.kind != FULL || tile.count < KEYS; }

fn scores(at: Head, lane: Lane, tile: KeyTile, products: Scores) -> Scores {
    var s = segmented(at, lane, tile, related(at, lane, tile, products));
    let row = at.first_row + lane.r;
    if (SCORES_NEED_POSITIONS) {
        let key = tile.first + lane.c;
        let j = vec4(key_at(at, key), key_at(at, key + LANES_C),
                     key_at(at, key + 2u * LANES_C), key_at(at, key + 3u * LANES_C));
        s = Scores(row_score(at, row, j, s.a), row_score(at, row + LANES_R, j, s.b),
                   row_score(at, row + 2u * LANES_R, j, s.c), row_score(at, row + 3u * LANES_R, j, s.d));
    }
    if (is_masked(tile)) {
        s.a = select(vec4(DROPPED), s.a, seen(tile, row_in_block(row), lane.c));
        s.b = select(vec4(DROPPED), s.b, seen(tile, row_in_block(row + LANES_R), lane.c));
        s.c = select(vec4(DROPPED), s.c, seen(tile, row_in_block(row + 2u * LANES_R), lane.c));
        s.d = select(vec4(DROPPED), s.d, seen(tile, row_in_block(row + 3u * LANES_R), lane.c));
    }
    lowest = min(lowest, vec4(min4(s.a), min4(s.b), min4(s.c), min4(s.d)));
    return s;
}

// Rows past the last repeat it, so that no index lies outside.
fn row_score(at: Head, row: u32, j: vec4<u32>, products: vec4<f32>) -> vec4<f32> {
    let own = min(row, params.kernel.q_count - 1u);
    let i = query_at(at, own);
    var s = score(pairs_of(at.batch, head_of(at, own), i, j), products);
    // No score is taken for a pair that is left out, though rounding may have taken it to minus infinity; NaN and infinity
    // stay; and no term makes a product finite that is not.
    if (BASE_E) { s = select(max(s, vec4(LOWEST)), s, not_finite(s) & (bitcast<vec4<u32>>(s) != vec4(0xff800000u))); }
    s = select(s, products, not_finite(products));
    // The bits of some NaN, as in `marked`.
    if (SCORES_MAY_SPOIL) { s = select(s, bitcast<vec4<f32>>(bitcast<vec4<u32>>(s) | vec4(0x7fc00000u)), spoilt); }
    if (SCORES_MAY_DROP) { s = select(s, vec4(DROPPED), removed); }
    return s;
}

// Which of 4 keys, from c on, row `row` of the block sees.
fn seen(tile: KeyTile, row: u32, c: u32) -> vec4<bool> {
    let t = vec4(c, c + LANES_C, c + 2u * LANES_C, c + 3u * LANES_C);
    let inside = t < vec4(tile.count);
    if (tile.kind == FULL) { return inside; }
    // A short tile's last lanes look past the block: `inside` discards what they read.
    return inside & keep(tile.kind, row, min(t + tile.offset, vec4(BLOCK_K - 1u)));
}

fn min4(x: vec4<f32>) -> f32 { return min(min(x.x, x.y), min(x.z, x.w)); }

// The sums of the lane's 4 queries, NaN for rows that attended something that is not finite: from here it reaches all of the
// row's output, and lse. A score of NaN is in the sum already, one of infinity is the maximum.
fn marked(sums: vec4<f32>) -> vec4<f32> {
    let strange = strange_rows | not_finite(lowest) | not_finite(m) | not_finite(sums);
    // The bits of some NaN, which no constant may hold: those of the sum, with all of the exponent's and one of the rest set.
    return select(sums, bitcast<vec4<f32>>(bitcast<vec4<u32>>(sums) | vec4(0x7fc00000u)), strange);
}
