//! The machine and its adapters, as the record has them.

use super::record::{Adapter, Host, Limits};
use crate::devices::Device;
use sysinfo::{CpuRefreshKind, RefreshKind, System};

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

/// An adapter on which nothing was measured yet.
pub(super) fn adapter(device: &Device) -> Adapter {
    let (info, limits) = (&device.info, device.adapter.limits());
    Adapter {
        index: device.index,
        name: info.name.clone(),
        kind: format!("{:?}", info.device_type),
        backend: info.backend.to_string(),
        driver: device.driver(),
        vendor: info.vendor,
        device: info.device,
        limits: Limits {
            max_buffer_size: limits.max_buffer_size,
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            max_compute_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            subgroup_min_size: info.subgroup_min_size,
            subgroup_max_size: info.subgroup_max_size,
        },
        features: device.adapter.features().iter_names().map(|(name, _)| name.to_lowercase()).collect(),
        error: None,
        no_timestamps: None,
        ceilings: vec![],
        drifted: false,
        cases: vec![],
    }
}
