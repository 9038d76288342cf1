// Few queries per sequence against a key cache (decoding), or against packed keys of the caller's; keys split over workgroups (Flash-Decoding):
//
//     s_j = scale q . k_j    m = max_j s_j    l = sum_j e^(s_j - m)    o = sum_j e^(s_j - m) v_j / l       over the split's keys
//
// A workgroup has one key head of one sequence. Its rows are the queries of all heads that share the key head, so that a key is loaded
// once for all of them. It takes keys by chunks: first a lane has keys and sums up their products by itself, then a lane has columns
// and walks the keys. What it leaves, (m, l) and o, is merged by merge.wgsl. Scores are in base 2: log2(e) is in q_scale.
//
// Query t of n in a sequence of L keys stands at p = L - n + t, where both end together, and sees keys p - before .. p + after. p may be
// negative; so all of it is compared with n added on both sides.
//
// Lengths are the device's. A dispatch is for the capacity: chunks are dealt out in turn, so that all splits share the keys that there
// are, and a split without keys leaves an empty row at once.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work
    end_work: u32,
    row_tiles: u32,
    splits: u32,
    heads: u32,             // H
    heads_per_kv_head: u32,
    before: u32,            // a query sees so many positions before its own, and its own,
    after: u32,             // so many after it,
    sinks: u32,             // and the first ones up to there
    q_scale: f32,
    nothing: u32,           // 0, but no compiler knows
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_state) var<storage, read_write> state: array<vec2<f32>>;     // (m, l) [splits, B, H, new], or [splits, H, rows]
@group(0) @binding(BINDING_merged) var<storage, read_write> merged: array<vec4<f32>>;   // of 4 columns each: [.., VALUE_GROUPS]

const ROWS = 4u * ROW_GROUPS;
const SUBSETS = LANES / VALUE_GROUPS;       // lanes of the same columns share the keys of a stretch; those past the last subset are not asked
const EIGHTHS = LANES / 8u;
const LANE_KEYS = min(4u, CHUNK / LANES);   // keys of a chunk that a lane has at a time: 4 or 2
const LINE_LANES = min(8u, LINE / 4u);      // neighbours whose columns share a line
const DROPPED = -0x1.fffffep+127f;
const NAN_BITS = 0x7fc00000u;

// What a workgroup owns.
struct Tile {
    split: u32,
    batch: u32,
    kv_head: u32,
    first_row: u32,         // row r is head r % G of the group, new position r / G
    count: u32,             // new positions of this sequence, n
    length: u32,            // its keys, L
    seen_from: u32,         // keys from there on are in the window of every row,
    seen_until: u32,        // and keys before that are not past it
    end: u32,               // keys that any row of the tile sees lie before that
    sink_chunks: u32,       // chunks of sinks that are not in the window
    first_chunk: u32,       // of the window
    chunks: u32,            // in all
}

var<workgroup> own_tile: Tile;
var<workgroup> queries: array<vec4<f32>, 4u * HEAD_GROUPS * ROW_GROUPS>;   // element by element, of 4 rows each
var<workgroup> scores: array<vec4<f32>, CHUNK * ROW_GROUPS>;                // of 4 rows each; then weights; at the end columns, if lanes share them
var<workgroup> partial: array<vec4<f32>, LANES * ROW_GROUPS>;
var<workgroup> eighths: array<vec4<f32>, EIGHTHS * ROW_GROUPS>;

var<private> top: array<vec4<f32>, ROW_GROUPS>;         // the largest score of the lane's keys, or m
var<private> m: array<vec4<f32>, ROW_GROUPS>;
var<private> l: array<vec4<f32>, ROW_GROUPS>;           // of the lane's keys alone
var<private> spoilt: array<vec4<u32>, ROW_GROUPS>;      // bits of a NaN for rows that met what is not finite
var<private> touched: u32;                              // of what was only read to be near
var<private> o: array<mat4x4<f32>, ROW_GROUPS>;         // a column per row: the lane's group of columns, of its share of keys

