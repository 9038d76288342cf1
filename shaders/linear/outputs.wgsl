// Linear attention (Katharopoulos 2020), its last step: for the queries of a tile, with (S, z) of the keys before their chunk, or of all keys,
//
//     o_i = ( phi(q_i) S + sum_{j <= i in the chunk} w_ij v_j ) / ( phi(q_i) z + sum_j w_ij + eps sum_f phi_f(q_i) )      w_ij = phi(q_i) . phi(k_j)
//
// and 0 where the denominator is 0. Without CAUSAL the sums over the chunk are not there. A workgroup is a tile of CHUNK queries, a lane two
// of them, so that keys, values and states are loads that are the same for all lanes. Products of its queries with 4 keys each, and then their
// weights, are where linear/own_direct.wgsl or linear/own_staged.wgsl keeps them. What becomes of the sums of a row is linear/mean.wgsl, or in
// gradients linear/mean_rows.wgsl and sums.wgsl, where a query may have several key heads, a dispatch each (a loop over them here would
// cost the registers of both loops); linear/mirrored.wgsl counts from the end.

struct KernelParams {
    first_work: u32,        // this dispatch computes work items first_work .. end_work; an item is (batch, head, tile)
    end_work: u32,
    tiles: u32,             // tiles of queries per head
    heads: u32,             // H
    heads_per_kv_head: u32,
    q_len: u32,             // Lq
    kv_len: u32,            // Lk
    chunks: u32,            // of keys per head
    groups: u32,            // of 4 features
    first_tile: i32,        // where the first tile stands among the chunks; below 0 it sees no key
    shift: i32,             // query i stands at key i + shift: Lk - Lq where causal
    denominator_eps: f32,
    kv_heads_per_head: u32,
    nth_kv_head: u32,       // which of a head's key heads this dispatch takes
    last: u32,              // sums: the feature that the eps multiplies
}

struct Rows { offset: u32, batch: u32, head: u32, row: u32 }

@group(0) @binding(BINDING_q_phi) var<storage, read> q_phi: array<vec4<f32>>;      // [B, H, Lq, groups]
@group(0) @binding(BINDING_k_phi) var<storage, read> k_phi: array<vec4<f32>>;      // [B, Hkv, Lk, groups]
@group(0) @binding(BINDING_states) var<storage, read> states: array<vec4<f32>>;    // [B, Hkv, chunks, 4 groups, VALUE_GROUPS + 1]

const KEY_GROUPS = CHUNK / 4u;
const LANES = CHUNK / 2u;

var<private> own_lane: u32;

// Where the two queries and what they see are: rows in q_phi, positions among the keys, the chunk's keys and state.
struct At { kv_head: u32, q: vec2<u32>, p: vec2<i32>, keys: u32, first: u32, v: u32, of_chunk: u32, state: u32 }

// Of the two queries: the denominator, what the state's sums are multiplied by, the largest logarithm of a weight.
struct Ends { sum: vec2<f32>, of_state: vec2<f32>, top: vec2<f32> }

