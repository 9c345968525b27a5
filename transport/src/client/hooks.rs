//! Hooks of a source on another host.

use async_trait::async_trait;
use handover_engine::ports::Result;
use handover_engine::ports::hooks::{Hooks, Occasion};

use super::RemoteSource;
use crate::failure::from_status;
use crate::wire::IntoWire;

#[async_trait]
impl Hooks for RemoteSource {
    async fn run(&self, occasion: &Occasion) -> Result<Vec<String>> {
        // No time limit: each hook has its own at the source.
        let request = occasion.into_wire();
        let reply = self.client().run_hooks(request).await.map_err(|s| from_status(&self.peer, s))?;
        Ok(reply.into_inner().warnings)
    }
}
