// What is done to the score of a pair beside its terms: keys are unit vectors, which the terms' product is made of; behind the terms, a
// query's own key scores OWN_SCORE, and a pair that meets N times over all rounds counts once where it has ln N less.
//
// 1 / |x| [B, H, L] is `norm_at` of a provider: lsh/norms.wgsl, or in a backward pass lsh/slopes.wgsl.

fn unit_key_score(pairs: Pairs, products: vec4<f32>) -> vec4<f32> { return products * key_norms(pairs); }

fn key_norms(pairs: Pairs) -> vec4<f32> {
    let at = vec4((pairs.batch * params.kernel.heads + pairs.head) * params.kernel.q_len) + pairs.j;
    return vec4(norm_at(at.x), norm_at(at.y), norm_at(at.z), norm_at(at.w));
}

fn meeting_score(pairs: Pairs, score: vec4<f32>) -> vec4<f32> {
    // Terms do not count for a query's own key, nor do their numbers that are not finite. What a term has removed stays so.
    let own = pairs.j == vec4(pairs.i);
    var s = select(score, vec4(OWN_SCORE), own);
    spoilt = spoilt & !own;
    if (COUNT_ONCE) {
        let times = vec4<f32>(max(meetings(pairs.batch, pairs.head, pairs.i, pairs.j), vec4(1u)));
        if (BASE_E) { s -= log(times); } else { s -= log2(times); }
    }
    // Above DROPPED, whatever the tensors hold; in base e lib/scores.wgsl does that.
    if (BASE_E) { return s; }
    return clamp(s, vec4(-3.3e38), vec4(3.3e38));
}

// How often query i meets each of four keys, over all rounds.
fn meetings(batch: u32, head: u32, i: u32, j: vec4<u32>) -> vec4<u32> {
    let head_at = (batch * params.kernel.heads + head) * params.kernel.k_count;
    let rounds = params.kernel.k_count / params.kernel.q_len;
    var times = vec4(0u);
    for (var round = 0u; round < rounds; round++) {
        let places_at = params.keep.places_at + head_at + round * params.kernel.q_len;
        let query = places[places_at + i];
        // Without chained rounds, a query meets only keys of its own round.
        let first = select(round, 0u, CHAIN_ROUNDS);
        let end = select(round + 1u, rounds, CHAIN_ROUNDS);
        for (var other = first; other < end; other++) {
            let at = vec4(params.keep.places_at + head_at + other * params.kernel.q_len) + j;
            let key = vec4(places[at.x], places[at.y], places[at.z], places[at.w]);
            times += select(vec4(0u), vec4(1u), meets(head_at, round, other, query, key));
        }
    }
    return times;
}

// Whether the chunk of one place sees that of others: what does not depend on the positions.
fn meets(head_at: u32, round: u32, other: u32, query: u32, key: vec4<u32>) -> vec4<bool> {
    if (WITHIN_BUCKET && round != other) { return vec4(false); }
    let chunks = chunk_count();
    let line = select(round * params.kernel.q_len, 0u, CHAIN_ROUNDS);
    let seen = chunks_seen((query - line) / PLACES_PER_CHUNK, chunks);
    let chunk = (key - vec4(line)) / PLACES_PER_CHUNK;
    var met = (chunk + vec4(chunks - seen.x)) % vec4(chunks) < vec4(seen.y);
    if (WITHIN_BUCKET) {
        let at = vec4(params.keep.buckets_at + head_at) + key;
        met = met & (vec4(places[at.x], places[at.y], places[at.z], places[at.w]) == vec4(places[params.keep.buckets_at + head_at + query]));
    }
    return met;
}