@compute @workgroup_size(LANES)
fn decode(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    if (lane == 0u) { own_tile = tile_of(work); }
    let at = workgroupUniformLoad(&own_tile);
    if (at.split >= at.chunks) {
        leave_nothing(at, lane);
        return;
    }
    stage_queries(at, lane);
    for (var g = 0u; g < ROW_GROUPS; g++) { m[g] = vec4(DROPPED); }
    for (var n = at.split; n < at.chunks; n += params.kernel.splits) {
        let chunk = select(at.first_chunk + n - at.sink_chunks, n, n < at.sink_chunks);
        // Queries are there, and the weights of the chunk before are used up.
        workgroupBarrier();
        attend(at, lane, chunk * CHUNK, min(chunk * CHUNK + CHUNK, at.end));
    }
    write_rows(at, lane);
}

fn tile_of(work: u32) -> Tile {
    var at: Tile;
    at.split = work % params.kernel.splits;
    let place = place_of_tile(work / params.kernel.splits);
    at.first_row = place.tile * ROWS;
    at.kv_head = place.kv_head;
    at.batch = place.batch;
    // Rows that are nobody's have no keys.
    if (at.batch >= params.cache.batch) { return at; }
    at.length = length_of(at.batch);
    at.count = count_of(at.batch);
    let first_t = at.first_row / params.kernel.heads_per_kv_head;
    // A tile past the last new position has no keys.
    if (first_t >= at.count) { return at; }
    let last_t = position_of(at, ROWS - 1u);
    at.seen_from = first_seen(at, last_t);
    at.seen_until = end_of(at, first_t);
    at.end = end_of(at, last_t);
    at.first_chunk = first_seen(at, first_t) / CHUNK;
    at.sink_chunks = min(chunks_of(min(params.kernel.sinks, at.end)), at.first_chunk);
    at.chunks = at.sink_chunks + chunks_of(at.end) - at.first_chunk;
    return at;
}

fn chunks_of(keys: u32) -> u32 { return (keys + CHUNK - 1u) / CHUNK; }

// Where the window of new position t begins.
fn first_seen(at: Tile, t: u32) -> u32 {
    let before = at.count + params.kernel.before;
    return max(at.length + t, before) - before;
}

// Keys that it sees lie before that.
fn end_of(at: Tile, t: u32) -> u32 {
    return min(max(at.length + t + params.kernel.after + 1u, at.count) - at.count, at.length);
}

// New position of row r of the tile; rows past the last are as the last.
fn position_of(at: Tile, r: u32) -> u32 { return min((at.first_row + r) / params.kernel.heads_per_kv_head, at.count - 1u); }

// The element at which row r's query begins.
fn query_at(at: Tile, r: u32) -> u32 {
    let row = at.first_row + r;
    let t = position_of(at, r);
    let head = at.kv_head * params.kernel.heads_per_kv_head + row % params.kernel.heads_per_kv_head;
    return params.q.offset + first_query(at.batch) + head * params.q.head + t * params.q.row;
}

fn stage_queries(at: Tile, lane: u32) {
    for (var item = lane; item < HEAD_GROUPS * ROW_GROUPS; item += LANES) {
        let c = item % HEAD_GROUPS;
        let r = item / HEAD_GROUPS * 4u;
        let count = HEAD_DIM - 4u * c;
        var x = transpose(mat4x4(load_q(query_at(at, r) + 4u * c, count), load_q(query_at(at, r + 1u) + 4u * c, count),
                                 load_q(query_at(at, r + 2u) + 4u * c, count), load_q(query_at(at, r + 3u) + 4u * c, count)));
        for (var e = 0u; e < 4u; e++) { queries[4u * item + e] = x[e] * params.kernel.q_scale; }
    }
}

