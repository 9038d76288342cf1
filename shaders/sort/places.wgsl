// No values: a key's place in its list stands for one (argsort).
fn value_of(at: u32, place: u32) -> u32 { return place; }
