//! No index lies outside of its buffer: every access to a storage buffer is counted where its index is past the length, also
//! where the value is thrown away. Only then may a kernel run without wgpu's checks (`Options::unchecked`).

use crate::support::{
    BiasValues, Case, Cut, Placement, bound, bound_of_parts, check_all, cut, failed, gpu, gpu_with,
    kinds_of_tile, picked, run,
};
use wgpu_attention::ElementType::{F16, F32};
use wgpu_attention::wgsl::{TileKind, variants};
use wgpu_attention::{
    Alibi, Attention, AttentionShape, BiasStrides, Buckets, Causal, Gpu, Kernels, Options, Relative, Score,
    Slopes, Storage, Temperature, Window,
};

/// The text with a test around each index; outputs of a workgroup that was outside become 1e30.
fn watched(text: &str) -> String {
    let buffers: Vec<&str> = buffers(text).collect();
    let mut text = text.to_owned();
    for buffer in &buffers {
        text = with_watched_indices(&text, buffer);
    }
    let watch = |buffer: &str| {
        format!(
            "fn watch_{buffer}(i: u32) -> u32 {{ if (i >= arrayLength(&{buffer})) {{ atomicStore(&outside, 1u); }} return i; }}\n"
        )
    };
    let edits = [
        // Workgroup memory is not zeroed.
        (
            "    begin(at, lane);",
            "    if (lane.index == 0u) { atomicStore(&outside, 0u); }\n    workgroupBarrier();\n    begin(at, lane);",
        ),
        ("    write_rows(at, lane);", "    workgroupBarrier();\n    write_rows(at, lane);"),
        (
            "store_out(to, count, x);",
            "store_out(to, count, select(x, vec4(1e30), atomicLoad(&outside) != 0u));",
        ),
    ];
    for (find, replacement) in edits {
        assert_eq!(text.matches(find).count(), 1, "`{find}` is not there any more");
        text = text.replace(find, replacement);
    }
    let watches: String = buffers.into_iter().map(watch).collect();
    format!("{text}\nvar<workgroup> outside: atomic<u32>;\n{watches}")
}

/// The storage buffers that a shader binds, which its header numbers.
fn buffers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| Some(line.strip_prefix("const BINDING_")?.split_once(" = ")?.0))
}

/// `buffer[index]` becomes `buffer[watch_buffer(index)]`.
fn with_watched_indices(text: &str, buffer: &str) -> String {
    let (mut done, mut rest) = (String::new(), text);
    let opening = format!("{buffer}[");
    while let Some(at) = rest.find(&opening) {
        let (before, after) = rest.split_at(at);
        done.push_str(before);
        let part_of_a_name = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
        // Comments tell shapes: "bias [B, H, Lq]" has a space, "// out[" does not occur.
        let inside = &after[opening.len()..];
        let mut depth = 1;
        let end = inside.find(|c| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            depth == 0
        });
        let end = end.expect("brackets close");
        done.push_str(&opening);
        if part_of_a_name {
            rest = inside;
            continue;
        }
        done += &format!("watch_{buffer}({})", with_watched_indices(&inside[..end], buffer));
        rest = &inside[end..];
    }
    done + rest
}

fn watching(kind: TileKind, splits: usize, edit: impl Fn(&str) -> String + Send + Sync + 'static) -> Gpu {
    let options = Options::default().tile_kind(kind).splits(splits);
    let edit = move |text: &str| if is_attention(text) { watched(&edit(text)) } else { text.to_owned() };
    let kernels = Kernels::with_edited_shaders(gpu().device(), options, edit).expect("valid options");
    gpu().with_kernels(kernels)
}

fn is_attention(text: &str) -> bool {
    text.starts_with("// attention")
}

