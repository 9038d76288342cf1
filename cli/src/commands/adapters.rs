//! `adapters`: what is there, and what the kernels would do with it.

use crate::devices::{self, Device, PathArgs};
use crate::output::{bytes, json_line, say};
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::time::Instant;
use wgpu::Features;
use wgpu_attention::{
    AttentionShape, CacheShape, Causal, DecodeShape, ElementType, Full, Gpu, KernelPath, LshOptions,
    PackedShape, SelfTest, Storage, TestedPlan,
};
use wgpu_attention_bench::text::one_line;

/// List every adapter: limits, features, and which kernel path it would take and why
///
/// Each adapter is opened, and the kernels of each path are run on small problems and compared with the reference, so that what is said is
/// what happens. The time of a self-test is that beyond compilation.
#[derive(Debug, Args)]
pub(super) struct Adapters {
    /// One JSON object per adapter, each on a line of its own
    #[arg(long)]
    json: bool,
}

/// What is said about an adapter.
#[derive(Serialize)]
struct Description {
    index: usize,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    backend: String,
    driver: String,
    limits: Limits,
    features: FeaturesThatMatter,
    /// None where the kernels cannot run; `why` says why.
    path: Option<String>,
    why: String,
    /// Of each path that the adapter can run.
    self_tests: Vec<Tested>,
}

/// What the self-test of a path found.
#[derive(Serialize)]
struct Tested {
    path: String,
    /// Of q, k, v and out.
    storage: String,
    /// Attention, its gradients, ...
    what: &'static str,
    /// `passed`, `FAILED` or `not tested`.
    verdict: &'static str,
    /// What was wrong, or why there is no verdict.
    found: Option<String>,
    /// Milliseconds of the test beyond compilation.
    ms: Option<f64>,
}

/// The limits that the kernels meet.
#[derive(Serialize)]
struct Limits {
    max_buffer_size: u64,
    max_storage_buffer_binding_size: u64,
    max_storage_buffers_per_shader_stage: u32,
    max_compute_workgroup_storage_size: u32,
    max_compute_invocations_per_workgroup: u32,
    max_compute_workgroups_per_dimension: u32,
    min_storage_buffer_offset_alignment: u32,
    subgroup_sizes: [u32; 2],
}

/// The features that kernels or clocks can use.
#[derive(Serialize)]
struct FeaturesThatMatter {
    shader_f16: bool,
    subgroup: bool,
    timestamp_query: bool,
    /// As `16x16x16 F16 -> F32`; none without the feature.
    cooperative_matrix: Vec<String>,
}

impl Adapters {
    /// All is well if there is an adapter.
    pub(super) fn run(&self) -> Result<bool> {
        let devices = devices::all()?;
        if devices.is_empty() {
            return Err(devices::none_there());
        }
        for device in &devices {
            let description = describe(device);
            if self.json { json_line(&description)? } else { say!("{}", text(&description))? }
        }
        Ok(true)
    }
}

fn describe(device: &Device) -> Description {
    let (limits, features, info) = (device.adapter.limits(), device.adapter.features(), &device.info);
    let matrices = device.adapter.cooperative_matrix_properties().into_iter().map(|matrix| {
        let wgpu::CooperativeMatrixProperties { m_size, n_size, k_size, ab_type, cr_type, .. } = matrix;
        format!("{m_size}x{n_size}x{k_size} {ab_type:?} -> {cr_type:?}")
    });
    let (path, why) = match choice(device) {
        Ok((path, why)) => (Some(path), why),
        Err(error) => (None, one_line(&format!("{error:#}"))),
    };
    Description {
        index: device.index,
        name: info.name.clone(),
        kind: format!("{:?}", info.device_type),
        backend: info.backend.to_string(),
        driver: device.driver(),
        limits: Limits {
            max_buffer_size: limits.max_buffer_size,
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_shader_stage,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            max_compute_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            min_storage_buffer_offset_alignment: limits.min_storage_buffer_offset_alignment,
            subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
        },
        features: FeaturesThatMatter {
            shader_f16: features.contains(Features::SHADER_F16),
            subgroup: features.contains(Features::SUBGROUP),
            timestamp_query: features.contains(Features::TIMESTAMP_QUERY),
            cooperative_matrix: match features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
                true => matrices.collect(),
                false => vec![],
            },
        },
        path,
        why,
        self_tests: KernelPath::ALL.into_iter().flat_map(|path| tested(device, path)).collect(),
    }
}

