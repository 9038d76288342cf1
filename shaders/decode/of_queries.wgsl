// Rows are queries, whose keys are the last in the cache; they go side by side, as they are counted.

fn position_of(batch: u32, t: u32) -> u32 {
    let length = length_of(batch);
    return length - min(count_of(batch), length) + t;
}

fn place_of(new_row: NewRow, position: u32) -> u32 { return new_row.number; }
