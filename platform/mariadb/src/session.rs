//! One connection: how it is opened, what it is set to, and how its errors are told.

mod pieces;

use bytes::Bytes;
use futures::StreamExt;
use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row, SslOpts, Value};

use self::pieces::Pieces;
use super::error::{self, failed};
use super::settings::Settings;
use super::sql;

/// Largest packet that is taken from the server: its own upper limit.
const PACKET: usize = 1 << 30;

/// One row of a small result.
pub struct Record(Vec<Option<Vec<u8>>>);

impl Record {
    /// A column as text; empty for NULL.
    pub fn text(&self, column: usize) -> String {
        self.bytes(column).map(|b| String::from_utf8_lossy(b).into_owned()).unwrap_or_default()
    }

    /// A column as text, if not NULL.
    pub fn maybe(&self, column: usize) -> Option<String> {
        self.bytes(column).map(|b| String::from_utf8_lossy(b).into_owned())
    }

    /// A column's bytes, if not NULL.
    pub fn bytes(&self, column: usize) -> Option<&[u8]> {
        self.0.get(column).and_then(Option::as_deref)
    }

    /// A column as a number; 0 for anything else.
    pub fn number(&self, column: usize) -> u64 {
        self.text(column).parse().unwrap_or(0)
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads.
    Reader,
    /// Loads and makes tables.
    Loader,
}

/// A connection.
pub struct Session {
    conn: Conn,
    item: String,
    /// Its transaction can go back to its beginning.
    marked: bool,
}

/// `ER_UNKNOWN_SYSTEM_VARIABLE`.
const UNKNOWN_VARIABLE: u16 = 1193;

/// What an error is told about: the dataset, and a table of it.
fn item(dataset: &DatasetName, settings: &Settings) -> String {
    format!("{dataset}, {} at {}", settings.database, settings.server())
}

fn is_unknown_variable(error: &mysql_async::Error) -> bool {
    matches!(error, mysql_async::Error::Server(error) if error.code == UNKNOWN_VARIABLE)
}

fn not_mariadb(item: &str, version: &str, comment: &str) -> Failure {
    let what = format!("the server is not MariaDB but {comment}, version {version}, which is not supported");
    Failure::operator(item, what)
        .hint("load it into a MariaDB server with mysqldump, or name a MariaDB server in `url`")
}

fn options(dataset: &DatasetName, settings: &Settings) -> Result<OptsBuilder> {
    let password = settings.password().map_err(|e| {
        let file = settings.password_file.as_deref().unwrap_or(std::path::Path::new(""));
        Failure::operator(item(dataset, settings), format!("password_file {} cannot be read", file.display()))
            .because(e)
            .hint("make it, readable by the agent's user")
    })?;
    let socket = settings.socket.as_ref().map(|path| path.to_string_lossy().into_owned());
    let tls = settings.tls.then(|| {
        let opts = SslOpts::default();
        match &settings.ca {
            Some(ca) => opts.with_root_certs(vec![ca.clone().into()]).with_disable_built_in_roots(true),
            None => opts,
        }
    });
    Ok(OptsBuilder::default()
        .ip_or_hostname(settings.host.clone())
        .tcp_port(settings.port)
        .socket(socket)
        .prefer_socket(false)
        .user(Some(settings.user.clone()))
        .pass(password)
        .tcp_keepalive(Some(std::time::Duration::from_secs(60)))
        .max_allowed_packet(Some(PACKET))
        .wait_timeout(Some(28800))
        .stmt_cache_size(0)
        .ssl_opts(tls))
}

impl Session {
    /// Connects and sets everything that changes what values look like.
    pub async fn open(dataset: &DatasetName, settings: &Settings, role: Role) -> Result<Self> {
        let item = item(dataset, settings);
        let options = options(dataset, settings)?;
        let conn = Conn::new(options).await.map_err(|e| failed(&item, "cannot be connected to", e))?;
        super::own::opened(&settings.server(), conn.id());
        let mut session = Self { conn, item, marked: false };
        session.refuse_others().await?;
        session.reset(role).await?;
        // Not every server has these; none of them changes what is read.
        for limit in [
            "max_statement_time = 0",
            "idle_transaction_timeout = 0",
            "idle_readonly_transaction_timeout = 0",
            // However many keys a statement names, they are looked up by index, one after the other.
            "in_predicate_conversion_threshold = 0",
            "optimizer_max_sel_arg_weight = 0",
            "optimizer_max_sel_args = 0",
        ] {
            let _ = session.conn.query_drop(format!("SET {limit}")).await;
        }
        if role == Role::Loader {
            session.set_up_loader(settings).await?;
        }
        Ok(session)
    }

