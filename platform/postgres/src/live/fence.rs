//! A fence against writes: a trigger on every table that refuses them.
//!
//! It is part of the database, so that it holds after any crash, and fires for everybody, superusers and those with
//! `session_replication_role` too. It stands as long as some capture wants it: their names are in its function's comment.

mod order;

use std::time::Duration;

use handover_engine::failure::{Class, Failure};
use handover_engine::name::CaptureId;
use handover_engine::ports::Result;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use self::order::Order;
use super::At;
use crate::connect::Conn;
use crate::dump::{FENCE_SCHEMA, FENCE_TRIGGER, OWN_COMMENT};
use crate::error::failed;
use crate::sql::{literal, quote};

/// Time between two attempts to have all tables at once.
const STEP: Duration = Duration::from_millis(10);
/// How long the first attempt waits for a table; each one twice as long as the one before. Far below the `deadlock_timeout` of writers who wait
/// for us meanwhile…
const FIRST: Duration = Duration::from_millis(100);
/// …and at last so far beyond it: autovacuum gives way after it.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a trigger that refuses nothing any more may wait for readers of its table before it is left there.
const LEAVE: Duration = Duration::from_millis(100);
/// How many tables that are read are met before the others are not tried.
const READ: usize = 20;
/// One at a time may change the fence of a database: an advisory lock's number.
const TURN: &str = "SELECT pg_catalog.pg_advisory_xact_lock(7527203814)";
/// Tables in one statement.
const BATCH: usize = 500;
const MAKING: &str = "its fence cannot be made";
/// What the function does while the fence stands. Sessions with the setting are our own, which write behind it.
const REFUSE: &str = "IF pg_catalog.current_setting('handover.applying', true) IS DISTINCT FROM 'on' THEN \
    RAISE EXCEPTION 'this database is being moved to another host and takes no more writes (table %.%)', TG_TABLE_SCHEMA, TG_TABLE_NAME \
    USING ERRCODE = 'read_only_sql_transaction', HINT = 'write to it at the new host, or take the fence away there'; END IF;";
/// Tables that are fenced: those of users, partitioned ones and their partitions. Not those of extensions.
const TABLES: &str = "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' \
    AND n.nspname NOT IN ('information_schema', 'handover_state', 'handover_fence') \
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
    AND d.objid = c.oid AND d.deptype = 'e')";

/// The fence of a database, for one capture.
pub struct Fence<'a> {
    pub at: &'a At,
    /// A connection whose text is UTF-8.
    pub conn: &'a Conn,
    pub capture: &'a CaptureId,
}

