// Rows go into the cache, behind those that are there.

fn position_of(batch: u32, t: u32) -> u32 { return length_of(batch) + t; }

fn place_of(batch: u32, head: u32, t: u32, position: u32) -> u32 { return row_of(batch, head, position); }
