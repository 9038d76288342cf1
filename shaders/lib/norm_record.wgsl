// A row's view, as it is kept for those who need the row again: scale, mean, rest and the factor 1 / sqrt(variance + eps). Of a row
// without a mean the factor is NaN.

fn normalised(record: vec4<f32>, x: vec4<f32>) -> vec4<f32> {
    // The sign of a power of two is 0, which the compiler does not know: it would add mean and rest, and lose the rest.
    let nothing = bitcast<u32>(record.x) >> 31u;
    let centred = bitcast<vec4<u32>>(fma(x, vec4(record.x), vec4(-record.y)));
    return (bitcast<vec4<f32>>(centred | vec4(nothing)) - record.z) * record.w;
}
