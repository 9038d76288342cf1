// A tensor of which each pair reads one element: every lane adds up the elements that are its own.

fn gather(at: Head, lane: Lane, tile: KeyTile) {
    var element = NO_ELEMENT;
    // A sum of its own until another element follows, of sums of a few pairs, then added: a chain of all pairs would lose digits.
    var sum = 0.0;
    var few = 0.0;
    for (var n = 0u; n < ROWS * KEYS; n++) {
        if (n % FEW_PAIRS == 0u) {
            sum += few;
            few = 0.0;
        }
        let pair = pair_of(n);
        let from_pair = pair.x * KEYS + pair.y;
        let next = elements[from_pair];
        if (owner(next) == lane.index) {
            if (next != element) {
                add(element, sum + few);
                element = next;
                sum = 0.0;
                few = 0.0;
            }
            few += pulls[from_pair];
        }
    }
    add(element, sum + few);
}

// The lane of an element: spread, whatever the strides.
fn owner(element: u32) -> u32 { return ((element * 0x9e3779b1u) >> 16u) % LANES; }

fn add(element: u32, sum: f32) {
    if (element != NO_ELEMENT) { sums[copy_at + element] += sum; }
}
