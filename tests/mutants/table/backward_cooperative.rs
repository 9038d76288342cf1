//! Faults of the gradients on cooperative matrices: factors of weights, what meets what, barriers, sums.

wgpu_attention_testing::mutants! {
    "the factor of the weights is not taken back" ["close", "counts"]
        "return fma(products[e], vec4(row_factor[factors_at + row_of_piece(e)]), sum);" => "return products[e] + sum;";
    "the factor taken back is that of the next row" ["close", "sizes"]
        "row_factor[factors_at + row_of_piece(e)]" => "row_factor[factors_at + (row_of_piece(e) ^ 1u)]";
    "derivatives get the factors of weights back" ["close"]
        "factors_at = ROWS;" => "factors_at = 0u;";
    "the largest of a row misses a lane" ["close", "sizes"]
        "for (var c = 0u; c < LANES_C; c++) { largest = max(" => "for (var c = 1u; c < LANES_C; c++) { largest = max(";
    "the largest of a row misses an element" ["close", "sizes"]
        "return max(max(x.x, x.y), max(x.z, x.w));" => "return max(x.x, max(x.z, x.w));";
    "a row is scaled by the factor of another" ["close", "sizes"]
        "eleven_bits(factors.y * x[1])" => "eleven_bits(factors.x * x[1])";
    "what is not finite is lost on its way to f16, and no factor tells" ["strange"]
        "(bitcast<vec4<u32>>(x) + vec4(0x1000u)) & vec4(0xffffe000u)"
            => "select((bitcast<vec4<u32>>(x) + vec4(0x1000u)) & vec4(0xffffe000u), vec4(0u), not_finite(x))",
        "let strange = select(vec4(0u), largest | vec4(0x00400000u), largest == vec4(0x7f800000u));" => "let strange = vec4(0u);";
    "weights lie too low for f16" ["close", "sizes"]
        "vec4(254u + SCALED_EXPONENT) - (largest >> vec4(23u))" => "vec4(240u) - (largest >> vec4(23u))";
    "weights lie beyond f16" ["close"]
        "const SCALED_EXPONENT = 14u;" => "const SCALED_EXPONENT = 17u;";
    "weights and derivatives are rounded to 8 bits" ["close"]
        "0x1000u)) & vec4(0xffffe000u)" => "0x8000u)) & vec4(0xffff0000u)";
    "derivatives meet what weights should" ["close", "counts"]
        "weigh(share, DS_AT, HEADS_AT);" => "weigh(share, DS_AT, VALUES_AT);";
    "weights are those of the derivatives" ["close", "counts"]
        "weigh(share, P_AT, VALUES_AT);" => "weigh(share, DS_AT, VALUES_AT);";
    "the gradient of out meets the rows of q and k" ["close"]
        "d_p = multiplied(lane, share, OWN_VALUES_AT, VALUES_AT, VALUE_DEPTH);" => "d_p = multiplied(lane, share, OWN_HEADS_AT, VALUES_AT, VALUE_DEPTH);";
    "the products lack the scale" ["close"]
        "let s = params.kernel.q_scale * multiplied(" => "let s = multiplied(";
    "the second columns are the first" ["close", "counts"]
        "let c1 = coopLoadT<mat_b>(&halves[from_column + STEP], PITCH);" => "let c1 = coopLoadT<mat_b>(&halves[from_column], PITCH);";
    "the lower rows have the upper rows' weights" ["close", "counts"]
        "o11 = coopMultiplyAdd(w1, c1, o11);" => "o11 = coopMultiplyAdd(w0, c1, o11);";
    "a wide column of matrices is its neighbour's" ["wide"]
        "o03 = coopMultiplyAdd(w0, c3, o03);" => "o03 = coopMultiplyAdd(w0, c2, o03);";
    "columns of a tile lie as columns" ["close"]
        "let c0 = coopLoad<mat_b>(&halves[from_column], PITCH);" => "let c0 = coopLoadT<mat_b>(&halves[from_column], PITCH);";
    "weighed columns lie as rows" ["close", "counts"]
        "let c0 = coopLoadT<mat_b>(&halves[from_column], PITCH);" => "let c0 = coopLoad<mat_b>(&halves[from_column], PITCH);";
    "weights of the tile's first columns count again" ["close", "counts"]
        "let from_weight = weights_at + share.row * K_PITCH + column / 4u;" => "let from_weight = weights_at + share.row * K_PITCH;";
    "the lower products are those of the upper rows" ["close"]
        "s10 = coopMultiplyAdd(r1, c0, s10);" => "s10 = coopMultiplyAdd(r0, c0, s10);";
    "weights and products are not turned over" ["close"]
        "store_weights(lane, transpose(w.p), transpose(w.ds));" => "store_weights(lane, w.p, transpose(w.ds));";
    "derivatives are not turned over" ["close"]
        "store_weights(lane, transpose(w.p), transpose(w.ds));" => "store_weights(lane, transpose(w.p), w.ds);";
    "products of the tile before are added again" ["close", "counts"]
        "    forget_products();\n    for (var column" => "    for (var column";
    "one column of matrices keeps its sums of the tiles before alone" ["close", "counts"]
        "all.b = joined(lane, sums.b);" => "all.b = sums.b;";
    "the second columns are written from the first" ["close", "counts"]
        "write_pieces(at, lane, 1u, sums.b, values);" => "write_pieces(at, lane, 1u, sums.a, values);";
    "the second piece is written where the first is" ["close", "counts"]
        "write_piece(at, lane.index + LANES, matrix, sums.b, values);" => "write_piece(at, lane.index, matrix, sums.b, values);";
    "columns of a tile are those behind them" ["close", "counts"]
        "let column = tile.first + e / WIDTH;" => "let column = tile.first + e / WIDTH + 1u;";
    "NaN of columns that a row leaves out leaks from matrices" ["leaks"]
        "head = finite_where_masked(tile, column_head(at, column_head_at(at, column), g));" => "head = column_head(at, column_head_at(at, column), g);";
    "NaN of values that a row leaves out leaks from matrices" ["leaks"]
        "value = finite_where_masked(tile, column_value(column_value_at(at, column), g));" => "value = column_value(column_value_at(at, column), g);";
    "no barrier after the columns are staged" ["close", "counts"]
        "patches with barriers have followed\n    workgroupBarrier();" => "patches with barriers have followed";
    "no barrier after the products" ["close", "counts"]
        "lay_products(share, s00, s01, s10, s11);\n    workgroupBarrier();" => "lay_products(share, s00, s01, s10, s11);";
    "no barrier after the weights" ["close", "counts"]
        "store_weights(lane, transpose(w.p), transpose(w.ds));\n    workgroupBarrier();" => "store_weights(lane, transpose(w.p), transpose(w.ds));";
}
