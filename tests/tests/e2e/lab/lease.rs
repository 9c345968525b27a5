//! A target that is gone in the middle of a cut-over: the source, stopped and fenced off for it, comes back by itself.

use std::time::Duration;

use handover_tests::lab::wizard::{Appliance, Ended};
use handover_tests::poll;

/// The source stays in maintenance for so long, and half a minute more.
const MAX_DOWNTIME: Duration = Duration::from_secs(10);
/// When the source is online again, on a busy machine.
const ONLINE_WITHIN: Duration = Duration::from_secs(100);
const NONE: [&str; 0] = [];

#[test]
fn a_source_whose_target_is_gone_comes_back_by_itself() {
    let shop = Appliance::up("lease", "").unwrap();
    shop.follow(&["--licence"]).unwrap();
    shop.lose_target_after("fence", MAX_DOWNTIME).unwrap();
    let a = shop.pair.a();
    let is_active = || a.sh("systemctl is-active shop-web shop-sales || true").unwrap();
    assert_eq!(is_active().trim(), "inactive\ninactive");
    let late = "SET lock_wait_timeout = 1; INSERT INTO sale (item) VALUES ('through the fence')";
    let refused = a.exec(&["mariadb", "shop", "-e", late]);
    assert_ne!(refused.unwrap().code, Some(0), "the source is not fenced off");

    let sold = shop.sales(a).unwrap();
    poll::until("the source to be online again", ONLINE_WITHIN, || {
        Ok((is_active().trim() == "active\nactive" && shop.sales(a)? > sold + 5).then_some(()))
    })
    .unwrap();
    assert!(shop.pair.b().exec(&["true"]).is_err(), "the target was to be gone meanwhile");

    // It is back too late, and calls off what it was in the middle of.
    shop.pair.b().boot().unwrap();
    assert_eq!(shop.comes_to_rest().unwrap(), Ended::Undone);
    shop.pair.followed().unwrap();
    assert_eq!(shop.flaws_at_source().unwrap(), NONE, "{}", shop.pair.logs());
    // Nothing of it stands in the way of the next one.
    assert_eq!(shop.cut_over().unwrap(), Ended::Migrated);
    assert_eq!(shop.flaws_at_target(false).unwrap(), NONE, "{}", shop.pair.logs());
    assert_eq!(shop.differences().unwrap(), NONE);
}
