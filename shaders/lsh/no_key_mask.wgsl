// Every position may be seen.
fn is_hidden(at: u32) -> bool { return false; }
