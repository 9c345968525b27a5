//! Leases: they end by themselves, or are held, and never both.

use std::sync::Mutex as Shared;
use std::sync::atomic::Ordering::SeqCst;

use super::*;

const LENGTH: Duration = Duration::from_secs(60);

/// Watches the leases until `done`; tells what was called, with how the database stood by then.
async fn watched(host: &Host, services: &LocalServices, done: impl Future<Output = ()>) -> Vec<String> {
    let calls = Shared::new(Vec::new());
    let on_end = |migration: MigrationId| {
        let (_, database, _) = host.units.all().remove(0);
        calls.lock().unwrap().push(format!("{migration} {database}"));
        async { Ok(()) }
    };
    tokio::select! {
        never = services.end_stale_leases(on_end) => match never {},
        () = done => {}
    }
    calls.into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_over_brings_them_back_after_the_fences() {
    let host = Host::new(&UNITS);
    let services = host.services();
    let done = async {
        services.stop(&m(), Some(LENGTH)).await.unwrap();
        tokio::time::sleep(LENGTH / 2).await;
        // Asked again, it begins anew.
        services.stop(&m(), Some(LENGTH)).await.unwrap();
        tokio::time::sleep(LENGTH - Duration::from_secs(1)).await;
        host.stands(&STOPPED);
        tokio::time::sleep(Duration::from_secs(5)).await;
        host.stands(&UNITS);
        let refused = services.hold(&m()).await.unwrap_err();
        assert_eq!(refused.class, Class::NeedsOperator);
        assert!(refused.to_string().contains("the source has put itself back online"), "{refused}");
        assert!(services.start(&m()).await.is_err());
        services.put_back(&m()).await.unwrap();
        tokio::time::sleep(LENGTH).await;
    };
    assert_eq!(watched(&host, &services, done).await, ["m-1 inactive"]);
    services.forget(&m()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_held_stays_away() {
    let host = Host::new(&UNITS);
    let services = host.services();
    let done = async {
        assert!(services.hold(&m()).await.unwrap_err().to_string().contains("were not stopped"));
        services.stop(&m(), Some(LENGTH)).await.unwrap();
        for _ in 0..2 {
            services.hold(&m()).await.unwrap();
            tokio::time::sleep(LENGTH * 2).await;
        }
        host.stands(&STOPPED);
        services.put_back(&m()).await.unwrap();
        assert!(services.hold(&m()).await.unwrap_err().to_string().contains("were put back"));
    };
    assert!(watched(&host, &services, done).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_put_back_in_time_has_no_lease_any_more() {
    let host = Host::new(&UNITS);
    let services = host.services();
    let done = async {
        services.stop(&m(), Some(LENGTH)).await.unwrap();
        services.put_back(&m()).await.unwrap();
        tokio::time::sleep(LENGTH * 2).await;
    };
    assert!(watched(&host, &services, done).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_an_end_they_can_be_stopped_once_more() {
    let host = Host::new(&UNITS);
    let services = host.services();
    let done = async {
        for _ in 0..2 {
            services.stop(&m(), Some(LENGTH)).await.unwrap();
            host.stands(&STOPPED);
            tokio::time::sleep(LENGTH + Duration::from_secs(5)).await;
            host.stands(&UNITS);
            // Who only renews the lease would not know that users were let in meanwhile.
            for refused in [services.stop(&m(), Some(LENGTH)).await, services.hold(&m()).await] {
                assert!(refused.unwrap_err().to_string().contains("back online"));
            }
            host.stands(&UNITS);
            services.put_back(&m()).await.unwrap();
        }
        services.stop(&m(), Some(LENGTH)).await.unwrap();
        services.hold(&m()).await.unwrap();
    };
    assert_eq!(watched(&host, &services, done).await.len(), 2);
}

/// One that takes longer to stop than its lease is put back, and whoever stops it is told.
#[tokio::test(start_paused = true)]
async fn a_lease_may_be_over_before_all_is_stopped() {
    let host = Host::new(&UNITS);
    let services = host.services();
    host.units.cut_at(Some((3, true)));
    let migration = m();
    let done = async {
        tokio::select! {
            stopped = services.stop(&migration, Some(LENGTH)) => panic!("{stopped:?}"),
            () = tokio::time::sleep(LENGTH * 2) => {}
        }
        host.units.cut_at(None);
        let refused = services.stop(&m(), Some(LENGTH)).await.unwrap_err();
        assert!(refused.to_string().contains("back online"), "{refused}");
        tokio::time::sleep(LENGTH).await;
        host.stands(&UNITS);
    };
    assert_eq!(watched(&host, &services, done).await.len(), 1);
}

/// The lease alone counts where no services are named; a reboot begins it anew, once the agent is back.
#[tokio::test(start_paused = true)]
async fn a_lease_without_services_outlives_a_reboot() {
    let mut host = Host::new(&UNITS);
    host.sections.clear();
    host.services().stop(&m(), Some(LENGTH)).await.unwrap();
    host.boot.reboot();
    host.boot.add(LENGTH * 10);
    let services = host.services();
    let begun = tokio::time::Instant::now();
    let calls = watched(&host, &services, tokio::time::sleep(LENGTH - Duration::from_secs(1))).await;
    assert!(calls.is_empty(), "{calls:?}");
    let calls = watched(&host, &services, tokio::time::sleep(Duration::from_secs(3))).await;
    assert_eq!(calls, ["m-1 active"]);
    assert!(begun.elapsed() >= LENGTH);
    host.stands(&UNITS);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_fails_is_tried_until_it_is_done() {
    let host = Host::new(&UNITS);
    let services = host.services();
    services.stop(&m(), Some(LENGTH)).await.unwrap();
    host.boot.add(LENGTH);
    host.units.set("db.service", |_, nature| nature.fails = true);
    let failures = std::sync::atomic::AtomicU32::new(3);
    let on_end = |_| async {
        let left = failures.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(Failure::transient("shop", "its fence cannot be lifted")),
            Err(_) => Ok(()),
        }
    };
    let mended = async {
        // Its services wait for the fences; then all come up that can.
        while host.units.all()[3].1 != "active" {
            assert_eq!(host.units.done().iter().filter(|act| act.starts_with("start")).count(), 0);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(failures.load(SeqCst), 0);
        tokio::time::sleep(LENGTH).await;
        assert_eq!(host.units.all()[0].1, "failed");
        host.units.set("db.service", |_, nature| nature.fails = false);
        tokio::time::sleep(LENGTH).await;
    };
    tokio::select! {
        never = services.end_stale_leases(on_end) => match never {},
        () = mended => {}
    }
    host.stands(&UNITS);
    host.units.cut_at(None);
    assert_eq!(services.end_those_over(&|_| async { Ok(()) }).await, Ok(None));
    assert!(host.units.done().is_empty(), "done is done");
}

/// Whoever comes first wins, and the other knows: held for good, or ended once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_is_held_or_ends_and_never_both() {
    let (mut held, mut ended) = (0, 0);
    for round in 0..300_u32 {
        let host = Host::new(&UNITS);
        let services = Arc::new(LocalServices { sections: Vec::new(), ..host.services() });
        services.stop(&m(), Some(LENGTH)).await.unwrap();
        let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let boot = host.boot.clone();
        let spins = |count: u32| async move {
            for _ in 0..count {
                tokio::task::yield_now().await;
            }
        };
        let time = tokio::spawn(async move {
            spins(round % 7).await;
            boot.add(LENGTH);
        });
        let (watching, counted) = (services.clone(), calls.clone());
        let watch = tokio::spawn(async move {
            spins(round % 5).await;
            let on_end = move |_| {
                counted.fetch_add(1, SeqCst);
                async { Ok(()) }
            };
            while watching.end_those_over(&on_end).await.unwrap().is_some() {}
        });
        let holding = services.clone();
        let hold = tokio::spawn(async move {
            spins(round % 11).await;
            holding.hold(&m()).await
        });
        let (hold, _, _) = tokio::try_join!(hold, watch, time).unwrap();
        let standing =
            services.records.with(&m(), |record| Ok(record.clone())).await.unwrap().unwrap().standing;
        match hold {
            Ok(()) => {
                held += 1;
                assert_eq!((standing, calls.load(SeqCst)), (Standing::Taken { lease: None }, 0));
            }
            Err(failure) => {
                ended += 1;
                assert!(failure.to_string().contains("back online"), "{failure}");
                assert_eq!((standing, calls.load(SeqCst)), (Standing::Ended { is_back: true }, 1));
            }
        }
    }
    assert!(held > 0 && ended > 0, "{held} held, {ended} ended: they never met");
}

#[tokio::test(start_paused = true)]
async fn what_runs_again_is_not_held() {
    let host = Host::new(&UNITS);
    let services = host.services();
    services.stop(&m(), Some(Duration::from_secs(60))).await.unwrap();
    host.units.set("web.service", |state, _| state.active = "active".into());
    let refused = services.hold(&m()).await.unwrap_err().to_string();
    assert!(refused.contains("web.service runs again"), "{refused}");
    services.stop(&m(), Some(Duration::from_secs(60))).await.unwrap();
    services.hold(&m()).await.unwrap();
}
