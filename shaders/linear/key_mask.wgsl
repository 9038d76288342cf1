@group(0) @binding(BINDING_key_mask) var<storage, read> key_mask: array<u32>;      // [B, Lk]; 0: no query sees the key

fn is_hidden(key: u32) -> bool { return key_mask[key] == 0u; }
