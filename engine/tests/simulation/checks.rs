//! What must be so.

use std::collections::BTreeSet;

use handover_engine::phase::Phase;

use super::hooks;
use super::model::{Rows, Tree};
use super::target::Place;
use super::world::{PerDataset, World, databases};

/// The target as it was found.
#[derive(Clone)]
pub struct Found {
    pub bases: PerDataset<Place>,
    pub tree: Tree,
}

impl Found {
    pub fn of(world: &World) -> Self {
        Self { bases: world.target.bases.clone(), tree: world.target.ground.tree.clone() }
    }
}

/// Between tasks the target shows one moment of the source, and verification has found nothing.
pub fn at_rest(world: &mut World) {
    let outcome =
        world.books.migration.as_ref().map(|migration| migration.outcome.clone()).unwrap_or_default();
    if outcome.differences_found > 0 {
        world.wrong(format!("verification found differences: {:?}", outcome.differences));
    }
    if outcome.chunks_resent > 0 {
        world.wrong(format!("{} chunks were sent again", outcome.chunks_resent));
    }
    for database in databases() {
        let chunks = world.books.chunks.iter().filter(|((dataset, _), _)| *dataset == database);
        let snapshots: BTreeSet<String> =
            chunks.flat_map(|(_, held)| held).map(|(snapshot, _)| snapshot.0.clone()).collect();
        let published = published(world, &database);
        let moment = snapshots.first().map(|snapshot| world.source.history[snapshot].1.clone());
        if snapshots.len() != 1 {
            world.wrong(format!("{database}: what is held is of {snapshots:?}"));
        } else if moment != published {
            let text = difference(moment.as_ref(), published.as_ref());
            world.wrong(format!("{database} is not {snapshots:?}: {text}"));
        }
    }
}

fn published(world: &World, database: &handover_engine::name::DatasetName) -> Option<Rows> {
    world.target.bases[database].published.as_ref().map(|base| base.rows.clone())
}

fn difference(source: Option<&Rows>, target: Option<&Rows>) -> String {
    let (Some(source), Some(target)) = (source, target) else { return "one is missing".to_owned() };
    let mut out = Vec::new();
    for (name, table) in source {
        let here = target.get(name).cloned().unwrap_or_default();
        let missing = table.iter().filter(|(key, value)| here.get(key) != Some(value));
        out.extend(missing.map(|(key, _)| format!("{name}/{key} differs")));
        out.extend(
            here.keys().filter(|key| !table.contains_key(key)).map(|key| format!("{name}/{key} is too much")),
        );
    }
    out.join(", ")
}

/// The target is the source as it is now.
pub fn is_the_source(world: &mut World) {
    for database in databases() {
        let (here, there) = (published(world, &database), world.source.rows[&database].clone());
        if here.as_ref() != Some(&there) {
            let text = difference(Some(&there), here.as_ref());
            world.wrong(format!("{database} is not the source's: {text}"));
        }
    }
    let text = tree_difference(&world.source.tree, &world.target.ground.tree);
    if !text.is_empty() {
        world.wrong(format!("the tree is not the source's: {text}"));
    }
}

fn tree_difference(source: &Tree, target: &Tree) -> String {
    let mut out = Vec::new();
    for (path, node) in source {
        match target.get(path) {
            Some(here) if node.looks_like(here) => {}
            Some(_) => out.push(format!("{path} differs")),
            None => out.push(format!("{path} is missing")),
        }
    }
    out.extend(
        target.keys().filter(|path| !source.contains_key(*path)).map(|path| format!("{path} is too much")),
    );
    out.join(", ")
}

/// The end is the one that was asked for, and leaves what it promises.
pub fn at_the_end(world: &mut World, found: &Found) {
    let phase = world.books.migration.as_ref().map(|migration| migration.state.phase);
    hooks::at_the_end(world, phase);
    match phase {
        Some(Phase::Finalized) => is_the_source(world),
        Some(Phase::Aborted) => {
            for (database, before) in &found.bases {
                let here = &world.target.bases[database];
                if here.published != before.published || here.building.is_some() {
                    world.wrong(format!("{database} is not what it was before"));
                }
            }
            let text = tree_difference(&found.tree, &world.target.ground.tree);
            if !text.is_empty() {
                world.wrong(format!("the tree is not what it was before: {text}"));
            }
        }
        other => world.wrong(format!("it ends as {other:?}")),
    }
}
