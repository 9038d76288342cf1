// f16 tensors without the shader-f16 feature: two elements in 32 bits, unpacked by core WGSL.
alias in_x4 = vec2<u32>;
alias in_x1 = u32;
const ELEMENTS_IN_X1 = 2u;

fn widen_x4(word: in_x4) -> vec4<f32> { return vec4(unpack2x16float(word.x), unpack2x16float(word.y)); }

fn widen_x1(word: in_x1, index: u32) -> f32 { return unpack2x16float(word)[index % 2u]; }