// Keys first .. end of one chunk.
fn attend(at: Tile, lane: u32, first: u32, end: u32) {
    // Whether every row sees every key.
    let whole = end <= at.seen_until && (first >= at.seen_from || end <= params.kernel.sinks);
    for (var g = 0u; g < ROW_GROUPS; g++) {
        top[g] = m[g];
        // All lanes take part in every step, so that queries are loads that are the same for all.
        for (var n = 0u; first + n < end; n += LANE_KEYS * LANES) { note_scores(at, g, first, n + lane, end, whole); }
    }
    raise_maxima(lane);
    for (var g = 0u; g < ROW_GROUPS; g++) {
        for (var j = lane; first + j < end; j += LANES) {
            let s = scores[g * CHUNK + j];
            let p = select(max(exp2(s - m[g]), vec4(0x1p-126f)), vec4(0.0), s == vec4(DROPPED));
            l[g] += p;
            scores[g * CHUNK + j] = p;
        }
    }
    workgroupBarrier();
    for (var j = first; j < end; j += STRETCH) {
        let row = value_row(at.batch, at.kv_head, j);
        let keys = min(STRETCH, end - j);
        if (TOUCHES && VALUES_APART) { touch_values(row, lane, keys); }
        for (var g = 0u; g < ROW_GROUPS; g++) {
            let weights = g * CHUNK + j - first;
            if (whole) { add_all_values(g, row, lane, weights, keys); } else { add_seen_values(g, row, lane, weights, keys); }
        }
    }
}

// One word of every line of 64 bytes of the lane's own keys, many lines at once: a CPU runs lanes one after the other, or as many as its vectors
// have, up to the next barrier, and each of them would wait for its own. What others touch comes too late, or is gone again.
fn touch_keys(rows: vec4<u32>) {
    for (var n = 0u; n < KEY_ROW; n += LINE) {
        let at = rows + vec4(n);
        touched |= bitcast<u32>(load_keys(at.x, 4u).x) | bitcast<u32>(load_keys(at.y, 4u).x);
        if (LANE_KEYS == 4u) { touched |= bitcast<u32>(load_keys(at.z, 4u).x) | bitcast<u32>(load_keys(at.w, 4u).x); }
    }
}

// The same of the lines in which the lane's columns lie, of a stretch of values: lanes that share a line share the keys.
fn touch_values(row: u32, lane: u32, keys: u32) {
    let column = 4u * (lane % VALUE_GROUPS);
    for (var j = subset_of(lane) + SUBSETS * (lane % LINE_LANES); j < keys; j += SUBSETS * LINE_LANES) {
        touched |= bitcast<u32>(load_values(row + j * value_step() + VALUE_AT + column, 4u).x);
    }
}

// Scores of 4 rows and the lane's keys of the chunk, n, n + LANES, ...
fn note_scores(at: Tile, g: u32, first: u32, n: u32, end: u32, whole: bool) {
    // Past the last key it is taken again; nobody asks for those scores.
    let keys = min(vec4(first + n) + vec4(0u, LANES, 2u * LANES, 3u * LANES), vec4(end - 1u));
    let rows = vec4(key_row(at.batch, at.kv_head, keys.x), key_row(at.batch, at.kv_head, keys.y),
                    key_row(at.batch, at.kv_head, keys.z), key_row(at.batch, at.kv_head, keys.w));
    if (TOUCHES && g == 0u) { touch_keys(rows); }
    let scales = vec4(scale_of_keys(rows.x), scale_of_keys(rows.y), scale_of_keys(rows.z), scale_of_keys(rows.w));
    let begin = rows + vec4(BEFORE_ROW);
    var x = mat4x4<f32>();
    // Four groups per step: a step of one costs a CPU as much again as what is in it.
    for (var c = 0u; c + 4u <= HEAD_GROUPS; c += 4u) {
        x = with_group(x, g, c, begin, scales);
        x = with_group(x, g, c + 1u, begin, scales);
        x = with_group(x, g, c + 2u, begin, scales);
        x = with_group(x, g, c + 3u, begin, scales);
    }
    for (var c = HEAD_GROUPS / 4u * 4u; c < HEAD_GROUPS; c++) { x = with_group(x, g, c, begin, scales); }
    note_score(at, g, n, keys.x, whole, x[0]);
    note_score(at, g, n + LANES, keys.y, whole, x[1]);
    if (LANE_KEYS == 4u) {
        note_score(at, g, n + 2u * LANES, keys.z, whole, x[2]);
        note_score(at, g, n + 3u * LANES, keys.w, whole, x[3]);
    }
}

