//! The engine's port: the server that the target's manifest names.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::dns::{DnsFacts, RecordChange, RecordKind, RecordSet, Standing, undone};
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::{NameServer, Result};
use handover_engine::time::Clock;

use crate::failure::ServerError;
use crate::record::{Record, Records, Texts};
use crate::secret;
use crate::section::{DnsSection, UpdateSection};
use crate::server::{Key, Server};

/// The names of an appliance.
pub struct LocalNames {
    named: Option<Named>,
    records: Records<Record>,
    pub(crate) texts: Records<Texts>,
}

/// What a manifest names.
pub(crate) struct Named {
    section: DnsSection,
    pub(crate) server: Server,
}

impl LocalNames {
    /// What `section` names; what must be undone is recorded below `state`.
    pub fn new(section: Option<DnsSection>, state: &Path, clock: Arc<dyn Clock>) -> Self {
        let named = section.map(|section| Named { server: Server::new(section.server, clock), section });
        Self { named, records: Records::new(state, "dns"), texts: Records::new(state, "challenges") }
    }

    pub(crate) fn named(&self) -> Result<&Named> {
        self.named.as_ref().ok_or_else(|| {
            Failure::operator("dns", "the target's manifest no longer names a server")
                .hint("put [dns] back into its appliance.toml and restart the agent")
        })
    }

    fn read(&self, migration: &MigrationId) -> Result<Option<Record>> {
        self.records.read(migration).map_err(|error| {
            Failure::operator("dns", "what was changed before is not known")
                .because(error)
                .hint("put `dns/` in the agent's state directory back as it was; or set the records back by hand and remove it")
        })
    }

    /// Makes one change, and sees it made.
    async fn make(
        &self,
        named: &Named,
        key: &Key,
        migration: &MigrationId,
        change: &RecordChange,
    ) -> Result<()> {
        let found = named.look_up(change).await?;
        let after = match change.standing(&found) {
            Standing::Done => return Ok(()),
            Standing::Foreign => return Err(foreign(change, &found)),
            Standing::Due(after) => after,
        };
        if after.values.is_empty() {
            named.refuse_last(change).await?;
        }
        let mut record = self.read(migration)?.unwrap_or_default();
        record.add(effect(change, &found));
        self.records.write(migration, &record).map_err(|error| {
            Failure::operator("dns", "what is to be changed cannot be written down")
                .because(error)
                .hint("is the disk full? Make room in the agent's state directory, then resume")
        })?;
        named.replace(key, change, &found, &after).await
    }
}

impl Named {
    pub(crate) fn key(&self) -> Result<Key> {
        let refuse = |what: String| Failure::operator("dns", what).hint("mend [dns.update], then resume");
        let update = self.section.update.as_ref();
        let update =
            update.ok_or_else(|| refuse("the target's manifest names no key for updates".to_owned()))?;
        key(update).map_err(refuse)
    }

    /// Whether the server is told by updates.
    pub(crate) fn updates(&self) -> bool {
        self.section.update.is_some()
    }

    async fn look_up(&self, change: &RecordChange) -> Result<RecordSet> {
        self.server.look_up(&change.name, change.kind).await.map_err(|error| self.failure(error))
    }

    pub(crate) fn failure(&self, error: ServerError) -> Failure {
        error.into_failure(self.section.server)
    }

    /// A name keeps an address.
    async fn refuse_last(&self, change: &RecordChange) -> Result<()> {
        for kind in RecordKind::ALL.into_iter().filter(|kind| *kind != change.kind) {
            let set = self.server.look_up(&change.name, kind).await.map_err(|error| self.failure(error))?;
            if !set.values.is_empty() {
                return Ok(());
            }
        }
        Err(Failure::operator(item(change), "it would have no address left")
            .hint("add another host to it, then resume"))
    }

    async fn replace(
        &self,
        key: &Key,
        change: &RecordChange,
        from: &RecordSet,
        to: &RecordSet,
    ) -> Result<()> {
        self.server.replace(key, from, to).await.map_err(|error| self.failure(error))?;
        let found = self.look_up(change).await?;
        if change.standing(&found) == Standing::Done {
            return Ok(());
        }
        // As with an address beside an alias, which servers leave out without a word (RFC 2136, section 3.4.2.2).
        Err(Failure::operator(item(change), "the server took the change and did not make it")
            .hint("is it the zone's primary, and has the name other records?"))
    }

