//! What this host tells of itself and its datasets.

use handover_engine::changeover::Facts;
use handover_engine::check::Finding;
use handover_engine::failure::Failure;
use handover_engine::inventory::{ApplianceFacts, Dataset, DatasetFacts, Inventory};
use handover_engine::licence::Standing;
use handover_engine::ports::Result;
use handover_engine::time::Clock;

use super::LocalSource;
use super::declared::{Declared, Readable};
use crate::access::{self, Side};

impl LocalSource {
    /// What a dataset is, and what stands in the way of reading and following it.
    pub(super) async fn look(&self, declared: &Declared) -> Dataset {
        let name = &declared.name;
        let (kind, facts, mut findings) = match &declared.readable {
            Readable::Database(known) => {
                let facts = known.database.facts().await.map(DatasetFacts::Database);
                ("database", facts, access::of_reading(&known.place, name, &self.scratch).await)
            }
            Readable::Tree(tree) => {
                let facts = tree.reader.facts().await.map(DatasetFacts::Files);
                ("files", facts, access::of_reading_files(name))
            }
        };
        let (mut following, mut returning) = (Vec::new(), Vec::new());
        match (&facts, &declared.readable) {
            (Err(_), _) => access::keep_errors(&mut findings),
            (Ok(_), Readable::Database(known)) => {
                following = access::of_following(&known.place, name).await;
                returning = access::of_returning(&known.place, name, Side::Source).await;
            }
            (Ok(_), Readable::Tree(tree)) => {
                returning = access::of_returning_files(&tree.section.root, name);
            }
        }
        let facts = facts.unwrap_or_else(|failure| unreadable(kind, &failure));
        let (name, excluded, is_log) = (name.clone(), declared.excluded.clone(), declared.is_log);
        Dataset { name, facts, findings, following, returning, offers: None, excluded, is_log }
    }
}

/// What an inventory says of a dataset that could not be read.
pub fn unreadable(declared: &str, failure: &Failure) -> DatasetFacts {
    // The hint stands by itself.
    let what = format!("{}: {}", failure.item, failure.what);
    let problem = failure.causes.iter().fold(what, |text, cause| format!("{text}: {cause}"));
    DatasetFacts::Unreadable { declared: declared.to_owned(), problem, hint: failure.hint.clone() }
}

/// An inventory of this host.
pub async fn inventory(
    appliance: ApplianceFacts,
    datasets: Vec<Dataset>,
    licence: Standing,
    changeover: Facts,
    hooks: Vec<Finding>,
    clock: &dyn Clock,
) -> Result<Inventory> {
    let host = tokio::task::spawn_blocking(crate::host::facts).await;
    Ok(Inventory {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        taken_at: clock.now(),
        appliance: ApplianceFacts { licence: licence.guid().map(str::to_owned), ..appliance },
        host: host.map_err(|e| Failure::transient("host", "its facts could not be read").because(e))?,
        datasets,
        licence,
        changeover,
        hooks,
    })
}