/// Grouped heads, gaps between rows, short last blocks both ways, all terms of the score; packed heads; parts.
fn cases() -> Vec<Case> {
    let shape =
        Placement::Gap(4).apply(AttentionShape::new(2, 4, 70, 24).kv_heads(2).kv_len(150).value_dim(16));
    let odd = AttentionShape::new(1, 2, 67, 7).kv_len(33);
    let few = AttentionShape::new(2, 8, 5, 24).kv_heads(2).kv_len(150);
    let biased = |attention: &Attention| {
        let shape = attention.shape;
        let sizes = [shape.batch, shape.heads, shape.q_len, shape.kv_len];
        let score = Score::new().bias(BiasStrides::broadcast(sizes)).softcap(2.0);
        attention.clone().score(score.alibi())
    };
    let relative = Relative::new(40, 60);
    let per_head = Score::new().with(Alibi::new(Slopes::Given)).with(Temperature);
    vec![
        Case::new(biased(&shape)).pattern(Causal),
        Case::new(&shape).pattern(picked("blocks_per_head", &shape.shape.extent(), 3)),
        Case::new(biased(&odd.into())).pattern(Window { before: 20, after: 3 }),
        Case::new(odd.storage(Storage::all(F16))).pattern(Causal).blocks(16, 16),
        Case::new(biased(&few.into())).pattern(Causal).bias(BiasValues::Holes),
        Case::new(Placement::Reversed(4).apply(&shape)).score(per_head).pattern(Causal),
        Case::new(few).score(Score::new().with(Buckets::new(32, 60).bidirectional(true))),
        Case::new(&shape).score(Score::new().with(relative.clip(true))).pattern(Causal),
        Case::new(few).score(Score::new().with(relative.u(true).w(true).clip(true))).pattern(Causal),
    ]
}

#[test]
fn no_index_lies_outside() {
    for (n, case) in cases().into_iter().enumerate() {
        for kind in kinds_of_tile(None) {
            let gpu = watching(kind, 1 + n % 2 * 2, str::to_owned);
            let parts = if n % 2 == 0 { case.parts() } else { cut(&case, Cut::Gathers, 1) };
            let checked = if case.attention.storage.q == F32 {
                bound_of_parts(&gpu, &case, &parts)
            } else {
                bound_of_parts(&gpu, &case, &case.parts())
            };
            checked.unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        }
    }
}

/// Faults that wgpu's checks would hide: clamps that are missing.
#[test]
fn an_index_outside_is_found() {
    let faults = [
        (
            "let own = min(row, params.kernel.q_count - 1u);\n    let i = query_at(at, own);",
            "let own = row;\n    let i = query_at(at, own);",
        ),
        ("let place = min(key, params.kernel.k_count - 1u);", "let place = key;"),
        ("let own = min(at.first_row + row, params.kernel.q_count - 1u);", "let own = at.first_row + row;"),
    ];
    let case = Case::new(&cases()[0].attention).pattern(Causal);
    for (find, replacement) in faults {
        let gpu = watching(TileKind::Staged, 1, move |text| {
            assert_eq!(text.matches(find).count(), 1, "`{find}` is not there any more");
            text.replace(find, replacement)
        });
        let found = bound_of_parts(&gpu, &case, &case.parts());
        assert!(found.is_err_and(|e| e.contains("1e30") || e.contains("e30")), "{find}");
    }
}

#[test]
fn every_access_is_watched() {
    let shaders = variants();
    let proven: Vec<_> = shaders.iter().filter(|shader| shader.proven).collect();
    assert!(proven.len() > 20 && proven.iter().all(|shader| is_attention(&shader.text)));
    for shader in proven.iter().filter(|shader| !shader.text.contains("enable ")) {
        let text = watched(&shader.text);
        naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|e| panic!("{}: {}", shader.label, e.emit_to_string(&text)));
    }
    let nested = with_watched_indices("x = q[q_at[1] + mask[k[2]]] + eq[3];", "k");
    assert_eq!(nested, "x = q[q_at[1] + mask[k[watch_k(2)]]] + eq[3];");
}

/// Without checks the bits are the same.
#[test]
fn unchecked_kernels_give_the_same_bits() {
    for case in cases().into_iter().filter(|case| case.attention.storage.q == F32) {
        for kind in kinds_of_tile(None) {
            let options = Options::default().tile_kind(kind);
            let tensors = case.tensors::<f32, f32>();
            let result = |options| {
                let gpu = gpu_with(options);
                let got = run::<f32, f32, f32>(&gpu, &case.attention, &tensors.inputs(), &case.parts(), true)
                    .unwrap_or_else(|e| panic!("{}", failed("guards", &case, e)));
                // What lies between rows is NaN.
                [got.out, got.lse.expect("asked for")]
                    .map(|rows| rows.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            let same = result(options) == result(options.unchecked(true));
            assert!(same, "{kind:?}: {case}");
        }
    }
    let cases = cases().into_iter().map(|case| case.options(Options::default().unchecked(true)));
    check_all("unchecked: bound", cases, bound);
}
