//! What agents give themselves before they begin.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use handover_tests::appliance::Spec;
use handover_tests::bed::{Bed, SERVED};
use handover_tests::locate::{Binaries, Profile};
use handover_tests::process::{Agent, Program};

/// Without the first two the client of MariaDB keeps hundreds of MiB once it has held large values
/// (`platform/mariadb/tests/buffers.rs`); without the third the allocator keeps some tens.
const OWN: [&str; 3] =
    ["MYSQL_ASYNC_BUFFER_POOL_CAP=4", "MYSQL_ASYNC_BUFFER_SIZE_CAP=262144", "MALLOC_ARENA_MAX=1"];

fn read(agent: &Agent, file: &str) -> String {
    let text = fs::read(format!("/proc/{}/{file}", agent.process().unwrap())).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

fn check(agent: &Agent, variables: &[&str]) {
    let environment = read(agent, "environ");
    let environment: Vec<&str> = environment.split('\0').collect();
    for variable in variables {
        assert!(environment.contains(variable), "{variable}: {environment:?}");
    }
}

#[test]
fn agents_bound_what_libraries_keep_whoever_starts_them() {
    let bed = Bed::temporary(&Spec::small(73)).unwrap();
    for (agent, name) in [(&bed.source, "handover-source"), (&bed.target, "handover-target")] {
        check(agent, &OWN);
        // It is the process that was started, under its own name and with its own arguments.
        assert_eq!(read(agent, "comm").trim_end(), name);
        let arguments = read(agent, "cmdline");
        let arguments: Vec<&str> = arguments.split('\0').collect();
        assert!(arguments[0].ends_with(name) && arguments[1] == "--config", "{arguments:?}");
    }
}

#[test]
fn what_a_user_sets_for_the_client_stays_and_the_allocator_is_bounded_all_the_same() {
    let mut bed = Bed::temporary(&Spec::small(74)).unwrap();
    bed.source.stop().unwrap();
    let own = ["MYSQL_ASYNC_BUFFER_POOL_CAP=8", "MYSQL_ASYNC_BUFFER_SIZE_CAP=65536"];
    let binary = bed.root().join("by-hand");
    let agent = Binaries::find(Profile::Same).unwrap().source;
    let script = format!(
        "#!/bin/sh\nunset MALLOC_ARENA_MAX HANDOVER_ENVIRONMENT\nexport {}\nexec '{}' \"$@\"\n",
        own.join(" "),
        agent.display()
    );
    fs::write(&binary, script).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    let by_hand = Program {
        name: "source",
        binary,
        config: bed.root().join("source/source.toml"),
        state: bed.source.state().to_owned(),
        log: bed.source.log().to_owned(),
        filter: SERVED.to_owned(),
    };
    let agent = Agent::start(by_hand).unwrap();
    check(&agent, &own);
    check(&agent, &["MALLOC_ARENA_MAX=1"]);
}
