//! What keeps changes at the server: a publication of the tables, and a replication slot.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::name::CaptureId;
use handover_engine::ports::Result;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::At;
use super::known::Known;
use super::position::Lsn;
use crate::connect::Conn;
use crate::dump::OWN_COMMENT;
use crate::sql::{literal, quote};

/// How long a new slot may wait for the transactions that are running.
const MAKING: Duration = Duration::from_secs(60);
/// How long something may wait for a slot that is in use.
const IN_USE: Duration = Duration::from_secs(10);
/// How long between two looks.
const STEP: Duration = Duration::from_millis(50);
/// Letters of a capture that are part of the slot's name.
const LETTERS: usize = 40;

/// What is wrong with a slot.
pub const LOST: &str = "begin anew: what was copied does not show what has changed since. For the next time: let nobody drop the \
    slot, and set max_slot_wal_keep_size to more than the log that grows meanwhile (16GB)";

/// The names of a slot and its publication. Slots belong to the whole server, so the database is part of the name.
pub fn name(capture: &CaptureId, database: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let plain: String = capture.to_string().chars().map(letter).take(LETTERS).collect();
    format!("handover_{plain}_{}", Digest::of(format!("{capture}/{database}").as_bytes()).short())
}

/// A slot and its publication, at the server.
pub struct Slot<'a> {
    /// Where.
    pub at: &'a At,
    /// A connection whose text is UTF-8.
    pub conn: &'a Conn,
    /// Their name.
    pub name: &'a str,
}

