//! The advice: from what both manifests say of their hosts, and from what the server has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Advice, DnsFacts, RecordChange, RecordKind, RecordSet, Stage};
use crate::failure::Failure;
use crate::inventory::ApplianceFacts;

/// What a host is known by in DNS.
struct Known {
    addresses: Vec<IpAddr>,
    name: Option<String>,
}

impl Known {
    fn of(side: &str, appliance: &ApplianceFacts) -> Result<Self, Failure> {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                Failure::operator("dns", format!("`{text}` of the {side}'s `addresses` is no IP address"))
                    .hint(format!("write addresses into [appliance] of the {side}'s appliance.toml"))
            })
        };
        let addresses = appliance.addresses.iter().map(parse).collect::<Result<Vec<IpAddr>, _>>()?;
        if addresses.is_empty() {
            return Err(Failure::operator("dns", format!("the {side}'s manifest says no `addresses`"))
                .hint(format!("write them into [appliance] of the {side}'s appliance.toml")));
        }
        Ok(Self { addresses, name: absolute(&appliance.host_name, &appliance.domain) })
    }

    /// What records of this kind hold when they lead to it.
    fn values(&self, kind: RecordKind) -> BTreeSet<String> {
        match kind {
            RecordKind::A => {
                self.addresses.iter().filter(|one| one.is_ipv4()).map(IpAddr::to_string).collect()
            }
            RecordKind::Aaaa => {
                self.addresses.iter().filter(|one| one.is_ipv6()).map(IpAddr::to_string).collect()
            }
            RecordKind::Cname => self.name.iter().cloned().collect(),
        }
    }
}

/// A host's full name; one with a dot is full already.
fn absolute(host_name: &str, domain: &str) -> Option<String> {
    let (host, domain) = (host_name.trim_end_matches('.'), domain.trim_matches('.'));
    match (host.is_empty(), host.contains('.') || domain.is_empty()) {
        (true, _) => None,
        (false, true) => Some(format!("{}.", host.to_lowercase())),
        (false, false) => Some(format!("{host}.{domain}.").to_lowercase()),
    }
}

/// Which records change when the appliance moves from the source to the target. With `swap` the hosts exchange their addresses, so that service
/// names stay as they are. Refuses what the records at hand do not allow.
pub fn advise(
    source: &ApplianceFacts,
    target: &ApplianceFacts,
    facts: &DnsFacts,
    swap: bool,
) -> Result<Advice, Failure> {
    let (source, target) = (Known::of("source", source)?, Known::of("target", target)?);
    let adviser = Adviser { facts, source, target };
    let mut changes = Vec::new();
    if !swap {
        for name in &facts.service_names {
            adviser.follow(name, &mut changes)?;
        }
    }
    for name in &facts.round_robin {
        adviser.rotate(name, swap, &mut changes)?;
    }
    changes.sort_by_key(|change| change.at);
    Ok(Advice { server: facts.server.clone(), automatic: facts.automatic, changes })
}

struct Adviser<'a> {
    facts: &'a DnsFacts,
    source: Known,
    target: Known,
}

impl Adviser<'_> {
    /// What the server has of a name.
    fn found(&self, name: &str) -> Result<Vec<&RecordSet>, Failure> {
        let sets: Vec<_> = self.facts.records.iter().filter(|set| set.name == name).collect();
        if sets.is_empty() {
            let what = format!("{} has no address of it", self.facts.server);
            return Err(refuse(name, what).hint("add its record, or take the name out of [dns]"));
        }
        Ok(sets)
    }

    fn change(
        &self,
        at: Stage,
        set: &RecordSet,
        from: BTreeSet<String>,
        to: BTreeSet<String>,
    ) -> RecordChange {
        let ttl = if to.is_empty() { set.ttl } else { self.facts.ttl.unwrap_or(set.ttl) };
        RecordChange { at, name: set.name.clone(), kind: set.kind, from, to, was_ttl: set.ttl, ttl }
    }

    /// A service name leads to the target.
    fn follow(&self, name: &str, changes: &mut Vec<RecordChange>) -> Result<(), Failure> {
        let mut left = 0;
        for set in self.found(name)? {
            let (old, new) = (self.source.values(set.kind), self.target.values(set.kind));
            let from: BTreeSet<_> =
                set.values.intersection(&old).filter(|value| !new.contains(*value)).cloned().collect();
            if from.is_empty() {
                self.leads_where_it_should(set, &new)?;
                left += set.values.len();
                continue;
            }
            let to: BTreeSet<_> = new.difference(&set.values).cloned().collect();
            left += set.values.len() - from.len() + to.len();
            changes.push(self.change(Stage::Cutover, set, from, to));
        }
        if left == 0 {
            return Err(refuse(name, "the target's `addresses` and `host_name` have nothing for it")
                .hint("complete [appliance] of the target's appliance.toml"));
        }
        Ok(())
    }

    /// A set without the source leads to the target already, or to a name that does.
    fn leads_where_it_should(&self, set: &RecordSet, new: &BTreeSet<String>) -> Result<(), Failure> {
        let follows = |value: &String| {
            let names = self.facts.service_names.iter().chain(&self.facts.round_robin);
            set.kind == RecordKind::Cname && names.into_iter().any(|name| name == value)
        };
        if set.values.iter().any(|value| new.contains(value) || follows(value)) {
            return Ok(());
        }
        let values: Vec<_> = set.values.iter().map(String::as_str).collect();
        let what = format!("it leads to {}, which is neither the source nor the target", values.join(" "));
        Err(refuse(&set.name, what).hint(
            "complete `addresses` and `host_name` of both manifests, or take the name out of `service_names`",
        ))
    }

    /// The appliance leaves a round-robin name, and comes back.
    fn rotate(&self, name: &str, swap: bool, changes: &mut Vec<RecordChange>) -> Result<(), Failure> {
        let mut left = 0;
        for set in self.found(name)? {
            if set.kind == RecordKind::Cname {
                return Err(refuse(name, "it is an alias (CNAME)")
                    .hint("write the name that it stands for into `round_robin`"));
            }
            let old = self.source.values(set.kind);
            let from: BTreeSet<_> = set.values.intersection(&old).cloned().collect();
            let back = match (swap, from.is_empty()) {
                (true, false) => from.clone(),
                (true, true) => old,
                (false, _) => self.target.values(set.kind),
            };
            let rest: BTreeSet<_> = set.values.difference(&from).cloned().collect();
            left += rest.len();
            let to: BTreeSet<_> = back.difference(&rest).cloned().collect();
            if !from.is_empty() {
                changes.push(self.change(Stage::Before, set, from, BTreeSet::new()));
            }
            if !to.is_empty() {
                changes.push(self.change(Stage::End, set, BTreeSet::new(), to));
            }
        }
        if left == 0 {
            return Err(refuse(name, "without the source it would have no address")
                .hint("add another host to it first, or write it into `service_names`"));
        }
        Ok(())
    }
}

fn refuse(name: &str, what: impl Into<String>) -> Failure {
    Failure::operator(format!("dns {}", name.trim_end_matches('.')), what)
}

#[cfg(test)]
mod tests;
