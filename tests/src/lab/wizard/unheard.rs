//! A swap of which one host has heard what the other has not: that all is well, or that it is taken back.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Appliance, TAKES_OVER_WITHIN};
use crate::lab::{Host, Shape};
use crate::poll;

/// How long an answer is on its way: long enough to cut the link meanwhile.
const DELAY_MS: u64 = 200;

impl Appliance {
    /// Cuts over, within such a time, and cuts the link once the source has confirmed the swap and the target does not know it yet. How long
    /// the hosts took to be what they were before, each by itself; then the link is whole again.
    pub fn cut_off_unheard(&self, max_downtime: Duration) -> Result<Duration> {
        self.pair.cli(&["cutover", "--max-downtime", &max_downtime.as_secs().to_string()])?.success()?;
        self.seen("configure")?;
        self.pair.lab.shape(&Shape { delay_ms: DELAY_MS, ..Shape::default() })?;
        let confirmed = poll::until("the source to confirm the swap", TAKES_OVER_WITHIN, || {
            Ok((standing(self.a(), "source")? == "confirmed").then_some(()))
        });
        confirmed.with_context(|| self.pair.logs())?;
        self.pair.lab.shape(&Shape { cut: true, ..Shape::default() })?;
        let began = Instant::now();
        poll::pause(Duration::from_millis(2 * DELAY_MS));
        let heard = standing(self.b(), "target")?;
        ensure!(heard == "up", "the link was cut too late: the target's swap is {heard}");
        let both = || Ok(self.identity_flaws(false).is_ok_and(|flaws| flaws.is_empty()).then_some(()));
        poll::until("both hosts to be what they were", TAKES_OVER_WITHIN, both)
            .with_context(|| self.pair.logs())?;
        let took = began.elapsed();
        self.pair.lab.shape(&Shape::default())?;
        Ok(took)
    }

    /// Cuts over and aborts, and crashes the target once the source has noted that it takes its own settings back and the target does not know it yet; for
    /// so long that both have the source's address. Then the target's operator takes the swap back by hand.
    pub fn abort_unheard(&self) -> Result<()> {
        self.pair.cli(&["cutover", "--max-downtime", "300"])?.success()?;
        self.rests_in("trial")?;
        self.pair.lab.shape(&Shape { delay_ms: DELAY_MS, ..Shape::default() })?;
        self.pair.cli(&["abort"])?.success()?;
        poll::until("the source to take its settings back", TAKES_OVER_WITHIN, || {
            Ok((standing(self.a(), "source")? == "rolled_back").then_some(()))
        })?;
        self.b().crash()?;
        let heard = standing(self.b(), "target")?;
        ensure!(heard == "confirmed", "the target crashed too late: its swap is {heard}");
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
