//! Faults planted in the shader text: the checks must find them.

use super::{Case, gpu};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use wgpu_attention::reference::{Kind, Rows};
use wgpu_attention::{AttentionShape, Gpu, Kernels, LshOptions, Options, SortShape};

/// What is replaced by what, and the case that should notice: an index into [`cases`], or the sort.
type Mutant = (&'static str, &'static str, &'static str, usize);

const SORT: usize = 9;

const MUTANTS: &[Mutant] = &[
    // --- hash ---
    (
        "the negated projections are forgotten",
        "select(half + lowest_at, highest_at, highest >= -lowest)",
        "highest_at",
        0,
    ),
    ("ties go to the highest index", "products[t] > highest)", "products[t] >= highest)", 2),
    ("rounds share the first round's projection", " + round * COLUMNS;", ";", 0),
    ("heads share the first head's projection", "head * params.projection_head + round", "round", 0),
    ("the factors do not multiply", "place_value *= 2u * half;", "", 1),
    ("the factors share their columns", "first_column += half;", "", 1),
    ("the chunks of x are all the first", "let g = first + e % GROUPS;", "let g = e % GROUPS;", 1),
    (
        "the columns past the first tile are the first",
        "let at = column + 4u * (e % 4u) + t;",
        "let at = 4u * (e % 4u) + t;",
        1,
    ),
    (
        "keys are not normalised by their own norm",
        "norms[line * params.len + row]",
        "norms[line * params.len + row / 2u]",
        0,
    ),
    ("the norm lacks its root", "inverseSqrt(squares)", "1.0 / squares", 0),
    ("masked positions are not set apart", "key_mask[batch * params.len + row] == 0u", "false", 1),
    // --- sort ---
    ("the sort is not stable", "& below);", "& ~below) - 1u;", SORT),
    ("ranks forget the tiles before", "next[lane] += countOneBits", "next[lane] = countOneBits", SORT),
    ("blocks forget those before", "total += count;", "total = count;", SORT),
    ("digits forget the smaller ones", "sums[lane] += before;", "", SORT),
    ("the second digit is the first", "(key >> params.shift)", "key", SORT),
    (
        "segments share the first one's starts",
        "starts[segment * 256u + lane] + counts",
        "starts[lane] + counts",
        SORT,
    ),
    // --- attention over sorted places ---
    (
        "the chunk before is not seen",
        "LOOK_BACK % chunks) % chunks, min(LOOK_BACK + 1u + LOOK_AHEAD",
        "0u) % chunks, min(1u + LOOK_AHEAD",
        0,
    ),
    ("the line does not go round", "turn < 2u", "turn < 1u", 0),
    ("without a wrap the first chunk looks back", "chunk - min(chunk, LOOK_BACK)", "chunk", 1),
    ("rows of a chunk's later tiles are lost", "row_tile % ROW_TILES_A_CHUNK * ROWS, end", "0u, end", 3),
    (
        "a chunk cut off by its round goes on",
        "min(chunk_at + PLACES_A_CHUNK, first_place + params.q_len)",
        "chunk_at + PLACES_A_CHUNK",
        0,
    ),
    (
        "causal goes by places",
        "vec4(mask[j.x], mask[j.y], mask[j.z], mask[j.w]) <= vec4(mask[i])",
        "j <= vec4(i)",
        3,
    ),
    ("masked keys are seen", "seen = seen & (bucket != vec4(BUCKETS));", "", 1),
    ("buckets of other rounds are one's own", "seen & same_round & (", "seen & (", 2),
    ("other buckets are seen", " & (bucket == vec4(mask[params.groups_at + i]))", "", 2),
    ("heads share the first head's order", "(at.batch * params.heads + at.head) * params.k_count", "0u", 0),
    ("one's own key is an ordinary one", "j == vec4(i));", "vec4(false));", 0),
    (
        "norms are those of the query",
        "* params.q_len) + j;\n    let norms",
        "* params.q_len) + vec4(i);\n    let norms",
        0,
    ),
    ("a pair counts each time", "s -= log2(", "s -= 0.0 * log2(", 2),
    (
        "meetings are counted in one's own round only",
        "let first = select(round, 0u, CHAIN_ROUNDS);",
        "let first = round;",
        4,
    ),
    ("rounds do not merge", "all_l = fma(row_l, new_weight, old_weight);", "all_l = row_l * new_weight;", 0),
    ("(m, l) is not left for the next round", "stats[2u * end.stat + 1u] = end.l;", "", 0),
];

/// Few cases, so that few shaders are compiled, with as many options in each as can be told apart.
fn cases() -> [Case<f32>; 5] {
    let shape = AttentionShape::new(2, 2, 70, 16);
    let case = |shape, options| Case::new(shape, options, Kind::Normal, 11);
    // Far enough back to meet the same bucket of the round before.
    let mut zeros = case(shape, LshOptions::new(2, 4, 24).look_back(3).within_bucket(true).count_once(true));
    zeros.qk[..32].fill(0.0);
    [
        case(shape, LshOptions::new(2, 8, 24)),
        case(
            AttentionShape::new(2, 2, 70, 40),
            LshOptions::new(2, 2, 24).buckets(vec![4, 40]).wrap(false).chain_rounds(false).key_mask(true),
        ),
        zeros,
        case(shape, LshOptions::new(1, 8, 70).causal(true)),
        case(shape, LshOptions::new(3, 4, 24).count_once(true).look_ahead(1)),
    ]
}

/// Runs one of the checks: `Err` says what failed.
fn check(gpu: &Gpu, which: usize) -> Result<(), String> {
    if which == SORT {
        let shape = SortShape::new(2, 5000).key_bits(12);
        let keys: Vec<u32> = (0..10_000u32).map(|n| n.wrapping_mul(2_654_435_761) >> 21).collect();
        let got = gpu.sort(&shape, &keys, None).map_err(|e| e.to_string())?;
        let mut places: Vec<u32> = (0..10_000).map(|n| n % 5000).collect();
        for (segment, keys) in places.chunks_mut(5000).zip(keys.chunks(5000)) {
            segment.sort_by_key(|&place| keys[place as usize]);
        }
        return if got.values == places { Ok(()) } else { Err("order".into()) };
    }
    let case = &cases()[which];
    let got = gpu.lsh(&case.shape, &case.options, &case.inputs()).map_err(|e| e.to_string())?;
    if case.options.count_once && case.options.within_bucket && got.buckets[..2] != [0, 0] {
        return Err("a tie does not go to the lowest index".into());
    }
    let most = case.options.bucket_count() as u32 - u32::from(!case.options.key_mask);
    if got.buckets.iter().any(|&bucket| bucket > most) {
        return Err("a bucket past the last".into());
    }
    let report = case.verify(&got, Rows::All);
    if report.pass { Ok(()) } else { Err(report.to_string()) }
}

#[test]
fn the_checks_pass_without_faults() {
    for which in [0, 1, 2, 3, 4, SORT] {
        check(gpu(), which).unwrap_or_else(|e| panic!("check {which}: {e}"));
    }
}

#[test]
fn the_checks_find_the_faults() {
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((name, find, replacement, which)) =
                    MUTANTS.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let applied = Arc::new(AtomicUsize::new(0));
                    let count = applied.clone();
                    let edit = move |text: &str| {
                        count.fetch_add(usize::from(text.contains(find)), Ordering::Relaxed);
                        text.replace(find, replacement)
                    };
                    let kernels = Kernels::with_edited_shaders(gpu().device(), Options::default(), edit);
                    let verdict = check(&gpu().with_kernels(kernels.expect("valid options")), *which);
                    assert!(applied.load(Ordering::Relaxed) > 0, "{name}: no shader has this text any more");
                    match verdict {
                        Ok(()) => survivors.lock().expect("no panic").push(*name),
                        Err(why) => println!("{name}: {}", why.chars().take(100).collect::<String>()),
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().expect("no panic");
    println!("{} of {} killed", MUTANTS.len() - survivors.len(), MUTANTS.len());
    assert!(100 * (MUTANTS.len() - survivors.len()) >= 95 * MUTANTS.len(), "survivors: {survivors:?}");
}