impl Fence<'_> {
    fn failed(&self, what: &str, error: &tokio_postgres::Error) -> Failure {
        let mut failure = self.at.failed(what, error);
        match error.code() {
            Some(code) if *code == SqlState::OUT_OF_MEMORY => {
                let hint = "raise max_locks_per_transaction and restart the server: the fence locks all tables at once";
                failure.class = Class::NeedsOperator;
                failure.hint(hint)
            }
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                failure.hint("the preflight shows what the role of `url` must own")
            }
            _ => failure,
        }
    }

    async fn run(&self, sql: &str, what: &str) -> Result<()> {
        self.conn.batch_execute(sql).await.map_err(|e| self.failed(what, &e))
    }

    async fn list(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let rows = self.conn.rows(sql).await.map_err(|e| self.failed("its fence cannot be looked at", &e))?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    /// Who wants the fence; `None` where it was never made.
    async fn wanted_by(&self) -> Result<Option<Vec<String>>> {
        let sql = format!(
            "SELECT pg_catalog.obj_description(p.oid, 'pg_proc') FROM pg_catalog.pg_proc p \
             JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = {} AND p.proname = 'refuse'",
            literal(FENCE_SCHEMA)
        );
        let names = |text: &str| text.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let found = self.list(&sql).await?.into_iter().flatten().next();
        Ok(found.map(|comment| names(comment.strip_prefix(OWN_COMMENT).unwrap_or_default())))
    }

    /// The tables that have no trigger, quoted, and as they are shown.
    async fn missing(&self) -> Result<Vec<(String, String)>> {
        let without = format!(
            "AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = {} \
             AND t.tgenabled = 'A' AND t.tgfoid = pg_catalog.to_regproc('{FENCE_SCHEMA}.refuse')::pg_catalog.oid)",
            literal(FENCE_TRIGGER)
        );
        self.tables_that(&without).await
    }

    async fn tables(&self) -> Result<Vec<(String, String)>> {
        self.tables_that("").await
    }

    async fn tables_that(&self, condition: &str) -> Result<Vec<(String, String)>> {
        let sql = format!("SELECT n.nspname, c.relname {TABLES} {condition} ORDER BY c.oid");
        let excluded = |schema: &str, name: &str| {
            let full = format!("{schema}.{name}");
            self.at.exclude.iter().any(|wanted| *wanted == full || (schema == "public" && *wanted == name))
        };
        let mut out = Vec::new();
        for row in self.list(&sql).await? {
            let [schema, name] = &row[..] else { continue };
            if !excluded(schema, name) {
                out.push((format!("{}.{}", quote(schema), quote(name)), format!("{schema}.{name}")));
            }
        }
        Ok(out)
    }

    /// Lets nobody write any more.
    pub async fn close(&self, wait: Duration) -> Result<()> {
        let deadline = Instant::now() + wait;
        let sql = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'";
        let timeout = self.list(sql).await?.into_iter().flatten().next().and_then(|ms| ms.parse().ok());
        let timeout = Duration::from_millis(timeout.unwrap_or(1000));
        let longest = timeout + PATIENCE;
        let (mut patience, mut order) = (FIRST.min(timeout / 4), Order::default());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // The last one is long enough for autovacuum to give way.
            if left < patience + longest {
                patience = longest;
            }
            let refused = match self.stand(patience.min(left), &mut order).await {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let _ = self.conn.batch_execute("ROLLBACK").await;
            patience = (patience * 2).min(longest);
            match refused {
                Refused::Failed(failure) => return Err(failure),
                Refused::Locked(error) if Instant::now() >= deadline => {
                    return Err(self.blocked(&error).await);
                }
                // Whoever waits behind us goes on, and what we waited for may end meanwhile.
                Refused::Locked(_) => tokio::time::sleep(STEP).await,
            }
        }
    }

    /// Puts a trigger on every table in one transaction, which has all of their locks: whoever has written has ended then.
    async fn stand(&self, patience: Duration, order: &mut Order) -> std::result::Result<(), Refused> {
        let begin = format!("BEGIN; SET LOCAL lock_timeout = {}; {TURN}", patience.as_millis().max(1));
        self.locking(&begin, "another fence is being made").await?;
        let mut wanted_by = self.wanted_by().await?;
        let capture = self.capture.to_string();
        let stands = wanted_by.as_ref().is_some_and(|names| !names.is_empty());
        if wanted_by.is_none() {
            // Nobody else's function may be what is called.
            self.run(&format!("CREATE SCHEMA {FENCE_SCHEMA}; {}", function("")), MAKING).await?;
        }
        let missing = self.missing().await?;
        // A trigger of a fence that was opened refuses nothing until its function does, for which its table must be locked too.
        let locked = if stands { missing.clone() } else { self.tables().await? };
        self.lock(locked.into_iter().map(|(name, _)| name).collect(), order).await?;
        for batch in missing.chunks(BATCH) {
            let sql: Vec<String> = batch.iter().map(|(name, _)| trigger(name)).collect();
            self.locking(&sql.concat(), MAKING).await?;
        }
        let names = wanted_by.get_or_insert_default();
        if !names.contains(&capture) {
            names.push(capture);
        }
        let comment = comment(names);
        self.run(&format!("{}; {comment}; COMMIT", function(REFUSE)), MAKING).await?;
        Ok(())
    }

    /// Waits until nobody writes to any of the tables, and nobody else can begin to.
    async fn lock(&self, tables: Vec<String>, order: &mut Order) -> std::result::Result<(), Refused> {
        let (alone, rest) = order.arrange(tables);
        for tables in alone.chunks(1).chain(rest.chunks(BATCH)) {
            let names: Vec<String> = tables.iter().map(|name| format!("ONLY {name}")).collect();
            let sql = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", names.join(", "));
            let locked = self.locking(&sql, MAKING).await;
            if let Err(Refused::Locked(_)) = &locked {
                let _ = self.conn.batch_execute("ROLLBACK").await;
                let in_use = if tables.len() > 1 { self.in_use().await } else { Vec::new() };
                order.met(in_use.iter().chain(tables.iter().take(1)).map(String::as_str));
            }
            locked?;
        }
        Ok(())
    }

    /// Runs what may have to wait for others.
    async fn locking(&self, sql: &str, what: &str) -> std::result::Result<(), Refused> {
        let Err(error) = self.conn.batch_execute(sql).await else { return Ok(()) };
        let passes = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
        Err(if error.code().is_some_and(|code| passes.contains(code)) {
            Refused::Locked(error)
        } else {
            Refused::Failed(self.failed(what, &error))
        })
    }

    /// Tables that others hold for writing, and who: those that have done so for the longest first.
    async fn holders(&self) -> Vec<Vec<String>> {
        let sql = format!(
            "SELECT n.nspname, c.relname, coalesce('process ' || l.pid, 'a prepared transaction'), \
             coalesce(a.usename || ', ' || nullif(a.application_name, ''), a.usename, a.backend_type, '') \
             FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid() \
             AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
             AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', \
             'ExclusiveLock', 'AccessExclusiveLock') AND c.oid IN (SELECT c.oid {TABLES}) \
             ORDER BY a.xact_start NULLS FIRST"
        );
        self.list(&sql).await.unwrap_or_default()
    }

    async fn in_use(&self) -> Vec<String> {
        let table = |row: Vec<String>| Some(format!("{}.{}", quote(row.first()?), quote(row.get(1)?)));
        self.holders().await.into_iter().filter_map(table).collect()
    }

    /// Who keeps the fence from being made.
    async fn blocked(&self, error: &tokio_postgres::Error) -> Failure {
        let holder = self.holders().await.into_iter().next();
        let failure = |item: String, what: String| {
            let mut failure = failed(item, what, error);
            failure.class = Class::Transient;
            failure
        };
        match holder.as_deref() {
            Some([schema, table, process, who]) => failure(
                format!("{}, table {schema}.{table}", self.at.item()),
                format!("it cannot be fenced: {process} ({who}) has it in use"),
            )
            .hint(
                "end that transaction (pg_terminate_backend), or stop the services that write, then resume",
            ),
            _ => failure(self.at.item(), "it cannot be fenced: its tables are in use".to_owned()).hint(
                "end transactions that are open for long, or stop the services that write, then resume",
            ),
        }
    }

    /// Lets everybody write again, unless another capture wants the fence.
    pub async fn open(&self) -> Result<()> {
        let what = "its fence cannot be taken away";
        self.run(&format!("BEGIN; {TURN}"), what).await?;
        let opened = self.let_go(what).await;
        let Ok(opened) = opened else {
            let _ = self.conn.batch_execute("ROLLBACK").await;
            return opened.map(drop);
        };
        if opened { self.clear(what).await } else { Ok(()) }
    }

    /// Notes that the capture wants no fence; whether nobody does. The function refuses nothing from then on, for which no lock is needed.
    async fn let_go(&self, what: &str) -> Result<bool> {
        let Some(mut names) = self.wanted_by().await? else {
            self.run("COMMIT", what).await?;
            return Ok(false);
        };
        let capture = self.capture.to_string();
        names.retain(|name| *name != capture);
        let body = if names.is_empty() { format!("{}; ", function("")) } else { String::new() };
        self.run(&format!("{body}{}; COMMIT", comment(&names)), what).await?;
        Ok(names.is_empty())
    }

    /// Removes what is left of a fence that refuses nothing. To drop a trigger takes a moment without readers: where there is
    /// none soon the trigger stays, and does nothing, until it is tried again.
    async fn clear(&self, what: &str) -> Result<()> {
        let sql = format!(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE t.tgfoid = pg_catalog.to_regproc('{FENCE_SCHEMA}.refuse')::pg_catalog.oid"
        );
        let mut left = Vec::new();
        for row in self.list(&sql).await? {
            let [schema, name] = &row[..] else { continue };
            if left.len() >= READ {
                break;
            }
            let table = format!("{}.{}", quote(schema), quote(name));
            let sql = format!(
                "BEGIN; SET LOCAL lock_timeout = {}; DROP TRIGGER IF EXISTS {FENCE_TRIGGER} ON {table}; COMMIT",
                LEAVE.as_millis()
            );
            let Err(error) = self.conn.batch_execute(&sql).await else { continue };
            let _ = self.conn.batch_execute("ROLLBACK").await;
            match error.code() {
                Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => left.push(format!("{schema}.{name}")),
                Some(code) if *code == SqlState::UNDEFINED_TABLE => {}
                _ => return Err(self.failed(what, &error)),
            }
        }
        if left.is_empty() {
            return self.clear_schema(what).await;
        }
        let item = self.at.item();
        tracing::info!(item, tables = ?left, "triggers of the fence, which refuse nothing now, stay until their tables are not read");
        Ok(())
    }

    /// Drops the function and its schema, unless a fence was made meanwhile.
    async fn clear_schema(&self, what: &str) -> Result<()> {
        self.run(&format!("BEGIN; {TURN}"), what).await?;
        let unwanted = match self.wanted_by().await {
            Ok(names) => names.is_some_and(|names| names.is_empty()),
            Err(failure) => {
                let _ = self.conn.batch_execute("ROLLBACK").await;
                return Err(failure);
            }
        };
        let drop = if unwanted { format!("DROP SCHEMA {FENCE_SCHEMA} CASCADE; ") } else { String::new() };
        let done = self.run(&format!("{drop}COMMIT"), what).await;
        if done.is_err() {
            let _ = self.conn.batch_execute("ROLLBACK").await;
        }
        done
    }
}

/// Why a fence does not stand yet.
enum Refused {
    /// Somebody has a table.
    Locked(tokio_postgres::Error),
    /// It never will by itself.
    Failed(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The statement that makes the function that triggers call.
fn function(body: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION {FENCE_SCHEMA}.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = '' \
         AS $handover$BEGIN {body} RETURN NULL; END$handover$"
    )
}

fn comment(names: &[String]) -> String {
    let text = format!("{OWN_COMMENT}{}", names.join(" "));
    format!("COMMENT ON FUNCTION {FENCE_SCHEMA}.refuse() IS {}", literal(&text))
}

/// The statements that put the trigger on a table. It fires once for each statement that names the table, before it.
fn trigger(table: &str) -> String {
    format!(
        "CREATE OR REPLACE TRIGGER {FENCE_TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} \
         FOR EACH STATEMENT EXECUTE FUNCTION {FENCE_SCHEMA}.refuse(); \
         ALTER TABLE ONLY {table} ENABLE ALWAYS TRIGGER {FENCE_TRIGGER};"
    )
}
