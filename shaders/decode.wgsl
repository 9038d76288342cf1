// Few new queries against a key cache (decoding), keys split over workgroups (Flash-Decoding):
//
//     s_j = scale q . k_j    m = max_j s_j    l = sum_j e^(s_j - m)    o = sum_j e^(s_j - m) v_j / l       over the split's keys
//
// A workgroup has one key head of one sequence. Its rows are the queries of all heads that share the key head, so that a key is loaded
// once for all of them. It takes keys by chunks: first a lane has keys and sums up their products by itself, then a lane has columns
// and walks the keys. What it leaves, (m, l) and o, is merged by merge.wgsl. Scores are in base 2: log2(e) is in q_scale.
//
// Lengths are the device's. A dispatch is for the capacity: chunks are dealt out in turn, so that all splits share the keys that there
// are, and a split without keys leaves an empty row at once.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work
    end_work: u32,
    row_tiles: u32,
    splits: u32,
    batch: u32,             // B
    heads: u32,             // H
    heads_per_kv_head: u32,
    before: u32,            // a query sees so many positions before its own, and its own
    sinks: u32,             // and the first ones
    q_scale: f32,
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_state) var<storage, read_write> state: array<vec2<f32>>;     // (m, l) [splits, B, H, new]
@group(0) @binding(BINDING_merged) var<storage, read_write> merged: array<vec4<f32>>;   // [splits, B, H, new, VALUE_GROUPS]

const ROWS = 4u * ROW_GROUPS;
const SUBSETS = LANES / VALUE_GROUPS;       // lanes of the same columns share the keys of a stretch; those past the last subset are not asked
const DROPPED = -0x1.fffffep+127f;
const NAN_BITS = 0x7fc00000u;

// What a workgroup owns.
struct Tile {
    split: u32,
    batch: u32,
    kv_head: u32,
    first_row: u32,         // row r is head r % G of the group, new position r / G
    count: u32,             // new positions of this sequence
    first_new: u32,         // position of the first of them
    low: u32,               // positions of the tile's first query
    high: u32,              // and of its last
    end: u32,               // keys that any row of the tile sees lie before that
    sink_chunks: u32,       // chunks of sinks that are not in the window
    first_chunk: u32,       // of the window
    chunks: u32,            // in all
}

var<workgroup> own_tile: Tile;
var<workgroup> queries: array<vec4<f32>, 4u * HEAD_GROUPS * ROW_GROUPS>;   // element by element, of 4 rows each
var<workgroup> scores: array<vec4<f32>, CHUNK * ROW_GROUPS>;                // of 4 rows each; then weights; at the end columns
var<workgroup> partial: array<vec4<f32>, LANES * ROW_GROUPS>;
var<workgroup> eighths: array<vec4<f32>, 8u * ROW_GROUPS>;

var<private> products: array<vec4<f32>, ROW_GROUPS>;    // of one key
var<private> top: array<vec4<f32>, ROW_GROUPS>;         // the largest score of the lane's keys, or m
var<private> m: array<vec4<f32>, ROW_GROUPS>;
var<private> l: array<vec4<f32>, ROW_GROUPS>;           // of the lane's keys alone
var<private> spoilt: array<vec4<u32>, ROW_GROUPS>;      // bits of a NaN for rows that met what is not finite
var<private> o: array<vec4<f32>, ROWS>;                 // of the lane's columns, and of its share of keys

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
    let tile = work / params.kernel.splits;
    let group = tile / params.kernel.row_tiles;
    at.first_row = tile % params.kernel.row_tiles * ROWS;
    at.kv_head = group % params.cache.kv_heads;
    at.batch = group / params.cache.kv_heads;
    let length = length_of(at.batch);
    at.count = min(count_of(at.batch), length);
    at.first_new = length - at.count;
    let first_t = at.first_row / params.kernel.heads_per_kv_head;
    // A tile past the last new position has no keys.
    if (first_t >= at.count) { return at; }
    let last_t = (at.first_row + ROWS - 1u) / params.kernel.heads_per_kv_head;
    at.low = at.first_new + first_t;
    at.high = at.first_new + min(last_t, at.count - 1u);
    at.end = at.high + 1u;
    at.first_chunk = first_seen(at.low) / CHUNK;
    at.sink_chunks = min(chunks_of(min(params.kernel.sinks, at.end)), at.first_chunk);
    at.chunks = at.sink_chunks + chunks_of(at.end) - at.first_chunk;
    return at;
}

