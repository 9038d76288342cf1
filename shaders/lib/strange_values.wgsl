// Values that are not finite, where they pass through workgroup memory. There they become 0, since rows that leave a key out
// multiply its values by 0, and 0 x NaN is not 0; and the key is noted, so that rows that attend it say so.

// Whole vec4s of them: drivers lay variables of workgroup memory out one behind the other, and take the vec4s behind this one apart
// where they do not lie at a multiple of 16 bytes.
const STRANGE_WORDS = 4u * ((KEYS + 127u) / 128u);

// The keys of the tile whose values are not all finite, one bit each.
var<workgroup> strange_keys: array<atomic<u32>, STRANGE_WORDS>;

fn forget_strange_keys(lane: Lane) {
    if (lane.index < STRANGE_WORDS) { atomicStore(&strange_keys[lane.index], 0u); }
}

// 4 elements of the value of a key of the tile.
fn finite_or_noted(key: u32, x: vec4<f32>) -> vec4<f32> {
    let strange = not_finite(x);
    if (!any(strange)) { return x; }
    atomicOr(&strange_keys[key / 32u], 1u << (key % 32u));
    return select(x, vec4(0.0), strange);
}

// Notes the rows that attend one of those keys. Where pairs are left out, a weight is 0 for these and no others.
fn note_values(lane: Lane, tile: KeyTile, p: Scores) {
    let strange = vec4(is_strange(lane.c), is_strange(lane.c + LANES_C),
                       is_strange(lane.c + 2u * LANES_C), is_strange(lane.c + 3u * LANES_C));
    if (!any(strange)) { return; }
    let all_attended = vec4(!is_masked(tile) && !SCORES_MAY_DROP);
    strange_rows = strange_rows | vec4(any(strange & (all_attended | (p.a != vec4(0.0)))),
                                       any(strange & (all_attended | (p.b != vec4(0.0)))),
                                       any(strange & (all_attended | (p.c != vec4(0.0)))),
                                       any(strange & (all_attended | (p.d != vec4(0.0)))));
}

fn is_strange(key: u32) -> bool { return ((atomicLoad(&strange_keys[key / 32u]) >> (key % 32u)) & 1u) == 1u; }