    /// What the server has of all names.
    async fn records(&self) -> Result<Vec<RecordSet>, ServerError> {
        let mut out = Vec::new();
        for name in self.section.service_names().iter().chain(&self.section.round_robin()) {
            for kind in RecordKind::ALL {
                let set = self.server.look_up(name, kind).await?;
                if !set.values.is_empty() {
                    out.push(set);
                }
            }
        }
        Ok(out)
    }
}

fn key(section: &UpdateSection) -> Result<Key, String> {
    Key::new(section, secret::read(&section.secret_file)?).map_err(|error| error.to_string())
}

/// What a change of what was found makes a difference in.
fn effect(change: &RecordChange, found: &RecordSet) -> RecordChange {
    let was_ttl = if found.values.is_empty() { change.was_ttl } else { found.ttl };
    RecordChange {
        from: change.from.intersection(&found.values).cloned().collect(),
        to: change.to.difference(&found.values).cloned().collect(),
        was_ttl,
        ..change.clone()
    }
}

fn item(change: &RecordChange) -> String {
    format!("dns {}", change.name.trim_end_matches('.'))
}

fn foreign(change: &RecordChange, found: &RecordSet) -> Failure {
    let values: Vec<_> = found.values.iter().map(String::as_str).collect();
    let now = if values.is_empty() {
        "it has no such record".to_owned()
    } else {
        format!("it holds {}", values.join(" "))
    };
    Failure::operator(item(change), format!("somebody else has changed its {} record: {now}", change.kind))
        .hint(format!("expected was one of\n{}", change.lines().join("\n")))
}

#[async_trait]
impl NameServer for LocalNames {
    async fn facts(&self) -> Result<Option<DnsFacts>> {
        let Some(named) = &self.named else { return Ok(None) };
        let section = &named.section;
        let (records, problem) = match named.records().await {
            Ok(records) => (records, None),
            Err(error) => {
                let failure = named.failure(error);
                let causes =
                    failure.causes.iter().fold(failure.what, |text, cause| format!("{text}: {cause}"));
                (Vec::new(), Some(format!("{}: {causes}; {}", section.server, failure.hint)))
            }
        };
        let key_problem = section.update.as_ref().and_then(|update| key(update).err());
        Ok(Some(DnsFacts {
            server: section.server.to_string(),
            automatic: section.update.is_some(),
            service_names: section.service_names(),
            round_robin: section.round_robin(),
            ttl: section.ttl,
            records,
            problem: problem.or(key_problem),
        }))
    }

    async fn lacking(&self, changes: &[RecordChange]) -> Result<Vec<RecordChange>> {
        let named = self.named()?;
        let mut out = Vec::new();
        for change in changes {
            if change.standing(&named.look_up(change).await?) != Standing::Done {
                out.push(change.clone());
            }
        }
        Ok(out)
    }

    async fn change(&self, migration: &MigrationId, changes: &[RecordChange]) -> Result<()> {
        let named = self.named()?;
        let key = named.key()?;
        for change in changes {
            self.make(named, &key, migration, change).await?;
        }
        Ok(())
    }

    async fn restore(&self, migration: &MigrationId) -> Result<()> {
        let Some(record) = self.read(migration)? else { return Ok(()) };
        let named = self.named()?;
        let key = named.key()?;
        let mut left = Ok(());
        for change in undone(&record.changes) {
            let found = named.look_up(&change).await?;
            let restored = match change.standing(&found) {
                Standing::Done => Ok(()),
                Standing::Foreign => Err(foreign(&change, &found)),
                Standing::Due(after) => named.replace(&key, &change, &found, &after).await,
            };
            match restored {
                Err(failure) if failure.is_transient() => return Err(failure),
                Err(failure) => left = left.and(Err(failure)),
                Ok(()) => {}
            }
        }
        left
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        self.records.forget(migration).map_err(|error| {
            Failure::operator("dns", "what was changed cannot be forgotten")
                .because(error)
                .hint("let the agent write its own state directory")
        })
    }
}
