//! The replicas that a manifest names beside its databases, and what part their servers play.

mod record;

use std::path::Path;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::ports::changeover::Replicas;
use handover_engine::replication::{ReplicaFacts, ReplicationFacts};
use handover_mariadb::{Pair, ReplicaSide, Settings, Shared, Survey, role_of};

use self::record::{Record, Records, Stage};
use crate::access::Side;
use crate::database::Place;
use crate::manifest::Manifest;

/// The replicas of a host's databases. Those of one server and one replica go together.
pub struct LocalReplicas {
    side: Side,
    pairs: Vec<Pair>,
    /// Databases without a replica: what part their servers play is told all the same.
    alone: Vec<(DatasetName, Settings)>,
    records: Records,
}

fn of_mariadb(url: &str) -> Option<Settings> {
    Place::parse(url).ok()?.into_mariadb()
}

impl LocalReplicas {
    /// Those that `manifest` names; what they were before is recorded below `state`.
    pub fn new(manifest: &Manifest, state: &Path, side: Side) -> Self {
        let mut groups: Vec<(Vec<Shared>, Option<Settings>)> = Vec::new();
        let mut alone = Vec::new();
        for section in &manifest.database {
            let Some(primary) = of_mariadb(&section.url) else { continue };
            let dataset = section.name.clone();
            let Some(replica) = section.replica() else {
                alone.push((dataset, primary));
                continue;
            };
            let login = section.replication.as_deref().and_then(of_mariadb);
            let servers = (primary.server(), replica.server());
            let known = groups.iter_mut().find(|(shared, _)| {
                shared.first().is_some_and(|one| (one.primary.server(), one.replica.server()) == servers)
            });
            let one = Shared { dataset, primary, replica };
            match known {
                Some((shared, of_all)) => {
                    shared.push(one);
                    *of_all = of_all.take().or(login);
                }
                None => groups.push((vec![one], login)),
            }
        }
        let pairs = groups.into_iter().map(|(shared, login)| Pair::new(shared, login)).collect();
        Self { side, pairs, alone, records: Records::new(state.join("replicas")) }
    }

    fn side(&self) -> ReplicaSide {
        match self.side {
            Side::Source => ReplicaSide::Source,
            Side::Target => ReplicaSide::Target,
        }
    }

    /// What is recorded of a replica; recorded now, where nothing is yet.
    async fn record(&self, migration: &MigrationId, pair: &Pair) -> Result<Record> {
        if let Some(record) = self.records.read(migration, &name(pair)).await? {
            return Ok(record);
        }
        let record = Record::new(pair.before().await?);
        self.records.write(migration, &name(pair), &record).await?;
        Ok(record)
    }

    async fn set_up_one(&self, migration: &MigrationId, pair: &Pair) -> Result<()> {
        let mut record = self.record(migration, pair).await?;
        if pair.is_linked().await? {
            // It was before, or the last try got as far, or somebody has done it.
            return Ok(());
        }
        if record.before.is_replica() {
            // Somebody has taken it from its primary since: that is what it comes back to.
            record = Record::new(pair.before().await?);
        }
        let position = match &record.stage {
            Stage::Copied(position) => position.clone(),
            // One that has been at work since is no more what was copied.
            Stage::Found | Stage::Linked => {
                record.stage = Stage::Found;
                self.records.write(migration, &name(pair), &record).await?;
                let position = pair.seed(migration).await?;
                record.stage = Stage::Copied(position.clone());
                self.records.write(migration, &name(pair), &record).await?;
                position
            }
        };
        pair.link(&position).await
    }

    /// Puts back the replicas, whatever becomes of it: a source whose maintenance has ended is in use with or without them.
    pub async fn put_back_if_possible(&self, migration: &MigrationId) {
        if let Err(failure) = self.put_back(migration).await {
            tracing::error!(%migration, %failure, "a replica does not follow its primary again: start it by hand");
        }
    }
}

/// What a pair's record is called.
fn name(pair: &Pair) -> String {
    pair.datasets().first().map(ToString::to_string).unwrap_or_default()
}

fn facts_of(pair: &Pair, survey: Survey) -> ReplicationFacts {
    ReplicationFacts {
        datasets: pair.datasets(),
        server: pair.primary(),
        role: survey.primary.ok(),
        replica: Some(ReplicaFacts { server: pair.replica(), role: survey.replica.ok() }),
        problem: survey.problem.as_ref().map(Failure::to_string),
    }
}

#[async_trait]
impl Replicas for LocalReplicas {
    async fn facts(&self) -> Result<Vec<ReplicationFacts>> {
        let mut out = Vec::new();
        for pair in &self.pairs {
            out.push(facts_of(pair, pair.survey(self.side()).await));
        }
        for (dataset, settings) in &self.alone {
            let server = settings.server();
            if let Some(known) = out.iter_mut().find(|one: &&mut ReplicationFacts| one.server == server) {
                if known.replica.is_none() {
                    known.datasets.push(dataset.clone());
                }
                continue;
            }
            let role = role_of(dataset, settings).await;
            let problem = role.as_ref().err().map(Failure::to_string);
            let (datasets, role) = (vec![dataset.clone()], role.ok());
            out.push(ReplicationFacts { datasets, server, role, replica: None, problem });
        }
        Ok(out)
    }

    async fn deactivate(&self, migration: &MigrationId) -> Result<()> {
        for pair in &self.pairs {
            let record = self.record(migration, pair).await?;
            pair.deactivate(&record.before).await?;
        }
        Ok(())
    }

    async fn set_up(&self, migration: &MigrationId) -> Result<()> {
        for pair in &self.pairs {
            self.set_up_one(migration, pair).await?;
        }
        Ok(())
    }

    async fn activate(&self, migration: &MigrationId) -> Result<()> {
        for pair in &self.pairs {
            let mut record = self.record(migration, pair).await?;
            if record.stage != Stage::Linked {
                // From its start on, its position is its own.
                record.stage = Stage::Linked;
                self.records.write(migration, &name(pair), &record).await?;
            }
            pair.activate().await?;
        }
        Ok(())
    }

    async fn differences(&self) -> Result<Vec<String>> {
        let mut out = Vec::new();
        for pair in &self.pairs {
            out.extend(pair.differences().await?);
        }
        Ok(out)
    }

    fn rows_done(&self) -> u64 {
        self.pairs.iter().map(Pair::rows_done).sum()
    }

    async fn put_back(&self, migration: &MigrationId) -> Result<()> {
        for pair in &self.pairs {
            let Some(record) = self.records.read(migration, &name(pair)).await? else { continue };
            match self.side {
                Side::Source => pair.reactivate(&record.before).await?,
                Side::Target => pair.undo(migration, &record.before).await?,
            }
        }
        Ok(())
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        for pair in &self.pairs {
            let Some(record) = self.records.read(migration, &name(pair)).await? else { continue };
            if self.side == Side::Target && !record.before.is_replica() {
                pair.forget(migration).await?;
            }
        }
        self.records.remove(migration).await
    }
}