    /// Refuses servers of MySQL, which speak the same protocol: they share statements with MariaDB, but neither its catalog
    /// nor its log. Whatever version they say they are, they have no replication domains.
    async fn refuse_others(&mut self) -> Result<()> {
        let told = self.conn.query_drop("SELECT @@gtid_domain_id").await;
        if !told.is_err_and(|error| is_unknown_variable(&error)) {
            return Ok(());
        }
        let told = self.record("cannot be told apart", "SELECT VERSION(), @@version_comment").await?;
        Err(not_mariadb(&self.item, &told.text(0), &told.text(1)))
    }

    /// Sets what changes how values look, and what an object's own session may have changed.
    pub async fn reset(&mut self, role: Role) -> Result<()> {
        let modes = match role {
            Role::Reader => "ALLOW_INVALID_DATES",
            // An engine that is not there is refused, not replaced.
            Role::Loader => "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION",
        };
        self.run(
            "cannot be set up",
            &format!(
                "SET NAMES utf8mb4, character_set_results = NULL, time_zone = '+00:00', sql_mode = '{modes}', \
                 sql_quote_show_create = 1, autocommit = 1, wait_timeout = 86400, net_write_timeout = 86400, \
                 net_read_timeout = 86400, lock_wait_timeout = 60, sql_select_limit = DEFAULT, sql_safe_updates = 0, \
                 sql_big_selects = 1, foreign_key_checks = 0, unique_checks = 0"
            ),
        )
        .await
    }

