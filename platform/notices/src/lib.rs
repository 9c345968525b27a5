//! Notices by mail: clients of an appliance are told of the moments of its migration that matter to them.
//!
//! A notice is given where hooks are told, after them: at least once, and twice where an answer got lost. It is in nobody's way: one that cannot
//! be sent is a warning, unless the manifest requires it.

mod mail;
pub mod section;
mod text;

use std::sync::Arc;

use async_trait::async_trait;
use handover_engine::ports::Result;
use handover_engine::ports::hooks::{Hooks, Occasion};
use handover_engine::time::Clock;

pub use self::mail::Notices;
pub use self::section::{NoticeSection, NoticesSection};
pub use self::text::{Kind, Names};

/// A host whose hooks are told first, and then its clients.
pub struct Noticing {
    hooks: Arc<dyn Hooks>,
    notices: Option<Notices>,
}

impl Noticing {
    /// As the manifest says; without `[notices]` nothing is sent.
    pub fn new(
        hooks: Arc<dyn Hooks>,
        section: Option<&NoticesSection>,
        notices: &[NoticeSection],
        names: Names,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let notices = section.map(|section| Notices::new(section.clone(), notices.to_vec(), names, clock));
        Self { hooks, notices }
    }
}

#[async_trait]
impl Hooks for Noticing {
    async fn run(&self, occasion: &Occasion) -> Result<Vec<String>> {
        let mut warnings = self.hooks.run(occasion).await?;
        if let Some(notices) = &self.notices {
            warnings.extend(notices.give(occasion).await?);
        }
        Ok(warnings)
    }
}
