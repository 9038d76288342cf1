fn is_hidden(key: u32) -> bool { return false; }
