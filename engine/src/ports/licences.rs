//! A host's licence.

use async_trait::async_trait;

use super::Result;
use crate::digest::Digest;
use crate::failure::Failure;
use crate::licence::{Document, Standing};
use crate::name::MigrationId;

/// The documents that a host has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Held {
    /// The one that is valid.
    pub valid: Option<Document>,
    /// The one that is kept for a migration.
    pub kept: Option<Document>,
    /// Both have the same identifier: the valid one is the kept one, or its renewal.
    pub is_of_kept: bool,
}

/// The licence of one host, of which there is one at most. Valid is the document that lies in its place; what is kept for a migration
/// beside it is not.
#[async_trait]
pub trait Licences: Send + Sync {
    /// How the host stands with its licence. Changes nothing.
    async fn standing(&self) -> Result<Standing> {
        Ok(Standing::Undeclared)
    }

    /// The documents that are here. Changes nothing.
    async fn held(&self, migration: &MigrationId) -> Result<Held> {
        let _ = migration;
        Ok(Held::default())
    }

    /// Keeps a document for this migration; it is not valid here by that. Durable when it returns. Idempotent.
    async fn keep(&self, migration: &MigrationId, document: &Document) -> Result<()> {
        let _ = (migration, document);
        Err(undeclared())
    }

    /// The document with this digest is valid here no more, and is kept for this migration. Durable when it returns. Idempotent: when
    /// it is kept and none is valid, nothing is done. Refuses (transient) when another one is valid, or none is: it was renewed meanwhile, or
    /// somebody else moves it.
    async fn withdraw(&self, migration: &MigrationId, digest: Digest) -> Result<()> {
        let _ = (migration, digest);
        Err(undeclared())
    }

    /// What is kept for this migration is valid here, and stays kept. Durable when it returns. Idempotent: when it is valid already,
    /// nothing is done. Refuses when another one is valid, or none is kept.
    async fn instate(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Err(undeclared())
    }

    /// Forgets what is kept for this migration; what is valid stays. Idempotent.
    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        let _ = migration;
        Ok(())
    }
}

/// A host whose manifest declares no licence.
pub struct Undeclared;

impl Licences for Undeclared {}

fn undeclared() -> Failure {
    Failure::operator("licence", "the host's manifest declares none")
        .hint("add [licence] to its appliance.toml")
}