@compute @workgroup_size(CHUNK / 2)
fn linear_outputs(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let work = params.kernel.first_work + group.y * groups.x + group.x;
    if (work >= params.kernel.end_work) { return; }
    let tile = i32(work % params.kernel.tiles) + params.kernel.first_tile;
    let line = work / params.kernel.tiles;
    let head = line % params.kernel.heads;
    let kv_heads = params.kernel.heads / params.kernel.heads_per_kv_head * params.kernel.kv_heads_per_head;
    let kv_head = head / params.kernel.heads_per_kv_head * params.kernel.kv_heads_per_head + params.kernel.nth_kv_head;
    let batch = line / params.kernel.heads;
    let p = vec2(tile * i32(CHUNK) + i32(lane)) + vec2(0, i32(LANES));
    let i = p - vec2(params.kernel.shift);
    let inside = (i >= vec2(0)) & (i < vec2(i32(params.kernel.q_len)));
    let near = vec2<u32>(clamp(i, vec2(0), vec2(i32(params.kernel.q_len) - 1)));
    let row = vec2(placed(near.x, params.kernel.q_len), placed(near.y, params.kernel.q_len));
    let out_at = params.out.offset + batch * params.out.batch + head * params.out.head + row * params.out.row;
    let chunk = select(0u, min(u32(max(tile, 0)), params.kernel.chunks - 1u), CAUSAL);
    let kv_line = batch * kv_heads + kv_head;
    let of_chunk = kv_line * params.kernel.chunks + chunk;
    let at = At(kv_head, (line * params.kernel.q_len + row) * params.kernel.groups, p, kv_line * params.kernel.kv_len, chunk * CHUNK,
                params.v.offset + batch * params.v.batch + kv_head * params.v.head, of_chunk,
                of_chunk * 4u * params.kernel.groups * (VALUE_GROUPS + 1u));

    own_lane = lane;
    let careful = CAUSAL && some_value_is_strange(at, lane);
    if (CAUSAL) { multiply_keys(at); }
    let ends = weigh(at);
    let end_a = row_end(at, at.q.x, out_at.x, ends.sum.x, ends.top.x);
    let end_b = row_end(at, at.q.y, out_at.y, ends.sum.y, ends.top.y);
    for (var c = 0u; c < VALUE_GROUPS; c += 4u) {
        let column = min(vec4(c) + vec4(0u, 1u, 2u, 3u), vec4(VALUE_GROUPS - 1u)); // past the last group it is that one again
        var a = mat4x4<f32>();
        var b = mat4x4<f32>();
        for (var g = 0u; g < params.kernel.groups; g++) {
            let qa = of_query(at, at.q.x, g);
            let qb = of_query(at, at.q.y, g);
            let s0 = state_row(at, 4u * g, column);
            let s1 = state_row(at, 4u * g + 1u, column);
            let s2 = state_row(at, 4u * g + 2u, column);
            let s3 = state_row(at, 4u * g + 3u, column);
            a = with_row(with_row(with_row(with_row(a, qa.x, s0), qa.y, s1), qa.z, s2), qa.w, s3);
            b = with_row(with_row(with_row(with_row(b, qb.x, s0), qb.y, s1), qb.z, s2), qb.w, s3);
        }
        a = a * ends.of_state.x;
        b = b * ends.of_state.y;
        if (CAUSAL && !careful) {
            for (var g = 0u; g < KEY_GROUPS; g++) {
                let wa = kept_a(g);
                let wb = kept_b(g);
                let v0 = value_row(at, 4u * g, column);
                let v1 = value_row(at, 4u * g + 1u, column);
                let v2 = value_row(at, 4u * g + 2u, column);
                let v3 = value_row(at, 4u * g + 3u, column);
                a = with_row(with_row(with_row(with_row(a, wa.x, v0), wa.y, v1), wa.z, v2), wa.w, v3);
                b = with_row(with_row(with_row(with_row(b, wb.x, v0), wb.y, v1), wb.z, v2), wb.w, v3);
            }
        }
        if (careful) {
            for (var g = 0u; g < KEY_GROUPS; g++) {
                let wa = kept_a(g);
                let wb = kept_b(g);
                let v0 = value_row(at, 4u * g, column);
                let v1 = value_row(at, 4u * g + 1u, column);
                let v2 = value_row(at, 4u * g + 2u, column);
                let v3 = value_row(at, 4u * g + 3u, column);
                a = with_seen(with_seen(with_seen(with_seen(a, wa.x, v0), wa.y, v1), wa.z, v2), wa.w, v3);
                b = with_seen(with_seen(with_seen(with_seen(b, wb.x, v0), wb.y, v1), wb.z, v2), wb.w, v3);
            }
        }
        write_groups(out_at.x, c, a, end_a, inside.x);
        write_groups(out_at.y, c, b, end_b, inside.y);
    }
    if (inside.x) { leave_row(out_at.x, end_a); }
    if (inside.y) { leave_row(out_at.y, end_b); }
}

// Whether a value of the chunk is not finite: 0 times it is not 0, and the queries before it must not see it.
fn some_value_is_strange(at: At, lane: u32) -> bool {
    var found = vec4(false);
    for (var c = 0u; c < VALUE_GROUPS; c++) {
        let one = bitcast<vec4<u32>>(load_v(key_row(at, lane) + 4u * c, VALUE_DIM - 4u * c));
        let other = bitcast<vec4<u32>>(load_v(key_row(at, lane + LANES) + 4u * c, VALUE_DIM - 4u * c));
        let most = max(one & vec4(0x7fffffffu), other & vec4(0x7fffffffu));
        found = found | (most >= vec4(0x7f800000u));
    }
    return any_lane(lane, any(found));
}

