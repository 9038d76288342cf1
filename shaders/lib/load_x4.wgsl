// Rows whose start and length are multiples of 4 elements: one wide load a group of 4.
// `row` is the element index of the row's start.
alias in_word = in_x4;

fn load_q(row: u32, group: u32) -> vec4<f32> { return widen_x4(q[row / 4u + group]); }

fn load_k(row: u32, group: u32) -> vec4<f32> { return widen_x4(k[row / 4u + group]); }

fn load_v(row: u32, group: u32) -> vec4<f32> { return widen_x4(v[row / 4u + group]); }
