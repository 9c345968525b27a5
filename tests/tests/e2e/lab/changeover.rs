//! A whole appliance changes over, on whole hosts: services, settings, certificates, licence, and the way back of all that.

use std::fs;
use std::time::Duration;

use handover_tests::lab::wizard::Appliance;
use handover_tests::poll;
use serde_json::Value;

const NONE: [&str; 0] = [];
const WITHIN: Duration = Duration::from_secs(120);
/// What the web server says when it does not come up; those that come before it are at work by then.
const SAYS: &str = "the till is missing";

/// From now on the target's web server does not come up, or does so again.
fn set_broken(shop: &Appliance, is_broken: bool) {
    let host = shop.pair.b();
    let drop_in = host.root().join("etc/systemd/system/shop-web.service.d");
    if is_broken {
        fs::create_dir_all(&drop_in).unwrap();
        let text = format!("[Service]\nExecStartPre=/bin/sh -c 'sleep 1; echo {SAYS}; exit 1'\n");
        fs::write(drop_in.join("broken.conf"), text).unwrap();
    } else {
        fs::remove_dir_all(&drop_in).unwrap();
    }
    host.sh("systemctl daemon-reload; systemctl reset-failed").unwrap();
}

/// Whether a failure is that of the web server, with what it has said.
fn is_of_web(failure: &Value) -> bool {
    let what = failure["what"].as_str().unwrap_or_default();
    failure["item"] == "service shop-web.service" && what.contains(SAYS)
}

#[test]
fn an_appliance_moves_with_its_services_and_comes_back() {
    let shop = Appliance::up("services", "").unwrap();
    shop.follow(&["--licence"]).unwrap();
    shop.pair.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    shop.rests_in("trial").unwrap();
    assert_eq!(shop.flaws_at_target(false).unwrap(), NONE, "{}", shop.pair.logs());
    shop.pair.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(shop.flaws_at_source().unwrap(), NONE, "{}", shop.pair.logs());
}

#[test]
fn hosts_exchange_names_and_addresses_and_take_them_back() {
    let shop = Appliance::up("swap", "").unwrap();
    shop.follow(&["--licence", "--swap"]).unwrap();
    shop.pair.cli(&["cutover", "--max-downtime", "300"]).unwrap().success().unwrap();
    shop.rests_in("trial").unwrap();
    assert_eq!(shop.flaws_at_target(true).unwrap(), NONE, "{}", shop.pair.logs());
    assert_eq!(shop.log_flaws().unwrap(), NONE, "{}", shop.pair.logs());
    let sold = shop.sales(shop.pair.b()).unwrap();
    shop.pair.cli(&["abort"]).unwrap().success().unwrap();
    shop.rests_in("aborted").unwrap();
    assert_eq!(shop.flaws_at_source().unwrap(), NONE, "{}", shop.pair.logs());
    assert!(shop.sales(shop.pair.a()).unwrap() >= sold, "what was sold at the target is lost");
}

#[test]
fn a_service_that_does_not_come_up_is_left_to_the_operator_or_undone() {
    let shop = Appliance::up("broken", "").unwrap();
    let pair = &shop.pair;
    // What is sold at the target is told from what is sold at the source.
    pair.b().sh("sed -i 's/now(6)/hex(255)/' /etc/systemd/system/shop-sales.service").unwrap();
    set_broken(&shop, true);
    shop.follow(&["--licence"]).unwrap();
    pair.cli(&["cutover"]).unwrap().success().unwrap();
    let failed = poll::until("the cut-over to stop", WITHIN, || {
        let status = shop.status()?;
        Ok((status["condition"] == "failed").then_some(status))
    })
    .unwrap();
    assert_eq!(failed["phase"], "cutting_over", "{failed}");
    assert!(is_of_web(&failed["failure"]), "{failed}");
    set_broken(&shop, false);
    pair.cli(&["resume", "--watch"]).unwrap().success().unwrap();
    shop.rests_in("trial").unwrap();
    assert_eq!(shop.flaws_at_target(false).unwrap(), NONE, "{}", pair.logs());
    pair.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(shop.flaws_at_source().unwrap(), NONE, "{}", pair.logs());

    shop.follow(&["--licence", "--on-failure", "undo"]).unwrap();
    let of_target = "mariadb -N shop -e \"SELECT count(*) FROM sale WHERE item = 'FF'\"";
    let sold = || pair.a().sh(of_target).unwrap().trim().parse::<u64>().unwrap();
    let before = sold();
    set_broken(&shop, true);
    let undone = pair.cli(&["cutover", "--watch"]).unwrap();
    assert_eq!(undone.code, Some(3), "{}", undone.text());
    let status = shop.rests_in("aborted").unwrap();
    assert!(is_of_web(&status["undone_because"]), "{status}");
    assert_eq!(shop.flaws_at_source().unwrap(), NONE, "{}", pair.logs());
    assert!(sold() > before, "what was sold at the target is lost");
}
