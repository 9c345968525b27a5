//! What differs from the appliance as it should be.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Appliance, PAGES};
use crate::lab::Host;
use crate::lab::host::address;
use crate::poll;

/// Every row, in an order: equal digests are equal tables.
const CONTENT: &str = "mariadb --batch -e 'SELECT * FROM sale ORDER BY id' shop | sha256sum";
/// What users see of the host that serves.
const SERVED: &str =
    "openssl s_client -connect 127.0.0.1:443 </dev/null 2>/dev/null | openssl x509 -noout -subject";
/// Where the logs are, and the one that is written to.
const LOGS: &str = "/var/log/shop";
const WRITTEN: &str = "traffic.log";
/// An agent that was away answers again within this time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// What was written at the target last is carried home within this time.
const CARRIED_WITHIN: Duration = Duration::from_secs(20);

impl Appliance {
    /// What differs from an appliance that the target runs alone, on trial, beside its logs ([`Self::log_flaws`]); nothing if all is well.
    pub fn flaws_at_target(&self, swapped: bool) -> Result<Vec<String>> {
        self.flaws_of_target(swapped, "Warning: Migration Environment.")
    }

    /// The same of one that the target runs for good.
    pub fn flaws_for_good(&self) -> Result<Vec<String>> {
        self.flaws_of_target(false, "")
    }

    /// The same, once the hosts have exchanged their settings.
    pub fn flaws_swapped_for_good(&self) -> Result<Vec<String>> {
        self.flaws_of_target(true, "")
    }

    fn flaws_of_target(&self, swapped: bool, label: &str) -> Result<Vec<String>> {
        let (a, b) = (self.a(), self.b());
        let mut flaws = self.flaws_of(b, "subject=CN = old", "Old shop")?;
        flaws.extend(self.licence_flaws(b)?);
        flaws.extend(self.identity_flaws(swapped)?);
        let stopped = a.sh("systemctl is-active shop-web shop-sales || true; systemctl is-enabled shop-web shop-sales || true")?;
        flaws.extend(differing("the source's services", "inactive\ninactive\ndisabled\ndisabled", &stopped));
        // What is only the target's own is left alone.
        let own = b.sh("grep host_only /etc/shop/shop.conf; cat /etc/shop/mail.yaml")?;
        let expected = format!("host_only = new\n{}", mail("old", "new"));
        flaws.extend(differing("settings of the target", expected.trim(), &own));
        flaws.extend(differing("the label", label, &labels(b)?));
        Ok(flaws)
    }

    /// What differs from an appliance that the source runs, as if nothing had been; nothing if all is well.
    pub fn flaws_at_source(&self) -> Result<Vec<String>> {
        let (a, b) = (self.a(), self.b());
        let mut flaws = self.flaws_of(a, "subject=CN = old", "Old shop")?;
        flaws.extend(self.licence_flaws(a)?);
        flaws.extend(differing("the label", "", &labels(b)?));
        flaws.extend(self.identity_flaws(false)?);
        flaws.extend(differing("its mail", mail("old", "old").trim(), &a.sh("cat /etc/shop/mail.yaml")?));
        let own = b.sh("openssl x509 -noout -subject -in /etc/shop/www.pem; grep title /etc/shop/shop.conf; cat /etc/shop/mail.yaml")?;
        let expected =
            format!("subject=CN = new\ntitle = Empty shop   ; shown on every page\n{}", mail("new", "new"));
        flaws.extend(differing("the target's own", expected.trim(), &own));
        Ok(flaws)
    }

    /// The shop on the host that serves.
    fn flaws_of(&self, host: &Host, subject: &str, title: &str) -> Result<Vec<String>> {
        let mut flaws = differing(
            "services",
            "active\nactive\nenabled\nenabled",
            &host.sh("systemctl is-active shop-web shop-sales || true; systemctl is-enabled shop-web shop-sales || true")?,
        );
        flaws.extend(differing("its certificate", subject, &host.sh(SERVED)?));
        let line = format!("title = {title}   ; shown on every page");
        flaws.extend(differing("its title", &line, &host.sh("grep title /etc/shop/shop.conf")?));
        flaws.extend(differing("the digest of its pages", self.pages.trim(), &host.sh(PAGES)?));
        Ok(flaws)
    }

