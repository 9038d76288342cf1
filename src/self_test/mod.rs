//! A plan's own pipelines on a small problem, before what they compute is trusted: compilers and drivers have faults.
//!
//! The kernels know nothing of the reference. So a [`Gpu`] is given its judge where it is opened, and asks it when it has a new plan.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the entry, by the kind of the plan and the element types of its call |
//! | `subject.rs` | a call on the device against the reference; tuning uses it too |
//! | `gradients.rs` | its gradients |
//! | `lsh.rs` | LSH attention and its gradients |
//! | `decode.rs`, `cached.rs` | steps of decoding; rows in the bytes of a key cache |
//! | `packed.rs` | packed sequences |
//! | `sequences.rs` | a sequence under counts, planted keys and the bound, for both |
//! | `rows.rs` | values of element types that are known when it runs, in rows that lie anywhere |

/// With a name for the type of this [`ElementType`].
macro_rules! typed {
    ($element:expr, $E:ident => $body:expr) => {
        match $element {
            $crate::ElementType::F32 => {
                type $E = f32;
                $body
            }
            $crate::ElementType::F16 => {
                type $E = half::f16;
                $body
            }
            $crate::ElementType::Bf16 => {
                type $E = half::bf16;
                $body
            }
        }
    };
}

mod cached;
mod decode;
mod gradients;
mod lsh;
mod packed;
mod rows;
mod sequences;
mod subject;

pub(crate) use subject::Subject;

use crate::gpu::{Judge, Small, SmallBackward};
use crate::reference::Kind;
use crate::score::Rule;
use crate::{Attention, Element, Error, Gpu, Result, SelfTest, TestedPlan};

/// What a device that this crate opens judges its plans by.
pub(crate) const JUDGE: Judge = |gpu, plan| Box::pin(gpu.self_test_async(plan));

