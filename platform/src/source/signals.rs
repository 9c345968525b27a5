//! The load of this host and its databases.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::gauge::DatabaseLoad;
use handover_engine::ports::{Followed, Result};
use handover_engine::reserve::{Disk, LogKept};
use handover_engine::throttle::{Reading, Signal};
use tokio::time::timeout;

use super::LocalSource;
use crate::database::Place;
use crate::load::HostLoad;

/// A database that has not told its load by then takes at least so long to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is kept open for looking is closed when nobody has asked for so long.
const REST_AFTER: Duration = Duration::from_secs(15);

/// Looks at this host for a source.
#[derive(Default)]
pub(super) struct Signals {
    host: Arc<HostLoad>,
    asked: AtomicBool,
    /// Where local servers keep their data, as they have told.
    places: Mutex<BTreeSet<PathBuf>>,
}

impl LocalSource {
    pub(super) async fn load(&self) -> Result<Vec<Reading>> {
        self.signals.asked.store(true, Ordering::Relaxed);
        let looks = self.databases().map(|(name, known)| async move {
            let load = match timeout(PATIENCE, known.gauge.load()).await {
                Ok(Ok(load)) => load,
                Ok(Err(failure)) => {
                    tracing::debug!(dataset = %name, %failure, "a database's load is not known");
                    return None;
                }
                Err(_) => DatabaseLoad { latency: PATIENCE, ..DatabaseLoad::default() },
            };
            Some((name, known, load))
        });
        let loads: Vec<_> = join_all(looks).await.into_iter().flatten().collect();
        let mut places: BTreeSet<PathBuf> = self.roots.iter().cloned().collect();
        let (mut ours, mut readings) = (Vec::new(), Vec::new());
        for (name, known, load) in loads {
            readings.extend(of_database(name, &load));
            if known.place.is_local() {
                ours.extend(load.ours);
                places.extend(load.place.map(PathBuf::from));
            }
        }
        self.signals.places.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&places);
        let host = self.signals.host.clone();
        let of_host = tokio::task::spawn_blocking(move || host.look(&ours, &places)).await;
        readings.extend(of_host.map_err(|e| Failure::transient("host", "its load is not known").because(e))?);
        Ok(readings)
    }

    /// Disks that fill while databases are followed, and what their servers keep of their logs.
    pub(super) async fn look_at_room(
        &self,
        followed: Vec<Followed>,
    ) -> Result<(Vec<Disk>, BTreeMap<DatasetName, LogKept>)> {
        let mut places = vec![self.scratch.clone()];
        places.extend(self.signals.places.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        let mut logs = BTreeMap::new();
        for Followed { dataset, capture, after, known_at } in followed {
            let Some((_, known)) = self.databases().find(|(name, _)| **name == dataset) else { continue };
            let mut log = known.gauge.log(&capture, &after).await?;
            if log.bytes.is_none() {
                log.bytes = known.live.kept(&capture).await?;
            }
            // Nothing was taken yet where nothing is known.
            let age = (known_at.seconds > 0).then(|| self.clock.now().millis() - known_at.millis());
            log.age_ms = age.map(|age| u64::try_from(age).unwrap_or(0));
            if let Place::Sqlite(path) = &known.place {
                places.push(path.clone());
            }
            logs.insert(dataset, log);
        }
        let disks = tokio::task::spawn_blocking(move || crate::disk::disks(places)).await;
        let unknown = |e| Failure::transient("host", "its disks are not known").because(e);
        Ok((disks.map_err(unknown)?, logs))
    }

    /// Closes what is open for looking at databases while nobody asks, until dropped. Run it as long as the source serves.
    pub async fn rest_gauges(&self) {
        loop {
            tokio::time::sleep(REST_AFTER).await;
            if !self.signals.asked.swap(false, Ordering::Relaxed) {
                // Whoever told the rate is gone.
                self.ahead.set(None);
                for (_, known) in self.databases() {
                    known.gauge.rest().await;
                }
            }
        }
    }
}

fn of_database(name: &DatasetName, load: &DatabaseLoad) -> Vec<Reading> {
    let latency = Some(load.latency.as_secs_f64() * 1000.0);
    let all = [
        (Signal::LatencyMs, latency),
        (Signal::Threads, load.threads.map(f64::from)),
        (Signal::ReplicaLagSeconds, load.replica_lag),
    ];
    let reading = |(signal, value): (_, Option<f64>)| {
        Some(Reading { signal, dataset: Some(name.clone()), value: value? })
    };
    all.into_iter().filter_map(reading).collect()
}
