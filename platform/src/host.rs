//! Facts about this host, through sysinfo.

use handover_engine::inventory::{DiskFacts, HostFacts};
use sysinfo::{DiskRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

/// What the kernel tells of this host; what it does not tell is left empty. Blocks for some milliseconds.
pub fn facts() -> HostFacts {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    HostFacts {
        host_name: System::host_name().unwrap_or_default(),
        os: System::long_os_version().unwrap_or_default(),
        kernel: System::kernel_version().unwrap_or_default(),
        cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
        memory_bytes: System::new_with_specifics(memory).map_or(0, |system| system.total_memory()),
        disks: disks(),
    }
}

fn disks() -> Vec<DiskFacts> {
    let Ok(disks) = Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage())
    else {
        return Vec::new();
    };
    let mut facts: Vec<DiskFacts> = disks
        .iter()
        .map(|disk| DiskFacts {
            mount_point: disk.mount_point().to_string_lossy().into_owned(),
            file_system: disk.file_system().to_string_lossy().into_owned(),
            total_bytes: disk.total_space(),
            available_bytes: disk.available_space(),
        })
        .collect();
    facts.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    facts.dedup_by(|a, b| a.mount_point == b.mount_point);
    facts
}