// Where the values of the chunk's j-th key begin; of the last key, past it.
fn key_row(at: At, j: u32) -> u32 { return at.v + key_at(at, j) * params.v.row; }
fn key_at(at: At, j: u32) -> u32 {
    let len = max(params.kernel.kv_len, 1u);
    return placed(min(at.first + j, len - 1u), len);
}

// phi(q) . phi(k) with every key of the chunk, 16 features at a time.
fn multiply_keys(at: At) {
    for (var g = 0u; g < KEY_GROUPS; g++) {
        keep(g, vec4(0.0), vec4(0.0));
    }
    for (var f = 0u; f < params.kernel.groups; f += 4u) {
        let a = mat4x4(query_or_0(at.q.x, f), query_or_0(at.q.x, f + 1u), query_or_0(at.q.x, f + 2u), query_or_0(at.q.x, f + 3u));
        let b = mat4x4(query_or_0(at.q.y, f), query_or_0(at.q.y, f + 1u), query_or_0(at.q.y, f + 2u), query_or_0(at.q.y, f + 3u));
        for (var g = 0u; g < KEY_GROUPS; g++) {
            var wa = kept_a(g);
            var wb = kept_b(g);
            let k0 = key_features(at, 4u * g, f);
            let k1 = key_features(at, 4u * g + 1u, f);
            let k2 = key_features(at, 4u * g + 2u, f);
            let k3 = key_features(at, 4u * g + 3u, f);
            keep(g, vec4(product(wa.x, a, k0), product(wa.y, a, k1), product(wa.z, a, k2), product(wa.w, a, k3)),
                 vec4(product(wb.x, b, k0), product(wb.y, b, k1), product(wb.z, b, k2), product(wb.w, b, k3)));
        }
    }
}

fn query_or_0(q_at: u32, g: u32) -> vec4<f32> {
    return select(vec4(0.0), q_phi[q_at + min(g, params.kernel.groups - 1u)], vec4(g < params.kernel.groups));
}

fn key_features(at: At, j: u32, f: u32) -> mat4x4<f32> {
    let row = (at.keys + key_at(at, j)) * params.kernel.groups;
    let g = min(vec4(f) + vec4(0u, 1u, 2u, 3u), vec4(params.kernel.groups - 1u));
    return mat4x4(k_phi[row + g.x], k_phi[row + g.y], k_phi[row + g.z], k_phi[row + g.w]);
}

fn product(w: f32, q: mat4x4<f32>, k: mat4x4<f32>) -> f32 {
    return of_4(of_4(of_4(of_4(w, q[0], k[0]), q[1], k[1]), q[2], k[2]), q[3], k[3]);
}

fn of_4(w: f32, q: vec4<f32>, k: vec4<f32>) -> f32 { return fma(q.w, k.w, fma(q.z, k.z, fma(q.y, k.y, fma(q.x, k.x, w)))); }

// Products become weights: 0 for keys that a query does not see, relative to the largest weight where keys have some.
fn weigh(at: At) -> Ends {
    let state_steps = vec2<u32>(max(at.p - vec2(i32(at.first)) + vec2(1), vec2(0)));
    let before = top_before_chunk(at.of_chunk);
    let log = vec2(older(before, at.kv_head, state_steps.x), older(before, at.kv_head, state_steps.y));
    var top = log;
    if (CAUSAL && WEIGHTED) {
        for (var j = 0u; j < CHUNK; j++) { top = max(top, logs_of(at, j)); }
    }
    let of_state = vec2(weight(log.x, top.x), weight(log.y, top.y));
    var sum = vec2(0.0);
    var q_sum = vec2(0.0);
    for (var g = 0u; g < params.kernel.groups; g++) {
        let z = vec4(state_sum(at, 4u * g), state_sum(at, 4u * g + 1u), state_sum(at, 4u * g + 2u), state_sum(at, 4u * g + 3u));
        let qa = of_query(at, at.q.x, g);
        let qb = of_query(at, at.q.y, g);
        sum = vec2(of_4(sum.x, qa, z), of_4(sum.y, qb, z));
        q_sum += vec2((qa.x + qa.y) + (qa.z + qa.w), (qb.x + qb.y) + (qb.z + qb.w));
    }
    sum = fma(vec2(params.kernel.denominator_eps), q_sum, sum * of_state);
    if (CAUSAL) {
        for (var g = 0u; g < KEY_GROUPS; g++) {
            let a = kept_a(g);
            let b = kept_b(g);
            let w0 = weigh_key(at, 4u * g, vec2(a.x, b.x), top);
            let w1 = weigh_key(at, 4u * g + 1u, vec2(a.y, b.y), top);
            let w2 = weigh_key(at, 4u * g + 2u, vec2(a.z, b.z), top);
            let w3 = weigh_key(at, 4u * g + 3u, vec2(a.w, b.w), top);
            keep(g, vec4(w0.x, w1.x, w2.x, w3.x), vec4(w0.y, w1.y, w2.y, w3.y));
            sum += (w0 + w1) + (w2 + w3);
        }
    }
    return Ends(sum, of_state, top);
}

