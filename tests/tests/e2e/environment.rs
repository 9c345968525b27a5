//! What agents give themselves before they begin.

use std::fs;

use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;

/// Without the first two the client of MariaDB keeps hundreds of MiB once it has held large values
/// (`platform/mariadb/tests/buffers.rs`); without the third the allocator keeps some tens.
const OWN: [&str; 3] =
    ["MYSQL_ASYNC_BUFFER_POOL_CAP=4", "MYSQL_ASYNC_BUFFER_SIZE_CAP=262144", "MALLOC_ARENA_MAX=1"];

#[test]
fn agents_bound_what_libraries_keep_whoever_starts_them() {
    let bed = Bed::temporary(&Spec::small(73)).unwrap();
    for (agent, name) in [(&bed.source, "handover-source"), (&bed.target, "handover-target")] {
        let read = |file| {
            let text = fs::read(format!("/proc/{}/{file}", agent.process().unwrap())).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        };
        let environment = read("environ");
        let environment: Vec<&str> = environment.split('\0').collect();
        for variable in OWN {
            assert!(environment.contains(&variable), "{variable}: {environment:?}");
        }
        // It is the process that was started, under its own name and with its own arguments.
        assert_eq!(read("comm").trim_end(), name);
        let arguments = read("cmdline");
        let arguments: Vec<&str> = arguments.split('\0').collect();
        assert!(arguments[0].ends_with(name) && arguments[1] == "--config", "{arguments:?}");
    }
}
