//! The machine around the adapters, as the record has it.

use sysinfo::{CpuRefreshKind, RefreshKind, System};
use wgpu_attention_bench::record::Host;

pub(super) fn host() -> Host {
    let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
    let brand = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
    Host {
        os: System::long_os_version().unwrap_or_else(|| std::env::consts::OS.into()),
        arch: std::env::consts::ARCH.into(),
        cpu: brand.filter(|brand| !brand.is_empty()).unwrap_or_else(|| "unknown".into()),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    }
}
