//! A shop whose database has a replica, on both sides: `a` is the source with the replica `c`, `b` the target with the server that is to
//! become its replica, `d`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::host::address;
use super::wizard::unit;
use super::{Host, Pair};
use crate::name_server::{KEY, NameServer};
use crate::poll;

const WITHIN: Duration = Duration::from_secs(60);
const OPTIONS: &str = "bind_address=0.0.0.0\nlog_slave_updates=1\ngtid_strict_mode=1\n";
const SALES: &str = "\n[[service]]\nunit = \"shop-sales.service\"\n";
const CONTENT: &str = "mariadb --batch -e 'SELECT * FROM sale ORDER BY id' shop | sha256sum";

/// Where the round-robin name leads beside the shop: to a host that is not in the lab, and stays what it is.
const ANOTHER: &str = "10.77.0.99";
/// The name, without its zone.
const POOL: &str = "pool";
const SECRET: &str = "etc/handover/dns.secret";

/// Four hosts, the shop open on the source.
#[derive(Debug)]
pub struct Shop {
    /// Says where the shop is; in the network of the target's replica.
    names: NameServer,
    /// The hosts with the agents.
    pub pair: Pair,
}

fn url(account: &str, host: usize) -> String {
    format!("mariadb://{account}:secret@{}:3306/shop", address(host))
}

impl Shop {
    /// Boots them, and opens the shop.
    pub fn up(name: &str) -> Result<Self> {
        let at_source = format!("replica = \"{}\"\n{SALES}", url("handover", 2));
        let login = url("repl", 1);
        let at_target = format!("replica = \"{}\"\nreplication = \"{login}\"\n{SALES}", url("handover", 3));
        let pair = Pair::among(name, &["a", "b", "c", "d"], OPTIONS, &at_source, &at_target)?;
        let zone = [format!("{POOL} 300 A {}", address(0)), format!("{POOL} 300 A {ANOTHER}")];
        let zone: Vec<&str> = zone.iter().map(String::as_str).collect();
        let names = NameServer::start_beside(&pair.lab.hosts()[3], address(3).parse()?, &zone)?;
        let shop = Self { names, pair };
        shop.name_it()?;
        shop.replicate()?;
        for host in [shop.old(), shop.new_one()] {
            let sales =
                "while :; do mariadb shop -e \"INSERT INTO sale (item) VALUES (now(6))\"; sleep 0.1; done";
            let file = host.root().join("etc/systemd/system/shop-sales.service");
            fs::write(file, unit("The shop's sales", &format!("/bin/sh -c '{sales}'")))?;
            host.sh("systemctl daemon-reload")?;
        }
        shop.old().sh(
            "mariadb -e 'CREATE DATABASE shop; CREATE TABLE shop.sale (id INT AUTO_INCREMENT PRIMARY KEY, item VARCHAR(80))'; \
             mariadb shop -e 'INSERT INTO sale (item) SELECT sha2(seq, 256) FROM seq_1_to_20000'; \
             systemctl enable --now shop-sales",
        )?;
        shop.caught_up(shop.old(), shop.old_replica())?;
        Ok(shop)
    }

    /// The primary at the source.
    pub fn old(&self) -> &Host {
        self.pair.a()
    }

    /// The primary at the target.
    pub fn new_one(&self) -> &Host {
        self.pair.b()
    }

    /// The source's replica.
    pub fn old_replica(&self) -> &Host {
        &self.pair.lab.hosts()[2]
    }

    /// The target's replica, or what is to become it.
    pub fn new_replica(&self) -> &Host {
        &self.pair.lab.hosts()[3]
    }

    /// The target's manifest knows the name, and may change where it leads.
    fn name_it(&self) -> Result<()> {
        let root = self.new_one().root();
        fs::copy(self.names.secret_file(KEY), root.join(SECRET))?;
        fs::set_permissions(root.join(SECRET), fs::Permissions::from_mode(0o600))?;
        let manifest = root.join("etc/handover/appliance.toml");
        let section = format!(
            "\n[dns]\nserver = \"{}\"\nround_robin = [\"{POOL}.example.net\"]\n\n[dns.update]\nkey_name = \"{KEY}\"\nsecret_file = \"/{SECRET}\"\n",
            self.names.address()
        );
        fs::write(&manifest, fs::read_to_string(&manifest)? + &section)?;
        self.pair.restart_target()
    }

