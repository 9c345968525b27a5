//! Swaps that cut the hosts off from each other.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use handover_tests::lab::Host;
use handover_tests::lab::wizard::{Appliance, LIMIT, Rollback, UNCONFIRMED, UNRENEWED};
use handover_tests::poll::wall_ms;
use serde_json::json;

use super::appliance;
use crate::scenario::{Options, Outcome};
use crate::shell::say;

/// How long a cut-over may take whose confirmation is lost.
const UNHEARD: Duration = Duration::from_secs(60);
/// For so much longer the source stays in maintenance.
const GRACE: Duration = Duration::from_secs(30);

/// Booting with the new settings takes so long until the watch counts, or the agent; it looks once a second.
const COUNTS_WITHIN: Duration = Duration::from_secs(5);

/// Swaps that cut the hosts off from each other undo themselves on both: nobody has confirmed them, or one host has not heard of it.
pub fn dead_man(_: &Options) -> Result<Outcome> {
    let shop = appliance("dead-man", "")?;
    // What the source has confirmed it keeps until its maintenance has lasted too long; the target has found it and has twice the time since.
    let lease = UNHEARD.saturating_add(GRACE);
    let confirmation = [(UNRENEWED, lease), (UNCONFIRMED, LIMIT * 3)];
    let mut ways =
        vec![way(&shop, "confirmation", confirmation, || shop.cut_off_unheard(&["--swap"], UNHEARD))?];
    let by_hand = by_hand(&shop)?;
    shop.forget_swapped_address()?;
    for (name, link) in [("address", false), ("link", true)] {
        ways.push(way(&shop, name, [(UNCONFIRMED, LIMIT); 2], || {
            shop.follow(&["--swap"])?;
            shop.cut_off(link)
        })?);
    }
    let flaws: Vec<_> = ways.iter().flat_map(|way| way.flaws.clone()).chain(by_hand).collect();
    let in_time = ways.iter().all(Way::is_in_time);
    let of_hosts = |of: fn(&Timer) -> Duration| -> BTreeMap<_, _> {
        let ms = |timer: &Timer| of(timer).as_millis() as u64;
        ways.iter().map(|way| (way.name, way.timers.each_ref().map(ms))).collect()
    };
    let took: BTreeMap<_, _> = ways.iter().map(|way| (way.name, way.took.as_millis() as u64)).collect();
    Ok(Outcome {
        ok: flaws.is_empty() && in_time,
        figures: json!({
            "limit_ms": LIMIT.as_millis() as u64,
            "within_ms": of_hosts(|timer| timer.within),
            "rolled_back_after_ms": of_hosts(|timer| timer.found.after),
            "rebooted_within_ms": of_hosts(|timer| timer.found.reboot),
            "back_after_ms": took,
            "flaws": flaws,
        }),
    })
}

/// An abort of which the target has not heard in time: its operator takes the swap back by hand. What is not as it was before.
fn by_hand(shop: &Appliance) -> Result<Vec<String>> {
    shop.abort_unheard(&["--swap"])?;
    shop.rests_in("aborted")?;
    say("taken back by hand: the abort went on by itself");
    Ok(shop.flaws_at_source()?.into_iter().map(|flaw| format!("by hand: {flaw}")).collect())
}

/// A way of being cut off from each other, and the end of it.
struct Way {
    name: &'static str,
    /// Until both hosts were what they were before.
    took: Duration,
    /// What ended it, at the source and at the target.
    timers: [Timer; 2],
    flaws: Vec<String>,
}

impl Way {
    fn is_in_time(&self) -> bool {
        self.timers.iter().all(|timer| timer.found.after <= timer.within)
    }
}

/// What a host waits for until it takes its own settings back.
struct Timer {
    /// By its own journal.
    found: Rollback,
    /// How long it may wait.
    within: Duration,
}

/// Swaps, and is cut off. The timers of both hosts, each with what is said when it is over and how long it runs.
fn way(
    shop: &Appliance,
    name: &'static str,
    timers: [(&str, Duration); 2],
    cut_off: impl FnOnce() -> Result<Duration>,
) -> Result<Way> {
    let since_ms = wall_ms();
    let took = cut_off()?;
    say(format!("cut off ({name}): both hosts were as before after {:.1} s", took.as_secs_f64()));
    shop.rests_in("following")?;
    let timer = |host: &Host, (words, limit): (&str, Duration)| -> Result<Timer> {
        let found = shop.rollback(host, words, since_ms)?;
        say(format!("{}: {:.1} s of {:.1}", host.name(), found.after.as_secs_f64(), limit.as_secs_f64()));
        Ok(Timer { found, within: limit + COUNTS_WITHIN })
    };
    let timers = [timer(shop.pair.a(), timers[0])?, timer(shop.pair.b(), timers[1])?];
    let mut flaws: Vec<_> =
        shop.flaws_at_source()?.into_iter().map(|flaw| format!("{name}: {flaw}")).collect();
    // A link that is cut may keep one of them from rebooting at all.
    if !timers.iter().all(|timer| timer.found.booted || name == "link") {
        flaws.push(format!("{name}: a host was never booted with the settings of the other one"));
    }
    shop.pair.cli(&["abort"])?.success()?;
    shop.rests_in("aborted")?;
    Ok(Way { name, took, timers, flaws })
}
