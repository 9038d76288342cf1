// Buckets of locality-sensitive hashing (Kitaev 2020, after Andoni 2015), and what normalises the keys.
//
//     bucket_r(x) = argmax [x P_r ; -x P_r]          ties to the lowest index; factors: h0 + b0 h1 + b0 b1 h2 ...
//     norms(x)    = 1 / sqrt(|x|^2 + eps)            0 for a zero vector, NaN where x has a NaN or an infinity
//
// A workgroup is (batch, head, 64 positions, round), a lane per position. 16 columns of the projection at a time; of both x
// and P, 32 elements of the head dimension are staged at a time.

struct Params {
    first_work: u32,        // this dispatch computes work items first_work .. end_work
    end_work: u32,
    row_tiles: u32,         // tiles of 64 positions per head
    heads: u32,             // H
    len: u32,               // L
    q_at: u32, q_batch: u32, q_head: u32, q_row: u32,   // first element, and strides
    projection_head: u32,   // stride; 0 where heads share
    norm_eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(BINDING_projections) var<storage, read> projections: array<f32>;           // [H or 1, d, R, COLUMNS]
@group(0) @binding(BINDING_buckets) var<storage, read_write> buckets: array<u32>;         // [B, H, R, L]
@group(0) @binding(BINDING_norms) var<storage, read_write> norms: array<f32>;           // [B, H, L]

const ROWS = 64u;
const GROUPS = 8u;          // groups of 4 elements that are staged at once
const PITCH = 9u;           // odd, so that neighbouring lanes hit different banks
const LOWEST = -0x1.fffffep+127f;

var<workgroup> x_stage: array<vec4<f32>, ROWS * PITCH>;         // [position, group]
var<workgroup> p_stage: array<vec4<f32>, 4u * GROUPS * 4u>;     // [element, 4 columns]

var<private> highest: f32;
var<private> highest_at: u32;
var<private> lowest: f32;
var<private> lowest_at: u32;

@compute @workgroup_size(64)
fn lsh_hash(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let work = params.first_work + group.y * groups.x + group.x;
    if (work >= params.end_work) { return; }
    let round = work % ROUNDS;
    let first_row = work / ROUNDS % params.row_tiles * ROWS;
    let line = work / ROUNDS / params.row_tiles;
    let head = line % params.heads;
    let batch = line / params.heads;
    let x_at = params.q_at + batch * params.q_batch + head * params.q_head;
    let p_at = head * params.projection_head + round * COLUMNS;

    var bucket = 0u;
    var place_value = 1u;
    var first_column = 0u;
    var squares = 0.0;
    for (var factor = 0u; factor < FACTORS; factor++) {
        let half = half_of(factor);
        highest = LOWEST;
        highest_at = 0u;
        lowest = -LOWEST;
        lowest_at = 0u;
        for (var column = 0u; column < half; column += 16u) {
            var a = vec4(0.0);
            var b = vec4(0.0);
            var c = vec4(0.0);
            var d = vec4(0.0);
            let with_squares = round == 0u && factor == 0u && column == 0u;
            for (var first = 0u; first < HEAD_GROUPS; first += GROUPS) {
                workgroupBarrier(); // the last elements are read to their end
                stage_x(x_at, first_row, lane, first);
                stage_p(p_at + first_column, half, column, lane, first);
                workgroupBarrier();
                for (var g = 0u; g < GROUPS; g++) {
                    let x = x_stage[lane * PITCH + g];
                    let p = 16u * g;
                    a = fma(vec4(x.w), p_stage[p + 12u], fma(vec4(x.z), p_stage[p + 8u], fma(vec4(x.y), p_stage[p + 4u], fma(vec4(x.x), p_stage[p], a))));
                    b = fma(vec4(x.w), p_stage[p + 13u], fma(vec4(x.z), p_stage[p + 9u], fma(vec4(x.y), p_stage[p + 5u], fma(vec4(x.x), p_stage[p + 1u], b))));
                    c = fma(vec4(x.w), p_stage[p + 14u], fma(vec4(x.z), p_stage[p + 10u], fma(vec4(x.y), p_stage[p + 6u], fma(vec4(x.x), p_stage[p + 2u], c))));
                    d = fma(vec4(x.w), p_stage[p + 15u], fma(vec4(x.z), p_stage[p + 11u], fma(vec4(x.y), p_stage[p + 7u], fma(vec4(x.x), p_stage[p + 3u], d))));
                    if (with_squares) { squares = fma(x.w, x.w, fma(x.z, x.z, fma(x.y, x.y, fma(x.x, x.x, squares)))); }
                }
            }
            consider(a, column, half);
            consider(b, column + 4u, half);
            consider(c, column + 8u, half);
            consider(d, column + 12u, half);
        }
        bucket += place_value * select(half + lowest_at, highest_at, highest >= -lowest);
        place_value *= 2u * half;
        first_column += half;
    }

    let row = first_row + lane;
    if (row >= params.len) { return; }
    if (is_hidden(batch * params.len + row)) { bucket = BUCKETS; }
    buckets[(line * ROUNDS + round) * params.len + row] = bucket;
    if (round == 0u) { norms[line * params.len + row] = norm_of(squares, x_at + row * params.q_row); }
}

// 1 / sqrt(squares + eps). Where the squares left f32 (below 2^-96, above 2^120, NaN), they are summed again, scaled by a power of
// two that keeps the largest element's square and eps inside.
fn norm_of(squares: f32, x_at: u32) -> f32 {
    let ordinary = squares + params.norm_eps;
    if (bitcast<u32>(ordinary) - 0x0f800000u <= 0x7b800000u - 0x0f800000u) { return inverseSqrt(ordinary); }
    var most = vec4(0u);
    for (var g = 0u; g < HEAD_GROUPS; g++) { most = max(most, magnitude(load_q(x_at + 4u * g, HEAD_DIM - 4u * g))); }
    let largest = max(max(most.x, most.y), max(most.z, most.w));
    if (largest >= INFINITY) { return nan_of(largest); }
    let eps = bitcast<u32>(params.norm_eps) >> 23u;
    let exponent = max(largest >> 23u, select(0u, eps / 2u + 64u, eps > 0u)); // that of sqrt(eps), or one more
    if (exponent == 0u) { return 0.0; } // below every normal number
    let scale = bitcast<f32>(min(264u - exponent, 253u) << 23u);
    var sum = vec4(0.0);
    for (var g = 0u; g < HEAD_GROUPS; g++) {
        let x = load_q(x_at + 4u * g, HEAD_DIM - 4u * g) * scale;
        sum = fma(x, x, sum);
    }
    return inverseSqrt((sum.x + sum.y) + (sum.z + sum.w) + params.norm_eps * scale * scale) * scale;
}

// Takes four columns into the running extremes. Columns come in ascending order, so a tie keeps the lowest.
fn consider(products: vec4<f32>, column: u32, half: u32) {
    for (var t = 0u; t < 4u; t++) {
        if (column + t < half && products[t] > highest) {
            highest = products[t];
            highest_at = column + t;
        }
        if (column + t < half && products[t] < lowest) {
            lowest = products[t];
            lowest_at = column + t;
        }
    }
}

fn stage_x(x_at: u32, first_row: u32, lane: u32, first: u32) {
    for (var e = lane; e < ROWS * GROUPS; e += 64u) {
        let row = min(first_row + e / GROUPS, params.len - 1u);
        let g = first + e % GROUPS;
        var x = vec4(0.0);
        if (g < HEAD_GROUPS) { x = load_q(x_at + row * params.q_row + 4u * g, HEAD_DIM - 4u * g); }
        x_stage[e / GROUPS * PITCH + e % GROUPS] = x;
    }
}

fn stage_p(p_at: u32, half: u32, column: u32, lane: u32, first: u32) {
    for (var e = lane; e < 16u * GROUPS; e += 64u) {
        let element = 4u * first + e / 4u;
        var p = vec4(0.0);
        for (var t = 0u; t < 4u; t++) {
            let at = column + 4u * (e % 4u) + t;
            if (element < HEAD_DIM && at < half) { p[t] = projections[p_at + element * (ROUNDS * COLUMNS) + at]; }
        }
        p_stage[e] = p;
    }
}
