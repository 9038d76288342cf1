// Rows go into the cache, behind those that are there.

fn position_of(batch: u32, t: u32) -> u32 { return length_of(batch) + t; }

fn place_of(new_row: NewRow, position: u32) -> u32 { return row_of(new_row.batch, new_row.head, position); }
