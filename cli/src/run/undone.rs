//! Migrations that are undone by themselves while somebody waits for them.

use handover_engine::name::MigrationId;
use handover_engine::phase::Operation;
use handover_engine::ports::Result;
use handover_engine::report::Terms;

use super::Session;
use crate::arguments::{Act, Which};
use crate::exit::Code;

impl Session {
    pub(super) async fn watch(&self, which: Which) -> Result<Code> {
        let id = self.pick(which).await?.migration;
        let code = self.settle(&id, true).await?;
        self.unless_undone(id, code).await
    }

    /// A migration that was undone without anybody's asking has failed, however well that went.
    async fn unless_undone(&self, id: MigrationId, code: Code) -> Result<Code> {
        if code != Code::Done {
            return Ok(code);
        }
        let status = self.pick(Which { id: Some(id) }).await?;
        Ok(if status.undone_because.is_some() { Code::Failed } else { Code::Done })
    }

    /// What is taken up again may be undone by itself.
    pub(super) async fn resume(&self, act: Act) -> Result<Code> {
        let is_watched = act.watch;
        let (id, code) = self.ask(Operation::Resume, Terms::default(), act).await?;
        if is_watched { self.unless_undone(id, code).await } else { Ok(code) }
    }
}
