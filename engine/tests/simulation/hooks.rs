//! Hooks in memory: each host notes what it is told; answers are lost.

use async_trait::async_trait;
use handover_engine::phase::Phase;
use handover_engine::ports::Result;
use handover_engine::ports::hooks::{Hooks, Moment, Occasion};

use super::world::{Port, Site, World};

/// One host's hooks.
pub struct HookPort {
    pub port: Port,
    /// At the source.
    pub there: bool,
}

#[async_trait]
impl Hooks for HookPort {
    async fn run(&self, occasion: &Occasion) -> Result<Vec<String>> {
        let moment = occasion.moment;
        let (site, side) = if self.there { (Site::Source, "source") } else { (Site::Read, "target") };
        self.port.with(|world| {
            // What an agent that has crashed would still do does not happen.
            if world.life == self.port.life {
                world.moments.push((self.there, moment));
                world.say(format!("the {side} is told {moment}"));
            }
        });
        self.port.step(site, &format!("hooks at the {side}")).await?;
        Ok(Vec::new())
    }
}

/// Whatever failed and crashed meanwhile: every moment was told, at both hosts, in order.
pub fn at_the_end(world: &mut World, phase: Option<Phase>) {
    let last = match phase {
        Some(Phase::Finalized) => Moment::AfterFinalize,
        _ => Moment::AfterAbort,
    };
    for there in [true, false] {
        let told = world.moments.iter().filter(|(side, _)| *side == there).map(|(_, moment)| *moment);
        let told: Vec<Moment> = told.collect();
        if told.last() != Some(&last) {
            world.wrong(format!("the last that was told is {:?}, not {last}", told.last()));
        }
        // An abort may come before anything was begun.
        let has_begun = told.iter().any(|moment| *moment != Moment::AfterAbort);
        if has_begun && told.first() != Some(&Moment::BeforeStart) {
            world.wrong(format!("the first that was told is {:?}", told.first()));
        }
        let first = |wanted| told.iter().position(|moment| *moment == wanted);
        let order =
            [Moment::BeforeStart, Moment::AfterCopy, Moment::BeforePublish, Moment::AfterPublish].map(first);
        if phase == Some(Phase::Finalized) && (order.contains(&None) || !order.is_sorted()) {
            world.wrong(format!("moments were told in this order: {told:?}"));
        }
    }
}
