//! The appliance of the wizard: a shop on two hosts with a database that is written to, files, traffic logs, a licence, a service that answers over
//! TLS, and settings that make a host the one it is.

mod flaws;
mod licence;
mod rollback;
mod steps;
mod strikes;
mod table;
mod unheard;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use self::licence::Licence;
use super::{Host, Pair};
use crate::certificate::SELF_SIGNED;

pub use rollback::{Rollback, UNCONFIRMED, UNRENEWED};
pub use steps::{Steps, step_id};
pub use strikes::{Blow, Ended};
pub use table::TABLE;

/// With a swap both hosts boot in between.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(180);
/// How long the hosts of this appliance wait for each other after a reboot with swapped settings.
pub const LIMIT: Duration = Duration::from_secs(20);
/// What users are served, as one digest.
const PAGES: &str =
    "cd /srv/www && find . -name .handover -prune -o -type f -print | sort | xargs sha256sum | sha256sum";

const SECTIONS: &str = r#"
[[files]]
name = "www"
root = "/srv/www"

[[log]]
name = "traffic"
root = "/var/log/shop"
pattern = ["*.log*"]

[[service]]
unit = "shop-web.service"
order = 2
check = "tcp://127.0.0.1:443"

[[service]]
unit = "shop-sales.service"
order = 1

[[settings]]
name = "address"
group = "network"
file = "/etc/systemd/network/10-lan.network"
format = "plain"

[[settings]]
name = "host-name"
group = "network"
file = "/etc/hostname"

[[settings]]
name = "shop"
group = "shop"
file = "/etc/shop/shop.conf"
format = "ini"
keys = ["shop.title", "shop.currency"]

[[settings]]
name = "mail"
group = "shop"
file = "/etc/shop/mail.yaml"
keys = ["relay.host"]

[[certificate]]
name = "www"
certificate = "/etc/shop/www.pem"
key = "/etc/shop/www.key"
services = ["shop-web.service"]
names = ["shop.example"]
probe = ["127.0.0.1:443"]

[label]
file = "/etc/shop/label"
reload = ["shop-web.service"]
"#;

/// The appliance on two hosts.
#[derive(Debug)]
pub struct Appliance {
    /// Where it is.
    pub pair: Pair,
    /// The licence, as its issuer signed it.
    document: String,
    /// What users are served, as one digest.
    pages: String,
}

impl Appliance {
    /// Two hosts of their own, the shop open on the source; these sections more are in their manifests.
    pub fn up(name: &str, more: &str) -> Result<Self> {
        let temp = tempfile::tempdir()?;
        let licence = Licence::issue(temp.path())?;
        let sections = format!("{SECTIONS}{}{more}", licence.section);
        let pair = Pair::up(name, &sections, &sections)?;
        let mut shop = Self { pair, document: licence.document, pages: String::new() };
        shop.furnish(shop.a(), "old", "Old shop")?;
        shop.furnish(shop.b(), "new", "Empty shop")?;
        fs::write(shop.a().root().join("etc/shop/licence"), &shop.document)?;
        let limits = format!("\\n[limits]\\nswap_seconds = {}\\n", LIMIT.as_secs());
        shop.b().sh(&format!("printf '{limits}' >> /etc/handover/target.toml"))?;
        shop.pair.restart_target()?;
        shop.a().sh(
            "mariadb -e 'CREATE DATABASE shop; CREATE TABLE shop.sale (id INT AUTO_INCREMENT PRIMARY KEY, item VARCHAR(80))'; \
             mariadb shop -e 'INSERT INTO sale (item) SELECT sha2(seq, 256) FROM seq_1_to_20000'; \
             for i in $(seq 200); do echo \"page $i\" > /srv/www/$i.html; done; \
             for i in $(seq 3000); do echo \"sold long ago: $i\"; done > /var/log/shop/traffic.log.1; \
             systemctl enable --now shop-sales shop-web",
        )?;
        shop.furnish_table()?;
        shop.pages = shop.a().sh(PAGES)?;
        Ok(shop)
    }

