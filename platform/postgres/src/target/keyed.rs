//! Writing rows by their keys: the keys' rows go, and those that were found come, in one transaction.

use async_trait::async_trait;
use handover_engine::failure::{Class, Failure};
use handover_engine::ports::{KeyedTarget, Result};
use handover_engine::rows::{Key, KeyedRows, TableName};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::PostgresTarget;
use super::load::copy;
use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::shape::{BadShape, Shape};

/// Most keys in one statement.
const KEYS: usize = 10_000;
/// How often a transaction that lost a deadlock is tried.
const TRIES: u32 = 10;
/// Rows are looked up by the index, however many.
const LOOK_UP: &str = "SELECT pg_catalog.set_config(name, 'off', true) FROM pg_catalog.pg_settings \
    WHERE name IN ('enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'enable_memoize')";
/// Where rows wait that may stand in the way of others.
const STAGING: &str = "pg_temp.handover_rows";

/// Rows of a table, by their keys.
struct Part<'a> {
    rows: &'a KeyedRows,
    shape: Shape,
}

/// A connection that a crash of the server would have ended.
pub struct Witness {
    conn: Conn,
    /// There are commits that were not waited for.
    is_called: bool,
}

impl Witness {
    /// Calls it, unless it cannot stand by any more and need not have.
    fn call(&mut self) -> bool {
        self.is_called |= !self.conn.is_closed();
        self.is_called
    }
}

impl PostgresTarget {
    /// Makes each of the keys hold exactly its row, or none.
    pub(super) async fn put_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        let (settings, schema) = self.at().await?;
        let table = |at: usize| rows.get(at).map(|rows| &rows.chunk.header.table);
        // Who writes in place asks for each answer by itself, and waits for the disk.
        if !self.in_place {
            self.call_witness(&settings).await?;
        }
        let conn = self.rows_conn(&settings, &schema).await?;
        let mut parts = Vec::with_capacity(rows.len());
        for rows in rows {
            let table = &rows.chunk.header.table;
            let shape = self.shape(&schema, table)?;
            if shape.hidden {
                return Err(self.malformed(table, &BadShape::Key));
            }
            parts.push(Part { rows, shape });
        }
        apply(&conn, &parts, self.in_place).await.map_err(|refused| match refused {
            Refused::Server(at, error) => {
                failed(self.item(table(at)), "rows cannot be written by key", &error)
            }
            Refused::Key(at, e) => Failure::permanent(self.item(table(at)), e.to_string()),
        })?;
        self.keep_conn(conn);
        Ok(())
    }

    /// Has a connection stand by from before the first commit that is not waited for. A crash that loses such a commit ends it.
    async fn call_witness(&self, settings: &Settings) -> Result<()> {
        if self.lock().witness.as_mut().is_some_and(Witness::call) {
            return Ok(());
        }
        let new = Witness { conn: self.conn(settings).await?, is_called: true };
        let mut open = self.lock();
        if !open.witness.as_mut().is_some_and(Witness::call) {
            open.witness = Some(new);
        }
        Ok(())
    }

    /// Waits until the log of every commit so far is on disk: that of one more, which is waited for, lies behind them. Fails
    /// (transient) when the server was away in between, since what it had not written by then is lost.
    pub(super) async fn flush_log(&self) -> Result<()> {
        let witness = self.lock().witness.take();
        let conn = match witness {
            Some(Witness { conn, is_called: true }) => conn,
            // Nothing was written since the last time.
            idle => {
                self.lock().witness = idle;
                return Ok(());
            }
        };
        conn.text("SELECT pg_catalog.pg_logical_emit_message(true, 'handover', '')").await.map_err(
            |error| {
                let mut failure = failed(self.item(None), "what was written may not be durable", &error);
                failure.class = Class::Transient;
                failure
            },
        )?;
        self.lock().witness = Some(Witness { conn, is_called: false });
        Ok(())
    }
}

#[async_trait]
impl KeyedTarget for PostgresTarget {
    async fn apply_keys(&self, rows: &[KeyedRows]) -> Result<()> {
        self.put_keys(rows).await
    }

    async fn make_durable(&self) -> Result<()> {
        self.flush_log().await
    }

