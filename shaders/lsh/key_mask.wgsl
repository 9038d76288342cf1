// Positions that no query may see.
@group(0) @binding(BINDING_key_mask) var<storage, read> key_mask: array<u32>;           // [B, L]

fn is_hidden(at: u32) -> bool { return key_mask[at] == 0u; }