    fn a(&self) -> &Host {
        self.pair.a()
    }

    fn b(&self) -> &Host {
        self.pair.b()
    }

    /// What the product's installer would have put on a host.
    fn furnish(&self, host: &Host, certificate: &str, title: &str) -> Result<()> {
        let etc = host.root().join("etc");
        fs::create_dir_all(etc.join("shop"))?;
        let conf = format!(
            "; the shop's settings\n[shop]\ntitle = {title}   ; shown on every page\ncurrency = EUR\nhost_only = {certificate}\n"
        );
        fs::write(etc.join("shop/shop.conf"), conf)?;
        fs::write(etc.join("shop/mail.yaml"), flaws::mail(certificate, certificate))?;
        let units = etc.join("systemd/system");
        let web = "/usr/bin/openssl s_server -quiet -accept 443 -cert /etc/shop/www.pem -key /etc/shop/www.key -www";
        fs::write(units.join("shop-web.service"), unit("The shop's web server", web))?;
        let sales = "while :; do mariadb shop -e \"INSERT INTO sale (item) VALUES (now(6))\" && echo sold $$(date +%%s%%N) >> /var/log/shop/traffic.log; sleep 0.2; done";
        fs::write(
            units.join("shop-sales.service"),
            unit("The shop's sales", &format!("/bin/sh -c '{sales}'")),
        )?;
        host.sh(&format!(
            "mkdir -p /srv/www /var/log/shop; systemctl daemon-reload; \
             openssl {} -subj /CN={certificate} \
             -addext subjectAltName=DNS:shop.example -addext basicConstraints=critical,CA:FALSE -keyout /etc/shop/www.key -out /etc/shop/www.pem",
            SELF_SIGNED.join(" ")
        ))?;
        Ok(())
    }

    /// The logs are rotated, while they are written to.
    pub fn rotate_logs(&self) -> Result<()> {
        self.a()
            .sh("cd /var/log/shop; mv traffic.log.1 traffic.log.2; mv traffic.log traffic.log.1")
            .map(drop)
    }

    /// Copies it, and waits until the target follows. The plan by which.
    pub fn follow(&self, options: &[&str]) -> Result<Value> {
        self.pair.follow(options)
    }

    /// From now on the target does not know where the source is once their addresses are swapped.
    pub fn forget_swapped_address(&self) -> Result<()> {
        self.b().sh("sed -i '/^others = /d' /etc/handover/target.toml")?;
        self.pair.restart_target()
    }

    /// Its migration now.
    pub fn status(&self) -> Result<Value> {
        self.pair.status()
    }

    /// Waits until the migration has come to rest in a phase. Its agent may be away meanwhile.
    pub fn rests_in(&self, phase: &str) -> Result<Value> {
        self.pair.rests_in(phase)
    }

    /// Waits until a step of the migration at hand is done. Whether it was, before the migration came to rest.
    fn seen(&self, step: &str) -> Result<bool> {
        let mut watch = self.pair.operator()?;
        watch.args(["--json", "watch"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = watch.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut is_done = false;
        for line in lines {
            let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
            if event["event"]["event"] == "step_done" && event["event"]["step"] == step {
                is_done = true;
                break;
            }
        }
        child.kill()?;
        child.wait()?;
        Ok(is_done)
    }

    /// How much was sold.
    pub fn sales(&self, host: &Host) -> Result<u64> {
        Ok(host.sh("mariadb -N shop -e 'SELECT count(*) FROM sale'")?.trim().parse()?)
    }
}

pub(super) fn unit(about: &str, command: &str) -> String {
    format!(
        "[Unit]\nDescription={about}\nAfter=mariadb.service\n\n[Service]\nExecStart={command}\n\n[Install]\nWantedBy=multi-user.target\n"
    )
}