impl Slot<'_> {
    fn failed(&self, what: &str, error: &tokio_postgres::Error) -> Failure {
        self.at.failed(what, error)
    }

    async fn run(&self, sql: &str, what: &str) -> Result<()> {
        self.conn.batch_execute(sql).await.map_err(|e| self.failed(what, &e))
    }

    async fn text(&self, sql: &str, what: &str) -> Result<Option<String>> {
        self.conn.text(sql).await.map_err(|e| self.failed(what, &e))
    }

    /// The failure of a slot that has lost changes.
    pub fn lost(&self, why: &str) -> Failure {
        Failure::operator(self.at.item(), format!("its changes since the copy began are lost: {why}"))
            .begin_anew(LOST)
    }

    /// Up to where changes were let go; `None` where there is no slot, or it has lost some.
    async fn state(&self) -> Result<Option<(Lsn, bool)>> {
        let sql = format!(
            "SELECT confirmed_flush_lsn, coalesce(wal_status, '') FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = {} AND plugin = 'pgoutput' AND database = pg_catalog.current_database()",
            literal(self.name)
        );
        let rows = self.conn.rows(&sql).await;
        let rows = rows.map_err(|e| self.failed("its replication slot cannot be looked at", &e))?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let field = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        // A slot that is being made has no place yet.
        let Ok(confirmed) = field(0).parse() else { return Ok(None) };
        Ok(Some((confirmed, field(1) == "lost")))
    }

    /// Up to where changes were let go; a failure where some are lost.
    pub async fn confirmed(&self) -> Result<Lsn> {
        match self.state().await? {
            None => Err(self.lost(&format!("the replication slot {} is gone", self.name))),
            Some((_, true)) => Err(self.lost("the server has removed the log that the slot needs")),
            Some((confirmed, false)) => Ok(confirmed),
        }
    }

    /// Bytes of the server's log that the slot keeps; `None` where there is no slot.
    pub async fn kept(&self) -> Result<Option<u64>> {
        let sql = format!(
            "SELECT pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() \
             THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn)::pg_catalog.int8 \
             FROM pg_catalog.pg_replication_slots WHERE slot_name = {}",
            literal(self.name)
        );
        let bytes = self.text(&sql, "its replication slot cannot be looked at").await?;
        Ok(bytes.map(|bytes| bytes.parse().unwrap_or(0)))
    }

    /// Makes both, or finds them there; the slot's position.
    pub async fn begin(&self, known: &Known) -> Result<Lsn> {
        self.check().await?;
        let published = self.definitions_known().await?.is_some();
        if let (true, Some((confirmed, false))) = (published, self.state().await?) {
            return Ok(confirmed);
        }
        self.drop().await?;
        self.check_room().await?;
        // The publication first: the slot sees the catalog as it was at each moment.
        self.publish(known).await?;
        self.make().await
    }

    /// What the server must be like.
    async fn check(&self) -> Result<()> {
        let what = "its settings cannot be looked at";
        let sql = "SELECT pg_catalog.pg_is_in_recovery() || ' ' || pg_catalog.current_setting('wal_level')";
        let state = self.text(sql, what).await?.unwrap_or_default();
        if state.starts_with("true") {
            return Err(Failure::operator(
                self.at.item(),
                "the server is a standby, which cannot be followed",
            )
            .hint("name the primary in `url`"));
        }
        if !state.ends_with(" logical") {
            let level = state.rsplit(' ').next().unwrap_or_default().to_owned();
            let what = format!("wal_level is {level}: the log does not tell which rows change");
            return Err(Failure::operator(self.at.item(), what)
                .hint("ALTER SYSTEM SET wal_level = 'logical'; then restart the server"));
        }
        let sql = "SELECT rolsuper OR rolreplication FROM pg_catalog.pg_roles WHERE rolname = current_user";
        if self.text(sql, what).await?.as_deref() != Some("t") {
            let user = quote(&self.at.settings.user);
            return Err(Failure::operator(
                self.at.item(),
                "the role of `url` may not make replication slots",
            )
            .hint(format!("ALTER ROLE {user} REPLICATION")));
        }
        Ok(())
    }

    async fn check_room(&self) -> Result<()> {
        let sql = "SELECT 1 FROM pg_catalog.pg_replication_slots \
                   HAVING count(*) >= pg_catalog.current_setting('max_replication_slots')::pg_catalog.int4";
        if self.text(sql, "its settings cannot be looked at").await?.is_none() {
            return Ok(());
        }
        Err(Failure::operator(self.at.item(), "all of the server's replication slots are in use").hint(
            "drop one that nobody uses (pg_drop_replication_slot), or raise max_replication_slots and restart the server",
        ))
    }

    /// Publishes the tables whose keys the log tells, and notes what they look like.
    async fn publish(&self, known: &Known) -> Result<()> {
        let table = |table: &super::known::Followed| {
            let name = format!("{}.{}", quote(&table.name.schema), quote(&table.name.name));
            match table.published.as_slice() {
                [] => format!("ONLY {name}"),
                columns => format!("ONLY {name} ({})", columns.join(", ")),
            }
        };
        let tables: Vec<String> = known.followed.values().map(|followed| table(followed)).collect();
        let tables =
            if tables.is_empty() { String::new() } else { format!(" FOR TABLE {}", tables.join(", ")) };
        // Its locks keep the tables as they are until what they look like is noted.
        let sql = format!("BEGIN; CREATE PUBLICATION {}{tables}", quote(self.name));
        let made = async {
            self.conn.batch_execute(&sql).await?;
            let comment = format!("{OWN_COMMENT}{}", self.definitions_text().await?);
            let sql = format!("COMMENT ON PUBLICATION {} IS {}", quote(self.name), literal(&comment));
            self.conn.batch_execute(&format!("{sql}; COMMIT")).await
        };
        let made = made.await;
        if made.is_err() {
            let _ = self.conn.batch_execute("ROLLBACK").await;
        }
        made.map_err(|error| {
            let failure = self.failed("its tables cannot be published", &error);
            if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                return failure.hint("the preflight shows what the role of `url` must own");
            }
            failure
        })
    }

    /// Makes the slot. The server waits for all transactions that are running.
    async fn make(&self) -> Result<Lsn> {
        let what = "a replication slot cannot be made";
        self.run(&format!("SET statement_timeout = {0}; SET lock_timeout = {0}", MAKING.as_millis()), what)
            .await?;
        let sql = format!(
            "SELECT lsn FROM pg_catalog.pg_create_logical_replication_slot({}, 'pgoutput')",
            literal(self.name)
        );
        let made = self.conn.text(&sql).await;
        let _ = self.conn.batch_execute("SET statement_timeout = 0; SET lock_timeout = '30s'").await;
        let made = made.map_err(|error| {
            let failure = self.failed(what, &error);
            let waited = [SqlState::QUERY_CANCELED, SqlState::LOCK_NOT_AVAILABLE];
            if error.code().is_some_and(|code| waited.contains(code)) {
                return failure
                    .hint("transactions that write have been open for long (pg_stat_activity): end them");
            }
            failure
        })?;
        let place = made.unwrap_or_default().parse();
        place.map_err(|e| Failure::permanent(self.at.item(), what).because(e))
    }

    /// What the published tables look like now: number and a hash for each.
    async fn definitions_text(&self) -> std::result::Result<String, tokio_postgres::Error> {
        let sql = format!(
            "SELECT coalesce(pg_catalog.string_agg(oid || ':' || pg_catalog.hashtextextended(definition COLLATE pg_catalog.\"C\", 0), ',' \
             ORDER BY oid), '') FROM (SELECT c.oid, pg_catalog.concat_ws(E'\\n', n.nspname, c.relname, c.relpersistence, c.relreplident, \
             (SELECT pg_catalog.string_agg(i.indkey::pg_catalog.text, ',' ORDER BY i.indexrelid) FROM pg_catalog.pg_index i \
             WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident)), \
             (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated), E'\\n' \
             ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)) AS definition \
             FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid \
             JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE p.pubname = {}) d",
            literal(self.name)
        );
        Ok(self.conn.text(&sql).await?.unwrap_or_default())
    }

    /// What they looked like when they were published; `None` where there is no publication.
    async fn definitions_known(&self) -> Result<Option<String>> {
        let sql = format!(
            "SELECT pg_catalog.obj_description(oid, 'pg_publication') FROM pg_catalog.pg_publication WHERE pubname = {}",
            literal(self.name)
        );
        let comment = self.text(&sql, "its publication cannot be looked at").await?;
        Ok(comment.and_then(|comment| comment.strip_prefix(OWN_COMMENT).map(str::to_owned)))
    }

    /// A failure when a published table has been altered, dropped or taken out. The log tells of no such thing.
    pub async fn check_definitions(&self, known: &Known) -> Result<()> {
        let Some(then) = self.definitions_known().await? else {
            return Err(self.lost(&format!("the publication {} is gone", self.name)));
        };
        let now = self.definitions_text().await;
        let now = now.map_err(|e| self.failed("its catalog cannot be read", &e))?;
        if then == now {
            return Ok(());
        }
        let list = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.split(',').filter_map(|pair| pair.split_once(':'));
            pairs.map(|(number, hash)| (number.to_owned(), hash.to_owned())).collect()
        };
        let (then, now) = (list(&then), list(&now));
        let differs = then.iter().find(|(number, hash)| now.get(*number) != Some(hash));
        let number = differs.or_else(|| now.iter().find(|(number, _)| !then.contains_key(*number)));
        let number = number.map(|(number, _)| number.as_str()).unwrap_or_default();
        let table = number.parse().ok().and_then(|number: u32| known.followed.get(&number));
        Err(self.at.altered(&table.map_or_else(|| number.to_owned(), |table| table.name.to_string())))
    }

    /// Runs something that needs the slot for itself, until nobody else has it or it takes too long.
    pub async fn alone(&self, sql: &str, what: &str) -> Result<()> {
        let deadline = Instant::now() + IN_USE;
        loop {
            let Err(error) = self.conn.batch_execute(sql).await else { return Ok(()) };
            let in_use = error.code() == Some(&SqlState::OBJECT_IN_USE);
            if !in_use || Instant::now() >= deadline {
                return Err(self.failed(what, &error));
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// Lets the log go up to a place; never back.
    pub async fn advance(&self, until: Lsn) -> Result<()> {
        if self.confirmed().await? >= until {
            return Ok(());
        }
        let sql = format!(
            "SELECT pg_catalog.pg_replication_slot_advance({}, {})",
            literal(self.name),
            literal(&until.to_string())
        );
        self.alone(&sql, "its replication slot cannot be moved on").await
    }

    /// Drops both, as far as they are there.
    pub async fn drop(&self) -> Result<()> {
        // A reader of a former agent may still be at work.
        let slot = literal(self.name);
        let end = format!(
            "SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = {slot} AND active_pid IS NOT NULL"
        );
        self.run(&end, "the session that uses its replication slot cannot be ended").await?;
        let drop = format!(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = {slot}"
        );
        self.alone(&drop, "its replication slot cannot be dropped").await?;
        let drop = format!("DROP PUBLICATION IF EXISTS {}", quote(self.name));
        self.run(&drop, "its publication cannot be dropped").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let named = |capture: &str, database: &str| name(&capture.parse().unwrap(), database);
        let long = "A.b-".repeat(16);
        for (capture, database) in [("move", "shop"), (long.as_str(), "shop")] {
            let name = named(capture, database);
            let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.len() <= 63 && name.chars().all(ok), "{name}");
        }
        assert!(named("move", "shop").starts_with("handover_move_"));
        assert_ne!(named("move", "shop"), named("move", "other"));
        assert_ne!(named("move.1", "shop"), named("move_1", "shop"));
    }
}
