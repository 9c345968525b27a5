//! Units in memory, which fail, hang and start by themselves as they are told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::boot::{BootClock, Moment};
use crate::units::{UnitState, Units};

/// How a unit takes being started and stopped.
#[derive(Debug, Clone, Default)]
pub struct Nature {
    /// Being started, it fails.
    pub fails: bool,
    /// Being started, it never gets further than `activating`.
    pub hangs: bool,
    /// Being stopped, it starts again by itself, so often.
    pub returns: usize,
}

#[derive(Default)]
struct World {
    units: BTreeMap<String, (UnitState, Nature)>,
    done: Vec<String>,
    cut: Option<(usize, bool)>,
    /// Where the files of units lie.
    files: Option<PathBuf>,
    /// Nothing can be sealed off.
    lacks_seals: bool,
}

/// Where acts are cut short, and what was done by then.
#[derive(Default)]
pub struct Fake {
    world: Mutex<World>,
    /// It hangs at an act that was to be cut.
    pub is_cut: Notify,
}

impl Fake {
    /// Units by name, whether they run, and their file's state.
    pub fn new(units: &[(&str, &str, &str)]) -> Self {
        let fake = Self::default();
        for (unit, active, file) in units {
            let state = UnitState {
                id: (*unit).to_owned(),
                load: "loaded".into(),
                active: (*active).to_owned(),
                sub: "some".into(),
                file: (*file).to_owned(),
                result: "success".into(),
                ..UnitState::default()
            };
            fake.world().units.insert((*unit).to_owned(), (state, Nature::default()));
        }
        fake
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Files of units lie there.
    pub fn with_files(&self, directory: PathBuf) {
        self.world().files = Some(directory);
    }

    /// Its kernel seals nothing off.
    pub fn lack_seals(&self) {
        self.world().lacks_seals = true;
    }

    /// Changes how a unit is.
    pub fn set(&self, unit: &str, change: impl FnOnce(&mut UnitState, &mut Nature)) {
        let mut world = self.world();
        let (state, nature) = world.units.get_mut(unit).unwrap();
        change(state, nature);
    }

    /// From now on: the act of this number hangs, before it does anything or after.
    pub fn cut_at(&self, cut: Option<(usize, bool)>) {
        let mut world = self.world();
        world.done.clear();
        world.cut = cut;
    }

    /// What was done since: `stop a`, `disable a b`…
    pub fn done(&self) -> Vec<String> {
        self.world().done.clone()
    }

    /// Units by name, whether they run, and their file's state.
    pub fn all(&self) -> Vec<(String, String, String)> {
        let world = self.world();
        world.units.values().map(|(s, _)| (s.id.clone(), s.active.clone(), s.file.clone())).collect()
    }

    /// Counts an act; whether it hangs, and whether then after it is done.
    fn count(&self, act: String) -> Option<bool> {
        let mut world = self.world();
        world.done.push(act);
        world.cut.filter(|(at, _)| *at + 1 == world.done.len()).map(|(_, is_after)| is_after)
    }

    async fn act(&self, act: String, change: impl FnOnce(&Self) -> Result<()> + Send) -> Result<()> {
        let cut = self.count(act);
        if cut == Some(false) {
            self.hang().await;
        }
        let done = change(self);
        if cut == Some(true) {
            self.hang().await;
        }
        done
    }

    async fn hang(&self) {
        self.is_cut.notify_one();
        std::future::pending::<()>().await;
    }

    fn files(&self, units: &[&str], file: &str) -> Result<()> {
        for unit in units {
            self.set(unit, |state, _| file.clone_into(&mut state.file));
        }
        Ok(())
    }
}

#[async_trait]
impl Units for Fake {
    async fn look(&self, unit: &str) -> Result<UnitState> {
        tokio::task::yield_now().await;
        let none = UnitState { load: "not-found".into(), active: "inactive".into(), ..UnitState::default() };
        Ok(self.world().units.get(unit).map_or(none, |(state, _)| state.clone()))
    }

    async fn start(&self, unit: &str, _limit: Duration) -> Result<()> {
        let change = |fake: &Self| {
            fake.set(unit, |state, nature| {
                let active = if nature.fails {
                    "failed"
                } else if nature.hangs {
                    "activating"
                } else {
                    "active"
                };
                active.clone_into(&mut state.active);
            });
            Ok(())
        };
        self.act(format!("start {unit}"), change).await
    }

    async fn stop(&self, unit: &str, limit: Duration) -> Result<()> {
        let change = |fake: &Self| {
            let mut hangs = false;
            fake.set(unit, |state, nature| {
                hangs = nature.hangs;
                let stays = hangs || nature.returns > 0;
                nature.returns = nature.returns.saturating_sub(1);
                if stays { "active" } else { "inactive" }.clone_into(&mut state.active);
            });
            let late = || Failure::operator(unit, format!("it did not stop within {} s", limit.as_secs()));
            if hangs { Err(late()) } else { Ok(()) }
        };
        self.act(format!("stop {unit}"), change).await
    }

    async fn enable(&self, units: &[&str], only_this_boot: bool) -> Result<()> {
        let file = if only_this_boot { "enabled-runtime" } else { "enabled" };
        self.act(format!("enable {}", units.join(" ")), |fake| fake.files(units, file)).await
    }

    async fn disable(&self, units: &[&str], _only_this_boot: bool) -> Result<()> {
        self.act(format!("disable {}", units.join(" ")), |fake| fake.files(units, "disabled")).await
    }

    async fn reload(&self) -> Result<()> {
        let change = |fake: &Self| {
            let mut world = fake.world();
            let Some(files) = world.files.clone() else { return Ok(()) };
            for (unit, (state, _)) in &mut world.units {
                let found = std::fs::read_dir(files.join(format!("{unit}.d"))).into_iter().flatten();
                state.drop_ins = found.map(|entry| entry.unwrap().path().display().to_string()).collect();
            }
            Ok(())
        };
        self.act("reload".to_owned(), change).await
    }

    async fn can_seal(&self) -> Result<bool> {
        Ok(!self.world().lacks_seals)
    }

    async fn last_lines(&self, unit: &str) -> Vec<String> {
        vec![format!("{unit} says why")]
    }
}

/// A boot that is as old as tokio's clock and what is added to it.
pub struct FakeBoot {
    began: Instant,
    now: Mutex<(u32, Duration)>,
}

impl FakeBoot {
    pub fn new() -> Self {
        Self { began: Instant::now(), now: Mutex::default() }
    }

    /// Sets how old it is at least.
    pub fn add(&self, more: Duration) {
        self.now.lock().unwrap().1 += more;
    }

    /// It is another boot.
    pub fn reboot(&self) {
        self.now.lock().unwrap().0 += 1;
    }
}

impl BootClock for FakeBoot {
    fn now(&self) -> Moment {
        let (boot, added) = *self.now.lock().unwrap();
        Moment { boot: boot.to_string(), since: self.began.elapsed() + added }
    }
}
