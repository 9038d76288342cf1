// Rows of keys and of values in the cache, KEY_ROW and VALUE_ROW elements each; those of neighbouring positions of a page are neighbours.

// The element at which a position's row begins.
fn key_row(batch: u32, head: u32, position: u32) -> u32 { return row_of(batch, head, position) * KEY_ROW; }
fn value_row(batch: u32, head: u32, position: u32) -> u32 { return row_of(batch, head, position) * VALUE_ROW; }

fn value_step() -> u32 { return VALUE_ROW; }