fn chunks_of(keys: u32) -> u32 { return (keys + CHUNK - 1u) / CHUNK; }

// Where the window of a query begins.
fn first_seen(position: u32) -> u32 { return position - min(position, params.kernel.before); }

// Position of row r of the tile; rows past the last are as the last.
fn position_of(at: Tile, r: u32) -> u32 {
    return at.first_new + min((at.first_row + r) / params.kernel.heads_per_kv_head, at.count - 1u);
}

// The element at which row r's query begins.
fn query_at(at: Tile, r: u32) -> u32 {
    let row = at.first_row + r;
    let t = min(row / params.kernel.heads_per_kv_head, at.count - 1u);
    let head = at.kv_head * params.kernel.heads_per_kv_head + row % params.kernel.heads_per_kv_head;
    return params.q.offset + at.batch * params.q.batch + head * params.q.head + t * params.q.row;
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
    let whole = end <= at.low + 1u && (first >= first_seen(at.high) || end <= params.kernel.sinks);
    for (var g = 0u; g < ROW_GROUPS; g++) { top[g] = m[g]; }
    for (var j = first + lane; j < end; j += LANES) {
        multiply(row_of(at.batch, at.kv_head, j) * KEY_ROW);
        for (var g = 0u; g < ROW_GROUPS; g++) {
            let strange = not_finite(products[g]);
            var seen = vec4(true);
            if (!whole) { seen = seen_by(at, 4u * g, j); }
            spoilt[g] |= select(vec4(0u), vec4(NAN_BITS), seen & strange);
            let s = select(vec4(DROPPED), products[g], seen & !strange);
            scores[g * CHUNK + j - first] = s;
            top[g] = max(top[g], s);
        }
    }
    raise_maxima(lane);
    for (var j = lane; first + j < end; j += LANES) {
        for (var g = 0u; g < ROW_GROUPS; g++) {
            let s = scores[g * CHUNK + j];
            let p = select(max(exp2(s - m[g]), vec4(0x1p-126f)), vec4(0.0), s == vec4(DROPPED));
            l[g] += p;
            scores[g * CHUNK + j] = p;
        }
    }
    workgroupBarrier();
    for (var j = first; j < end; j += STRETCH) {
        add_values(row_of(at.batch, at.kv_head, j), lane, j - first, min(STRETCH, end - j), whole);
    }
}

// scale q . k of the key whose row begins there.
fn multiply(key_at: u32) {
    for (var g = 0u; g < ROW_GROUPS; g++) { products[g] = vec4(0.0); }
    for (var c = 0u; c < HEAD_GROUPS; c++) {
        let k = load_keys(key_at + 4u * c, 4u);
        for (var g = 0u; g < ROW_GROUPS; g++) {
            let q = 4u * (g * HEAD_GROUPS + c);
            products[g] = fma(queries[q], vec4(k.x), fma(queries[q + 1u], vec4(k.y),
                          fma(queries[q + 2u], vec4(k.z), fma(queries[q + 3u], vec4(k.w), products[g]))));
        }
    }
}

// Which of 4 rows see key j.
fn seen_by(at: Tile, r: u32, j: u32) -> vec4<bool> {
    let p = vec4(position_of(at, r), position_of(at, r + 1u), position_of(at, r + 2u), position_of(at, r + 3u));
    let lowest = p - min(p, vec4(params.kernel.before));
    return (vec4(j) <= p) & ((vec4(j) >= lowest) | vec4(j < params.kernel.sinks));
}

// Takes the maxima over all lanes, and brings sums and columns to them.
fn raise_maxima(lane: u32) {
    for (var g = 0u; g < ROW_GROUPS; g++) { partial[g * LANES + lane] = top[g]; }
    workgroupBarrier();
    if (lane < 8u * ROW_GROUPS) {
        var x = partial[8u * lane];
        for (var n = 1u; n < 8u; n++) { x = max(x, partial[8u * lane + n]); }
        eighths[lane] = x;
    }
    workgroupBarrier();
    for (var g = 0u; g < ROW_GROUPS; g++) {
        var x = eighths[8u * g];
        for (var n = 1u; n < 8u; n++) { x = max(x, eighths[8u * g + n]); }
        let factor = vec4(shrink(m[g].x, x.x), shrink(m[g].y, x.y), shrink(m[g].z, x.z), shrink(m[g].w, x.w));
        m[g] = x;
        l[g] *= factor;
        for (var r = 0u; r < 4u; r++) { o[4u * g + r] *= factor[r]; }
    }
}

