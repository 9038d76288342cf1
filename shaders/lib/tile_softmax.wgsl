// The online softmax over a tile of scores.

// Takes a new maximum; returns the factors of l and o.
fn raise_maximum(new_m: vec4<f32>) -> vec4<f32> {
    let factor = vec4(shrink(m.x, new_m.x), shrink(m.y, new_m.y), shrink(m.z, new_m.z), shrink(m.w, new_m.w));
    m = new_m;
    return factor;
}

// The weights of the tile: exactly 0 for pairs that are left out, and where WEIGHTS_TELL for no others, so that a weight tells whether its key
// is attended.
fn weights(tile: KeyTile, s: Scores) -> Scores {
    var p = Scores(power(s.a, m.x), power(s.b, m.y), power(s.c, m.z), power(s.d, m.w));
    if (is_masked(tile) || SCORES_MAY_DROP) {
        p.a = attended(p.a, s.a);
        p.b = attended(p.b, s.b);
        p.c = attended(p.c, s.c);
        p.d = attended(p.d, s.d);
    }
    return p;
}

fn attended(p: vec4<f32>, s: vec4<f32>) -> vec4<f32> {
    // By the bits: NaN is not DROPPED, and above the least weight, 2^-126; the `max` of numbers may take it for nothing.
    var seen = p;
    if (WEIGHTS_TELL) { seen = bitcast<vec4<f32>>(max(bitcast<vec4<u32>>(p), vec4(0x00800000u))); }
    return select(seen, vec4(0.0), bitcast<vec4<u32>>(s) == vec4(0xff7fffffu));
}

// A row's maximum, or sum, over 4 keys.
fn maxima(s: Scores) -> vec4<f32> { return vec4(max4(s.a), max4(s.b), max4(s.c), max4(s.d)); }

fn sums(p: Scores) -> vec4<f32> { return vec4(sum4(p.a), sum4(p.b), sum4(p.c), sum4(p.d)); }

fn max4(x: vec4<f32>) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }

fn sum4(x: vec4<f32>) -> f32 { return (x.x + x.y) + (x.z + x.w); }
