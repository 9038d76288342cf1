// A tensor of which each pair reads rows of d elements: every lane adds up groups of 4 columns, of the pairs whose rows are its own.
//
//     sum over the pairs that read a row of scale ds_ij `vector`(i, j)

// Lanes that have the same group of columns, each of other rows.
const SHARES = max(1u, LANES / VECTOR_GROUPS);

fn gather(at: Head, lane: Lane, tile: KeyTile) {
    // All lanes take as many turns; those past the last group repeat it, and write nothing.
    for (var first = 0u; first < VECTOR_GROUPS; first += LANES) {
        let n = first + lane.index;
        let g = min(n, SHARES * VECTOR_GROUPS - 1u) % VECTOR_GROUPS;
        if (n < SHARES * VECTOR_GROUPS) { gather_share(at, tile, g, n / VECTOR_GROUPS); }
    }
}

fn gather_share(at: Head, tile: KeyTile, g: u32, share: u32) {
    var element = NO_ELEMENT;
    // As in elements.wgsl: sums of a few pairs first.
    var sum = vec4(0.0);
    var few = vec4(0.0);
    for (var n = 0u; n < ROWS * KEYS; n++) {
        if (n % FEW_PAIRS == 0u) {
            sum += few;
            few = vec4(0.0);
        }
        let pair = pair_of(n);
        let from_pair = pair.x * KEYS + pair.y;
        let next = elements[from_pair];
        if (share_of(vector_place(next, at.head, g)) == share) {
            if (next != element) {
                add(at, element, g, sum + few);
                element = next;
                sum = vec4(0.0);
                few = vec4(0.0);
            }
            let i = query_at(at, min(at.first_row + pair.x, params.kernel.q_count - 1u));
            let j = key_at(at, tile.first + pair.y);
            few = fma(vec4(pulls[from_pair]), finite_where_masked(tile, vector(at, i, j, g, next)), few);
        }
    }
    add(at, element, g, sum + few);
}

// Whose share a place is: spread, whatever the strides.
fn share_of(place: u32) -> u32 { return ((place * 0x9e3779b1u) >> 16u) % SHARES; }

fn add(at: Head, element: u32, g: u32, sum: vec4<f32>) {
    if (element == NO_ELEMENT) { return; }
    let to = copy_at + vector_place(element, at.head, g);
    let count = HEAD_DIM - 4u * (g % HEAD_GROUPS);
    for (var t = 0u; t < min(4u, count); t++) { sums[to + t] += params.kernel.scale * sum[t]; }
}