// The logarithms of the weights that the chunk's j-th key has for the two queries; DROPPED where they do not see it.
fn logs_of(at: At, j: u32) -> vec2<f32> {
    let distance = at.p - vec2(i32(at.first + j));
    let steps = vec2<u32>(max(distance, vec2(0)));
    let key = at.keys + key_at(at, j);
    let log = vec2(log_weight_of(key, at.kv_head, steps.x), log_weight_of(key, at.kv_head, steps.y));
    return select(vec2(DROPPED), log, (distance >= vec2(0)) & vec2(at.first + j < params.kernel.kv_len));
}

fn weigh_key(at: At, j: u32, w: vec2<f32>, top: vec2<f32>) -> vec2<f32> {
    let log = logs_of(at, j);
    let weighed = w * vec2(weight(log.x, top.x), weight(log.y, top.y));
    return select(weighed, vec2(0.0), log == vec2(DROPPED));
}

// 4 features of a query; BY_COLUMN over the sums of the keys' features, as a softmax over keys has it.
fn of_query(at: At, q_at: u32, g: u32) -> vec4<f32> {
    let q = q_phi[q_at + g];
    if (!BY_COLUMN) { return q; }
    let z = vec4(state_sum(at, 4u * g), state_sum(at, 4u * g + 1u), state_sum(at, 4u * g + 2u), state_sum(at, 4u * g + 3u));
    return select(q / z, vec4(0.0), z == vec4(0.0));
}

fn state_row(at: At, f: u32, column: vec4<u32>) -> mat4x4<f32> {
    let row = at.state + f * (VALUE_GROUPS + 1u);
    return mat4x4(states[row + column.x], states[row + column.y], states[row + column.z], states[row + column.w]);
}

fn state_sum(at: At, f: u32) -> f32 { return states[at.state + f * (VALUE_GROUPS + 1u) + VALUE_GROUPS].x; }

fn value_row(at: At, j: u32, group: vec4<u32>) -> mat4x4<f32> {
    let row = key_row(at, j);
    let c = 4u * group;
    return mat4x4(load_v(row + c.x, VALUE_DIM - c.x), load_v(row + c.y, VALUE_DIM - c.y), load_v(row + c.z, VALUE_DIM - c.z),
                  load_v(row + c.w, VALUE_DIM - c.w));
}

fn with_row(sum: mat4x4<f32>, w: f32, row: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4(fma(vec4(w), row[0], sum[0]), fma(vec4(w), row[1], sum[1]), fma(vec4(w), row[2], sum[2]), fma(vec4(w), row[3], sum[3]));
}

// The same where a row that weighs 0 may hold anything.
fn with_seen(sum: mat4x4<f32>, w: f32, row: mat4x4<f32>) -> mat4x4<f32> {
    let off = vec4(w == 0.0);
    return with_row(sum, w, mat4x4(select(row[0], vec4(0.0), off), select(row[1], vec4(0.0), off), select(row[2], vec4(0.0), off),
                                   select(row[3], vec4(0.0), off)));
}

fn write_groups(at: u32, first_group: u32, sum: mat4x4<f32>, end: vec4<f32>, inside: bool) {
    for (var t = 0u; t < min(4u, VALUE_GROUPS - first_group); t++) {
        let c = 4u * (first_group + t);
        let value = ended(at + c, sum[t], end);
        if (inside) { store_out(at + c, VALUE_DIM - c, value); }
    }
}