    /// Addresses and names of both hosts.
    pub(super) fn identity_flaws(&self, swapped: bool) -> Result<Vec<String>> {
        let mut flaws = Vec::new();
        for (at, host) in self.pair.lab.hosts().iter().enumerate() {
            let as_host = if swapped { 1 - at } else { at };
            let expected = format!("{}\n{}/24", self.pair.lab.hosts()[as_host].name(), address(as_host));
            let shown = host.sh("hostname; ip -4 -brief address show lan0 | awk '{print $3}'")?;
            flaws.extend(differing(&format!("the identity of {}", host.name()), &expected, &shown));
        }
        Ok(flaws)
    }

    /// The licence is at this host alone: as its issuer signed it, and valid, as the agents tell.
    fn licence_flaws(&self, at: &Host) -> Result<Vec<String>> {
        let mut flaws = Vec::new();
        let seen =
            poll::until("both agents to answer", ANSWERS_WITHIN, || Ok(self.pair.json(&["inspect"]).ok()))
                .with_context(|| self.pair.logs())?;
        for (host, side) in [(self.a(), "source"), (self.b(), "target")] {
            let is_here = host.name() == at.name();
            let (document, standing) = if is_here { (self.document.trim(), "valid") } else { ("", "none") };
            let found = host.sh("cat /etc/shop/licence 2>/dev/null || true")?;
            flaws.extend(differing(&format!("the licence of the {side}"), document, &found));
            let told = seen[side]["licence"]["is"].as_str().unwrap_or_default();
            flaws.extend(differing(&format!("the licence of the {side}, as it tells"), standing, told));
        }
        Ok(flaws)
    }

    /// What of the source's logs the target does not have byte for byte, where they are moved. It goes on with the last of the logs, nothing comes home from there.
    pub fn log_flaws(&self) -> Result<Vec<String>> {
        let sizes = self.a().sh(&format!("cd {LOGS}; stat --format='%n %s' *"))?;
        let files: Vec<(&str, &str)> = sizes.lines().filter_map(|line| line.split_once(' ')).collect();
        let digests = |whole: bool| -> String {
            let digest = |(name, size): &(&str, &str)| match whole || *name != WRITTEN {
                true => format!("echo {name} $(sha256sum < {name}); "),
                false => format!("echo {name} $(head -c {size} {name} | sha256sum); "),
            };
            format!("cd {LOGS}; {}", files.iter().map(digest).collect::<String>())
        };
        let (there, here) = (self.a().sh(&digests(true))?, self.b().sh(&digests(false))?);
        Ok(differing("the digests of the logs", there.trim(), &here))
    }

    /// What differs between the hosts, on trial, once nobody sells anything: rows, pages, logs.
    pub fn differences(&self) -> Result<Vec<String>> {
        for host in self.pair.lab.hosts() {
            host.sh("systemctl stop shop-sales")?;
        }
        let mut differences = self.log_flaws()?;
        for (what, digest) in [("the digest of the sales", CONTENT), ("the digest of the pages", PAGES)] {
            let there = self.b().sh(digest)?;
            let same = || Ok((self.a().sh(digest)? == there).then_some(()));
            if poll::until(what, CARRIED_WITHIN, same).is_err() {
                differences.extend(differing(what, there.trim(), &self.a().sh(digest)?));
            }
        }
        Ok(differences)
    }
}

/// The settings of mail, with the relay of one host and what is another's own.
pub(super) fn mail(relay: &str, own: &str) -> String {
    format!("# Where mail goes.\nrelay:\n  host: {relay}.mail.example   # by TLS\n  port: 25\nown: {own}\n")
}

fn labels(host: &Host) -> Result<String> {
    host.sh("cat /etc/shop/label 2>/dev/null || true")
}

pub(super) fn differing(what: &str, expected: &str, found: &str) -> Vec<String> {
    if found.trim() == expected {
        Vec::new()
    } else {
        vec![format!("{what}: {:?} instead of {expected:?}", found.trim())]
    }
}