    /// Where the round-robin name leads: to which of the shop's primaries, beside the other host.
    pub fn leads_to(&self) -> Result<BTreeSet<&'static str>> {
        let known = [(address(0), "source"), (address(1), "target"), (ANOTHER.to_owned(), "another")];
        let found = self.names.values(POOL, "A")?;
        let name =
            |value: &String| known.iter().find(|(address, _)| address == value).map_or("?", |one| one.1);
        Ok(found.iter().map(name).collect())
    }

    /// Waits until it leads there.
    pub fn leads_once_to(&self, wanted: &[&str]) -> Result<()> {
        let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
        poll::until(&format!("the name to lead to {wanted:?}"), WITHIN, || {
            Ok((self.leads_to()? == wanted).then_some(()))
        })
    }

    /// Accounts, and the source's replication.
    fn replicate(&self) -> Result<()> {
        for primary in [self.old(), self.new_one()] {
            primary.sh("mariadb -e \"CREATE USER repl@'10.77.0.%' IDENTIFIED BY 'secret'; GRANT REPLICATION SLAVE ON *.* TO repl@'10.77.0.%'\"")?;
        }
        for replica in [self.old_replica(), self.new_replica()] {
            // Its own log begins with what it gets from its primary.
            replica.sh(
                "mariadb -e \"CREATE USER handover@'10.77.0.%' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO handover@'10.77.0.%' WITH GRANT OPTION; \
                 RESET MASTER; SET GLOBAL read_only = 1\"",
            )?;
        }
        let position = self.old().sh("mariadb -N -e 'SELECT @@gtid_binlog_pos'")?;
        self.old_replica().sh(&format!(
            "mariadb -e \"SET GLOBAL gtid_slave_pos = '{}'; CHANGE MASTER TO MASTER_HOST = '{}', MASTER_USER = 'repl', \
             MASTER_PASSWORD = 'secret', MASTER_USE_GTID = slave_pos; START SLAVE\"",
            position.trim(),
            address(0)
        ))?;
        Ok(())
    }

    /// What the agents tell of replication: the source's server and its replica, the target's and its.
    pub fn roles(&self) -> Result<Value> {
        let seen = self.pair.json(&["inspect"])?;
        let side = |side: &str| seen[side]["changeover"]["replication"][0].clone();
        Ok(serde_json::json!({ "source": side("source"), "target": side("target") }))
    }

    /// The same, once it is so: a server finds out that a replica has left it when it next has something to send to it, or after half
    /// a minute.
    pub fn roles_once(&self, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let settled = poll::until("the roles to settle", WITHIN, || {
            last = self.roles()?;
            Ok(is_so(&last).then_some(()))
        });
        settled.with_context(|| last.to_string())?;
        Ok(last)
    }

    /// Waits until a replica has all that its primary has logged so far.
    pub fn caught_up(&self, primary: &Host, replica: &Host) -> Result<()> {
        let at = primary.sh("mariadb -N -e 'SELECT @@gtid_binlog_pos'")?;
        let has_it = format!("mariadb -N -e \"SELECT MASTER_GTID_WAIT('{}', 1)\"", at.trim());
        let done = poll::until("the replica to catch up", WITHIN, || {
            Ok((replica.sh(&has_it)?.trim() == "0").then_some(()))
        });
        done.with_context(|| replica.sh("mariadb -e 'SHOW SLAVE STATUS\\G'").unwrap_or_default())
    }

    /// Whether two hosts hold the same sales, while nobody sells anything.
    pub fn differences(&self, one: &Host, other: &Host) -> Result<u64> {
        Ok(u64::from(one.sh(CONTENT)? != other.sh(CONTENT)?))
    }

    /// Nobody sells anything, or goes on with it.
    pub fn sell(&self, host: &Host, on: bool) -> Result<()> {
        host.sh(&format!("systemctl {} shop-sales", if on { "start" } else { "stop" })).map(drop)
    }

    /// Sells something that is known by its name.
    pub fn sell_one(&self, host: &Host, item: &str) -> Result<()> {
        host.sh(&format!("mariadb shop -e \"INSERT INTO sale (item) VALUES ('{item}')\"")).map(drop)
    }

    /// Whether it was sold, as a host knows.
    pub fn has(&self, host: &Host, item: &str) -> Result<bool> {
        let found =
            host.sh(&format!("mariadb -N shop -e \"SELECT COUNT(*) FROM sale WHERE item = '{item}'\""))?;
        Ok(found.trim() == "1")
    }
}
