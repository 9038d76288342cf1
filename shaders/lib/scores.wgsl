// From products to scores: the terms of the score, at the tensors' positions behind the orders; DROPPED for pairs that are
// left out; and a note of scores that are not finite.

// Of the lane's 4 queries: the lowest score. At minus infinity a key would weigh nothing, and nothing else would tell.
var<private> lowest: vec4<f32>;
// Of the lane's 4 queries: whether one attends a value that is not finite, where that is known.
var<private> strange_rows: vec4<bool>;

// Of the lane's 4 queries by 4 keys: which are attended, where the tile is masked or terms may remove pairs. See `by_rows`.
var<private> pairs_seen: u32;

// How far the 4 keys of a query that are asked for lie apart.
const KEY_STRIDE = LANES_C;

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
    if (is_masked(tile)) { s = without_unseen(tile, row, lane.c, s); }
    if (SCORES_MAY_DROP) { pairs_seen = by_rows(vec4(kept_score(s.a), kept_score(s.b), kept_score(s.c), kept_score(s.d))); }
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

// DROPPED for the pairs that are left out: of 4 keys from `first` on.
fn without_unseen(tile: KeyTile, row: u32, first: u32, s: Scores) -> Scores {
    let t = vec4(first, first + LANES_C, first + 2u * LANES_C, first + 3u * LANES_C);
    let inside = kept_bits(t < vec4(tile.count));
    var rows = vec4(inside);
    if (tile.kind != FULL) {
        // A short tile's last lanes look past the block: `inside` discards what they read.
        let key = min(t + tile.offset, vec4(BLOCK_K - 1u));
        rows = vec4(kept(tile.kind, row_in_block(row), key, inside),
                    kept(tile.kind, row_in_block(row + LANES_R), key, inside),
                    kept(tile.kind, row_in_block(row + 2u * LANES_R), key, inside),
                    kept(tile.kind, row_in_block(row + 3u * LANES_R), key, inside));
    }
    pairs_seen = by_rows(rows);
    return Scores(seen_score(s.a, rows.x), seen_score(s.b, rows.y), seen_score(s.c, rows.z), seen_score(s.d, rows.w));
}

fn seen_score(s: vec4<f32>, row: u32) -> vec4<f32> { return select(vec4(DROPPED), s, (vec4(row) & KEPT) != vec4(0u)); }

// The bits of those of 4 keys for which something holds.
fn kept_bits(holds: vec4<bool>) -> u32 {
    let bits = select(vec4(0u), KEPT, holds);
    return (bits.x | bits.y) | (bits.z | bits.w);
}

fn kept_score(s: vec4<f32>) -> u32 { return kept_bits(bitcast<vec4<u32>>(s) != vec4(0xff7fffffu)); }

// The bits of 4 rows by 4 keys: each row's are the next to those of the row before.
fn by_rows(rows: vec4<u32>) -> u32 { return (rows.x | (rows.y << 1u)) | ((rows.z << 2u) | (rows.w << 3u)); }

fn min4(x: vec4<f32>) -> f32 { return min(min(x.x, x.y), min(x.z, x.w)); }

// The sums of the lane's 4 queries, NaN for rows that attended something that is not finite: from here it reaches all of the
// row's output, and lse. A score of NaN is in the sum already, one of infinity is the maximum.
fn marked(sums: vec4<f32>) -> vec4<f32> {
    let strange = strange_rows | not_finite(lowest) | not_finite(m) | not_finite(sums);
    // The bits of some NaN, which no constant may hold: those of the sum, with all of the exponent's and one of the rest set.
    return select(sums, bitcast<vec4<f32>>(bitcast<vec4<u32>>(sums) | vec4(0x7fc00000u)), strange);
}