// Products of 4 rows and 4 keys (as columns), with those of one more group of elements.
fn with_group(x: mat4x4<f32>, g: u32, c: u32, begin: vec4<u32>, scales: vec4<f32>) -> mat4x4<f32> {
    let at_q = 4u * (g * HEAD_GROUPS + c);
    let q = mat4x4(queries[at_q], queries[at_q + 1u], queries[at_q + 2u], queries[at_q + 3u]);
    let at_k = begin + vec4(4u * c);
    let count = HEAD_DIM - 4u * c;
    let first = product(x[0], q, load_keys(at_k.x, count) * scales.x);
    let second = product(x[1], q, load_keys(at_k.y, count) * scales.y);
    if (LANE_KEYS == 2u) { return mat4x4(first, second, x[2], x[3]); }
    return mat4x4(first, second, product(x[2], q, load_keys(at_k.z, count) * scales.z),
                  product(x[3], q, load_keys(at_k.w, count) * scales.w));
}

fn product(x: vec4<f32>, q: mat4x4<f32>, k: vec4<f32>) -> vec4<f32> {
    return fma(q[3], vec4(k.w), fma(q[2], vec4(k.z), fma(q[1], vec4(k.y), fma(q[0], vec4(k.x), x))));
}

// Those of 4 rows and key j, which is number n of the chunk.
fn note_score(at: Tile, g: u32, n: u32, j: u32, whole: bool, x: vec4<f32>) {
    let strange = not_finite(x);
    var seen = vec4(true);
    if (!whole) { seen &= seen_by(at, 4u * g, j); }
    spoilt[g] |= select(vec4(0u), vec4(NAN_BITS), seen & strange);
    let s = select(vec4(DROPPED), x, seen & !strange);
    scores[g * CHUNK + n] = s;
    top[g] = max(top[g], s);
}

// Which of 4 rows see key j.
fn seen_by(at: Tile, r: u32, j: u32) -> vec4<bool> {
    let t = vec4(position_of(at, r), position_of(at, r + 1u), position_of(at, r + 2u), position_of(at, r + 3u));
    let own = vec4(at.length) + t;
    let key = j + at.count;
    return (vec4(key) <= own + vec4(params.kernel.after)) &
           ((vec4(key + params.kernel.before) >= own) | vec4(j < params.kernel.sinks));
}

// Takes the maxima over all lanes, and brings sums and columns to them.
fn raise_maxima(lane: u32) {
    for (var g = 0u; g < ROW_GROUPS; g++) { partial[g * LANES + lane] = top[g]; }
    workgroupBarrier();
    if (lane < EIGHTHS * ROW_GROUPS) {
        var x = partial[8u * lane];
        for (var n = 1u; n < 8u; n++) { x = max(x, partial[8u * lane + n]); }
        eighths[lane] = x;
    }
    workgroupBarrier();
    for (var g = 0u; g < ROW_GROUPS; g++) {
        var x = eighths[EIGHTHS * g];
        for (var n = 1u; n < EIGHTHS; n++) { x = max(x, eighths[EIGHTHS * g + n]); }
        let factor = vec4(shrink(m[g].x, x.x), shrink(m[g].y, x.y), shrink(m[g].z, x.z), shrink(m[g].w, x.w));
        m[g] = x;
        l[g] *= factor;
        o[g] = mat4x4(o[g][0] * factor.x, o[g][1] * factor.y, o[g][2] * factor.z, o[g][3] * factor.w);
    }
}

// The weight of an old maximum against a new one that is not below it: exactly 1 while it stays.
fn shrink(old: f32, new_maximum: f32) -> f32 { return select(exp2(max(old - new_maximum, -200.0)), 1.0, old == new_maximum); }

