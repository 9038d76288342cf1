// A score without relative rows: k meets the query itself, and the products are complete.
fn content(at: Head, row: u32, group: u32) -> vec4<f32> { return query(at, row, group); }

fn begin_related(at: Head, lane: Lane) {}

fn related(at: Head, lane: Lane, tile: KeyTile, s: Scores) -> Scores { return s; }
