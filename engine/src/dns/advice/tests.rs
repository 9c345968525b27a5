//! Tables of advice.

use super::*;

const OLD: &str = "192.0.2.10";
const NEW: &str = "192.0.2.20";

fn appliance(host_name: &str, addresses: &str) -> ApplianceFacts {
    ApplianceFacts {
        host_name: host_name.to_owned(),
        domain: "example.net".to_owned(),
        addresses: addresses.split_whitespace().map(str::to_owned).collect(),
        ..ApplianceFacts::default()
    }
}

fn facts(services: &str, round_robin: &str, zone: &[&str]) -> DnsFacts {
    let names = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    let set = |line: &&str| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap().to_owned();
        let kind =
            RecordKind::ALL.into_iter().find(|kind| kind.to_string() == *words.clone().next().unwrap());
        let values = words.skip(1).map(str::to_owned).collect();
        RecordSet { name, kind: kind.unwrap(), ttl: 3600, values }
    };
    DnsFacts {
        server: "192.0.2.53:53".to_owned(),
        automatic: false,
        service_names: names(services),
        round_robin: names(round_robin),
        ttl: Some(60),
        records: zone.iter().map(set).collect(),
        problem: None,
    }
}

fn advice(hosts: (&str, &str), facts: &DnsFacts, swap: bool) -> Result<String, String> {
    let (source, target) = (appliance("old", hosts.0), appliance("New.example.net", hosts.1));
    let advice = advise(&source, &target, facts, swap).map_err(|failure| failure.to_string())?;
    let line = |change: &RecordChange| {
        change.lines().into_iter().map(move |line| format!("{:?} {line}", change.at)).collect::<Vec<_>>()
    };
    Ok(advice.changes.iter().flat_map(line).collect::<Vec<_>>().join("\n"))
}

#[test]
fn records_follow_the_appliance() {
    let table = [
        (
            "what leads to the source leads to the target",
            facts("www.", "", &["www. A 192.0.2.10"]),
            false,
            "Cutover - www. 3600 IN A 192.0.2.10\nCutover + www. 60 IN A 192.0.2.20",
        ),
        (
            "other records stay",
            facts("www.", "", &["www. A 192.0.2.10 192.0.2.99"]),
            false,
            "Cutover - www. 3600 IN A 192.0.2.10\nCutover + www. 60 IN A 192.0.2.20",
        ),
        (
            "an alias of the host",
            facts("www.", "", &["www. CNAME old.example.net."]),
            false,
            "Cutover - www. 3600 IN CNAME old.example.net.\nCutover + www. 60 IN CNAME new.example.net.",
        ),
        (
            "an alias of a name that follows",
            facts("www. api.", "", &["www. A 192.0.2.10", "api. CNAME www."]),
            false,
            "Cutover - www. 3600 IN A 192.0.2.10\nCutover + www. 60 IN A 192.0.2.20",
        ),
        ("changed already", facts("www.", "", &["www. A 192.0.2.20"]), false, ""),
        ("addresses are swapped", facts("www.", "", &["www. A 192.0.2.10"]), true, ""),
        (
            "a host among others",
            facts("", "pool.", &["pool. A 192.0.2.10 192.0.2.11"]),
            false,
            "Before - pool. 3600 IN A 192.0.2.10\nEnd + pool. 60 IN A 192.0.2.20",
        ),
        (
            "a host among others, swapped",
            facts("", "pool.", &["pool. A 192.0.2.10 192.0.2.11"]),
            true,
            "Before - pool. 3600 IN A 192.0.2.10\nEnd + pool. 60 IN A 192.0.2.10",
        ),
        (
            "taken out already",
            facts("", "pool.", &["pool. A 192.0.2.11"]),
            false,
            "End + pool. 60 IN A 192.0.2.20",
        ),
        (
            "the target is among them",
            facts("", "pool.", &["pool. A 192.0.2.10 192.0.2.20"]),
            false,
            "Before - pool. 3600 IN A 192.0.2.10",
        ),
    ];
    for (what, facts, swap, expected) in table {
        assert_eq!(advice((OLD, NEW), &facts, swap).as_deref(), Ok(expected), "{what}");
    }
}

#[test]
fn both_families_follow() {
    let zone = ["www. A 192.0.2.10", "www. AAAA 2001:db8::10"];
    let table = [
        (
            "192.0.2.20 2001:db8::20",
            "Cutover - www. 3600 IN A 192.0.2.10\nCutover + www. 60 IN A 192.0.2.20\nCutover - www. 3600 IN AAAA 2001:db8::10\nCutover + www. 60 IN AAAA 2001:db8::20",
        ),
        (
            "192.0.2.20",
            "Cutover - www. 3600 IN A 192.0.2.10\nCutover + www. 60 IN A 192.0.2.20\nCutover - www. 3600 IN AAAA 2001:db8::10",
        ),
    ];
    for (target, expected) in table {
        let found = advice(("192.0.2.10 2001:db8::10", target), &facts("www.", "", &zone), false);
        assert_eq!(found.as_deref(), Ok(expected));
    }
}

#[test]
fn what_cannot_be_right_is_refused_by_name() {
    let table = [
        (OLD, NEW, facts("www.", "", &[]), "dns www: 192.0.2.53:53 has no address of it"),
        (
            OLD,
            NEW,
            facts("www.", "", &["www. A 203.0.113.9"]),
            "dns www: it leads to 203.0.113.9, which is neither",
        ),
        (
            OLD,
            NEW,
            facts("www.", "", &["www. CNAME cdn.example.org."]),
            "dns www: it leads to cdn.example.org.",
        ),
        (OLD, "2001:db8::20", facts("www.", "", &["www. A 192.0.2.10"]), "dns www: the target's `addresses`"),
        (
            OLD,
            NEW,
            facts("", "pool.", &["pool. A 192.0.2.10"]),
            "dns pool: without the source it would have no address",
        ),
        (OLD, NEW, facts("", "pool.", &["pool. CNAME old.example.net."]), "dns pool: it is an alias"),
        (
            "",
            NEW,
            facts("www.", "", &["www. A 192.0.2.10"]),
            "dns: the source's manifest says no `addresses`",
        ),
        (OLD, "new", facts("www.", "", &["www. A 192.0.2.10"]), "dns: `new` of the target's `addresses`"),
    ];
    for (source, target, facts, expected) in table {
        let told = advice((source, target), &facts, false).unwrap_err();
        assert!(told.starts_with(expected), "{expected}: {told}");
    }
}
