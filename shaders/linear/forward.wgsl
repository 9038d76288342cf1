// Places are positions.
fn placed(n: u32, len: u32) -> u32 { return n; }
