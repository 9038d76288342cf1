// The sorted keys are written.
@group(0) @binding(BINDING_keys_out) var<storage, read_write> keys_out: array<u32>;     // [segments, len]

fn write_key(place: u32, key: u32) { keys_out[place] = key; }
