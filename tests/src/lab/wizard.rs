//! The appliance of the wizard: a shop on two hosts with a database that is written to, files, traffic logs, a licence, a service that answers over
//! TLS, and settings that make a host the one it is.

mod unheard;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::host::address;
use super::{Host, Pair, Shape};
use crate::bed::Output;
use crate::poll;

/// With a swap both hosts boot in between.
const TAKES_OVER_WITHIN: Duration = Duration::from_secs(180);
/// For how long the link is cut: shorter than the hosts wait for each other.
const CUT: Duration = Duration::from_secs(5);
/// How long the hosts of this appliance wait for each other after a reboot with swapped settings.
pub const LIMIT: Duration = Duration::from_secs(20);
const CONTENT: &str = "mariadb --batch -e 'SELECT * FROM sale ORDER BY id' shop | sha256sum";
/// What users see of the host that serves.
const SERVED: &str =
    "openssl s_client -connect 127.0.0.1:443 </dev/null 2>/dev/null | openssl x509 -noout -subject";

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

/// Steps of its cut-over, in their order.
pub const STEPS: [&str; 16] = [
    "stage",
    "maintain",
    "fence",
    "catch-up:shop",
    "catch-up:www",
    "catch-up:traffic",
    "finish:shop",
    "keep:shop",
    "configure",
    "reboot",
    "publish",
    "certify",
    "label",
    "serve",
    "licence",
    "settle:shop",
];

/// What strikes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The source crashes, and boots.
    Source,
    /// The target crashes, and boots.
    Target,
    /// The link is cut for some seconds.
    Link,
}

impl Blow {
    /// Every one.
    pub const ALL: [Blow; 3] = [Blow::Source, Blow::Target, Blow::Link];
}

/// How a cut-over that was struck has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The target has taken over.
    Migrated,
    /// It was called off, and the source is in use.
    Undone,
}

/// The appliance on two hosts.
#[derive(Debug)]
pub struct Appliance {
    /// Where it is.
    pub pair: Pair,
}

