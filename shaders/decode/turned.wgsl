// Rows turn by the rotary embedding of their own position (lib/rotary.wgsl).

@group(0) @binding(BINDING_cosines) var<storage, read> cosines: array<f32>;     // [capacity, r/2]
@group(0) @binding(BINDING_sines) var<storage, read> sines: array<f32>;         // [capacity, r/2]

fn new_group(x_at: u32, position: u32, c: u32) -> vec4<f32> {
    let table_at = position * (ROTARY_DIM / 2u);
    let y = vec4(turned(x_at, table_at, c, DIM, ROTARY_DIM), turned(x_at, table_at, c + 1u, DIM, ROTARY_DIM),
                 turned(x_at, table_at, c + 2u, DIM, ROTARY_DIM), turned(x_at, table_at, c + 3u, DIM, ROTARY_DIM));
    return select(vec4(0.0), y, vec4(c) + vec4(0u, 1u, 2u, 3u) < vec4(DIM));
}