    async fn set_up_loader(&mut self, settings: &Settings) -> Result<()> {
        let _ = self.conn.query_drop("SET innodb_strict_mode = 0").await;
        // The source holds rows that were there before a check, or went round it: they move as they are.
        let _ = self.conn.query_drop("SET check_constraint_checks = 0").await;
        // Tables with system versioning are altered too: they get positions for the load, and indexes after it.
        let _ = self.conn.query_drop("SET system_versioning_alter_history = KEEP").await;
        let format = self.record("cannot be set up", "SELECT @@log_bin, @@binlog_format").await?;
        if format.text(0) == "0" || format.text(1) != "STATEMENT" {
            // No gap locks: loaders do not wait for each other.
            self.run("cannot be set up", "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
        }
        if !settings.binlog {
            self.run("the binary log cannot be left out (binlog=off)", "SET SESSION sql_log_bin = 0").await?;
        }
        Ok(())
    }

    /// The same, told about as something else.
    pub fn called(self, item: String) -> Self {
        Self { item, ..self }
    }

    /// Dataset, database and server, for messages.
    pub fn item(&self) -> &str {
        &self.item
    }

    /// The failure of a statement about a table.
    pub fn failed(&self, table: Option<&str>, what: &str, error: mysql_async::Error) -> Failure {
        match table {
            Some(table) => failed(&format!("{}, table {table}", self.item), what, error),
            None => failed(&self.item, what, error),
        }
    }

    /// Runs a statement.
    pub async fn run(&mut self, what: &str, statement: &str) -> Result<()> {
        self.conn.query_drop(statement).await.map_err(|e| failed(&self.item, what, e))
    }

    /// Runs a statement; the driver's or server's error where it fails.
    pub async fn try_run(&mut self, statement: &str) -> std::result::Result<(), mysql_async::Error> {
        self.conn.query_drop(statement).await
    }

    /// Marks the place in a transaction that [`Self::let_go`] goes back to.
    pub async fn mark(&mut self, what: &str) -> Result<()> {
        self.run(what, "SAVEPOINT handover").await?;
        self.marked = true;
        Ok(())
    }

    /// Lets go of the tables that were read since the mark, so that others may alter them. What the transaction sees stays
    /// the same. Without a mark, nothing is held.
    pub async fn let_go(&mut self) -> std::result::Result<(), mysql_async::Error> {
        if self.marked { self.try_run("ROLLBACK TO SAVEPOINT handover").await } else { Ok(()) }
    }

    /// Runs a statement about a table.
    pub async fn run_on(&mut self, table: &str, what: &str, statement: &str) -> Result<()> {
        let done = self.conn.query_drop(statement).await;
        done.map_err(|e| self.failed(Some(table), what, e))
    }

    /// Runs one statement from elsewhere: never a second one behind it.
    pub async fn run_one(&mut self, what: &str, statement: &str) -> Result<()> {
        self.run(what, &sql::immediate(statement)).await
    }

    /// Runs a statement; an error with one of these numbers is none.
    pub async fn run_unless(&mut self, what: &str, statement: &str, codes: &[u16]) -> Result<bool> {
        match self.conn.query_drop(statement).await {
            Ok(()) => Ok(true),
            Err(e) if error::code(&e).is_some_and(|code| codes.contains(&code)) => Ok(false),
            Err(e) => Err(failed(&self.item, what, e)),
        }
    }

    /// The rows of a small result.
    pub async fn records(&mut self, what: &str, query: &str) -> Result<Vec<Record>> {
        let rows: Vec<Row> = self.conn.query(query).await.map_err(|e| failed(&self.item, what, e))?;
        Ok(rows.into_iter().map(record).collect())
    }

    /// The only row of a result.
    pub async fn record(&mut self, what: &str, query: &str) -> Result<Record> {
        let row = self.records(what, query).await?.pop();
        row.ok_or_else(|| Failure::operator(self.item.clone(), what).hint("the server gave an empty answer"))
    }

    /// Like [`Self::record`], with the server's error number where it refuses.
    pub async fn try_record(
        &mut self,
        query: &str,
    ) -> std::result::Result<Option<Record>, mysql_async::Error> {
        let row: Option<Row> = self.conn.query_first(query).await?;
        Ok(row.map(record))
    }

    /// Like [`Self::records`], with the server's error number where it refuses.
    pub async fn try_records(&mut self, query: &str) -> std::result::Result<Vec<Record>, mysql_async::Error> {
        let rows: Vec<Row> = self.conn.query(query).await?;
        Ok(rows.into_iter().map(record).collect())
    }

    /// The first values of a small result's rows, with the server's error number where it refuses.
    pub async fn texts(&mut self, query: &str) -> std::result::Result<Vec<String>, mysql_async::Error> {
        Ok(self.try_records(query).await?.iter().map(|row| row.text(0)).collect())
    }

    /// Uses a database.
    pub async fn enter(&mut self, database: &str) -> Result<()> {
        self.run("cannot be opened", &format!("USE {}", sql::quote(database))).await
    }

    /// Runs `LOAD DATA LOCAL INFILE` with this as the file.
    pub async fn load(&mut self, table: &str, statement: &str, file: Bytes) -> Result<Loaded> {
        let pieces = Pieces::of(file).map(Ok);
        self.conn.set_infile_handler(async move { Ok(futures::stream::iter(pieces).boxed()) });
        let done = self.conn.query_drop(statement).await;
        done.map_err(|e| self.failed(Some(table), "rows cannot be written", e))?;
        Ok(Loaded { rows: self.conn.affected_rows(), warnings: self.conn.get_warnings() })
    }

    /// The connection itself, for a streaming query.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// The connection itself, for good.
    pub fn into_conn(self) -> Conn {
        self.conn
    }
}

/// What a load did.
pub struct Loaded {
    /// Rows inserted and replaced.
    pub rows: u64,
    /// Warnings.
    pub warnings: u16,
}

pub fn record(row: Row) -> Record {
    let values = row.unwrap().into_iter();
    Record(
        values
            .map(|value| match value {
                Value::NULL => None,
                Value::Bytes(bytes) => Some(bytes),
                other => Some(other.as_sql(true).into_bytes()),
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mysql_is_told_by_what_it_does_not_know() {
        let server = |code| {
            mysql_async::Error::Server(mysql_async::ServerError {
                code,
                message: "Unknown system variable 'gtid_domain_id'".to_owned(),
                state: "HY000".to_owned(),
            })
        };
        assert!(is_unknown_variable(&server(1193)) && !is_unknown_variable(&server(1045)));
        let told = not_mariadb("shop, app at db", "8.0.36", "MySQL Community Server - GPL").to_string();
        assert!(told.contains("not MariaDB but MySQL Community Server - GPL, version 8.0.36"), "{told}");
    }
}
