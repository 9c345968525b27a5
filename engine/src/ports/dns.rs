//! The server that has an appliance's DNS records, as the target's manifest names it.

use async_trait::async_trait;

use super::Result;
use crate::dns::{DnsFacts, RecordChange, TextRecord};
use crate::failure::Failure;
use crate::name::MigrationId;

/// A name server, asked for records and told to change them. It is the one that answers for them, not one that remembers what others said.
#[async_trait]
pub trait NameServer: Send + Sync {
    /// What the manifest names, and what the server has of it; none where the manifest names nothing. Changes nothing.
    async fn facts(&self) -> Result<Option<DnsFacts>> {
        Ok(None)
    }

    /// Those of the changes that are still to be made. One whose records somebody else has changed is among them. Changes nothing.
    async fn lacking(&self, changes: &[RecordChange]) -> Result<Vec<RecordChange>> {
        Ok(changes.to_vec())
    }

    /// Makes the changes, each with what it needs to be taken back written down first, durably. Idempotent. Refuses (operator) a change whose
    /// records hold neither what is taken out nor what is put in.
    async fn change(&self, migration: &MigrationId, changes: &[RecordChange]) -> Result<()> {
        let _ = (migration, changes);
        Err(Failure::operator("dns", "the host's manifest names no server for updates")
            .hint("put [dns] with [dns.update] back into the target's appliance.toml and restart the agent"))
    }

    /// Takes back what was changed for this migration. Idempotent. Records that somebody else has changed since stay as they are: a failure
    /// (operator) names them once all others are back.
    async fn restore(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }

    /// Forgets what was changed.
    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }
}

/// Texts that prove to an authority that names are ours: it asks the names' own servers for them.
#[async_trait]
pub trait Challenges: Send + Sync {
    /// What keeps texts from being put in, as far as this host's own files tell. Asks no server.
    fn usable(&self) -> Result<()>;

    /// Puts in these texts, written down first, durably, and returns when the server answers with them. Idempotent. What others have put in
    /// beside them stays.
    async fn put_in(&self, migration: &MigrationId, texts: &[TextRecord]) -> Result<()>;

    /// Takes away all that was put in for this migration, also by an agent that was killed. Idempotent.
    async fn take_away(&self, migration: &MigrationId) -> Result<()>;
}
