// Values that are carried along.
@group(0) @binding(BINDING_values) var<storage, read> values: array<u32>;               // [segments, len]

fn value_of(at: u32, place: u32) -> u32 { return values[at]; }
