//! Settings of the shop in a table: its database stays where it is, rows of it do not.

use anyhow::Result;

use super::Appliance;
use super::flaws::differing;
use crate::lab::Host;

/// For both manifests: a database that is not among the datasets of a plan, and a row of it that makes a host the one it is.
pub const TABLE: &str = r#"
[[database]]
name = "config"
url = "mariadb://handover:secret@127.0.0.1:3306/config"

[[settings]]
name = "partners"
group = "remote-data"
database = "config"
table = "setting"
key_column = "name"
value_column = "value"
keys = ["partner.url"]
"#;

impl Appliance {
    /// What each host has before anything.
    pub(super) fn furnish_table(&self) -> Result<()> {
        for (host, name) in [(self.a(), "old"), (self.b(), "new")] {
            host.sh(&format!(
                "mariadb -e \"CREATE DATABASE config; CREATE TABLE config.setting (name VARCHAR(40) PRIMARY KEY, value VARCHAR(80), note VARCHAR(80)); \
                 INSERT INTO config.setting VALUES ('partner.url', '{name}', 'of {name}'), ('own', '{name}', '')\""
            ))?;
        }
        Ok(())
    }

    /// Whether the hosts have exchanged the one row, and left alone what else is in it and beside it.
    pub fn table_flaws(&self, exchanged: bool) -> Result<Vec<String>> {
        let of = |host: &Host, own: &str, other: &str| -> Result<Vec<String>> {
            let value = if exchanged { other } else { own };
            let rows = host.sh("mariadb -N config -e 'SELECT * FROM setting ORDER BY name'")?;
            let expected = format!("own\t{own}\t\npartner.url\t{value}\tof {own}");
            Ok(differing(&format!("the table of settings of {}", host.name()), &expected, &rows))
        };
        Ok([of(self.a(), "old", "new")?, of(self.b(), "new", "old")?].concat())
    }
}