    async fn clear(&self, table: &TableName) -> Result<()> {
        let (settings, schema) = self.at().await?;
        let shape = self.shape(&schema, table)?;
        let conn = self.rows_conn(&settings, &schema).await?;
        // Where foreign keys are, the server empties no table alone.
        let verb = if self.in_place { "DELETE FROM" } else { "TRUNCATE" };
        let done = conn.batch_execute(&format!("{verb} ONLY {}", shape.table)).await;
        done.map_err(|e| failed(self.item(Some(table)), "it cannot be emptied", &e))?;
        self.keep_conn(conn);
        Ok(())
    }

    /// The server logs what a foreign key's action does to each row.
    async fn children(&self, _table: &TableName, _columns: &[u32], _values: &[Key]) -> Result<Vec<Key>> {
        Ok(Vec::new())
    }
}

/// Why rows could not be written.
enum Refused {
    /// By the server; the part, and why.
    Server(usize, Error),
    /// A key is none.
    Key(usize, BadShape),
}

/// Makes each key hold exactly its row, or none.
async fn apply(conn: &Conn, parts: &[Part<'_>], wait: bool) -> Result<(), Refused> {
    let (mut careful, mut tries) = (false, 0);
    loop {
        let refused = match attempt(conn, parts, careful, wait).await {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let _ = conn.batch_execute("ROLLBACK").await;
        let code = match &refused {
            Refused::Server(_, error) => error.code().cloned(),
            Refused::Key(..) => None,
        };
        let in_the_way = [SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION];
        tries += 1;
        if !careful && code.as_ref().is_some_and(|code| in_the_way.contains(code)) {
            careful = true;
        } else if code != Some(SqlState::T_R_DEADLOCK_DETECTED) || tries >= TRIES {
            return Err(refused);
        }
    }
}

async fn attempt(conn: &Conn, parts: &[Part<'_>], careful: bool, wait: bool) -> Result<(), Refused> {
    let server = |at| move |error| Refused::Server(at, error);
    // Not waited for: made durable together, by `flush_log`.
    let commit = if wait { "on" } else { "off" };
    let begin = format!("BEGIN; SET LOCAL synchronous_commit = {commit}; {LOOK_UP}");
    conn.batch_execute(&begin).await.map_err(server(0))?;
    for (at, Part { rows, shape }) in parts.iter().enumerate() {
        for keys in rows.keys.chunks(KEYS) {
            let lookup = shape.lookup(keys).map_err(|bad| Refused::Key(at, bad))?;
            let sql =
                format!("DELETE FROM ONLY {} t USING {} WHERE {}", shape.table, lookup.keys, lookup.matches);
            conn.batch_execute(&sql).await.map_err(server(at))?;
        }
        let done =
            if careful { put_carefully(conn, rows, shape).await } else { put(conn, rows, shape).await };
        done.map_err(server(at))?;
    }
    conn.batch_execute("COMMIT").await.map_err(server(0))
}

async fn put(conn: &Conn, rows: &KeyedRows, shape: &Shape) -> Result<(), Error> {
    let sql = format!("COPY {} ({}) FROM STDIN", shape.table, shape.columns.join(", "));
    copy(conn, &sql, vec![rows.chunk.block.clone()]).await
}

/// As [`put`], after rows of other keys that stand in the way have gone.
async fn put_carefully(conn: &Conn, rows: &KeyedRows, shape: &Shape) -> Result<(), Error> {
    let (table, columns) = (&shape.table, shape.columns.join(", "));
    let sql = format!("CREATE TEMP TABLE handover_rows (LIKE {table} INCLUDING GENERATED)");
    conn.batch_execute(&sql).await?;
    copy(conn, &format!("COPY {STAGING} ({columns}) FROM STDIN"), vec![rows.chunk.block.clone()]).await?;
    let ways = ways(conn, table).await?;
    for way in &ways {
        conn.batch_execute(&way.clear(table)).await?;
    }
    // Of rows that stand in each other's way the one that was read later is the newer one. A constraint that can be deferred
    // does not let the server leave the others out.
    let others = if ways.iter().any(|way| way.deferrable) { "" } else { "ON CONFLICT DO NOTHING" };
    let sql = format!(
        "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {STAGING} ORDER BY ctid DESC \
         {others}; DROP TABLE {STAGING}"
    );
    conn.batch_execute(&sql).await
}

/// What lets one row be in another's way: a unique index or an exclusion constraint.
struct Way {
    index: String,
    /// Which rows it is about; empty for all.
    predicate: String,
    /// Expressions, and the operators under which they are.
    terms: Vec<(String, String)>,
    /// NULL is in the way of NULL.
    nulls: bool,
    /// It may be looked at as late as at the commit.
    deferrable: bool,
}

impl Way {
    /// The statement that removes rows in whose way those of the staging table are.
    fn clear(&self, table: &str) -> String {
        let (mut outputs, mut terms) = (Vec::new(), Vec::new());
        for (at, (expression, operator)) in self.terms.iter().enumerate() {
            outputs.push(format!("({expression}) AS \"handover {at}\""));
            let both = format!("({expression}) {operator} s.\"handover {at}\"");
            terms.push(if self.nulls {
                format!("({both} OR ({expression}) IS NULL AND s.\"handover {at}\" IS NULL)")
            } else {
                both
            });
        }
        let (inside, outside) = match self.predicate.as_str() {
            "" => (String::new(), String::new()),
            predicate => (format!(" WHERE {predicate}"), format!("({predicate}) AND ")),
        };
        format!(
            "DELETE FROM ONLY {table} WHERE {outside}EXISTS (SELECT FROM (SELECT {} FROM {STAGING}{inside}) s WHERE {})",
            outputs.join(", "),
            terms.join(" AND ")
        )
    }
}

async fn ways(conn: &Conn, table: &str) -> Result<Vec<Way>, Error> {
    let sql = format!(
        "SELECT i.indexrelid, pg_catalog.pg_get_expr(i.indpred, i.indrelid), \
         pg_catalog.pg_get_indexdef(i.indexrelid, k.n + 1, false), pg_catalog.quote_ident(s.nspname) || '.' || o.oprname, \
         pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct', i.indimmediate FROM pg_catalog.pg_index i \
         CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts - 1) AS k (n) \
         JOIN pg_catalog.pg_operator o ON o.oid = CASE WHEN i.indisexclusion \
         THEN (SELECT c.conexclop[k.n + 1] FROM pg_catalog.pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype = 'x') \
         ELSE (SELECT p.amopopr FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_amop p ON p.amopfamily = c.opcfamily \
         AND p.amoplefttype = c.opcintype AND p.amoprighttype = c.opcintype AND p.amopstrategy = 3 \
         WHERE c.oid = i.indclass[k.n]) END \
         JOIN pg_catalog.pg_namespace s ON s.oid = o.oprnamespace \
         WHERE i.indrelid = {}::pg_catalog.regclass AND (i.indisunique OR i.indisexclusion) ORDER BY i.indexrelid, k.n",
        crate::sql::literal(table)
    );
    let mut out: Vec<Way> = Vec::new();
    for row in conn.rows(&sql).await? {
        let field = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
        let term = (field(2), format!("OPERATOR({})", field(3)));
        match out.last_mut().filter(|way| way.index == field(0)) {
            Some(way) => way.terms.push(term),
            None => out.push(Way {
                index: field(0),
                predicate: field(1),
                terms: vec![term],
                nulls: field(4) == "true",
                deferrable: field(5) == "f",
            }),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_found_by_the_index_s_own_expressions() {
        let term =
            |expression: &str, operator: &str| (expression.to_owned(), format!("OPERATOR({operator})"));
        let way = Way {
            index: "1".to_owned(),
            predicate: "(a > 0)".to_owned(),
            terms: vec![term("lower(b)", "pg_catalog.="), term("c", "public.&&")],
            nulls: false,
            deferrable: false,
        };
        assert_eq!(
            way.clear("t"),
            "DELETE FROM ONLY t WHERE ((a > 0)) AND EXISTS (SELECT FROM (SELECT (lower(b)) AS \"handover 0\", \
             (c) AS \"handover 1\" FROM pg_temp.handover_rows WHERE (a > 0)) s \
             WHERE (lower(b)) OPERATOR(pg_catalog.=) s.\"handover 0\" AND (c) OPERATOR(public.&&) s.\"handover 1\")"
        );
    }
}
