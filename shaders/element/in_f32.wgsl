// f32 tensors, read as four elements a word (in_x4) or one (in_x1).
alias in_x4 = vec4<f32>;
alias in_x1 = f32;
const ELEMENTS_IN_X1 = 1u;

fn widen_x4(word: in_x4) -> vec4<f32> { return word; }

fn widen_x1(word: in_x1, index: u32) -> f32 { return word; }
