//! What the abort of a migration leaves at the target of data that was in use there.

use async_trait::async_trait;

use super::Result;
use crate::kept::Kept;

/// A dataset whose migrated data may outlive the abort of its migration, beside its place.
#[async_trait]
pub trait Keeper: Send + Sync {
    /// As `undo`, but what was published stays, under another name, on the same file system or server, and nothing of ours acts on it: no
    /// capture, no fence. What was never published goes. It takes no room, and a time that does not grow with the size of files or databases.
    /// Idempotent; a crash at any point is made good by asking again.
    async fn undo_and_keep(&self) -> Result<()>;

    /// What is kept here of this migration; `None` where there is nothing.
    async fn kept(&self) -> Result<Option<Kept>>;

    /// Removes it. Idempotent, also after a crash in its middle. What other migrations have kept stays.
    async fn remove_kept(&self) -> Result<()>;
}
