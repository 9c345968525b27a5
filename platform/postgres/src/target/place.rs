//! The databases around the final place, and their one-step changes.
//!
//! Beside the final `shop` there may be `shop__handover_<id>`, which is being built, `…_undo`, which stood there before, and
//! `…_old`, which is about to be dropped, and `…_kept`, which was published by a migration that was aborted. Names change in transactions, so that every moment is one of these states; marks
//! (the last line of a database's comment) go with it when its name changes.

mod kept;

use std::collections::BTreeMap;
use std::time::Duration;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::rows::Schema;
use tokio_postgres::error::SqlState;

use crate::Settings;
use crate::accounts::Accounts;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::{literal, quote};
use crate::trust::assignment;

/// Longest name of the server, in bytes.
const LONGEST: usize = 63;
/// How often, and how long after each other, other sessions are ended before a database's name is changed.
const TRIES: u32 = 40;
const BETWEEN: Duration = Duration::from_millis(50);
/// What stands between a database's own comment and the marks.
const MARK: &str = "\nhandover: ";
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

/// Marks of a database that exists.
type Marks = BTreeMap<String, String>;

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

    /// The marks of a database; `None` when there is no such database.
    async fn marks(&self, admin: &Conn, database: &str) -> Result<Option<Marks>> {
        let Some(comment) = self.comment(admin, database).await? else { return Ok(None) };
        let marks = comment.rsplit_once(MARK).map_or("", |(_, marks)| marks);
        let pairs = marks.split(' ').filter_map(|pair| pair.split_once('='));
        Ok(Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }

    /// The comment of a database, marks and all; `None` when there is no such database.
    async fn comment(&self, admin: &Conn, database: &str) -> Result<Option<String>> {
        let sql = format!(
            "SELECT coalesce(pg_catalog.shobj_description(oid, 'pg_database'), '') \
             FROM pg_catalog.pg_database WHERE datname = {}",
            literal(database)
        );
        admin.text(&sql).await.map_err(self.failed("the server cannot be asked"))
    }

    /// Whether a database exists and is this migration's.
    async fn is_ours(&self, admin: &Conn, database: &str) -> Result<bool> {
        let marks = self.marks(admin, database).await?.unwrap_or_default();
        Ok(marks.get("migration") == Some(&self.migration.to_string()))
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

    async fn mark(&self, admin: &Conn, database: &str, name: &str, value: &str) -> Result<()> {
        let mut marks = self.marks(admin, database).await?.unwrap_or_default();
        marks.insert(name.to_owned(), value.to_owned());
        self.set_marks(admin, database, &marks).await
    }

    async fn set_marks(&self, admin: &Conn, database: &str, marks: &Marks) -> Result<()> {
        let comment = self.comment(admin, database).await?.unwrap_or_default();
        let own = comment.rsplit_once(MARK).map_or(comment.as_str(), |(own, _)| own);
        let pairs: Vec<String> = marks.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text = if pairs.is_empty() { own.to_owned() } else { format!("{own}{MARK}{}", pairs.join(" ")) };
        let text = if text.is_empty() { "NULL".to_owned() } else { literal(&text) };
        let sql = format!("COMMENT ON DATABASE {} IS {text}", quote(database));
        admin.batch_execute(&sql).await.map_err(self.failed("a database cannot be marked"))
    }

    /// The database to work on: what is being built, or else what was published.
    pub async fn newest(&self) -> Result<Settings> {
        let admin = self.admin().await?;
        let partial = self.marks(&admin, &self.partial).await?;
        if partial.is_some_and(|marks| marks.contains_key("ready")) {
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

    /// Makes the unfinished database: empty, or from what was published.
    pub async fn begin(&self, schema: &Schema) -> Result<Settings> {
        let admin = self.writer().await?;
        self.drop(&admin, &self.old).await?;
        let partial = self.marks(&admin, &self.partial).await?;
        if !partial.is_some_and(|marks| marks.contains_key("ready")) {
            self.drop(&admin, &self.partial).await?;
            self.create(&admin, schema).await?;
            if let Some(comment) = schema.state.get("database/comment") {
                let own = comment.split(MARK).next().unwrap_or_default();
                let sql = format!("COMMENT ON DATABASE {} IS {}", quote(&self.partial), literal(own));
                admin.batch_execute(&sql).await.map_err(self.failed("a database cannot be marked"))?;
            }
            self.mark(&admin, &self.partial, "migration", &self.migration.to_string()).await?;
            self.set(&admin, schema).await?;
            self.mark(&admin, &self.partial, "ready", "yes").await?;
        }
        Ok(self.settings.with_database(&self.partial))
    }

    async fn create(&self, admin: &Conn, schema: &Schema) -> Result<()> {
        let published = self.marks(admin, &self.settings.database).await?.unwrap_or_default();
        let ours = published.get("migration") == Some(&self.migration.to_string());
        if ours && published.get("continues").is_none_or(|value| value != "no") {
            let sql = format!(
                "CREATE DATABASE {} TEMPLATE {}",
                quote(&self.partial),
                quote(&self.settings.database)
            );
            return self.alone(admin, &[&self.settings.database], &sql, "cannot be copied").await;
        }
        let setting = |name: &str| schema.settings.get(name).map(String::as_str).unwrap_or_default();
        let mut sql = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            quote(&self.partial),
            literal(setting("encoding")),
            literal(setting("collate")),
            literal(setting("ctype"))
        );
        if setting("provider") == "i" {
            sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(setting("icu_locale")));
        }
        admin.batch_execute(&sql).await.map_err(|error| {
            let failure = failed(self.item(), "the unfinished database cannot be made", &error);
            let code = error.code().cloned();
            if code == Some(SqlState::WRONG_OBJECT_TYPE) || error.to_string().contains("locale") || code == Some(SqlState::INVALID_PARAMETER_VALUE) {
                let locale = setting("collate");
                return failure.hint(format!("the locale {locale} or encoding is unknown here: install it (dpkg-reconfigure locales), restart the server, then resume"));
            }
            if code == Some(SqlState::INSUFFICIENT_PRIVILEGE) {
                return failure.hint(format!("ALTER ROLE {} CREATEDB", quote(&self.settings.user)));
            }
            failure
        })
    }

    /// Settings of the database itself, as at the source.
    async fn set(&self, admin: &Conn, schema: &Schema) -> Result<()> {
        for (name, value) in &schema.settings {
            let Some(name) = name.strip_prefix("set/") else { continue };
            let Some(setting) = assignment(name, value) else {
                let what = format!("the source's database sets {name}, which is not carried over");
                return Err(Failure::operator(self.item(), what)
                    .hint(format!("ALTER DATABASE … RESET {name} at the source, then resume")));
            };
            let sql = format!("ALTER DATABASE {} SET {setting}", quote(&self.partial));
            admin
                .batch_execute(&sql)
                .await
                .map_err(self.failed("a setting of the database cannot be made"))?;
        }
        Ok(())
    }

    /// Runs a statement that needs some databases without sessions, ending those that are there. Not the server's own, such
    /// as autovacuum's, which only a superuser may end: they give way by themselves.
    async fn alone(&self, admin: &Conn, databases: &[&str], sql: &str, what: &str) -> Result<()> {
        let names: Vec<String> = databases.iter().map(|name| literal(name)).collect();
        let terminate = format!(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
             WHERE datname IN ({}) AND pid <> pg_catalog.pg_backend_pid() AND usesysid IS NOT NULL",
            names.join(", ")
        );
        let mut tries = 0;
        loop {
            admin.batch_execute(&terminate).await.map_err(|error| {
                failed(self.item(), "other sessions cannot be ended", &error).hint(format!(
                    "stop its services, or GRANT pg_signal_backend TO {}",
                    quote(&self.settings.user)
                ))
            })?;
            let Err(error) = admin.batch_execute(sql).await else { return Ok(()) };
            let _ = admin.batch_execute("ROLLBACK").await;
            tries += 1;
            if error.code() != Some(&SqlState::OBJECT_IN_USE) {
                return Err(failed(self.item(), what, &error));
            }
            if tries >= TRIES {
                return Err(failed(self.item(), what, &error)
                    .hint("other programs keep connecting to it: stop its services, then resume"));
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    async fn drop(&self, admin: &Conn, database: &str) -> Result<()> {
        if self.marks(admin, database).await?.is_none() {
            return Ok(());
        }
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote(database));
        admin.batch_execute(&sql).await.map_err(self.failed("a database cannot be dropped"))
    }

    /// Drops what is being built; the next build starts empty.
    pub async fn discard(&self) -> Result<()> {
        let admin = self.writer().await?;
        self.drop(&admin, &self.partial).await?;
        if self.is_ours(&admin, &self.settings.database).await? {
            self.mark(&admin, &self.settings.database, "continues", "no").await?;
        }
        Ok(())
    }

    fn rename(from: &str, to: &str) -> String {
        format!("ALTER DATABASE {} RENAME TO {};", quote(from), quote(to))
    }

    /// Puts the finished database in its final place.
    pub async fn publish(&self) -> Result<()> {
        let admin = self.writer().await?;
        let partial = self.marks(&admin, &self.partial).await?;
        if partial.is_some_and(|marks| marks.contains_key("ready")) {
            self.drop(&admin, &self.old).await?;
            let place = &self.settings.database;
            let mut sql = "BEGIN;".to_owned();
            if self.marks(&admin, place).await?.is_some() {
                let ours = self.is_ours(&admin, place).await?;
                sql += &Self::rename(place, if ours { &self.old } else { &self.undo });
            }
            sql += &Self::rename(&self.partial, place);
            sql += "COMMIT";
            self.alone(&admin, &[place, &self.partial], &sql, "it cannot be put in place").await?;
        }
        self.drop(&admin, &self.old).await
    }

    /// Brings back what stood here before.
    pub async fn undo(&self) -> Result<()> {
        let admin = self.writer().await?;
        self.drop(&admin, &self.partial).await?;
        self.drop(&admin, &self.old).await?;
        self.put_back(&admin, &self.old).await?;
        self.drop(&admin, &self.old).await?;
        self.accounts(&admin).drop_all(&self.migration).await
    }

    /// What stood here before gets its name back, and what was published another one, in one step.
    async fn put_back(&self, admin: &Conn, other: &str) -> Result<()> {
        let place = &self.settings.database;
        if !self.is_ours(admin, place).await? {
            return Ok(());
        }
        let mut sql = format!("BEGIN;{}", Self::rename(place, other));
        if self.marks(admin, &self.undo).await?.is_some() {
            sql += &Self::rename(&self.undo, place);
        }
        sql += "COMMIT";
        self.alone(admin, &[place, &self.undo], &sql, "what stood there cannot be put back").await
    }

    /// Drops what undo would need; `true` when the published database is this migration's.
    pub async fn forget(&self) -> Result<bool> {
        let admin = self.writer().await?;
        for database in [&self.partial, &self.undo, &self.old] {
            self.drop(&admin, database).await?;
        }
        self.accounts(&admin).keep_all(&self.migration).await?;
        self.is_ours(&admin, &self.settings.database).await
    }

    /// Takes the marks off the published database.
    pub async fn unmark(&self) -> Result<()> {
        let admin = self.writer().await?;
        self.set_marks(&admin, &self.settings.database, &Marks::new()).await
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

    #[test]
    fn lists_of_names_are_taken_apart() {
        assert_eq!(crate::sql::list("\"$user\", public, \"a\"\"b, c\""), ["$user", "public", "a\"b, c"]);
    }
}