// The values of a stretch of keys, which lie one behind the other from element `row` on and have their weights from `weights` on. It is
// summed by itself, so that few roundings meet in any sum. Every row sees every key: 8 keys at a time, then 4.
fn add_all_values(g: u32, row: u32, lane: u32, weights: u32, keys: u32) {
    let column = 4u * (lane % VALUE_GROUPS);
    var x = mat4x4<f32>();
    let eights = keys / (8u * SUBSETS) * (8u * SUBSETS);
    for (var j = min(subset_of(lane), SUBSETS - 1u); j < eights; j += 8u * SUBSETS) {
        x = with_key(x, weights, row, j, column);
        x = with_key(x, weights, row, j + SUBSETS, column);
        x = with_key(x, weights, row, j + 2u * SUBSETS, column);
        x = with_key(x, weights, row, j + 3u * SUBSETS, column);
        x = with_key(x, weights, row, j + 4u * SUBSETS, column);
        x = with_key(x, weights, row, j + 5u * SUBSETS, column);
        x = with_key(x, weights, row, j + 6u * SUBSETS, column);
        x = with_key(x, weights, row, j + 7u * SUBSETS, column);
    }
    for (var j = eights + subset_of(lane); j < keys; j += 4u * SUBSETS) {
        // Past the last key its value is taken again, and weighs nothing.
        let n = vec4(j) + vec4(0u, SUBSETS, 2u * SUBSETS, 3u * SUBSETS);
        let at_v = vec4(row) + min(n, vec4(keys - 1u)) * value_step();
        x = add_value(x, weight_of(weights, n.x, keys), value_of(at_v.x, column));
        x = add_value(x, weight_of(weights, n.y, keys), value_of(at_v.y, column));
        x = add_value(x, weight_of(weights, n.z, keys), value_of(at_v.z, column));
        x = add_value(x, weight_of(weights, n.w, keys), value_of(at_v.w, column));
    }
    o[g] += x;
}

// A sum of values with key j's.
fn with_key(x: mat4x4<f32>, weights: u32, row: u32, j: u32, column: u32) -> mat4x4<f32> {
    return add_value(x, scores[weights + j], value_of(row + j * value_step(), column));
}

// 4 columns of the value whose row begins at `at`.
fn value_of(at: u32, column: u32) -> vec4<f32> {
    return load_values(at + VALUE_AT + column, VALUE_DIM - column) * scale_of_values(at);
}

// Of 4 rows for one key; and a sum of values for each of the rows.
fn weight_of(weights: u32, n: u32, keys: u32) -> vec4<f32> { return select(vec4(0.0), scores[weights + min(n, keys - 1u)], n < keys); }

fn add_value(x: mat4x4<f32>, p: vec4<f32>, v: vec4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(vec4(p.x), v, x[0]), fma(vec4(p.y), v, x[1]), fma(vec4(p.z), v, x[2]), fma(vec4(p.w), v, x[3]));
}

// The same of keys that some rows do not see: what a row does not see never matters, be it NaN.
fn add_seen_values(g: u32, row: u32, lane: u32, weights: u32, keys: u32) {
    let column = 4u * (lane % VALUE_GROUPS);
    var x = mat4x4<f32>();
    for (var j = subset_of(lane); j < keys; j += SUBSETS) {
        let p = scores[weights + j];
        let sum = add_value(x, p, value_of(row + j * value_step(), column));
        let hidden = p == vec4(0.0);
        x = mat4x4(select(sum[0], x[0], vec4(hidden.x)), select(sum[1], x[1], vec4(hidden.y)),
                   select(sum[2], x[2], vec4(hidden.z)), select(sum[3], x[3], vec4(hidden.w)));
    }
    o[g] += x;
}

// The first key of a lane's share.
fn subset_of(lane: u32) -> u32 {
    if (SUBSETS == 1u) { return 0u; }
    return lane / VALUE_GROUPS;
}

