//! Services on trial: sealed off or left out until that is over, whatever is cut short.

use super::*;
use crate::section::TrialKind;

const ON_TRIAL: [(&str, &str, &str); 4] = [
    ("db.service", "active", "enabled"),
    ("other.service", "active", "enabled"),
    ("queue.timer", "inactive", "disabled"),
    ("web.service", "active", "static"),
];
const ACCEPTED: [(&str, &str, &str); 4] = [
    ("db.service", "active", "enabled"),
    ("other.service", "active", "enabled"),
    ("queue.timer", "active", "enabled"),
    ("web.service", "active", "static"),
];

/// The web server is sealed off, the queue does not run.
fn host() -> Host {
    let mut host = Host::new(&UNITS);
    host.sections[0].trial = TrialKind::Sealed;
    host.sections[0].trial_allow = vec!["10.0.0.0/8".to_owned()];
    host.sections[2].trial = TrialKind::Stopped;
    host
}

impl Host {
    /// Units that are sealed off, as systemd knows them, and as files lie there.
    fn sealed(&self) -> (Vec<String>, usize) {
        let mut known = Vec::new();
        for (unit, ..) in self.units.all() {
            self.units.set(&unit, |state, _| {
                if !state.drop_ins.is_empty() {
                    known.push(unit.clone());
                }
            });
        }
        (known, std::fs::read_dir(self.state.path().join("units")).unwrap().count())
    }
}

#[tokio::test(start_paused = true)]
async fn they_start_on_trial_and_are_released() {
    let host = host();
    let services = host.services();
    services.stop(&m(), None).await.unwrap();
    host.units.cut_at(None);
    for _ in 0..2 {
        services.start(&m()).await.unwrap();
        host.stands(&ON_TRIAL);
        assert_eq!(host.sealed(), (vec!["web.service".to_owned()], 1));
    }
    assert_eq!(
        host.units.done(),
        ["reload", "start db.service", "start web.service", "enable db.service", "reload"]
    );
    host.units.cut_at(None);
    for _ in 0..2 {
        services.release(&m()).await.unwrap();
        host.stands(&ACCEPTED);
        assert_eq!(host.sealed(), (vec![], 0));
    }
    let expected =
        ["stop web.service", "reload", "start web.service", "start queue.timer", "enable queue.timer"];
    assert_eq!(host.units.done(), expected);
    // An abort is possible still.
    services.put_back(&m()).await.unwrap();
    host.stands(&UNITS);
}

#[tokio::test(start_paused = true)]
async fn an_abort_takes_the_seals_away() {
    let host = host();
    let services = host.services();
    services.stop(&m(), None).await.unwrap();
    services.start(&m()).await.unwrap();
    for _ in 0..2 {
        services.put_back(&m()).await.unwrap();
        host.stands(&UNITS);
        assert_eq!(host.sealed(), (vec![], 0));
    }
    services.release(&m()).await.unwrap();
    host.stands(&UNITS);
}

#[tokio::test(start_paused = true)]
async fn one_that_runs_already_is_restarted_to_be_sealed_off() {
    let host = host();
    host.services().start(&m()).await.unwrap();
    let expected =
        ["disable queue.timer", "stop queue.timer", "stop web.service", "reload", "start web.service"];
    assert_eq!(host.units.done(), expected);
    host.stands(&ON_TRIAL);
}

#[tokio::test(start_paused = true)]
async fn what_starts_one_that_does_not_run_does_not_either() {
    let units = [
        ("s.service", "active", "static"),
        ("s.socket", "active", "enabled"),
        ("w.service", "active", "enabled"),
    ];
    let mut host = Host::new(&units);
    host.sections = vec![section("s.service", 0), section("s.socket", 5), section("w.service", 9)];
    host.sections[0].trial = TrialKind::Stopped;
    host.units.set("s.socket", |state, _| state.triggers = vec!["s.service".into()]);
    let services = host.services();
    services.stop(&m(), None).await.unwrap();
    services.start(&m()).await.unwrap();
    host.stands(&[
        ("s.service", "inactive", "static"),
        ("s.socket", "inactive", "disabled"),
        ("w.service", "active", "enabled"),
    ]);
    // Something else has.
    host.units.set("s.service", |state, _| state.active = "active".into());
    host.units.set("s.service", |_, nature| nature.returns = 99);
    let told = services.start(&m()).await.unwrap_err().to_string();
    assert!(told.starts_with("service s.service: it was stopped 5 times"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_seal_says_so_before() {
    let host = host();
    let problems = async || {
        let facts = host.services().facts().await.unwrap();
        facts.into_iter().filter_map(|fact| Some((fact.unit, fact.problem?))).collect::<Vec<_>>()
    };
    assert_eq!(problems().await, []);
    host.units.lack_seals();
    let found = problems().await;
    assert_eq!(found.len(), 1);
    assert!(found[0].0 == "web.service" && found[0].1.contains("this kernel does not"), "{found:?}");
    std::fs::remove_dir(host.state.path().join("units")).unwrap();
    assert!(problems().await[0].1.contains("ReadWritePaths="));
    // At a source nothing is on trial.
    let at_source = LocalServices { is_target: false, ..host.services() };
    assert!(at_source.facts().await.unwrap().iter().all(|fact| fact.problem.is_none()));
}
