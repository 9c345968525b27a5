//! End to end: real agents, real files and databases, mutual TLS between them.

#[path = "e2e/arrows.rs"]
mod arrows;
#[path = "e2e/audit.rs"]
mod audit;
#[path = "e2e/backups.rs"]
mod backups;
#[path = "e2e/certificates.rs"]
mod certificates;
#[path = "e2e/crashes.rs"]
mod crashes;
#[path = "e2e/dns.rs"]
mod dns;
#[path = "e2e/environment.rs"]
mod environment;
#[path = "e2e/files_home.rs"]
mod files_home;
#[path = "e2e/fitting.rs"]
mod fitting;
#[path = "e2e/hooks.rs"]
mod hooks;
#[path = "e2e/identities.rs"]
mod identities;
#[path = "e2e/lab.rs"]
mod lab;
#[path = "e2e/least_privileges.rs"]
mod least_privileges;
#[path = "e2e/licence.rs"]
mod licence;
#[path = "e2e/live.rs"]
mod live;
#[path = "e2e/live_files.rs"]
mod live_files;
#[path = "e2e/lost_logs.rs"]
mod lost_logs;
#[path = "e2e/migrations.rs"]
mod migrations;
#[path = "e2e/no_way_back.rs"]
mod no_way_back;
#[path = "e2e/on_failure.rs"]
mod on_failure;
#[path = "e2e/places.rs"]
mod places;
#[path = "e2e/positions.rs"]
mod positions;
#[path = "e2e/preflight.rs"]
mod preflight;
#[path = "e2e/refusals.rs"]
mod refusals;
#[path = "e2e/rehearsal.rs"]
mod rehearsal;
#[path = "e2e/report.rs"]
mod report;
#[path = "e2e/room.rs"]
mod room;
#[path = "e2e/settings_rows.rs"]
mod settings_rows;
#[path = "e2e/terminate.rs"]
mod terminate;
#[path = "e2e/throttle.rs"]
mod throttle;
#[path = "e2e/trial.rs"]
mod trial;
#[path = "e2e/trouble.rs"]
mod trouble;
#[path = "e2e/unfit.rs"]
mod unfit;
#[path = "e2e/upgrades.rs"]
mod upgrades;
#[path = "e2e/verifying.rs"]
mod verifying;
#[path = "e2e/verifying_resumed.rs"]
mod verifying_resumed;

use std::time::Duration;

use handover_tests::bed::{Bed, Status};

/// How long a small migration may take on a busy machine.
const SETTLES_WITHIN: Duration = Duration::from_secs(90);

/// Waits until the migration has settled and finds nothing different.
#[track_caller]
fn settle_and_compare(bed: &Bed) -> Status {
    let status = bed.settle(SETTLES_WITHIN).unwrap();
    let found = bed.compare().unwrap();
    assert_eq!(found.found, 0, "{}", found.describe());
    status
}
