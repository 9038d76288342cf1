// New rows of all sequences, packed: [heads, rows].

struct NewRow { number: u32, batch: u32, head: u32, t: u32, is_new: bool, x_at: u32 }

fn new_row(row: u32) -> NewRow {
    let place = row % params.cache.most_new;
    let head = row / params.cache.most_new;
    // The last sequence that begins there or before.
    var low = 0u;
    var high = params.cache.batch;
    for (var step = 0u; step < 32u; step++) {
        if (low >= high) { break; }
        let middle = (low + high + 1u) / 2u;
        if (offset_of(middle) <= place) { low = middle; } else { high = middle - 1u; }
    }
    let t = place - offset_of(low);
    let is_new = low < params.cache.batch && t < count_of(low);
    return NewRow(row, low, head, t, is_new, params.x.offset + head * params.x.head + place * params.x.row);
}
