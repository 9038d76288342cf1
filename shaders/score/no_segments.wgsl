// A score without segments.
fn begin_segments(at: Head, lane: Lane) {}

fn turn_segments() {}

fn segmented(at: Head, lane: Lane, tile: KeyTile, s: Scores) -> Scores { return s; }
