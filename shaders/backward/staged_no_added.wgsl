// A score whose products are those of queries and keys alone: on the staged tile.

fn begin_added(at: Head) {}

fn stage_added(at: Head, lane: Lane, tile: KeyTile) {}

fn with_added_products(s: mat4x4<f32>, at: Head, lane: Lane, tile: KeyTile) -> mat4x4<f32> { return s; }

fn with_added_rows(x: Sums, at: Head, lane: Lane, tile: KeyTile) -> Sums { return x; }
