//! The microkernels: work, buffers, expected results.

use super::microkernel::{LANES, Microkernel, zeroed};
use crate::call::{buffer, read};
use crate::record::CeilingKind;
use anyhow::{Result, bail, ensure};
use wgpu::{Buffer, BufferUsages};
use wgpu_attention::Gpu;

/// A microkernel that was checked.
pub(super) struct Probed {
    pub(super) kernel: Microkernel,
    /// FLOP or bytes of a call; 1 for a launch.
    pub(super) work: f64,
}

/// Rounds of `fma.wgsl`: a chain stays below 2,048, where f16 still counts.
const FMA_ROUNDS: usize = 512;
/// fma of a round: 8 chains of 64.
const FMA_A_ROUND: usize = 8 * 64;
/// The terms of `fma.wgsl` add up to 1.
const FMA_GIVEN: [f32; 4] = [1.0, 3.0, -3.0, -2.0];
/// Rounds of `matrix.wgsl`.
const MATRIX_ROUNDS: usize = 256;
/// The terms of `matrix.wgsl`: up - up + last - up = 1.
const MATRIX_GIVEN: [f32; 4] = [3.0, -3.0, 4.0, 1.0];
/// Rounds of `workgroup.wgsl`, of four reads of 16 bytes.
const MEMORY_ROUNDS: usize = 2048;
/// Odd, so that all words differ.
const FACTOR: u32 = 2_654_435_761;
/// Bytes that are copied or read, if a binding may have so many: past the caches of GPUs.
const MEMORY_BYTES: u64 = 256 << 20;
/// A computing kernel gets more workgroups until a call takes this long: enough to fill the device, and no watchdog minds.
const LONG_ENOUGH_S: f64 = 0.008;
/// Workgroups of a computing kernel, at most.
const MOST_WORKGROUPS: u32 = 8192;

pub(super) async fn prepare(gpu: &Gpu, kind: CeilingKind) -> Result<Probed> {
    match kind {
        CeilingKind::FmaF32 => fma(gpu, "alias real = f32;").await,
        CeilingKind::FmaF16 => fma(gpu, "enable f16;\nalias real = f16;").await,
        CeilingKind::MatrixF16 => matrix(gpu).await,
        CeilingKind::Copy => copy(gpu).await,
        CeilingKind::Read => read_words(gpu).await,
        CeilingKind::Workgroup => workgroup(gpu).await,
        CeilingKind::Launch => launch(gpu).await,
    }
}

async fn fma(gpu: &Gpu, alias: &str) -> Result<Probed> {
    let source = format!("{alias}\nconst ROUNDS = {FMA_ROUNDS}u;\n{}", include_str!("wgsl/fma.wgsl"));
    let given = buffer(gpu, "given", bytemuck::cast_slice(&FMA_GIVEN), BufferUsages::UNIFORM).await?;
    let (kernel, workgroups, ends) = grown(gpu, "fma", &source, &given, LANES).await?;
    let lanes = workgroups as usize * LANES;
    let ends: Vec<f32> = read(gpu, "ends", &ends, lanes).await?;
    // Eight chains start at the lane plus 0 to 7.
    let expected = |lane: usize| (8 * (lane % 256 + FMA_ROUNDS) + 28) as f32;
    same("fma", &ends, expected)?;
    Ok(Probed { kernel, work: 2.0 * (lanes * FMA_ROUNDS * FMA_A_ROUND) as f64 })
}

/// Cooperative matrices, one subgroup a workgroup.
async fn matrix(gpu: &Gpu) -> Result<Probed> {
    let Some(size) = gpu.kernels().options().matrix_size else {
        bail!("no square matrices of f16 with f32 sums");
    };
    let subgroup = gpu.device().adapter_info().subgroup_max_size;
    let matrix = |scalar: &str, role: &str| format!("coop_mat{size}x{size}<{scalar}, {role}>");
    let source = format!(
        "enable f16;\nenable wgpu_cooperative_matrix;\nalias mat_a = {};\nalias mat_b = {};\nalias mat_c = {};\n\
         const SIZE = {size}u;\nconst LANES = {subgroup}u;\nconst ROUNDS = {MATRIX_ROUNDS}u;\n{}",
        matrix("f16", "A"),
        matrix("f16", "B"),
        matrix("f32", "C"),
        include_str!("wgsl/matrix.wgsl")
    );
    let given = buffer(gpu, "given", bytemuck::cast_slice(&MATRIX_GIVEN), BufferUsages::UNIFORM).await?;
    let elements = 4 * size * size;
    let (kernel, workgroups, ends) = grown(gpu, "matrix", &source, &given, elements).await?;
    let ends: Vec<f32> = read(gpu, "ends", &ends, workgroups as usize * elements).await?;
    same("matrix", &ends, |_| (size * MATRIX_ROUNDS) as f32)?;
    // Four chains of four products a round.
    let products = workgroups as usize * MATRIX_ROUNDS * 16;
    Ok(Probed { kernel, work: 2.0 * (products * size.pow(3)) as f64 })
}

