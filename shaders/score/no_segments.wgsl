// A score without segments.
fn begin_segments(at: Head, lane: Lane) {}

fn segmented(at: Head, lane: Lane, tile: KeyTile, s: Scores) -> Scores { return s; }