/// What the self-tests of a path say, if the adapter can run it.
fn tested(device: &Device, path: KernelPath) -> Vec<Tested> {
    let storage = match path {
        KernelPath::Scalar => ElementType::F32,
        _ => ElementType::F16,
    };
    let Ok(gpu) = device.open(PathArgs { path: Some(path), ..PathArgs::default() }) else { return vec![] };
    let attention = AttentionShape::new(1, 2, 256, 64).storage(Storage::all(storage));
    let plan = gpu.kernels().attention(attention.clone(), &Causal);
    // An adapter need not have matrices; the other kernel it has to have.
    if path != KernelPath::Scalar && plan.is_err() {
        return vec![];
    }
    let test = |what, found| Tested::new(&gpu, (path, storage), what, found);
    let mut tests = vec![test("attention", plan.as_ref().map(TestedPlan::from))];
    let Ok(plan) = &plan else { return tests };
    let backward = plan.backward();
    tests.push(test("gradients", backward.as_ref().map(TestedPlan::from)));
    // These have no other kernel.
    if path == KernelPath::Scalar {
        let cache = CacheShape::new(4, 2, 4096, 64).paged(16, 1024);
        let decoding = gpu.kernels().decode(&DecodeShape::new(cache, 8, 1));
        tests.push(test("decoding", decoding.as_ref().map(TestedPlan::from)));
        let packed = gpu.kernels().packed_sequences(&PackedShape::new(4, 8, [512, 4096], 64).kv_heads(2));
        tests.push(test("packed sequences", packed.as_ref().map(TestedPlan::from)));
        let lsh = gpu.kernels().lsh(attention, LshOptions::new(2, 8, 64).causal(true));
        tests.push(test("LSH attention", lsh.as_ref().map(TestedPlan::from)));
        if let Ok(lsh) = &lsh {
            tests.push(test("its gradients", lsh.backward().as_ref().map(TestedPlan::from)));
        }
    }
    tests
}

impl Tested {
    /// Runs the test of a plan. What cannot even be planned fails.
    fn new(
        gpu: &Gpu,
        (path, storage): (KernelPath, ElementType),
        what: &'static str,
        plan: Result<TestedPlan<'_>, &wgpu_attention::Error>,
    ) -> Self {
        let failed = |error: &wgpu_attention::Error| ("FAILED", Some(one_line(&error.to_string())));
        let run = |plan: TestedPlan<'_>| gpu.self_test(plan);
        let first = plan.map(run);
        // Drivers compile when a shader runs for the first time, too: the second run is without.
        let start = Instant::now();
        let again = plan.is_ok_and(|plan| run(plan).is_ok());
        let ms = again.then(|| 1e3 * start.elapsed().as_secs_f64());
        let (verdict, found) = match first {
            Ok(Ok(SelfTest::Passed)) => ("passed", None),
            Ok(Ok(SelfTest::Failed(found))) => ("FAILED", Some(found)),
            Ok(Ok(SelfTest::NotTested(why))) => ("not tested", Some(why)),
            Ok(Ok(_)) => ("not tested", None),
            Ok(Err(error)) => failed(&error),
            Err(error) => failed(error),
        };
        Self { path: path.to_string(), storage: storage.to_string(), what, verdict, found, ms }
    }
}

impl std::fmt::Display for Tested {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} in {}: {}", self.what, self.path, self.storage, self.verdict)?;
        self.ms.iter().try_for_each(|ms| write!(f, " in {ms:.0} ms"))?;
        self.found.iter().try_for_each(|found| write!(f, " ({found})"))
    }
}

/// The kernel path of a common shape, and why that one.
fn choice(device: &Device) -> Result<(String, String)> {
    let gpu = device.open(PathArgs::default())?;
    let shape = AttentionShape::new(1, 1, 64, 64);
    let plan = gpu.kernels().attention(shape, &Full)?;
    Ok((plan.path().path.to_string(), plan.path().why.clone()))
}

fn text(it: &Description) -> String {
    let Description { limits, features, .. } = it;
    let yes = |have: bool| if have { "yes" } else { "no" };
    let matrices = match features.cooperative_matrix.is_empty() {
        true => "no".into(),
        false => features.cooperative_matrix.join(", "),
    };
    let path = it.path.as_deref().unwrap_or("none");
    let tests = it.self_tests.iter().map(Tested::to_string).collect::<Vec<_>>().join("\n               ");
    format!(
        "{}: {}\n  type         {}\n  backend      {}\n  driver       {}\n  kernel path  {path}: {}\n  \
         self-test    {tests}\n  buffers      {}, {} per binding, {} per stage, offsets of {} bytes\n  workgroups   {} of memory, {} lanes, {} per \
         dimension\n  subgroups    {} ({} to {} lanes)\n  shader f16   {}\n  timestamps   {}\n  matrices     {matrices}",
        it.index,
        it.name,
        it.kind,
        it.backend,
        it.driver,
        it.why,
        bytes(limits.max_buffer_size),
        bytes(limits.max_storage_buffer_binding_size),
        limits.max_storage_buffers_per_shader_stage,
        limits.min_storage_buffer_offset_alignment,
        bytes(limits.max_compute_workgroup_storage_size.into()),
        limits.max_compute_invocations_per_workgroup,
        limits.max_compute_workgroups_per_dimension,
        yes(features.subgroup),
        limits.subgroup_sizes[0],
        limits.subgroup_sizes[1],
        yes(features.shader_f16),
        yes(features.timestamp_query),
    )
}
