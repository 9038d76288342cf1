//! Scores of the caller's own: those of `examples/your_score.rs`, and what a text may not have.

use crate::support::{Case, Cut, Placement, bound, bound_of_parts, check_all, cut, gpu};
use wgpu_attention::reference::{Kind, random};
use wgpu_attention::{
    AttentionShape, Causal, Custom, ElementType, Full, Inputs, Outputs, Score, Storage, Temperature,
};

#[path = "../../examples/your_score.rs"]
mod your_score;

use your_score::{image_bias, tanh_cap};

#[test]
fn the_example_runs() {
    your_score::main().unwrap();
}

#[test]
fn every_element_is_within_the_bound() {
    let mut cases = vec![];
    let image = AttentionShape::new(2, 4, 9 * 8, 16).kv_heads(2);
    for score in [
        Score::new().with(image_bias(4, 9, 8)),
        Score::new().softcap(3.0).with(Temperature).with(image_bias(4, 9, 8)),
        Score::new().with(image_bias(4, 9, 8)).with(tanh_cap()),
    ] {
        let case = Case::new(image.score(score));
        cases.extend([case.clone().kind(Kind::Peaky), case.clone().pattern(Causal).without_lse()]);
        cases.push(case.storage(Storage::all(ElementType::F16)));
    }
    cases.push(Case::new(Placement::Gap(3).apply(image.score(Score::new().with(image_bias(4, 9, 8))))));
    check_all("custom: bound", cases.clone(), bound);
    check_all("custom: parts", cases.into_iter().take(2), |case| {
        bound_of_parts(gpu(), case, &cut(case, Cut::Gathers, 1))
    });
}

/// Forward and backward, the caller's soft-capping gives the bits of the crate's.
#[test]
fn tanh_soft_capping_is_the_built_in_one() {
    let shape = AttentionShape::new(1, 4, 70, 16).kv_heads(2).kv_len(90);
    for cap in [0.5f32, 3.0, 50.0] {
        let [own, built_in] =
            [Score::new().with(tanh_cap()), Score::new().softcap(cap)].map(|score| shape.score(score));
        let tensors = random::<f32, f32>(&built_in, Kind::Peaky, 3).unwrap();
        let inputs = Inputs::new(&tensors.q, &tensors.k, &tensors.v);
        let with_cap = inputs.clone().tensor("tanh_cap_value", std::slice::from_ref(&cap));
        let run = |attention, inputs: &Inputs<'_, f32>| {
            let outputs = Outputs::default().lse();
            gpu().run::<f32, f32, f32>(attention, inputs, &Causal, outputs).unwrap()
        };
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let (a, b) = (run(&own, &with_cap), run(&built_in, &inputs));
        assert_eq!(bits(&a.out), bits(&b.out), "cap {cap}");
        assert_eq!(bits(&a.lse.unwrap()), bits(&b.lse.unwrap()), "cap {cap}");
        let backward = |attention, inputs: &Inputs<'_, f32>| {
            gpu().attention_backward::<f32, f32, f32, f32>(attention, inputs, &b.out, &Causal).unwrap()
        };
        let (a, b) = (backward(&own, &with_cap), backward(&built_in, &inputs));
        assert!(a.dq.iter().any(|x| x.abs() > 1e-3));
        for (a, b) in [(a.dq, b.dq), (a.dk, b.dk), (a.dv, b.dv)] {
            assert_eq!(bits(&a), bits(&b), "cap {cap}");
        }
    }
}

fn refusal(term: Custom) -> String {
    let attention = AttentionShape::new(1, 2, 16, 8).score(Score::new().with(term));
    gpu().kernels().attention(attention, &Full).expect_err("refused").to_string()
}

const HEAD: &str = "fn own_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32> {";

