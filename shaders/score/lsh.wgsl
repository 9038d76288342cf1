// score = scale q . x_j / |x_j|, with SELF_PENALTY in its place for a query's own key, less ln N where a pair that meets N
// times over all rounds counts once. The factor scale log2(e) is in q already; `bias` holds 1 / |x| [B, H, L].
const SCORES_NEED_POSITIONS = true;
const SCORES_MAY_DROP = false;
const LOG2_E = 1.4426950408889634;

fn score(batch: u32, head: u32, i: u32, j: vec4<u32>, products: vec4<f32>) -> vec4<f32> {
    let at = vec4((batch * params.heads + head) * params.q_len) + j;
    let norms = vec4(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
    var s = select(products * norms, vec4(SELF_PENALTY * LOG2_E), j == vec4(i));
    if (COUNT_ONCE) { s -= log2(vec4<f32>(max(meetings(batch, head, i, j), vec4(1u)))); }
    // Above DROPPED, whatever the tensors hold.
    return clamp(s, vec4(-3.3e38), vec4(3.3e38));
}

// How often query i meets each of four keys, over all rounds.
fn meetings(batch: u32, head: u32, i: u32, j: vec4<u32>) -> vec4<u32> {
    let head_at = (batch * params.heads + head) * params.k_count;
    let rounds = params.k_count / params.q_len;
    var times = vec4(0u);
    for (var round = 0u; round < rounds; round++) {
        let places_at = params.places_at + head_at + round * params.q_len;
        let query = mask[places_at + i];
        // Without chained rounds, a query meets only keys of its own round.
        let first = select(round, 0u, CHAIN_ROUNDS);
        let end = select(round + 1u, rounds, CHAIN_ROUNDS);
        for (var other = first; other < end; other++) {
            let at = vec4(params.places_at + head_at + other * params.q_len) + j;
            let key = vec4(mask[at.x], mask[at.y], mask[at.z], mask[at.w]);
            times += select(vec4(0u), vec4(1u), meets(head_at, round, other, query, key));
        }
    }
    return times;
}

// Whether the chunk of one place sees that of others: what does not depend on the positions.
fn meets(head_at: u32, round: u32, other: u32, query: u32, key: vec4<u32>) -> vec4<bool> {
    if (WITHIN_BUCKET && round != other) { return vec4(false); }
    let chunks = chunk_count();
    let line = select(round * params.q_len, 0u, CHAIN_ROUNDS);
    let seen = chunks_seen((query - line) / PLACES_A_CHUNK, chunks);
    let chunk = (key - vec4(line)) / PLACES_A_CHUNK;
    var met = (chunk + vec4(chunks - seen.x)) % vec4(chunks) < vec4(seen.y);
    if (WITHIN_BUCKET) {
        let at = vec4(params.groups_at + head_at) + key;
        met = met & (vec4(mask[at.x], mask[at.y], mask[at.z], mask[at.w]) == vec4(mask[params.groups_at + head_at + query]));
    }
    return met;
}
