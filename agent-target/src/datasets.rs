//! What the target's manifest declares: where datasets land, and what stands there.

use std::collections::HashMap;
use std::sync::Arc;

use handover_engine::inventory::{DatabaseFacts, Dataset, DatasetFacts, Inventory, TreeFacts};
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::pass::TargetDataset;
use handover_engine::ports::{Result, TreeReader};
use handover_engine::time::Clock;
use handover_platform::access;
use handover_platform::manifest::{FilesSection, Manifest};
use handover_platform::source::{inventory, place, unreadable};
use handover_platform::tree::{FileTree, Filter};

/// The target's datasets.
pub struct LocalDatasets {
    manifest: Manifest,
}

fn filter(section: &FilesSection) -> Result<Filter> {
    Filter::new(&section.include, &section.exclude)
}

impl LocalDatasets {
    /// What `manifest` declares; a bad glob is refused now, not when it is first needed.
    pub fn new(manifest: Manifest) -> Result<Self> {
        manifest.trees().iter().try_for_each(|section| filter(section).map(drop))?;
        Ok(Self { manifest })
    }

    /// The places where `migration` lands.
    pub fn of(&self, migration: &MigrationId) -> Result<HashMap<DatasetName, TargetDataset>> {
        let mut out = HashMap::new();
        for section in &self.manifest.database {
            let target = place(section)?.target(section.name.clone(), migration);
            out.insert(section.name.clone(), TargetDataset::Database(target));
        }
        for section in &self.manifest.trees() {
            let tree =
                FileTree::target(section.name.clone(), section.root.clone(), filter(section)?, migration);
            let tree = if section.is_log { tree.of_logs() } else { tree };
            out.insert(section.name.clone(), TargetDataset::Tree(Arc::new(tree)));
        }
        Ok(out)
    }

    /// What stands on this host now. A dataset that is not there yet is an empty one.
    pub async fn inspect(&self, clock: &dyn Clock) -> Result<Inventory> {
        // Only looks: the name is that of no migration.
        let nobody: MigrationId = "inspect".parse().map_err(|e| {
            handover_engine::failure::Failure::permanent("inspect", "cannot be named").because(e)
        })?;
        let mut datasets = Vec::new();
        for section in &self.manifest.database {
            let place = place(section)?;
            let (engine, location) = (place.engine().to_owned(), place.location());
            let empty = DatabaseFacts { engine, location, ..DatabaseFacts::default() };
            let name = section.name.clone();
            let mut findings = access::of_making(&place, &name).await;
            let facts = match place.target(name.clone(), &nobody).occupied().await {
                Ok(facts) => DatasetFacts::Database(facts.unwrap_or(empty)),
                Err(failure) => {
                    access::keep_errors(&mut findings);
                    unreadable("database", &failure)
                }
            };
            let offers = access::offers(&place, &name).await;
            datasets.push(Dataset { name, facts, findings, following: Vec::new(), offers });
        }
        for section in &self.manifest.trees() {
            let facts = self.tree(section).await?;
            let findings = access::of_making_files(&section.root, &section.name);
            let name = section.name.clone();
            datasets.push(Dataset { name, facts, findings, following: Vec::new(), offers: None });
        }
        inventory(self.manifest.facts(), datasets, clock).await
    }

    async fn tree(&self, section: &FilesSection) -> Result<DatasetFacts> {
        let root = section.root.display().to_string();
        if !section.root.exists() {
            return Ok(DatasetFacts::Files(TreeFacts { root, ..TreeFacts::default() }));
        }
        let tree = FileTree::reader(section.name.clone(), section.root.clone(), filter(section)?);
        Ok(tree.facts().await.map_or_else(|failure| unreadable("files", &failure), DatasetFacts::Files))
    }
}
