// The numbers that the sums stand for, and a bias.
fn finish(row: u32, column: u32, sums: vec4<i32>) {
    let count = params.columns - column;
    var value = vec4<f32>(sums) * factors(row, column);
    if (HAS_BIAS) { value += load_bias(column, count); }
    store_out(row * params.columns + column, count, value);
}
