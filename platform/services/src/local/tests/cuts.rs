//! Every act may be cut short by the end of the agent, and is done again.

use super::*;
use crate::section::TrialKind;

/// What is done, and what stands once it is.
type Case = (&'static str, &'static [(&'static str, &'static str, &'static str)]);

async fn act(services: &LocalServices, act: &str) {
    match act {
        "stop" => services.stop(&m(), Some(Duration::from_secs(60))).await,
        "start" => services.start(&m()).await,
        "release" => services.release(&m()).await,
        "put back" => services.put_back(&m()).await,
        _ => services.forget(&m()).await,
    }
    .unwrap();
}

/// Does `word` to its end, cut once before or after the act of this number; false where there are not so many.
async fn cut(host: &Host, word: &str, at: usize, is_after: bool) -> bool {
    host.units.cut_at(Some((at, is_after)));
    let services = host.services();
    let is_cut = tokio::select! {
        () = act(&services, word) => false,
        () = host.units.is_cut.notified() => true,
    };
    host.units.cut_at(None);
    // Another agent, with what lies on the disk.
    act(&host.services(), word).await;
    is_cut
}

#[tokio::test(start_paused = true)]
async fn whatever_is_cut_short_is_done_again() {
    const STARTED: [(&str, &str, &str); 4] = [
        ("db.service", "active", "enabled"),
        ("other.service", "active", "enabled"),
        ("queue.timer", "active", "enabled"),
        ("web.service", "active", "static"),
    ];
    let cases: [Case; 3] = [("stop", &STOPPED), ("start", &STARTED), ("put back", &UNITS)];
    let mut cuts = 0;
    for (word, expected) in cases {
        for is_after in [false, true] {
            for at in 0.. {
                let host = Host::new(&UNITS);
                if word != "stop" {
                    act(&host.services(), "stop").await;
                }
                let is_cut = cut(&host, word, at, is_after).await;
                host.stands(expected);
                // Whatever came between, they can be made what they were.
                act(&host.services(), "put back").await;
                host.stands(&UNITS);
                if !is_cut {
                    break;
                }
                cuts += 1;
            }
        }
    }
    // Two files and three units, stopped and put back; three units and one call for their files, started.
    assert_eq!(cuts, 2 * (5 + 4 + 5));
}

/// With one service sealed off and one left out.
#[tokio::test(start_paused = true)]
async fn a_trial_that_is_cut_short_is_gone_on_with() {
    let mut cuts = 0;
    for word in ["start", "release", "put back"] {
        for is_after in [false, true] {
            for at in 0.. {
                let mut host = Host::new(&UNITS);
                host.sections[0].trial = TrialKind::Sealed;
                host.sections[2].trial = TrialKind::Stopped;
                act(&host.services(), "stop").await;
                if word != "start" {
                    act(&host.services(), "start").await;
                }
                let is_cut = cut(&host, word, at, is_after).await;
                let seals = || std::fs::read_dir(host.state.path().join("units")).unwrap().count();
                assert_eq!(seals(), usize::from(word == "start"), "{word} {at}");
                act(&host.services(), "put back").await;
                host.stands(&UNITS);
                assert_eq!(seals(), 0, "{word} {at}");
                if !is_cut {
                    break;
                }
                cuts += 1;
            }
        }
    }
    assert!(cuts > 20, "{cuts}");
}

/// A lease that ends while the agent is away, or whose end is cut short, ends once the agent is back.
#[tokio::test(start_paused = true)]
async fn an_end_that_is_cut_short_is_gone_through_again() {
    for is_after in [false, true] {
        for at in 0..5 {
            let host = Host::new(&UNITS);
            act(&host.services(), "stop").await;
            host.boot.add(Duration::from_secs(61));
            host.units.cut_at(Some((at, is_after)));
            let services = host.services();
            tokio::select! {
                never = services.end_stale_leases(|_| async { Ok(()) }) => match never {},
                () = host.units.is_cut.notified() => {}
            }
            host.units.cut_at(None);
            let refused = host.services().hold(&m()).await.unwrap_err().to_string();
            assert!(refused.contains("the source has put itself back online"), "{refused}");
            assert!(host.services().forget(&m()).await.unwrap_err().is_transient());
            let services = host.services();
            let next = services.end_those_over(&|_| async { Ok(()) }).await.unwrap();
            assert_eq!(next, None);
            host.stands(&UNITS);
        }
    }
}
