mod cuts;
mod lease;
mod trial;

use std::time::Duration;

use handover_engine::failure::Class;
use tempfile::TempDir;

use super::fake::{Fake, FakeBoot};
use super::*;

/// A host with a database, a web server and a queue, as an appliance has them, and what its manifest does not name.
struct Host {
    units: Arc<Fake>,
    boot: Arc<FakeBoot>,
    state: TempDir,
    sections: Vec<ServiceSection>,
}

const UNITS: [(&str, &str, &str); 4] = [
    ("db.service", "active", "enabled"),
    ("other.service", "active", "enabled"),
    ("queue.timer", "active", "enabled-runtime"),
    ("web.service", "active", "static"),
];

fn section(unit: &str, order: i32) -> ServiceSection {
    ServiceSection { order, ..ServiceSection::of(unit) }
}

impl Host {
    fn new(units: &[(&str, &str, &str)]) -> Self {
        let sections = [("web.service", 20), ("db.service", -10), ("queue.timer", 20)];
        let sections = sections.map(|(unit, order)| section(unit, order)).to_vec();
        let (units, boot) = (Arc::new(Fake::new(units)), Arc::new(FakeBoot::new()));
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("units")).unwrap();
        units.with_files(state.path().join("units"));
        Self { units, boot, state, sections }
    }

    /// Its services, as an agent that has just started sees them.
    fn services(&self) -> LocalServices {
        let services = LocalServices::new(self.sections.clone(), self.state.path(), self.units.clone());
        let seals = Seals::at(self.state.path().join("units"));
        LocalServices { seals, ..services.with_clock(self.boot.clone()).at_target() }
    }

    #[track_caller]
    fn stands(&self, expected: &[(&str, &str, &str)]) {
        let all = self.units.all();
        let all: Vec<_> = all.iter().map(|(unit, active, file)| (&**unit, &**active, &**file)).collect();
        assert_eq!(all, expected);
    }
}

fn m() -> MigrationId {
    "m-1".parse().unwrap()
}

const STOPPED: [(&str, &str, &str); 4] = [
    ("db.service", "inactive", "disabled"),
    ("other.service", "active", "enabled"),
    ("queue.timer", "inactive", "disabled"),
    ("web.service", "inactive", "static"),
];

#[tokio::test(start_paused = true)]
async fn they_stop_backwards_and_come_back_as_they_were() {
    let host = Host::new(&UNITS);
    let services = host.services();
    for _ in 0..2 {
        services.stop(&m(), None).await.unwrap();
        host.stands(&STOPPED);
    }
    let expected = [
        "disable db.service",
        "disable queue.timer",
        "stop web.service",
        "stop queue.timer",
        "stop db.service",
    ];
    assert_eq!(host.units.done(), expected);
    host.units.cut_at(None);
    for _ in 0..2 {
        services.put_back(&m()).await.unwrap();
        host.stands(&UNITS);
    }
    let expected = [
        "enable db.service",
        "enable queue.timer",
        "start db.service",
        "start web.service",
        "start queue.timer",
    ];
    assert_eq!(host.units.done(), expected);
    services.forget(&m()).await.unwrap();
    services.forget(&m()).await.unwrap();
    // Nothing is known of them any more.
    services.put_back(&m()).await.unwrap();
    assert_eq!(host.units.done().len(), expected.len());
}

