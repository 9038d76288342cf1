// A row has the logits of its keys alone.
fn begin_sums(at: Head, lane: Lane) {}