#[test]
fn errors_give_the_line_of_the_text() {
    for (text, line) in [
        (
            format!("{HEAD}\n    let x = 1.0;\n    return s + y;\n}}"),
            "line 3, `return s + y;`: no definition in scope for identifier: `y`",
        ),
        (format!("\n\n{HEAD} return s + ; }}"), "line 3, "),
        // Bindings of the kernel are out of reach, and so are its parameters and its functions.
        (
            format!("{HEAD}\n    return s + q[0];\n}}"),
            "line 2, `return s + q[0];`: no definition in scope for identifier: `q`",
        ),
        (format!("{HEAD}\n    return s * params.kernel.q_scale;\n}}"), "line 2, "),
        // What is wrong with a whole function is said at its first line.
        (format!("\n{HEAD}\n    own_table[0] = 1.0;\n    return s;\n}}"), "line 2, `fn own_score("),
        (format!("enable f16;\n{HEAD}\n    return s;\n}}"), "custom.own: need WGSL, got line "),
        (format!("{HEAD}\n    return s.x;\n}}"), "custom.own: need WGSL, got line "),
    ] {
        let error = refusal(Custom::new("own", text.clone(), |s, _| s).tensor("own_table", 4));
        assert!(error.contains(line), "{text}: {error}");
    }
}

#[test]
fn what_a_text_may_not_have_is_named() {
    let with = |more: &str| format!("{more}\n{HEAD} return s; }}");
    for (text, name) in [
        (with("var<private> own_sum: f32;"), "the variable `own_sum`"),
        (with("var<workgroup> own_sum: f32;"), "the variable `own_sum`"),
        (
            with("@group(0) @binding(9) var<storage, read_write> own_out: array<f32>;"),
            "the variable `own_out`",
        ),
        (with("@compute @workgroup_size(1) fn own_main() {}"), "the entry point `own_main`"),
        (with("override own_size: u32 = 1u;"), "the override `own_size`"),
        (with("fn row_at() -> u32 { return 0u; }"), "`row_at`, whose name does not begin with `own_`"),
        (with("const LANES = 4u;"), "`LANES`, whose name does not begin with `own_`"),
        (with("fn own_wait() { workgroupBarrier(); }"), "a barrier in `own_wait`"),
        (format!("{HEAD} if (s.x > 0.0) {{ storageBarrier(); }} return s; }}"), "a barrier in `own_score`"),
        ("fn own_other() {}".into(), "no `fn own_score(pairs: Pairs, s: vec4<f32>) -> vec4<f32>`"),
        ("fn own_score(s: vec4<f32>) -> vec4<f32> { return s; }".into(), "another `own_score` than"),
        (with("fn own_score(s: f32) -> f32 { return s; }"), "own_score"),
    ] {
        let error = refusal(Custom::new("own", text.clone(), |s, _| s));
        assert!(error.starts_with("custom.own: need ") && error.contains(name), "{text}: {error}");
    }
    let text = with("");
    // A derivative that is promised has to be there; without one there are no gradients.
    let error = refusal(Custom::new("own", text.clone(), |s, _| s).slope(|_, _| 1.0, |_, _, _, _| 0.0));
    assert!(error.contains("no `fn own_slope("), "{error}");
    let attention =
        AttentionShape::new(1, 2, 16, 8).score(Score::new().with(Custom::new("own", text, |s, _| s)));
    let error = gpu().kernels().attention(&attention, &Full).unwrap().backward().unwrap_err().to_string();
    assert!(
        error.contains("score: need terms whose derivative is known: `Custom::slope`, got own"),
        "{error}"
    );
}

#[test]
fn bad_names_are_refused() {
    let text = || format!("{HEAD} return s; }}");
    for (term, name) in [
        (Custom::new("softcap", text(), |s, _| s), "custom.name: need a name of its own in lower case"),
        (Custom::new("Own", text(), |s, _| s), "custom.name"),
        (Custom::new("own_", text(), |s, _| s), "custom.name"),
        (Custom::new("own", text(), |s, _| s).tensor("table", 3), "begins with `own_`, got `table`"),
        (Custom::new("own", text(), |s, _| s).tensor("own_t", 0), "`own_t` once, with at least 1 element"),
        (Custom::new("own", text(), |s, _| s).tensor("own_t", 1).tensor("own_t", 1), "`own_t` once"),
    ] {
        let error = refusal(term);
        assert!(error.contains(name), "{error}");
    }
}
