// The rows of every query head are computed.

fn nth_row(n: u32) -> u32 { return n; }
