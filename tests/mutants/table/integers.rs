//! Faults of the kernels of integers, by the checks that must find them.

wgpu_attention_testing::mutants! {
    "quantize" {
        "x is of the row before": "load_x(row * params.inner + k, count)" => "load_x(max(row, 1u) * params.inner - params.inner + k, count)";
        "a quotient is rounded down": "clamp(round(steps), vec4(-1024.0), vec4(1024.0))) + vec4(zero_point_of_x(at))" => "clamp(floor(steps), vec4(-1024.0), vec4(1024.0))) + vec4(zero_point_of_x(at))";
        "integers have no zero point": "+ vec4(zero_point_of_x(at))" => "";
        "integers wrap around": "clamp(q, vec4(params.low), vec4(params.high))" => "q";
        "what is behind a row is not 0": "clamp(q, vec4(params.low), vec4(params.high)), vec4(0u, 1u, 2u, 3u) < vec4(count))" => "clamp(q, vec4(params.low), vec4(params.high)), vec4(true))";
        "a nibble keeps its neighbours' bits": "& vec4((1u << BITS) - 1u)) <<" => ") <<";
        "halves of a word are swapped": "<< (16u * part)" => "<< (16u * (1u - part))";
        "elements of a word are the other way around": "(vec4(0u, 1u, 2u, 3u) * BITS)" => "(vec4(3u, 2u, 1u, 0u) * BITS)";
        "half of the nibbles is lost": "part < 8u / BITS; part++" => "part < 1u; part++";
        "the reciprocal is not one": "x * (1.0 / scales[at])" => "x * scales[at]";
        "a part ends early": "let end = min(first + params.part_len, params.slice_len);" => "let end = min(first + params.part_len, params.slice_len) - 4u;";
        "a part goes on into the next slice": "let end = min(first + params.part_len, params.slice_len);" => "let end = first + params.part_len;";
        "the first part is all": "let first = n % params.parts * params.part_len;" => "let first = 0u;";
        "slices are the first": "let slice_at = n / params.parts * params.slice_len;" => "let slice_at = 0u;";
        "the last of 4 is not the least": "min(min(least.x, least.y), min(least.z, least.w))" => "min(min(least.x, least.y), least.z)";
        "the first of 4 is not the most": "max(max(most.x, most.y), max(most.z, most.w))" => "max(most.y, max(most.z, most.w))";
        "negative numbers are in their bits' order": "select(vec4(0x80000000u), vec4(0xffffffffu), bits >= vec4(0x80000000u))" => "vec4(0x80000000u)";
        "parts but the first are lost": "part < params.parts; part++" => "part < 1u; part++";
        "parts are those of the first slice": "extremes[slice * params.parts + part]" => "extremes[part]";
        "the most negative number does not count": "max(max(abs(lo), abs(hi)) / params.range" => "max(abs(hi) / params.range";
        "a scale may be 0": "max(max(abs(lo), abs(hi)) / params.range, params.least_scale)" => "max(abs(lo), abs(hi)) / params.range";
        "0 is not within the range": "let low = min(lo, 0.0);" => "let low = lo;";
        "the range ends at the most": "max(hi, 0.0) - low" => "hi - low";
        "the zero point is rounded down": "clamp(round(-low / scale), 0.0, params.range)" => "clamp(floor(-low / scale), 0.0, params.range)";
        "zeros have a scale of 0": "if (scale < params.least_scale) { scale = 1.0; }" => "";
        "integers of given scales take the next": "let at = scale_at(row, k);\n    let x" => "let at = scale_at(row + 1u, k);\n    let x";
    }
    "strange" {
        "a NaN has a scale": "select(scale, nan_of(most), strange)" => "scale";
        "an infinity has a scale": "least < LEAST || most > MOST" => "least < LEAST || most > MOST + 1u";
        "a negative infinity has a scale": "let strange = least < LEAST ||" => "let strange =";
    }
    "numbers" {
        "the sign of a byte is lost": "unpack4xI8(word), SIGNED_b" => "vec4<i32>(unpack4xU8(word)), SIGNED_b";
        "unsigned bytes have a sign": "select(vec4<i32>(unpack4xU8(word))," => "select(unpack4xI8(word),";
        "the sign of a nibble is lost": "bitcast<vec4<i32>>(top) >> vec4(28u), SIGNED_b" => "vec4<i32>(top >> vec4(28u)), SIGNED_b";
        "unsigned nibbles have a sign": "select(vec4<i32>(top >> vec4(28u))," => "select(bitcast<vec4<i32>>(top) >> vec4(28u),";
        "nibbles are swapped": "<< vec4(28u, 24u, 20u, 16u)" => "<< vec4(24u, 28u, 16u, 20u)";
        "halves of a word of nibbles are swapped": "16u * (group % 2u)" => "16u - 16u * (group % 2u)";
        "the zero point is forgotten": "- vec4(zero_point_of_b(scale_at(column, k))))" => ")";
        "the zero point is that of the next": "zero_point_of_b(scale_at(column, k))" => "zero_point_of_b(scale_at(column, k) + 1u)";
        "a row's scale is that of the next": "case BY_ROWS: { return row; }" => "case BY_ROWS: { return row + 1u; }";
        "all rows have a tensor's many scales": "case BY_TENSOR: { return 0u; }" => "case BY_TENSOR: { return row; }";
        "a group's scale is that of the next": "+ k / GROUP; }" => "+ k / GROUP + 1u; }";
        "rows of scales are too long": "row * (params.inner / GROUP)" => "row * (params.inner / GROUP + 1u)";
        "groups of a row share the first scale": "+ k / GROUP; }" => "; }";
        "rows of words follow without a gap": "let n = work * LANES + lane;\n    let row = n / fours;" => "let n = work * LANES + lane;\n    let row = n / max(fours - 1u, 1u);";
        "numbers are of the row's first": "b_along_k(0u, row, k, count)" => "b_along_k(0u, row, 0u, count)";
    }
    "weights" {
        "weights lie k by k": "four_of_b(b_at + column * params.b_row, k / 4u)" => "four_of_b(b_at + k * params.b_row, column / 4u)";
        "weights are a group on": "params.b_row, k / 4u)" => "params.b_row, k / 4u + 1u)";
        "weights are eight on": "params.b_row, k / 8u)" => "params.b_row, k / 8u + 1u)";
        "few rows: the zero point is forgotten": "vec4<f32>(q.low - zero)" => "vec4<f32>(q.low)";
        "few rows: the second four is the first": "vec4<f32>(q.high - zero)" => "vec4<f32>(q.low - zero)";
        "few rows: eight bytes are one word": "2u * group + 1u" => "2u * group";
        "few rows: eight nibbles are half a word": "low_four_of_b(word >> 16u)" => "low_four_of_b(word)";
        "few rows: a group's scale is forgotten": "fma(sum, scales, before)" => "sum + before";
        "few rows: groups have the scale of the first": "scale_of_column(columns.x, k), scale_of" => "scale_of_column(columns.x, 0u), scale_of";
        "few rows: a column's scale is forgotten": "if (!GROUPED) {" => "if (false) {";
    }
    "product" {
        "the last word counts in full": "select(0xffffffffu, params.last_mask, w + 1u == params.row_words)" => "0xffffffffu";
        "the first word is masked": "w + 1u == params.row_words)" => "w == 0u)";
        "the last word is skipped": "w < params.row_words; w++" => "w + 1u < params.row_words; w++";
        "a's zero point is forgotten": "- za * of_b" => "";
        "b's zero point is forgotten": "- of_a[n] * zb" => "";
        "the zero points' product is forgotten": " + i32(params.inner) * za * zb" => "";
        "a row is its neighbour": "sums[2] += dots(a_words.z, b_words);" => "sums[2] += dots(a_words.y, b_words);";
        "a column is its neighbour": "dot4I8Packed(x, y.z)" => "dot4I8Packed(x, y.w)";
        "unsigned bytes of a are signed": "select(FLIP, 0u, SIGNED_a)" => "0u";
        "unsigned bytes of b are signed": "select(FLIP, 0u, SIGNED_b)" => "0u";
        "a's zero point is not less 128": "- select(128, 0, SIGNED_a)" => "";
        "b's zero point is not less 128": "- select(128, 0, SIGNED_b)" => "";
        "all rows have the first zero point": "zero_point_of_a(select(0u, row, ROWS_OF_a))" => "zero_point_of_a(0u)";
        "all columns have the first zero point": "zero_point_of_b(select(0u, min(column, params.columns - 1u), ROWS_OF_b))" => "zero_point_of_b(0u)";
        "tiles are those of the first rows": "work % params.row_tiles * LANES_R" => "0u * LANES_R";
        "tiles of columns overlap": "work / params.row_tiles * LANES_C" => "work % params.row_tiles * LANES_C";
        "sums past the last column are written": "c < min(4u, params.columns - column); c++" => "c < 4u; c++";
        "numbers have no bias": "if (HAS_BIAS) { value += load_bias(column, count); }" => "";
        "numbers have no scales": "var value = vec4<f32>(sums) * factors(row, column);" => "var value = vec4<f32>(sums);";
        "all rows have the first scale": "a_scales[select(0u, row, ROWS_OF_a)]" => "a_scales[0]";
        "all columns have the first scale": "min(vec4(column) + vec4(0u, 1u, 2u, 3u), vec4(params.columns - 1u)), ROWS_OF_b)" => "vec4(0u), ROWS_OF_b)";
        "bytes have no scale": "(factors(row, column) * params.out_factor)" => "factors(row, column)";
        "bytes are rounded down": "clamp(round(steps), vec4(-1024.0), vec4(1024.0))) + vec4(params.out_zero_point)" => "clamp(floor(steps), vec4(-1024.0), vec4(1024.0))) + vec4(params.out_zero_point)";
        "bytes have no zero point": "+ vec4(params.out_zero_point)" => "";
        "bytes wrap around": "clamp(q, vec4(LEAST_OUT), vec4(LEAST_OUT + 255))" => "q";
        "bytes are swapped": "bytes << vec4(0u, 8u, 16u, 24u)" => "bytes << vec4(8u, 0u, 16u, 24u)";
        "rows of bytes follow without a gap": "row * ((params.columns + 3u) / 4u)" => "row * (params.columns / 4u)";
    }
}