impl Appliance {
    /// Two hosts of their own, the shop open on the source; these sections more are in their manifests.
    pub fn up(name: &str, more: &str) -> Result<Self> {
        let temp = tempfile::tempdir()?;
        let licence = Licence::issue(temp.path())?;
        let sections = format!("{SECTIONS}{}{more}", licence.section);
        let pair = Pair::up(name, &sections, &sections)?;
        let shop = Self { pair };
        shop.furnish(shop.a(), "old", "Old shop")?;
        shop.furnish(shop.b(), "new", "Empty shop")?;
        fs::write(shop.a().root().join("etc/shop/licence"), licence.document)?;
        let limits = format!("\\n[limits]\\nswap_seconds = {}\\n", LIMIT.as_secs());
        shop.b().sh(&format!("printf '{limits}' >> /etc/handover/target.toml"))?;
        shop.pair.restart_target()?;
        shop.a().sh(
            "mariadb -e 'CREATE DATABASE shop; CREATE TABLE shop.sale (id INT AUTO_INCREMENT PRIMARY KEY, item VARCHAR(80))'; \
             mariadb shop -e 'INSERT INTO sale (item) SELECT sha2(seq, 256) FROM seq_1_to_20000'; \
             for i in $(seq 200); do echo \"page $i\" > /srv/www/$i.html; done; \
             systemctl enable --now shop-sales shop-web",
        )?;
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
        let units = etc.join("systemd/system");
        let web = "/usr/bin/openssl s_server -quiet -accept 443 -cert /etc/shop/www.pem -key /etc/shop/www.key -www";
        fs::write(units.join("shop-web.service"), unit("The shop's web server", web))?;
        let sales = "while :; do mariadb shop -e \"INSERT INTO sale (item) VALUES (now(6))\" && echo sold >> /var/log/shop/traffic.log; sleep 0.2; done";
        fs::write(
            units.join("shop-sales.service"),
            unit("The shop's sales", &format!("/bin/sh -c '{sales}'")),
        )?;
        host.sh(&format!(
            "mkdir -p /srv/www /var/log/shop; systemctl daemon-reload; \
             openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj /CN={certificate} \
             -addext subjectAltName=DNS:shop.example -addext basicConstraints=critical,CA:FALSE -keyout /etc/shop/www.key -out /etc/shop/www.pem"
        ))?;
        Ok(())
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

    /// Cuts over with a swap that cuts the hosts off from each other; for how long they were not what they were before, once they are
    /// again. With a cut link they are cut off in any case, and it is whole again only after that.
    pub fn cut_off(&self, link: bool) -> Result<Duration> {
        self.pair.cli(&["cutover", "--max-downtime", "300"])?.success()?;
        self.seen("configure")?;
        let began = Instant::now();
        self.pair.lab.shape(&Shape { cut: link, ..Shape::default() })?;
        let swapped = |to: bool| {
            let both = move || Ok(self.identity_flaws(to).is_ok_and(|flaws| flaws.is_empty()).then_some(()));
            poll::until(&format!("the hosts to be swapped: {to}"), TAKES_OVER_WITHIN, both)
        };
        swapped(true).and_then(|()| swapped(false)).with_context(|| self.pair.logs())?;
        let took = began.elapsed();
        self.pair.lab.shape(&Shape::default())?;
        Ok(took)
    }

    /// Its migration now.
    pub fn status(&self) -> Result<Value> {
        self.pair.status()
    }

    /// Waits until the migration has come to rest in a phase. Its agent may be away meanwhile.
    pub fn rests_in(&self, phase: &str) -> Result<Value> {
        self.pair.rests_in(phase)
    }

    /// Cuts over, strikes once a step of that is done, and waits until the migration has come to rest again, by itself.
    pub fn struck(&self, step: &str, blow: Blow) -> Result<Ended> {
        self.pair.cli(&["cutover", "--max-downtime", "300"])?.success()?;
        self.seen(step)?;
        match blow {
            Blow::Source | Blow::Target => {
                let host = if blow == Blow::Source { self.a() } else { self.b() };
                host.crash()?;
                host.boot()?;
            }
            Blow::Link => {
                self.pair.lab.shape(&Shape { cut: true, ..Shape::default() })?;
                poll::pause(CUT);
                self.pair.lab.shape(&Shape::default())?;
            }
        }
        let mut last = Value::Null;
        let ended = poll::until("the migration to come to rest", TAKES_OVER_WITHIN, || {
            let Ok(status) = self.status() else { return Ok(None) };
            last = status;
            ensure!(last["condition"] == "good", "{last}");
            Ok(match (last["phase"].as_str(), last["activity"].as_str()) {
                (Some("trial"), _) => Some(Ended::Migrated),
                (Some("following"), Some("following")) => Some(Ended::Undone),
                _ => None,
            })
        });
        ended.with_context(|| format!("struck at {blow:?} after {step}: {last}\n{}", self.pair.logs()))
    }

    /// Waits until a step of the migration at hand is done, or all of them are.
    fn seen(&self, step: &str) -> Result<()> {
        let mut watch = self.pair.operator()?;
        watch.args(["--json", "watch"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = watch.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        for line in lines {
            let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
            if event["event"]["event"] == "step_done" && event["event"]["step"] == step {
                break;
            }
        }
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// What differs from an appliance that the target runs alone, on trial; nothing if all is well.
    pub fn flaws_at_target(&self, swapped: bool) -> Result<Vec<String>> {
        self.flaws_of_target(swapped, "Warning: Migration Environment.")
    }

    /// What differs from an appliance that the target runs for good.
    pub fn flaws_for_good(&self) -> Result<Vec<String>> {
        self.flaws_of_target(false, "")
    }

    fn flaws_of_target(&self, swapped: bool, label: &str) -> Result<Vec<String>> {
        let (a, b) = (self.a(), self.b());
        let mut flaws = self.flaws_of(b, "subject=CN = old", "Old shop")?;
        flaws.extend(differing("the target has a licence", "1", &licences(b)?));
        flaws.extend(differing("the source has a licence", "0", &licences(a)?));
        flaws.extend(self.identity_flaws(swapped)?);
        let stopped = a.sh("systemctl is-active shop-web shop-sales || true; systemctl is-enabled shop-web shop-sales || true")?;
        flaws.extend(differing("the source's services", "inactive\ninactive\ndisabled\ndisabled", &stopped));
        // What is only the target's own is left alone.
        let own = b.sh("grep host_only /etc/shop/shop.conf")?;
        flaws.extend(differing("settings of the target", "host_only = new", &own));
        flaws.extend(differing("the label", label, &labels(b)?));
        Ok(flaws)
    }

    /// What differs from an appliance that the source runs, as if nothing had been; nothing if all is well.
    pub fn flaws_at_source(&self) -> Result<Vec<String>> {
        let (a, b) = (self.a(), self.b());
        let mut flaws = self.flaws_of(a, "subject=CN = old", "Old shop")?;
        flaws.extend(differing("the source has a licence", "1", &licences(a)?));
        flaws.extend(differing("the target has a licence", "0", &licences(b)?));
        flaws.extend(differing("the label", "", &labels(b)?));
        flaws.extend(self.identity_flaws(false)?);
        let own =
            b.sh("openssl x509 -noout -subject -in /etc/shop/www.pem; grep title /etc/shop/shop.conf")?;
        flaws.extend(differing(
            "the target's own",
            "subject=CN = new\ntitle = Empty shop   ; shown on every page",
            &own,
        ));
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
        flaws.extend(differing("its pages", "200", &host.sh("ls /srv/www | wc -l")?));
        Ok(flaws)
    }

    /// Addresses and names of both hosts.
    fn identity_flaws(&self, swapped: bool) -> Result<Vec<String>> {
        let mut flaws = Vec::new();
        for (at, host) in self.pair.lab.hosts().iter().enumerate() {
            let as_host = if swapped { 1 - at } else { at };
            let expected = format!("{}\n{}/24", self.pair.lab.hosts()[as_host].name(), address(as_host));
            let shown = host.sh("hostname; ip -4 -brief address show lan0 | awk '{print $3}'")?;
            flaws.extend(differing(&format!("the identity of {}", host.name()), &expected, &shown));
        }
        Ok(flaws)
    }

    /// Whether both databases hold the same, once nobody sells anything.
    pub fn differences(&self) -> Result<u64> {
        for host in self.pair.lab.hosts() {
            host.sh("systemctl stop shop-sales")?;
        }
        Ok(u64::from(self.a().sh(CONTENT)? != self.b().sh(CONTENT)?))
    }

    /// How much was sold.
    pub fn sales(&self, host: &Host) -> Result<u64> {
        Ok(host.sh("mariadb -N shop -e 'SELECT count(*) FROM sale'")?.trim().parse()?)
    }
}

fn licences(host: &Host) -> Result<String> {
    host.sh("ls /etc/shop | grep -c '^licence$' || true")
}

fn labels(host: &Host) -> Result<String> {
    host.sh("cat /etc/shop/label 2>/dev/null || true")
}

fn differing(what: &str, expected: &str, found: &str) -> Vec<String> {
    if found.trim() == expected {
        Vec::new()
    } else {
        vec![format!("{what}: {:?} instead of {expected:?}", found.trim())]
    }
}

pub(super) fn unit(about: &str, command: &str) -> String {
    format!(
        "[Unit]\nDescription={about}\nAfter=mariadb.service\n\n[Service]\nExecStart={command}\n\n[Install]\nWantedBy=multi-user.target\n"
    )
}

/// A licence, and how a manifest names its issuer.
struct Licence {
    document: String,
    section: String,
}

impl Licence {
    /// By an issuer who is never seen again.
    fn issue(dir: &Path) -> Result<Self> {
        let openssl =
            |args: &[&str]| Output::of(Command::new("openssl").args(args).current_dir(dir))?.success();
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", "key"])?;
        let public = openssl(&["pkey", "-in", "key", "-pubout"])?.stdout;
        let text = "guid = \"4f1c\"\nmaintenance_until = \"2999-01-01T00:00:00Z\"\n";
        fs::write(dir.join("text"), text)?;
        openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", "key", "-in", "text", "-out", "signature"])?;
        let signature = openssl(&["base64", "-A", "-in", "signature"])?.stdout;
        Ok(Self {
            document: format!(
                "{text}-----BEGIN SIGNATURE-----\n{}\n-----END SIGNATURE-----\n",
                signature.trim()
            ),
            section: format!(
                "\n[licence]\nfile = \"/etc/shop/licence\"\npublic_key = \"\"\"\n{public}\"\"\"\n"
            ),
        })
    }
}
