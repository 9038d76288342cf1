// A tensor of which each pair reads rows of d elements: every lane adds up groups of 4 columns, of all pairs.
//
//     sum over the pairs that read a row of scale ds_ij `vector`(i, j)

fn gather(at: Head, lane: Lane, tile: KeyTile) {
    // All lanes take as many turns; those past the last group repeat it, and write nothing.
    for (var first = 0u; first < VECTOR_GROUPS; first += LANES) {
        let g = min(first + lane.r, VECTOR_GROUPS - 1u);
        let is_own = first + lane.r < VECTOR_GROUPS;
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
            if (next != element) {
                add(at, is_own, element, g, sum + few);
                element = next;
                sum = vec4(0.0);
                few = vec4(0.0);
            }
            let i = query_at(at, min(at.first_row + pair.x, params.kernel.q_count - 1u));
            let j = key_at(at, tile.first + pair.y);
            few = fma(vec4(pulls[from_pair]), finite_where_masked(tile, vector(at, i, j, g, next)), few);
        }
        add(at, is_own, element, g, sum + few);
    }
}

fn add(at: Head, is_own: bool, element: u32, g: u32, sum: vec4<f32>) {
    if (!is_own || element == NO_ELEMENT) { return; }
    let to = copy_at + vector_place(element, at.head, g);
    let count = HEAD_DIM - 4u * (g % HEAD_GROUPS);
    for (var t = 0u; t < min(4u, count); t++) { sums[to + t] += params.kernel.scale * sum[t]; }
}
