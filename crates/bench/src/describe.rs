//! An adapter, as the record has it.

use crate::record::{Adapter, Limits};

/// An adapter on which nothing was measured yet.
pub fn adapter(index: usize, adapter: &wgpu::Adapter, driver: String) -> Adapter {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    Adapter {
        index,
        name: info.name,
        kind: format!("{:?}", info.device_type),
        backend: info.backend.to_string(),
        driver,
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
        features: adapter.features().iter_names().map(|(name, _)| name.to_lowercase()).collect(),
        error: None,
        no_timestamps: None,
        ceilings: vec![],
        drifted: false,
        cases: vec![],
    }
}
