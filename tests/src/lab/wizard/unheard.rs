//! A swap of which one host has heard what the other has not: that all is well, or that it is taken back.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Appliance, TAKES_OVER_WITHIN};
use crate::lab::{Host, Shape};
use crate::poll;

/// How long an answer is on its way: long enough to cut the link meanwhile, on a busy machine too.
const DELAY_MS: u64 = 600;
/// How often it is tried until an answer is caught on its way.
const TRIES: u32 = 4;

impl Appliance {
    /// Cuts over with a swap that cuts the hosts off from each other; for how long they were not what they were before, once they are
    /// again. With a cut link they are cut off in any case, and it is whole again only after that.
    pub fn cut_off(&self, link: bool) -> Result<Duration> {
        self.pair.cli(&["cutover", "--max-downtime", "300"])?.success()?;
        ensure!(self.seen("configure")?, "nothing was configured: {}", self.pair.logs());
        let began = Instant::now();
        self.pair.lab.shape(&Shape { cut: link, ..Shape::default() })?;
        for (host, side) in [(self.a(), "source"), (self.b(), "target")] {
            poll::until(&format!("the {side} to take its settings back"), TAKES_OVER_WITHIN, || {
                Ok((standing(host, side)? == "rolled_back").then_some(()))
            })
            .with_context(|| self.pair.logs())?;
        }
        self.are_themselves()?;
        let took = began.elapsed();
        self.pair.lab.shape(&Shape::default())?;
        Ok(took)
    }

    /// Waits until both hosts are what they were.
    fn are_themselves(&self) -> Result<()> {
        let both = || Ok(self.identity_flaws(false).is_ok_and(|flaws| flaws.is_empty()).then_some(()));
        poll::until("both hosts to be what they were", TAKES_OVER_WITHIN, both)
            .with_context(|| self.pair.logs())
    }

    /// Copies with these options and cuts over, within such a time, and cuts the link once the source has confirmed the swap and the target
    /// does not know it yet. How long the hosts took to be what they were before, each by itself; then the link is whole again.
    pub fn cut_off_unheard(&self, options: &[&str], max_downtime: Duration) -> Result<Duration> {
        for _ in 0..TRIES {
            self.follow(options)?;
            if let Some(began) = self.confirmation_lost(max_downtime)? {
                self.are_themselves()?;
                let took = began.elapsed();
                self.pair.lab.shape(&Shape::default())?;
                return Ok(took);
            }
            self.pair.lab.shape(&Shape::default())?;
            self.rests_in("trial")?;
            self.pair.cli(&["abort"])?.success()?;
            self.rests_in("aborted")?;
        }
        bail!("the target has heard of the confirmation before the link was cut, {TRIES} times")
    }

    /// Since when the link is cut; none if the target had heard before. It is confirmed then.
    fn confirmation_lost(&self, max_downtime: Duration) -> Result<Option<Instant>> {
        self.pair.cli(&["cutover", "--max-downtime", &max_downtime.as_secs().to_string()])?.success()?;
        ensure!(self.seen("configure")?, "nothing was configured: {}", self.pair.logs());
        self.pair.lab.shape(&Shape { delay_ms: DELAY_MS, ..Shape::default() })?;
        let confirmed = poll::until("the source to confirm the swap", TAKES_OVER_WITHIN, || {
            Ok((standing(self.a(), "source")? == "confirmed").then_some(()))
        });
        confirmed.with_context(|| self.pair.logs())?;
        self.pair.lab.shape(&Shape { cut: true, ..Shape::default() })?;
        let began = Instant::now();
        // Nothing is on its way any more after that.
        poll::pause(Duration::from_millis(2 * DELAY_MS));
        Ok((standing(self.b(), "target")? == "up").then_some(began))
    }

    /// Copies with these options, cuts over and aborts, and crashes the target once the source has noted that it takes its own settings back and the
    /// target does not know it yet; for so long that both have the source's address. Then the target's operator takes the swap back by hand.
    pub fn abort_unheard(&self, options: &[&str]) -> Result<()> {
        for _ in 0..TRIES {
            self.follow(options)?;
            if self.crashed_unheard()? {
                return self.taken_back_by_hand();
            }
            // It knows: it goes on by itself.
            self.b().boot()?;
            self.pair.lab.shape(&Shape::default())?;
            self.rests_in("aborted")?;
        }
        bail!("the target has heard of it before it crashed, {TRIES} times")
    }

    /// Whether the target has crashed before it knew.
    fn crashed_unheard(&self) -> Result<bool> {
        self.pair.cli(&["cutover", "--max-downtime", "300"])?.success()?;
        self.rests_in("trial")?;
        self.pair.lab.shape(&Shape { delay_ms: DELAY_MS, ..Shape::default() })?;
        self.pair.cli(&["abort"])?.success()?;
        poll::until("the source to take its settings back", TAKES_OVER_WITHIN, || {
            Ok((standing(self.a(), "source")? == "rolled_back").then_some(()))
        })?;
        self.b().crash()?;
        Ok(standing(self.b(), "target")? == "confirmed")
    }

    fn taken_back_by_hand(&self) -> Result<()> {
        let named = |host: &Host, name: &str| {
            Ok((host.sh("hostname").is_ok_and(|is| is.trim() == name)).then_some(()))
        };
        poll::until("the source to boot as itself", TAKES_OVER_WITHIN, || named(self.a(), "a"))?;
        self.b().boot()?;
        self.pair.lab.shape(&Shape::default())?;
        named(self.b(), "a")?.context("the target has its own name already")?;
        // The host goes down with it.
        let _ = self.b().exec(&["handover-target", "--own-settings"])?;
        poll::until("the target to boot as itself", TAKES_OVER_WITHIN, || named(self.b(), "b"))
    }
}

/// How a host's swap stands, by its record; empty where there is none.
fn standing(host: &Host, side: &str) -> Result<String> {
    let kept = host.root().join("var/lib/handover").join(side).join("changeover");
    for entry in fs::read_dir(&kept).into_iter().flatten() {
        // It is put in place as a whole; what is not there is no swap.
        let Ok(record) = fs::read(entry?.path().join("swap.json")) else { continue };
        let record: Value = serde_json::from_slice(&record)?;
        return Ok(record["standing"].as_str().unwrap_or_default().to_owned());
    }
    Ok(String::new())
}
