// Rows are queries, whose keys are the last in the cache; they go side by side, as they are counted.

fn position_of(batch: u32, t: u32) -> u32 {
    let count = count_of(batch);
    return max(length_of(batch) + t, count) - count;
}

fn place_of(new_row: NewRow, position: u32) -> u32 { return new_row.number; }
