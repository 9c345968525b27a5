//! What an abort keeps of a database that was in use: its tables and sequences, in a database beside the final place. Views, routines, triggers
//! and events are not kept: none of them may act, and all of them are where they came from (the source; after a run with
//! decisions the database that is put back).

use async_trait::async_trait;
use handover_engine::kept::Kept;
use handover_engine::ports::{Keeper, Result};

use super::{MariaTarget, place, publish};
use crate::sql;

#[async_trait]
impl Keeper for MariaTarget {
    async fn undo_and_keep(&self) -> Result<()> {
        self.take_back(publish::Fate::Kept).await
    }

    async fn kept(&self) -> Result<Option<Kept>> {
        let mut session = self.rows.session().await?;
        let query = format!(
            "SELECT COUNT(*), CAST(COALESCE(SUM(data_length + index_length), 0) AS UNSIGNED) \
             FROM information_schema.tables WHERE table_schema = {}",
            sql::text(&self.names.aborted)
        );
        let found = session.record("what is kept cannot be looked at", &query).await?;
        self.rows.keep(session).await;
        let mut settings = self.rows.settings.clone();
        settings.database.clone_from(&self.names.aborted);
        let place = settings.location();
        Ok((found.number(0) > 0).then(|| Kept { place, bytes: found.number(1) }))
    }

    async fn remove_kept(&self) -> Result<()> {
        let mut session = self.rows.session().await?;
        place::drop_database(&mut session, &self.names.aborted).await?;
        self.rows.keep(session).await;
        Ok(())
    }
}