fn write_rows(at: Tile, lane: u32) {
    for (var g = 0u; g < ROW_GROUPS; g++) {
        var strange = spoilt[g];
        strange |= select(vec4(0u), vec4(NAN_BITS), vec4(any(not_finite(o[g][0])), any(not_finite(o[g][1])),
                                                         any(not_finite(o[g][2])), any(not_finite(o[g][3]))));
        l[g] = bitcast<vec4<f32>>(bitcast<vec4<u32>>(l[g]) | strange);
    }
    // All have used the weights once the sums are there.
    sum_over_lanes(lane);
    if (SUBSETS > 1u) {
        write_shared(at, lane);
    } else if (lane < VALUE_GROUPS) {
        for (var r = 0u; r < ROWS; r++) { write_row_group(at, r, lane, o[r / 4u][r % 4u]); }
    }
}

// Adds up what the lanes of the same columns have.
fn write_shared(at: Tile, lane: u32) {
    for (var g = 0u; g < ROW_GROUPS; g++) {
        for (var r = 0u; r < 4u; r++) { scores[(4u * g + r) * LANES + lane] = o[g][r]; }
    }
    workgroupBarrier();
    for (var item = lane; item < ROWS * VALUE_GROUPS; item += LANES) {
        let r = item / VALUE_GROUPS;
        let column = item % VALUE_GROUPS;
        var x = scores[r * LANES + column];
        for (var n = 1u; n < SUBSETS; n++) { x += scores[r * LANES + n * VALUE_GROUPS + column]; }
        write_row_group(at, r, column, x);
    }
}

// 4 columns of row r, whose sum is x.
fn write_row_group(at: Tile, r: u32, column: u32, x: vec4<f32>) {
    let sum = l[r / 4u][r % 4u];
    write_group(at, r, column, x * select(1.0 / sum, 0.0, is_zero(sum)), m[r / 4u][r % 4u], sum);
}

// l over all lanes.
fn sum_over_lanes(lane: u32) {
    for (var g = 0u; g < ROW_GROUPS; g++) { partial[g * LANES + lane] = l[g]; }
    workgroupBarrier();
    if (lane < EIGHTHS * ROW_GROUPS) {
        var x = partial[8u * lane];
        for (var n = 1u; n < 8u; n++) { x += partial[8u * lane + n]; }
        eighths[lane] = x;
    }
    workgroupBarrier();
    for (var g = 0u; g < ROW_GROUPS; g++) {
        var x = eighths[EIGHTHS * g];
        for (var n = 1u; n < EIGHTHS; n++) { x += eighths[EIGHTHS * g + n]; }
        l[g] = x;
    }
}

// A split without keys: no state, and rows of 0, for what is left there from an earlier call may be anything.
fn leave_nothing(at: Tile, lane: u32) {
    for (var item = lane; item < ROWS * VALUE_GROUPS; item += LANES) {
        write_group(at, item / VALUE_GROUPS, item % VALUE_GROUPS, vec4(0.0), DROPPED, 0.0);
    }
}

fn write_group(at: Tile, r: u32, column: u32, x: vec4<f32>, row_m: f32, row_l: f32) {
    let row = at.first_row + r;
    let t = row / params.kernel.heads_per_kv_head;
    if (!has_row(at.batch, t)) { return; }
    let head = at.kv_head * params.kernel.heads_per_kv_head + row % params.kernel.heads_per_kv_head;
    // No compiler leaves out what was touched: it might be part of the index.
    let stat = (touched & params.kernel.nothing) + stat_of(at.split, at.batch, head, t);
    // Rows past a sequence's new positions are empty, too.
    let is_new = t < at.count;
    if (column == 0u) { state[stat] = select(vec2(DROPPED, 0.0), vec2(row_m, row_l), is_new); }
    merged[stat * VALUE_GROUPS + column] = select(vec4(0.0), x, is_new);
}

fn not_finite(x: vec4<f32>) -> vec4<bool> { return (bitcast<vec4<u32>>(x) & vec4(0x7f800000u)) == vec4(0x7f800000u); }

// Exactly 0, which NaN does not pass for.
fn is_zero(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) == 0u; }
