// A summary of a row's weights: its entropy, how many keys it has, and the TOP keys of the largest weights.

// Per row: the entropy's bits and the number of keys; then TOP keys with the bits of their weights, the largest first. Bits, since
// those of numbers that are not negative are in the numbers' order, with NaN above them all.
@group(0) @binding(BINDING_summaries) var<storage, read_write> summaries: array<vec2<u32>>;     // [N, 1 + TOP]

const NOBODY = vec2(0xffffffffu, 0u);

var<private> entropy: f32;
var<private> keys: u32;
var<private> best: array<vec2<u32>, TOP_OR_1>;

var<workgroup> entropies: array<f32, LANES>;
var<workgroup> counts: array<u32, LANES>;
var<workgroup> bests: array<vec2<u32>, LANES * TOP_OR_1>;

fn begin_summary() {
    entropy = 0.0;
    keys = 0u;
    for (var n = 0u; n < TOP; n++) { best[n] = NOBODY; }
}

fn summarise(j: vec4<u32>, p: vec4<f32>, log_p: vec4<f32>, kept: vec4<bool>) {
    // 0 ln 0 = 0.
    let shares = select(p * log_p, vec4(0.0), !kept | (p == vec4(0.0)));
    entropy += (shares.x + shares.y) + (shares.z + shares.w);
    let ones = select(vec4(0u), vec4(1u), kept);
    keys += (ones.x + ones.y) + (ones.z + ones.w);
    let bits = select(vec4(0u), bitcast<vec4<u32>>(p), kept);
    enter(vec2(j.x, bits.x));
    enter(vec2(j.y, bits.y));
    enter(vec2(j.z, bits.z));
    enter(vec2(j.w, bits.w));
}

// Whether a comes before b: by weight, then by key.
fn before(a: vec2<u32>, b: vec2<u32>) -> bool { return a.y > b.y || (a.y == b.y && a.x < b.x); }

// Takes a place among the best, if it has one. A weight of 0 has none.
fn enter(key: vec2<u32>) {
    if (TOP == 0u || key.y == 0u) { return; }
    var own = key;
    for (var n = 0u; n < TOP; n++) {
        let other = best[n];
        if (before(own, other)) {
            best[n] = own;
            own = other;
        }
    }
}

// All lanes together, then those of earlier parts.
fn finish(lane: u32) {
    let at = own_n * (1u + TOP);
    if (ACCUMULATE) {
        // Every lane reads it, so that no load is behind a branch; one counts it.
        let earlier = summaries[at];
        entropy += select(0.0, bitcast<f32>(earlier.x), lane == 0u);
        keys += select(0u, earlier.y, lane == 0u);
        for (var n = 0u; n < TOP; n++) {
            let other = summaries[at + 1u + n];
            enter(select(NOBODY, other, lane == 0u));
        }
    }
    entropies[lane] = entropy;
    counts[lane] = keys;
    for (var n = 0u; n < TOP; n++) { bests[lane * TOP + n] = best[n]; }
    workgroupBarrier();
    if (lane != 0u) { return; }
    entropy = 0.0;
    keys = 0u;
    for (var other = 0u; other < LANES; other++) {
        entropy += entropies[other];
        keys += counts[other];
    }
    for (var n = TOP; n < LANES * TOP; n++) { enter(bests[n]); }
    summaries[at] = vec2(bitcast<u32>(entropy), keys);
    for (var n = 0u; n < TOP; n++) { summaries[at + 1u + n] = best[n]; }
}
