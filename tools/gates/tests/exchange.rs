//! Barriers between what matrices and lanes do with workgroup memory: each one of the cooperative kernels is missed when it is gone.

use wgpu_attention::wgsl::{Shader, variants};
use wgpu_attention_gates::{Fault, Parsed, lint};

const LIMIT: u32 = 1 << 20;

/// What a text of this body does too early.
fn found(declarations: &str, body: &str) -> Vec<String> {
    let text = format!(
        "enable f16; enable wgpu_cooperative_matrix;
        alias mat_a = coop_mat8x8<f16, A>; alias mat_c = coop_mat8x8<f32, C>;
        @group(0) @binding(0) var<storage, read_write> out: array<f32>;
        var<workgroup> halves: array<vec4<f16>, 64>;
        var<workgroup> sums: array<f32, 64>;
        var<workgroup> flag: u32;
        @group(0) @binding(1) var<uniform> given: vec4<u32>;
        var<private> a: mat_a;
        var<private> c: mat_c;
        {declarations}
        @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32) {{ {body} }}"
    );
    faults(&text, "main")
}

fn faults(text: &str, entry: &str) -> Vec<String> {
    let parsed = Parsed::new(text, entry).unwrap_or_else(|error| panic!("{error:#}"));
    let exchanges = lint(&parsed, LIMIT).into_iter().filter_map(|fault| match fault {
        Fault::Exchange(what) => Some(what),
        _ => None,
    });
    exchanges.collect()
}

const PUT: &str = "halves[lane] = vec4<f16>();";
const LOAD: &str = "a = coopLoadT<mat_a>(&halves[0], 2u);";
const STORE: &str = "coopStoreT(c, &sums[0], 8u);";
const LOAD_SUMS: &str = "c = coopLoadT<mat_c>(&sums[0], 8u);";
const READ: &str = "out[lane] = sums[63u - lane];";
const WRITE: &str = "sums[lane] = 0.0;";
const BARRIER: &str = "workgroupBarrier();";

#[test]
fn pairs_of_accesses() {
    for (before, behind, what) in [
        (PUT, LOAD, "`halves` is loaded into a matrix after it was written"),
        (LOAD, PUT, "`halves` is written after it was loaded into a matrix"),
        (STORE, READ, "`sums` is read after it was stored from a matrix"),
        (STORE, WRITE, "`sums` is written after it was stored from a matrix"),
        (STORE, LOAD_SUMS, "`sums` is loaded into a matrix after it was stored from a matrix"),
        (READ, STORE, "`sums` is stored from a matrix after it was read"),
        (WRITE, STORE, "`sums` is stored from a matrix after it was written"),
        (LOAD_SUMS, STORE, "`sums` is stored from a matrix after it was loaded into a matrix"),
    ] {
        assert_eq!(found("", &format!("{before} {behind}")), [format!("main: {what}")]);
        for barrier in [BARRIER, "let f = workgroupUniformLoad(&flag);"] {
            assert!(found("", &format!("{before} {barrier} {behind}")).is_empty(), "{before} {behind}");
        }
        let storage = format!("{before} storageBarrier(); {behind}");
        assert_eq!(found("", &storage).len(), 1, "another memory's barrier");
    }
    // Between lanes alone, of memory that matrices use.
    assert_eq!(found("", &format!("{STORE} {BARRIER} {WRITE} {READ}")).len(), 1);
    assert_eq!(
        found("", &format!("{STORE} {BARRIER} for (var i = lane; i < 64u; i += 8u) {{ sums[i] *= 2.0; }}")),
        [""; 0]
    );
}

#[test]
fn ways_through_a_kernel() {
    let turns = |body: &str| format!("for (var i = 0u; i < 4u; i++) {{ {body} }}");
    for (declarations, body, count) in [
        // From one turn of a loop to the next.
        ("", turns(&format!("{PUT} {BARRIER} {LOAD}")), 1),
        ("", turns(&format!("{BARRIER} {PUT} {BARRIER} {LOAD}")), 0),
        ("", turns(&format!("{LOAD} if (i == 2u) {{ continue; }} {BARRIER} {PUT} {BARRIER}")), 0),
        ("", turns(&format!("{LOAD} if (i == 2u) {{ break; }} {BARRIER}")) + PUT, 1),
        // A barrier on one side only.
        ("", format!("{PUT} if (out[0] > 0.0) {{ {BARRIER} }} {LOAD}"), 1),
        (
            "",
            format!("{PUT} switch given.x {{ case 0u: {{ {BARRIER} }} default: {{ {BARRIER} }} }} {LOAD}"),
            0,
        ),
        ("", format!("{PUT} if (given.x > 0u) {{ return; }} {BARRIER} {LOAD}"), 0),
        // Through functions.
        ("fn wait() { workgroupBarrier(); }", format!("{PUT} wait(); {LOAD}"), 0),
        (
            "fn wait() { if (given.x == 1u) { return; } workgroupBarrier(); }",
            format!("{PUT} wait(); {LOAD}"),
            1,
        ),
        ("fn fetch() { a = coopLoadT<mat_a>(&halves[0], 2u); }", format!("{PUT} fetch();"), 1),
    ] {
        let found = found(declarations, &body);
        assert_eq!(found.len(), count, "{declarations} {body}: {found:?}");
    }
}

/// Drivers lay the variables out one behind the other, and units of matrices load 16 bytes at a time, which must lie at a multiple of 16.
#[test]
fn matrices_lie_at_multiples_of_16_bytes() {
    let all = variants();
    let with_matrices = |shader: &&Shader| shader.text.contains("wgpu_cooperative_matrix");
    for shader in all.iter().filter(with_matrices) {
        let module = Parsed::new(&shader.text, shader.entry).unwrap().module;
        let of_workgroup =
            module.global_variables.iter().filter(|(_, one)| one.space == naga::AddressSpace::WorkGroup);
        for (_, variable) in of_workgroup {
            let bytes = module.types[variable.ty].inner.size(module.to_ctx());
            assert!(bytes.is_multiple_of(16), "{}: {:?} has {bytes} bytes", shader.label, variable.name);
        }
    }
}

/// Every kernel of matrices, with each of its barriers taken out.
#[test]
fn no_barrier_of_the_crates_kernels_is_spare() {
    let all = variants();
    let with_matrices = |shader: &&Shader| shader.text.contains("wgpu_cooperative_matrix");
    // Between lanes alone, of which this says nothing; tests/mutants finds the first gone.
    let between_lanes = [
        "workgroupBarrier(); // all lanes have read their rows' sums",
        "workgroupBarrier(); } // all lanes have taken the last tile's products",
    ];
    let mut taken = 0;
    for shader in all.iter().filter(with_matrices) {
        assert!(faults(&shader.text, shader.entry).is_empty(), "{}", shader.label);
        for (barrier, nothing) in [("workgroupBarrier();", ""), ("workgroupUniformLoad(", "atomicLoad(")] {
            for (at, _) in shader.text.match_indices(barrier) {
                let (before, behind) = shader.text.split_at(at);
                if between_lanes.iter().any(|one| behind.starts_with(one)) {
                    continue;
                }
                let without = format!("{before}{nothing}{}", &behind[barrier.len()..]);
                let noticed = faults(&without, shader.entry);
                let place: String = behind.chars().take(200).collect();
                assert!(!noticed.is_empty(), "{}: nobody misses the barrier at\n{place}", shader.label);
                taken += 1;
            }
        }
    }
    assert!(taken > 100, "{taken}: has a list shrunk?");
}
