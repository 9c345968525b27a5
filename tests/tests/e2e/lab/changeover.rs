//! A whole appliance changes over, on whole hosts: services, settings, certificates, licence, and the way back of all that.

use handover_tests::lab::wizard::Appliance;

const NONE: [&str; 0] = [];

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
    let sold = shop.sales(shop.pair.b()).unwrap();
    shop.pair.cli(&["abort"]).unwrap().success().unwrap();
    shop.rests_in("aborted").unwrap();
    assert_eq!(shop.flaws_at_source().unwrap(), NONE, "{}", shop.pair.logs());
    assert!(shop.sales(shop.pair.a()).unwrap() >= sold, "what was sold at the target is lost");
}