// The weight of an old maximum against a new one that is not below it: exactly 1 while it stays.
fn shrink(old: f32, new_maximum: f32) -> f32 { return select(exp2(max(old - new_maximum, -200.0)), 1.0, old == new_maximum); }

// The values of a stretch of keys, which lie one behind the other from row `row` on and have their weights from `weight_at` on. It is
// summed by itself, so that few roundings meet in any sum.
fn add_values(row: u32, lane: u32, weight_at: u32, keys: u32, whole: bool) {
    var sums: array<vec4<f32>, ROWS>;
    let column = lane % VALUE_GROUPS;
    for (var j = lane / VALUE_GROUPS; j < keys; j += SUBSETS) {
        let v = load_values((row + j) * VALUE_ROW + 4u * column, 4u);
        for (var g = 0u; g < ROW_GROUPS; g++) {
            let p = scores[g * CHUNK + weight_at + j];
            for (var r = 0u; r < 4u; r++) {
                let sum = fma(vec4(p[r]), v, sums[4u * g + r]);
                // What a row does not see never matters, be it NaN.
                sums[4u * g + r] = select(sum, sums[4u * g + r], vec4(!whole && p[r] == 0.0));
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) { o[r] += sums[r]; }
}

fn write_rows(at: Tile, lane: u32) {
    for (var g = 0u; g < ROW_GROUPS; g++) {
        var strange = spoilt[g];
        for (var r = 0u; r < 4u; r++) { strange[r] |= select(0u, NAN_BITS, any(not_finite(o[4u * g + r]))); }
        l[g] = bitcast<vec4<f32>>(bitcast<vec4<u32>>(l[g]) | strange);
    }
    // All have used the weights once the sums are there.
    sum_over_lanes(lane);
    for (var r = 0u; r < ROWS; r++) { scores[r * LANES + lane] = o[r]; }
    workgroupBarrier();
    for (var item = lane; item < ROWS * VALUE_GROUPS; item += LANES) {
        let r = item / VALUE_GROUPS;
        let column = item % VALUE_GROUPS;
        var x = scores[r * LANES + column];
        for (var n = 1u; n < SUBSETS; n++) { x += scores[r * LANES + n * VALUE_GROUPS + column]; }
        let sum = l[r / 4u][r % 4u];
        write_group(at, r, column, x * select(1.0 / sum, 0.0, is_zero(sum)), m[r / 4u][r % 4u], sum);
    }
}

// l over all lanes.
fn sum_over_lanes(lane: u32) {
    for (var g = 0u; g < ROW_GROUPS; g++) { partial[g * LANES + lane] = l[g]; }
    workgroupBarrier();
    if (lane < 8u * ROW_GROUPS) {
        var x = partial[8u * lane];
        for (var n = 1u; n < 8u; n++) { x += partial[8u * lane + n]; }
        eighths[lane] = x;
    }
    workgroupBarrier();
    for (var g = 0u; g < ROW_GROUPS; g++) {
        var x = eighths[8u * g];
        for (var n = 1u; n < 8u; n++) { x += eighths[8u * g + n]; }
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
    if (t >= params.cache.most_new) { return; }
    let head = at.kv_head * params.kernel.heads_per_kv_head + row % params.kernel.heads_per_kv_head;
    let stat = ((at.split * params.kernel.batch + at.batch) * params.kernel.heads + head) * params.cache.most_new + t;
    // Rows past a sequence's new positions are empty, too.
    let is_new = t < at.count;
    if (column == 0u) { state[stat] = select(vec2(DROPPED, 0.0), vec2(row_m, row_l), is_new); }
    merged[stat * VALUE_GROUPS + column] = select(vec4(0.0), x, is_new);
}

fn not_finite(x: vec4<f32>) -> vec4<bool> { return (bitcast<vec4<u32>>(x) & vec4(0x7f800000u)) == vec4(0x7f800000u); }

// Exactly 0, which NaN does not pass for.
fn is_zero(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) == 0u; }