#[tokio::test(start_paused = true)]
async fn what_rested_rests_again() {
    let units = [
        ("db.service", "inactive", "disabled"),
        ("queue.timer", "failed", "enabled"),
        ("web.service", "active", "disabled"),
    ];
    let host = Host::new(&units);
    let services = host.services();
    services.stop(&m(), None).await.unwrap();
    services.start(&m()).await.unwrap();
    // They have taken over: they run, and start with the host from now on.
    host.stands(&[
        ("db.service", "active", "enabled"),
        ("queue.timer", "active", "enabled"),
        ("web.service", "active", "enabled"),
    ]);
    services.put_back(&m()).await.unwrap();
    host.stands(&[
        ("db.service", "inactive", "disabled"),
        ("queue.timer", "inactive", "enabled"),
        ("web.service", "active", "disabled"),
    ]);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_was_stopped_all_are_started_and_enabled_until_they_are_put_back() {
    let units = [
        ("db.service", "inactive", "disabled"),
        ("queue.timer", "inactive", "indirect"),
        ("web.service", "inactive", "static"),
    ];
    let host = Host::new(&units);
    let services = host.services();
    for _ in 0..2 {
        services.start(&m()).await.unwrap();
        host.stands(&[
            ("db.service", "active", "enabled"),
            ("queue.timer", "active", "indirect"),
            ("web.service", "active", "static"),
        ]);
    }
    let expected = ["start db.service", "start web.service", "start queue.timer", "enable db.service"];
    assert_eq!(host.units.done(), expected);
    services.put_back(&m()).await.unwrap();
    host.stands(&units);
}

#[tokio::test(start_paused = true)]
async fn what_starts_by_itself_is_stopped_again() {
    for (returns, failure) in
        [(1, None), (4, None), (99, Some("web.service: it was stopped 5 times, and starts again"))]
    {
        let host = Host::new(&UNITS);
        host.units.set("web.service", |_, nature| nature.returns = returns);
        let told = host.services().stop(&m(), None).await.err();
        assert_eq!(told.is_some(), failure.is_some(), "{told:?}");
        if let (Some(told), Some(failure)) = (told, failure) {
            assert_eq!(told.class, Class::NeedsOperator);
            assert!(told.to_string().contains(failure) && told.hint.contains("TriggeredBy"), "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_started_when_it_is_called_for_is_left_to_that() {
    for ran in [false, true] {
        let rests = if ran { "active" } else { "inactive" };
        let units = [("s.service", rests, "static"), ("s.socket", "active", "enabled")];
        let mut host = Host::new(&units);
        host.sections = vec![section("s.service", 0), section("s.socket", 5)];
        host.units.set("s.socket", |state, _| state.triggers = vec!["s.service".into()]);
        let services = host.services();
        services.stop(&m(), None).await.unwrap();
        host.units.cut_at(None);
        services.start(&m()).await.unwrap();
        assert_eq!(host.units.done(), ["start s.socket", "enable s.socket"]);
        // Somebody has called for it.
        host.units.set("s.service", |state, _| state.active = "active".into());
        services.put_back(&m()).await.unwrap();
        assert_eq!(host.units.done().len(), 2);
        services.forget(&m()).await.unwrap();
        host.units.set("s.service", |state, _| state.active = rests.into());
        services.stop(&m(), None).await.unwrap();
        host.units.cut_at(None);
        services.put_back(&m()).await.unwrap();
        host.stands(&units);
        let started = if ran {
            &["enable s.socket", "start s.socket", "start s.service"][..]
        } else {
            &["enable s.socket", "start s.socket"]
        };
        assert_eq!(host.units.done(), started);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_come_up_is_told_with_its_journal_and_nothing_after_it_starts() {
    for (fails, what) in [
        (true, "service db.service: it did not come up: it is failed (some), result `success`"),
        (false, "service db.service: it is not well after 30 s: it is activating (some), result `success`"),
    ] {
        let host = Host::new(&UNITS);
        let services = host.services();
        services.stop(&m(), None).await.unwrap();
        host.units.set("db.service", |_, nature| (nature.fails, nature.hangs) = (fails, !fails));
        host.units.cut_at(None);
        let failure = services.start(&m()).await.unwrap_err();
        assert_eq!(failure.class, Class::NeedsOperator);
        let told = failure.to_string();
        assert!(told.starts_with(what) && told.contains("its journal: db.service says why"), "{told}");
        assert_eq!(host.units.done(), ["start db.service"]);
        // Put right, it goes on where it was.
        host.units.set("db.service", |state, nature| {
            (nature.fails, nature.hangs) = (false, false);
            state.active = "inactive".into();
        });
        services.start(&m()).await.unwrap();
        // Only until the next boot is told nobody: it is started for good.
        let mut up = UNITS;
        up[2].2 = "enabled";
        host.stands(&up);
    }
}

/// In real time: a process does not end sooner because nothing else is to be done.
#[tokio::test]
async fn a_check_that_fails_is_told_by_its_own_words() {
    let mut host = Host::new(&UNITS);
    let sh = ["/bin/sh", "-c", "echo no route; exit 1"].map(str::to_owned).to_vec();
    host.sections[1].check = Some(crate::section::Check::Command(sh));
    host.sections[1].check_seconds = 1;
    let failure = host.services().start(&m()).await.unwrap_err().to_string();
    assert!(failure.contains("it is active (some)") && failure.contains("saying: no route"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn putting_back_goes_on_past_what_fails() {
    let host = Host::new(&UNITS);
    let services = host.services();
    services.stop(&m(), None).await.unwrap();
    host.units.set("db.service", |_, nature| nature.fails = true);
    let told = services.put_back(&m()).await.unwrap_err().to_string();
    assert!(told.starts_with("service db.service: it did not come up"), "{told}");
    let mut up = UNITS;
    up[0].1 = "failed";
    host.stands(&up);
    host.units.set("db.service", |_, nature| nature.fails = false);
    services.put_back(&m()).await.unwrap();
    host.stands(&UNITS);
}

#[tokio::test(start_paused = true)]
async fn units_that_cannot_be_handled_are_told_before_anything_is_done() {
    for (load, id, problem) in [
        ("not-found", "web.service", Some("there is no such unit")),
        ("bad-setting", "web.service", Some("systemd cannot read its file (bad-setting)")),
        ("loaded", "nginx.service", Some("write nginx.service in appliance.toml")),
        ("masked", "web.service", None),
    ] {
        let host = Host::new(&UNITS);
        host.units.set("web.service", |state, _| {
            (state.load, state.id) = (load.into(), id.into());
            if load == "masked" {
                (state.active, state.file) = ("inactive".into(), "masked".into());
            }
        });
        let services = host.services();
        let facts = services.facts().await.unwrap();
        assert_eq!(facts.iter().map(|fact| fact.problem.is_some()).filter(|is| *is).count(), 1, "{facts:?}");
        let told = services.stop(&m(), None).await.err().map(|failure| failure.to_string());
        match (problem, told) {
            (None, None) => {
                // Nobody can start it.
                let told = services.put_back(&m()).await.err();
                assert_eq!(told, None);
                assert!(services.start(&m()).await.unwrap_err().to_string().contains("unmask"));
            }
            (Some(problem), Some(told)) => {
                assert!(told.contains(problem), "{told}");
                assert!(host.units.done().is_empty(), "{:?}", host.units.done());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn facts_tell_how_they_stand() {
    let host = Host::new(&UNITS);
    let facts = host.services().facts().await.unwrap();
    let told: Vec<_> =
        facts.iter().map(|f| (f.unit.as_str(), f.state.as_str(), f.enabled, f.problem.as_deref())).collect();
    let expected = [
        ("web.service", "active", false, None),
        ("db.service", "active", true, None),
        ("queue.timer", "active", true, None),
    ];
    assert_eq!(told, expected);
    assert!(host.units.done().is_empty());
}
