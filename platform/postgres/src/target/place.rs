//! The databases around the final place, and their one-step changes.
//!
//! Beside the final `shop` there may be `shop__handover_<id>`, which is being built, `…_undo`, which stood there before,
//! `…_old`, which is about to be dropped, and `…_kept`, which was published by a migration that was aborted. Names change in
//! transactions, so that every moment is one of these states; marks go with a database when its name changes.

mod kept;
mod make;
mod marks;
mod moves;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::rows::Schema;

use crate::Settings;
use crate::accounts::Accounts;
use crate::connect::Conn;
use crate::error::failed;

/// Longest name of the server, in bytes.
const LONGEST: usize = 63;

/// A database's final place and its neighbours.
pub struct Place {
    pub dataset: DatasetName,
    pub settings: Settings,
    migration: MigrationId,
    pub partial: String,
    undo: String,
    old: String,
    kept: String,
}

impl Place {
    pub fn new(dataset: DatasetName, settings: Settings, migration: MigrationId) -> Self {
        let id = Digest::of(format!("{migration}/{}", settings.database).as_bytes()).short();
        let suffix = format!("__handover_{id}");
        let mut room = LONGEST - suffix.len() - "_undo".len();
        room = room.min(settings.database.len());
        while !settings.database.is_char_boundary(room) {
            room -= 1;
        }
        let partial = format!("{}{suffix}", &settings.database[..room]);
        let [undo, old, kept] = ["undo", "old", "kept"].map(|name| format!("{partial}_{name}"));
        Self { dataset, settings, migration, partial, undo, old, kept }
    }

    /// The place of a scratch database, as that of a migration that there never is: names of migrations begin otherwise.
    pub fn of_rehearsal(dataset: DatasetName, settings: Settings) -> Self {
        Self::new(dataset, settings, MigrationId::nobody())
    }

    /// What is being built, where it is there and ready for tables. One that somebody else has made is refused.
    pub async fn unfinished(&self) -> Result<Option<Settings>> {
        let admin = self.admin().await?;
        let marks = self.marks(&admin, &self.partial).await?;
        if marks.is_some() && !self.is_ours(&admin, &self.partial).await? {
            let what = format!("the database {} is none of ours", self.partial);
            return Err(Failure::operator(self.item(), what).hint("rename or drop it, then rehearse again"));
        }
        let is_ready = marks.is_some_and(|marks| marks.contains_key("ready"));
        Ok(is_ready.then(|| self.settings.with_database(&self.partial)))
    }

    /// Drops what is being built, unless somebody else has made it.
    pub async fn drop_ours(&self) -> Result<()> {
        let admin = self.writer().await?;
        if self.is_ours(&admin, &self.partial).await? {
            self.drop(&admin, &self.partial).await
        } else {
            Ok(())
        }
    }

    fn item(&self) -> String {
        format!("{}, {}", self.dataset, self.settings.location())
    }

    fn failed<'a>(&'a self, what: &'a str) -> impl Fn(tokio_postgres::Error) -> Failure + 'a {
        move |error| failed(self.item(), what, &error)
    }

    /// A connection beside the databases that are made, renamed and dropped.
    pub async fn admin(&self) -> Result<Conn> {
        Conn::open(&self.dataset, &self.settings.with_database(&self.settings.maintenance)).await
    }

    /// The same, before something is changed. A server that is read only says so here: sessions of databases that are read only
    /// by a setting of their own, which travels with them, write nevertheless.
    async fn writer(&self) -> Result<Conn> {
        let admin = self.admin().await?;
        let sql = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'standby' ELSE reset_val END \
                   FROM pg_catalog.pg_settings WHERE name = 'default_transaction_read_only'";
        let state = admin.text(sql).await.map_err(self.failed("the server cannot be asked"))?;
        match state.as_deref() {
            Some("standby") => {
                Err(Failure::operator(self.item(), "the server is a standby, which is read only")
                    .hint("name the primary in `url`, or promote this one, then resume"))
            }
            Some("on") => {
                Err(Failure::operator(self.item(), "the server is read only (default_transaction_read_only)")
                    .hint("turn it off for the server, the role or the maintenance database, then resume"))
            }
            _ => Ok(admin),
        }
    }

    /// Whether something stands at the final place.
    pub async fn stands(&self) -> Result<bool> {
        let admin = self.admin().await?;
        Ok(self.marks(&admin, &self.settings.database).await?.is_some())
    }

    /// Whether any of the databases is this migration's.
    pub async fn is_prepared(&self) -> Result<bool> {
        let admin = self.admin().await?;
        for database in [&self.partial, &self.settings.database, &self.undo] {
            if self.is_ours(&admin, database).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The database to work on: what is being built, or else what was published.
    pub async fn newest(&self) -> Result<Settings> {
        let admin = self.admin().await?;
        if self.is_ready(&admin).await? {
            return Ok(self.settings.with_database(&self.partial));
        }
        if self.is_ours(&admin, &self.settings.database).await? {
            return Ok(self.settings.clone());
        }
        Err(Failure::permanent(self.item(), "there is no database to work on: it was not prepared"))
    }

    fn accounts<'a>(&self, admin: &'a Conn) -> Accounts<'a> {
        Accounts { item: self.item(), conn: admin }
    }

    /// Makes the roles that move with the database.
    pub async fn make_accounts(&self, schema: &Schema) -> Result<()> {
        let wanted = crate::accounts::names(schema);
        if let Some(name) = wanted.into_iter().find(|name| !self.settings.accounts.iter().any(|n| n == name))
        {
            let what = format!("the source sends the role {name}, which the target's `url` does not name");
            return Err(Failure::operator(self.item(), what).hint(format!(
                "add it to `accounts` in the target's `url` too (accounts={name}), or take it out of the source's"
            )));
        }
        self.accounts(&self.writer().await?).make(schema, &self.migration).await
    }

    /// Adds the roles that an intended schema has to one that was read here, as they are here.
    pub async fn reread_accounts(&self, intended: &Schema, into: &mut Schema) -> Result<()> {
        self.accounts(&self.admin().await?).reread(intended, &self.migration, into).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_names_of_their_own_that_fit() {
        let place = |database: &str, migration: &str| {
            let settings = Settings::parse(&format!("postgres://u@/{database}")).unwrap();
            Place::new("db".parse().unwrap(), settings, migration.parse().unwrap())
        };
        let long = "é".repeat(31);
        let (a, b) = (place(&long, "one"), place(&long, "two"));
        assert!([&a.undo, &a.old, &a.kept].iter().all(|name| name.len() <= LONGEST), "{}", a.undo);
        assert_ne!(a.partial, b.partial);
        assert!(place("shop", "one").partial.starts_with("shop__handover_"));
    }
}
