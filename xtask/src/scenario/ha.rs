//! A database with a replica is moved to a pair of new hosts, and taken back, and moved for good.

use anyhow::Result;
use handover_tests::lab::ha::Shop;
use serde_json::{Value, json};

use super::wizard::{Expected, Operation, Took};
use super::{Options, Outcome};
use crate::packages;
use crate::shell::{cargo, run_visibly, say};

/// What the wizard does where there are replicas, and by which steps of a plan. The source's primary is taken out of the round-robin hosts first of all.
const OPERATIONS: [Operation; 4] = [
    (2, "put the source into maintenance", &["withdraw", "maintain", "fence"]),
    (3, "deactivate the replica", &["deactivate"]),
    (7, "activate the replica", &["replicate"]),
    (11, "final operations", &["settle:shop", "rejoin"]),
];
/// Where the round-robin name leads while the source is in use, while nobody is, and while the target is.
const AT_SOURCE: [&str; 2] = ["another", "source"];
const AT_NEITHER: [&str; 1] = ["another"];
const AT_TARGET: [&str; 2] = ["another", "target"];

/// Moves it, looks at all four hosts, takes it back, moves it once more.
pub fn run(_: &Options) -> Result<Outcome> {
    packages::install(packages::LAB)?;
    packages::install(&[("/usr/sbin/named", "bind9"), ("nsupdate", "bind9-dnsutils")])?;
    run_visibly(&mut cargo(&["build", "--quiet", "--workspace", "--bins"]))?;
    let shop = Shop::up("ha")?;
    let mut flaws = Vec::new();
    let mut expect = |what: &str, is_so: bool| {
        if !is_so {
            flaws.push(what.to_owned());
        }
    };
    let before = shop.roles()?;
    expect("the source is a primary", is_primary(&before["source"]));
    expect("its replica runs", runs(&before["source"]));
    expect("the target is no primary", !is_primary(&before["target"]));
    expect("the round-robin name leads to the source", shop.leads_to()? == AT_SOURCE.into());

    let plan = cut_over(&shop)?;
    expect("the round-robin name leads to the target", shop.leads_to()? == AT_TARGET.into());
    let operations = Took::of(&shop.pair)?.operations(&Expected::of(&plan), &OPERATIONS);
    let every_one = operations.iter().all(|one| one["ms"].is_u64());
    let after = shop.roles_once(|roles| !is_primary(&roles["source"]))?;
    expect("the target is a primary", is_primary(&after["target"]));
    expect("the target's replica runs", runs(&after["target"]));
    shop.sell_one(shop.new_one(), "sold at the new one")?;
    shop.caught_up(shop.new_one(), shop.new_replica())?;
    let arrived = shop.has(shop.new_replica(), "sold at the new one")?;
    expect("what is written at the new primary arrives at the new replica", arrived);
    shop.sell(shop.new_one(), false)?;
    shop.caught_up(shop.new_one(), shop.new_replica())?;
    let new_pair = shop.differences(shop.new_one(), shop.new_replica())?;
    shop.sell(shop.new_one(), true)?;

    say("aborting: everything comes home");
    shop.pair.cli(&["abort"])?.success()?;
    shop.pair.rests_in("aborted")?;
    expect("the round-robin name leads to the source again", shop.leads_to()? == AT_SOURCE.into());
    shop.caught_up(shop.old(), shop.old_replica())?;
    let restored = shop.roles_once(|roles| !is_primary(&roles["target"]))?;
    expect("the source is a primary again", is_primary(&restored["source"]));
    expect("its replica has what was sold meanwhile", shop.has(shop.old_replica(), "sold at the new one")?);
    let left = shop.new_replica().sh("mariadb -N -e \"SHOW DATABASES LIKE 'shop%'; SHOW SLAVE STATUS\"")?;
    expect("nothing is left on the target's replica", left.trim().is_empty());
    shop.sell(shop.old(), false)?;
    shop.caught_up(shop.old(), shop.old_replica())?;
    let old_pair = shop.differences(shop.old(), shop.old_replica())?;
    shop.sell(shop.old(), true)?;

    say("moving it for good");
    cut_over(&shop)?;
    shop.pair.cli(&["accept"])?.success()?;
    shop.pair.rests_in("accepted")?;
    shop.pair.cli(&["finalize"])?.success()?;
    shop.pair.rests_in("finalized")?;
    shop.sell(shop.new_one(), false)?;
    shop.caught_up(shop.new_one(), shop.new_replica())?;
    let finally = shop.roles()?;
    expect("the round-robin name leads to the target for good", shop.leads_to()? == AT_TARGET.into());
    expect("replication goes on", runs(&finally["target"]));
    let for_good = shop.differences(shop.new_one(), shop.new_replica())?;
    let kept = shop.new_replica().sh("mariadb -N -e \"SHOW DATABASES LIKE '%handover%'\"")?;
    expect("nothing is kept on the replica", kept.trim().is_empty());

    let differences = new_pair + old_pair + for_good;
    let link = &after["target"]["replica"]["role"]["follows"][0];
    Ok(Outcome {
        ok: flaws.is_empty() && differences == 0 && every_one,
        figures: json!({
            "operations": operations,
            "roles": { "before": shown(&before), "after": shown(&after), "aborted": shown(&restored), "finalized": shown(&finally) },
            "replica_running": link["running"],
            "seconds_behind": link["behind_seconds"],
            "arrived": arrived,
            "differences": { "new_pair": new_pair, "old_pair_after_abort": old_pair, "new_pair_for_good": for_good },
            "flaws": flaws,
        }),
    })
}

/// Cuts over, and sees the source taken out of the round-robin hosts meanwhile. The plan by which.
fn cut_over(shop: &Shop) -> Result<Value> {
    let plan = shop.pair.follow(&[])?;
    say("cutting over");
    shop.pair.cli(&["cutover", "--max-downtime", "60"])?.success()?;
    shop.leads_once_to(&AT_NEITHER)?;
    shop.pair.rests_in("trial")?;
    // The replica is set up, and the name changed, while the target is in use.
    shop.leads_once_to(&AT_TARGET)?;
    Ok(plan)
}

fn is_primary(side: &Value) -> bool {
    side["role"]["replicas"].as_array().is_some_and(|replicas| !replicas.is_empty())
}

fn runs(side: &Value) -> bool {
    side["replica"]["role"]["follows"][0]["running"] == true && side["problem"].is_null()
}

/// What part each server plays, in a word.
fn shown(roles: &Value) -> Value {
    let role = |role: &Value| match (role["replicas"].as_array().map(Vec::len), &role["follows"][0]["of"]) {
        (_, Value::String(of)) => json!(format!("replica of {of}")),
        (Some(0), _) => json!("stand-alone"),
        (Some(count), _) => json!(format!("primary of {count}")),
        (None, _) => Value::Null,
    };
    let side =
        |side: &Value| json!({ "server": role(&side["role"]), "replica": role(&side["replica"]["role"]) });
    json!({ "source": side(&roles["source"]), "target": side(&roles["target"]) })
}
