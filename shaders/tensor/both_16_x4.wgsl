// `out`: 16-bit rows whose starts and lengths are multiples of 4, read and written.
@group(0) @binding(BINDING_out) var<storage, read_write> out: array<out_word>;
alias out_word = vec2<u32>;

fn store_out(at: u32, count: u32, value: vec4<f32>) { out[at / 4u] = vec2(narrow_x2(value.xy), narrow_x2(value.zw)); }

fn load_out(at: u32, count: u32) -> vec4<f32> {
    let word = out[at / 4u];
    return vec4(widen_x2(word.x), widen_x2(word.y));
}
