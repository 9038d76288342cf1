// The sorted keys are not wanted.
fn write_key(place: u32, key: u32) {}