async fn workgroup(gpu: &Gpu) -> Result<Probed> {
    let source = format!("const ROUNDS = {MEMORY_ROUNDS}u;\n{}", include_str!("wgsl/workgroup.wgsl"));
    let given = buffer(gpu, "given", bytemuck::cast_slice(&[FACTOR; 4]), BufferUsages::UNIFORM).await?;
    let (kernel, workgroups, sums) = grown(gpu, "workgroup memory", &source, &given, LANES).await?;
    let lanes = workgroups as usize * LANES;
    let sums: Vec<u32> = read(gpu, "sums", &sums, lanes).await?;
    // The four words of a place.
    let place = |at: usize| (16 * (at % 1024) as u32 + 6).wrapping_mul(FACTOR);
    let round = |at: usize| (0..4).fold(0u32, |sum, n| sum.wrapping_add(place(at + 256 * n)));
    let lane_sum = |lane| (0..MEMORY_ROUNDS).fold(0u32, |sum, n| sum.wrapping_add(round(lane + n)));
    let expected: Vec<u32> = (0..LANES).map(lane_sum).collect();
    same("workgroup memory", &sums, |lane| expected[lane % LANES])?;
    Ok(Probed { kernel, work: (lanes * MEMORY_ROUNDS * 4 * 16) as f64 })
}

/// A computing kernel with enough workgroups, run once; with its output, so many `words` of each.
async fn grown(
    gpu: &Gpu,
    label: &'static str,
    source: &str,
    given: &Buffer,
    words: usize,
) -> Result<(Microkernel, u32, Buffer)> {
    let mut workgroups = 8;
    loop {
        let out = zeroed(gpu, label, (4 * words * workgroups as usize) as u64).await?;
        let kernel = Microkernel::new(gpu, label, source, &[given, &out], workgroups).await?;
        kernel.run(gpu, 1).await?;
        if kernel.run(gpu, 1).await?.as_secs_f64() > LONG_ENOUGH_S || workgroups >= MOST_WORKGROUPS {
            return Ok((kernel, workgroups, out));
        }
        workgroups *= 2;
    }
}

/// A buffer of distinct words, and how many workgroups of `each` vec4s a lane read it.
async fn words(gpu: &Gpu, each: usize) -> Result<(Buffer, Vec<u32>, u32)> {
    let limits = gpu.device().limits();
    let bytes = MEMORY_BYTES.min(limits.max_storage_buffer_binding_size).min(limits.max_buffer_size);
    let workgroups = bytes as usize / (LANES * each * 16);
    let words: Vec<u32> =
        (0..(4 * each * LANES * workgroups) as u32).map(|n| n.wrapping_mul(FACTOR)).collect();
    let buffer = buffer(gpu, "words", bytemuck::cast_slice(&words), BufferUsages::STORAGE).await?;
    Ok((buffer, words, workgroups as u32))
}

async fn copy(gpu: &Gpu) -> Result<Probed> {
    let (from, words, workgroups) = words(gpu, 8).await?;
    let bytes = 4 * words.len() as u64;
    let to = zeroed(gpu, "copy", bytes).await?;
    let kernel =
        Microkernel::new(gpu, "copy", include_str!("wgsl/copy.wgsl"), &[&from, &to], workgroups).await?;
    kernel.run(gpu, 1).await?;
    let copied: Vec<u32> = read(gpu, "copy", &to, words.len()).await?;
    same("copy", &copied, |n| words[n])?;
    // Read and written.
    Ok(Probed { kernel, work: 2.0 * bytes as f64 })
}

async fn read_words(gpu: &Gpu) -> Result<Probed> {
    const EACH: usize = 32;
    let (from, words, workgroups) = words(gpu, EACH).await?;
    let lanes = workgroups as usize * LANES;
    let sums = zeroed(gpu, "sums", 4 * lanes as u64).await?;
    let kernel =
        Microkernel::new(gpu, "read", include_str!("wgsl/read.wgsl"), &[&from, &sums], workgroups).await?;
    kernel.run(gpu, 1).await?;
    let sums: Vec<u32> = read(gpu, "sums", &sums, lanes).await?;
    let expected = |n: usize| {
        let first = n / LANES * LANES * EACH + n % LANES;
        let words = (0..EACH).flat_map(|k| &words[4 * (first + k * LANES)..][..4]);
        words.fold(0u32, |sum, word| sum.wrapping_add(*word))
    };
    same("read", &sums, expected)?;
    Ok(Probed { kernel, work: 4.0 * words.len() as f64 })
}

async fn launch(gpu: &Gpu) -> Result<Probed> {
    const TIMES: usize = 100;
    let launched = zeroed(gpu, "launched", 4).await?;
    let kernel = Microkernel::new(gpu, "launch", include_str!("wgsl/launch.wgsl"), &[&launched], 1).await?;
    kernel.run(gpu, TIMES).await?;
    same("launch", &read::<u32>(gpu, "launched", &launched, 1).await?, |_| TIMES as u32)?;
    Ok(Probed { kernel, work: 1.0 })
}

/// A ceiling counts only if its kernel did what it should.
fn same<T: PartialEq + std::fmt::Display>(
    name: &str,
    got: &[T],
    expected: impl Fn(usize) -> T,
) -> Result<()> {
    ensure!(!got.is_empty(), "{name}: there is no result");
    match got.iter().enumerate().find(|(n, got)| **got != expected(*n)) {
        Some((n, got)) => bail!("{name}: element {n} is {got} instead of {}", expected(n)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_result_is_no_ceiling() {
        assert!(same("x", &[1, 2], |n| n + 1).is_ok());
        let wrong = same("x", &[1, 3], |n| n + 1).unwrap_err().to_string();
        assert_eq!(wrong, "x: element 1 is 3 instead of 2");
        assert!(same("x", &[f32::NAN], |_| f32::NAN).is_err() && same::<u32>("x", &[], |_| 0).is_err());
    }
}