impl Gpu {
    /// Runs the very pipelines of a plan on a small problem, with whole blocks, blocks with holes and rows without keys, on random inputs, and
    /// compares with the f64 reference under its bound: 16 rows of attention, on two kinds of inputs; every element of dq, dk and dv; of
    /// LSH attention the buckets that no rounding can change, the order, and 16 rows; of decoding and of packed sequences the cache, and every row of out
    /// by the numbers of its keys, by planted ones ([`oracle`](crate::reference::oracle)) and under the bound. Blocks.
    ///
    /// [`Gpu::attention`], [`Gpu::run`], [`Gpu::lsh`] and their gradients do this by themselves when they plan a call whose pipelines were not tested yet, unless
    /// [`Gpu::self_tests`] said no: a kernel of cooperative matrices that fails gives way to the scalar one, of gradients too, whose
    /// [`path`](crate::AttentionPlan::path) says why, and one that fails with nothing in its place is an [`Error::Device`]. Plans that a caller
    /// makes from [`Kernels`](crate::Kernels), which have no queue, are for the caller to test, those of decoding among them: [`Gpu::check_plan`]. A
    /// score with terms of the caller's own is not tested: its reference is the caller's, too. Nor are the gradients of a score's tensors.
    ///
    /// # Errors
    /// [`Error`] where the device fails.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionShape, Causal, Gpu, SelfTest};
    /// let gpu = Gpu::new()?;
    /// let plan = gpu.kernels().attention(AttentionShape::new(1, 12, 8192, 64), &Causal)?;
    /// assert_eq!(gpu.self_test(&plan)?, SelfTest::Passed);
    /// assert_eq!(gpu.self_test(&plan.backward()?)?, SelfTest::Passed);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn self_test<'a>(&self, plan: impl Into<TestedPlan<'a>>) -> Result<SelfTest> {
        pollster::block_on(self.self_test_async(plan))
    }

    /// [`Gpu::self_test`] without blocking the caller's executor.
    ///
    /// # Errors
    /// As [`Gpu::self_test`].
    pub async fn self_test_async<'a>(&self, plan: impl Into<TestedPlan<'a>>) -> Result<SelfTest> {
        let plan = plan.into();
        self.check_alive()?;
        if let Some(why) = beyond(plan.attention()) {
            return Ok(SelfTest::NotTested(why));
        }
        let judged = match plan {
            TestedPlan::Attention(plan) => self.judge_attention(Small::of(plan)).await,
            TestedPlan::Backward(plan) => self.judge_backward(SmallBackward::of(plan)).await,
            TestedPlan::Lsh(plan) => self.judge_lsh(plan.small()).await,
            TestedPlan::LshBackward(plan) => self.judge_lsh_backward(plan.small()).await,
            TestedPlan::Decode(plan) => self.judge_decode(plan.small()).await,
            TestedPlan::Packed(plan) => self.judge_packed(plan.small()).await,
        };
        match judged {
            Ok(None) => Ok(SelfTest::Passed),
            Ok(Some(found)) => Ok(SelfTest::Failed(found)),
            Err(Unjudged::NoSmall(why)) => Ok(SelfTest::NotTested(why)),
            Err(Unjudged::Failed(error)) => Err(self.or_lost(error)),
        }
    }

    async fn judge_attention(&self, small: Result<Small>) -> Judged {
        let small = &small.map_err(Unjudged::of_small)?;
        let storage = small.plan.attention().storage;
        typed!(storage.q, Q => typed!(storage.kv, KV => typed!(storage.out, O => self.judge::<Q, KV, O>(small).await)))
    }

    async fn judge<Q: Element, KV: Element, O: Element>(&self, small: &Small) -> Judged {
        let (attention, pattern) = (small.plan.attention(), small.pattern());
        for kind in [Kind::Normal, Kind::Peaky] {
            let subject = Subject::<Q, KV, O>::new(self, attention, &pattern, small.parts(), kind)?;
            if let (_, Some(found)) = subject.judge(&small.plan).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn judge_backward(&self, small: Result<SmallBackward>) -> Judged {
        let small = &small.map_err(Unjudged::of_small)?;
        let storage = small.plan.attention().storage;
        typed!(storage.q, Q => typed!(storage.kv, KV => typed!(storage.out, O => {
            self.judge_gradients::<Q, KV, O>(small).await
        })))
    }

    async fn judge_gradients<Q: Element, KV: Element, O: Element>(&self, small: &SmallBackward) -> Judged {
        let (attention, pattern) = (small.plan.attention(), small.forward.pattern());
        let parts = small.forward.parts();
        let subject = Subject::<Q, KV, O>::new(self, attention, &pattern, parts, Kind::Normal)?;
        Ok(subject.judge_gradients(&small.forward.plan, &small.plan).await?)
    }
}

/// What is wrong, if anything is.
type Judged = std::result::Result<Option<String>, Unjudged>;

/// Why there is no verdict.
enum Unjudged {
    /// There is no small problem for such a call.
    NoSmall(String),
    /// The device fails.
    Failed(Error),
}

impl Unjudged {
    /// Of a small problem that could not be made.
    fn of_small(error: Error) -> Self {
        match error {
            Error::DeviceLost(_) | Error::Device { .. } => Self::Failed(error),
            error => Self::NoSmall(error.to_string()),
        }
    }
}

impl From<Error> for Unjudged {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Why no call like this can be judged.
fn beyond(attention: &Attention) -> Option<String> {
    if let Some(custom) = attention.score.customs().next() {
        return Some(format!("the term `{}` is the caller's own", custom.name()));
    }
    let empty = attention.shape.is_empty() || attention.shape.kv_len == 0;
    empty.then(|| "there is nothing to compute".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttentionShape, ElementType, Full, KernelPath, Options, Storage};

    /// A device with cooperative matrices, and kernels that are forced to use them.
    fn matrices() -> (Gpu, crate::Kernels) {
        let need = "an adapter with cooperative matrices: run by `cargo xtask test`, which fetches one";
        let adapters = pollster::block_on(Gpu::adapters()).expect(need);
        let has = |adapter: &&wgpu::Adapter| !crate::cooperative_features(adapter).is_empty();
        let token = wgpu_attention_experimental::allowed();
        let adapter = adapters.iter().find(has).expect(need);
        let gpu = pollster::block_on(Gpu::on_experimental(adapter, Options::default(), token)).expect(need);
        // A software adapter takes the scalar path unless it is forced to; the plan of the forced kernels stands for a GPU's own choice.
        let options = gpu.kernels().options().path(KernelPath::Cooperative);
        let forced = gpu.kernels().with_options(options).unwrap();
        (gpu, forced)
    }

    /// A call that they compute.
    fn call() -> Attention {
        AttentionShape::new(1, 2, 256, 64).storage(Storage::all(ElementType::F16))
    }

    #[test]
    fn matrices_that_compute_wrong_results_give_way() {
        let (gpu, forced) = matrices();
        let shape = call();
        let plan = forced.attention(&shape, &Full).unwrap();
        assert_eq!(gpu.self_test(&plan).unwrap(), SelfTest::Passed);
        assert_eq!(pollster::block_on(gpu.trusted(plan)).unwrap().path().path, KernelPath::Cooperative);

        // Where only sums that live on in matrices are wrong, lanes take them over.
        let lost = forced.edited(|text| {
            text.replace("write_patch(share, upper, lower);", "write_patch(share, lower, upper);")
        });
        let plan = lost.attention(&shape, &Full).unwrap();
        let other = pollster::block_on(gpu.trusted(plan)).unwrap();
        let choice = other.path();
        assert!(choice.path == KernelPath::Cooperative && choice.why.contains("sums in lanes"), "{choice:?}");
        assert!(other.explain().tile.to_string().contains("sums-in-lanes"), "{}", other.explain().tile);

        let wrong = forced
            .edited(|text| text.replace("o10 = coopMultiplyAdd(p1, v0,", "o10 = coopMultiplyAdd(p0, v0,"));
        let plan = wrong.attention(&shape, &Full).unwrap();
        let other = pollster::block_on(gpu.trusted(plan)).unwrap();
        let choice = other.path();
        assert!(
            choice.path == KernelPath::Scalar
                && choice.why.contains("the self-test of the cooperative kernel failed: FAIL"),
            "{choice:?}"
        );
    }

    #[test]
    fn gradients_in_matrices_that_are_wrong_give_way_by_themselves() {
        let (gpu, forced) = matrices();
        let plan = forced.attention(call(), &Full).unwrap();
        let gradients = crate::Gradients::of(plan.attention());
        let backward = plan.backward_with(gradients).unwrap();
        assert_eq!(backward.path().path, KernelPath::Cooperative);
        assert_eq!(gpu.self_test(&backward).unwrap(), SelfTest::Passed);

        let upper = "o11 = coopMultiplyAdd(w0, c1, o11);";
        let wrong = forced.edited(|text| text.replace("o11 = coopMultiplyAdd(w1, c1, o11);", upper));
        let plan = wrong.attention(call(), &Full).unwrap();
        let (plan, backward) = pollster::block_on(gpu.trusted_backward(plan, gradients)).unwrap();
        assert_eq!(plan.path().path, KernelPath::Cooperative);
        let choice = backward.path();
        assert!(
            choice.path == KernelPath::Scalar
                && choice.why.contains("the self-test of the cooperative kernels of gradients failed: FAIL"),
            "{choice:?}"
        );
        assert_eq!(gpu.self_test(&backward).unwrap(), SelfTest::Passed);

        // Forced, they give way to nothing.
        let options = gpu.kernels().options().gradient_path(KernelPath::Cooperative);
        let strict = gpu.with_kernels(gpu.kernels().with_options(options).unwrap());
        let plan = wrong.attention(call(), &Full).unwrap();
        let error = pollster::block_on(strict.trusted_backward(plan, gradients)).unwrap_err().to_string();
        assert!(error.contains("the cooperative kernels of gradients"), "{error}");
    }

    #[test]
    fn gradients_that_are_wrong_behind_matrices_alone_take_the_scalar_kernel() {
        let (gpu, forced) = matrices();
        let late = "if (LATE_MAXIMA) { return min(e, vec4(1.0 / over_l)); }";
        let wrong = forced.edited(move |text| text.replace(late, "if (LATE_MAXIMA) { return vec4(0.0); }"));
        let plan = wrong.attention(call(), &Full).unwrap();
        let gradients = crate::Gradients::of(plan.attention());
        assert_eq!(gpu.self_test(&plan).unwrap(), SelfTest::Passed);
        let (plan, backward) = pollster::block_on(gpu.trusted_backward(plan, gradients)).unwrap();
        let choice = plan.path();
        assert!(
            choice.path == KernelPath::Scalar
                && choice.why.contains("the self-test of the kernels of gradients failed: FAIL"),
            "{choice:?}"
        );
        assert_eq!(gpu.self_test(&backward).unwrap(), SelfTest::Passed);
    }
}
