//! What strikes a migration of the appliance, and how it ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Appliance, LIMIT, TAKES_OVER_WITHIN};
use crate::lab::Shape;
use crate::poll;

/// For how long the link is cut: shorter than the hosts wait for each other.
const CUT: Duration = Duration::from_secs(3);
/// While it is copied and struck: steps take long enough to be struck after each of them.
const SLOW: Shape = Shape { delay_ms: 20, rate: 0, loss: 0.0, cut: false };

/// What strikes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The source crashes, and boots.
    Source,
    /// The target crashes, and boots.
    Target,
    /// The link is cut for some seconds.
    Link,
    /// The link is cut for longer than the hosts wait for each other.
    LongCut,
}

impl Blow {
    /// Those that last for some seconds.
    pub const SHORT: [Blow; 3] = [Blow::Source, Blow::Target, Blow::Link];
}

/// How a cut-over that was struck has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The target has taken over.
    Migrated,
    /// It was called off, and the source is in use.
    Undone,
}

impl Appliance {
    /// Copies it with these options, and strikes once each of these steps is done. Returns when the target follows, by itself.
    pub fn copied(&self, options: &[&str], strikes: &[(&str, Blow)]) -> Result<()> {
        let plan = self.pair.plan(options)?;
        self.pair.lab.shape(&SLOW)?;
        self.pair.start(&plan)?;
        for (step, blow) in strikes {
            self.strikes_after(step, *blow, &SLOW)?;
        }
        self.pair.lab.shape(&Shape::default())?;
        let ended =
            self.comes_to_rest().with_context(|| format!("struck while it was copied: {strikes:?}"))?;
        ensure!(ended == Ended::Undone, "nobody has asked for a cut-over");
        self.pair.followed()
    }

    /// Cuts over, strikes once a step of that is done, and waits until the migration has come to rest again, by itself.
    pub fn struck(&self, step: &str, blow: Blow) -> Result<Ended> {
        self.pair.cli(&["cutover", "--max-downtime", "300"])?.success()?;
        self.strikes_after(step, blow, &Shape::default())?;
        self.comes_to_rest().with_context(|| format!("struck by {blow:?} after {step}"))
    }

    /// Cuts over, and is not struck.
    pub fn cut_over(&self) -> Result<Ended> {
        self.pair.cli(&["cutover", "--max-downtime", "300"])?.success()?;
        self.comes_to_rest()
    }

    /// Takes it back, is struck meanwhile, and ends nevertheless.
    pub fn abort_struck(&self, blow: Blow) -> Result<()> {
        self.pair.cli(&["abort"])?.success()?;
        let phase = self.status()?["phase"].take();
        ensure!(phase == "aborting", "the strike came too late: {phase}");
        self.strike(blow, &Shape::default())?;
        self.rests_in("aborted")
            .with_context(|| format!("struck by {blow:?} while it was taken back"))
            .map(drop)
    }

    /// Accepts it, and strikes once each of these steps is done.
    pub fn accepted(&self, strikes: &[(&str, Blow)]) -> Result<()> {
        self.pair.cli(&["accept"])?.success()?;
        for (step, blow) in strikes {
            self.strikes_after(step, *blow, &Shape::default())?;
        }
        let over = poll::until("what comes with accepting to be done", TAKES_OVER_WITHIN, || {
            let Ok(status) = self.status() else { return Ok(None) };
            ensure!(status["condition"] == "good", "{status}");
            Ok((status["phase"] == "accepted" && status["activity"] == "idle").then_some(()))
        });
        over.with_context(|| format!("struck when it was accepted: {strikes:?}\n{}", self.pair.logs()))
    }

    /// Cuts over within such a time, and crashes the target, for good, once a step of that is done.
    pub fn lose_target_after(&self, step: &str, max_downtime: Duration) -> Result<()> {
        self.pair.cli(&["cutover", "--max-downtime", &max_downtime.as_secs().to_string()])?.success()?;
        ensure!(self.seen(step)?, "{step} was never done\n{}", self.pair.logs());
        self.b().crash()
    }

    /// Waits until the target follows, or has taken over.
    pub fn comes_to_rest(&self) -> Result<Ended> {
        let mut last = Value::Null;
        let ended = poll::until("the migration to come to rest", TAKES_OVER_WITHIN, || {
            let Ok(status) = self.status() else { return Ok(None) };
            last = status;
            ensure!(last["condition"] == "good", "{last}");
            Ok(match (last["phase"].as_str(), last["activity"].as_str()) {
                (Some("trial"), _) => Some(Ended::Migrated),
                (Some("following"), Some("following")) => Some(Ended::Undone),
                _ => None,
            })
        });
        ended.with_context(|| format!("{last}\n{}", self.pair.logs()))
    }

    fn strikes_after(&self, step: &str, blow: Blow, link: &Shape) -> Result<()> {
        ensure!(self.seen(step)?, "{step} was never done\n{}", self.pair.logs());
        self.strike(blow, link)
    }

    /// Strikes; the link is like this around a cut.
    fn strike(&self, blow: Blow, link: &Shape) -> Result<()> {
        let cut = |time| {
            self.pair.lab.shape(&Shape { cut: true, ..*link })?;
            poll::pause(time);
            self.pair.lab.shape(link)
        };
        match blow {
            Blow::Source => self.a().crash().and_then(|()| self.a().boot()),
            Blow::Target => {
                self.b().crash().and_then(|()| self.b().boot())?;
                // Whoever goes on asks it.
                poll::until("the target's agent", TAKES_OVER_WITHIN, || Ok(self.status().ok())).map(drop)
            }
            Blow::Link => cut(CUT),
            Blow::LongCut => cut(LIMIT + CUT),
        }
    }
}
