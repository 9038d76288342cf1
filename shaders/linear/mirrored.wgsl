// Places count from the end, so that a query that a key is seen by comes before it: the gradients of keys, as sums over queries.
fn placed(n: u32, len: u32) -> u32 { return len - 1u - n; }
