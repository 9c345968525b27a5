//! Connections and how their sessions are set up.

use std::future::Future;
use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::{Client, Config, Connection, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Settings;
use crate::error::{failed, unreachable};
use crate::pieces::{Pieces, Piecewise, Plain};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// What every session begins with: text that means the same whatever the defaults of server, database and role are,
/// and no limits of time on us other than on waiting for locks.
const SESSION: &str = "SET search_path = ''; SET standard_conforming_strings = on; SET DateStyle = 'ISO, MDY'; \
    SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; SET TimeZone = 'UTC'; SET bytea_output = 'hex'; \
    SET xmloption = 'content'; SET lc_monetary = 'C'; SET lc_numeric = 'C'; SET lc_time = 'C'; \
    SET array_nulls = on; SET backslash_quote = safe_encoding; SET transform_null_equals = off; \
    SET statement_timeout = 0; SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = 0; \
    SET row_security = off; SET synchronize_seqscans = off; SET synchronous_commit = on; \
    SET quote_all_identifiers = off; SET check_function_bodies = off; \
    SET default_transaction_read_only = off; SET client_min_messages = warning; SET jit = off; SET max_parallel_workers_per_gather = 0";

/// Limits that only some versions have.
const NO_LIMITS: &str = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
    WHERE name IN ('idle_session_timeout', 'transaction_timeout')";

/// A connection; dropping it ends the session at the server.
pub struct Conn {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl std::ops::Deref for Conn {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Conn {
    /// Connects to the settings' database.
    pub async fn open(dataset: &DatasetName, settings: &Settings) -> Result<Self> {
        let item = format!("{dataset}, {}", settings.location());
        let config = config(&item, settings)?;
        let refused = |error: tokio_postgres::Error| failed(&item, "it cannot be connected to", &error);
        let conn = match (&settings.socket, &settings.ca) {
            (Some(directory), _) => {
                let path = directory.join(format!(".s.PGSQL.{}", settings.port));
                let socket = within(&item, UnixStream::connect(path)).await?;
                let socket = socket.map_err(|error| unreachable(&item, error))?;
                let connecting = config.connect_raw(Pieces::plain(socket), NoTls);
                let (client, connection) = within(&item, connecting).await?.map_err(refused)?;
                Self { client, driver: drive(connection) }
            }
            (None, None) => {
                let (client, connection) = within(&item, config.connect(Plain)).await?.map_err(refused)?;
                Self { client, driver: drive(connection) }
            }
            (None, Some(ca)) => {
                let tls = Piecewise(MakeRustlsConnect::new(crate::tls::config(&item, ca)?));
                let (client, connection) = within(&item, config.connect(tls)).await?.map_err(refused)?;
                Self { client, driver: drive(connection) }
            }
        };
        conn.batch_execute(&format!("{SESSION}; {NO_LIMITS}"))
            .await
            .map_err(|e| failed(&item, "its session cannot be set up", &e))?;
        Ok(conn)
    }

    /// Text in and out is in the database's own encoding from now on: bytes as they are stored.
    pub async fn raw_text(&self, encoding: &str) -> std::result::Result<(), tokio_postgres::Error> {
        self.batch_execute(&format!("SET client_encoding = {}", crate::sql::literal(encoding))).await
    }

    /// One value of one row, as text.
    pub async fn text(&self, sql: &str) -> std::result::Result<Option<String>, tokio_postgres::Error> {
        Ok(self.rows(sql).await?.into_iter().next().and_then(|mut row| row.pop().flatten()))
    }

    /// All rows, as text.
    pub async fn rows(
        &self,
        sql: &str,
    ) -> std::result::Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        let mut out = Vec::new();
        for message in self.simple_query(sql).await? {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                let value = |n| Ok(row.try_get(n)?.map(str::to_owned));
                out.push(
                    (0..row.len()).map(value).collect::<std::result::Result<_, tokio_postgres::Error>>()?,
                );
            }
        }
        Ok(out)
    }
}

fn config(item: &str, settings: &Settings) -> Result<Config> {
    let password = settings.password().map_err(|error| {
        Failure::operator(item, "the password file cannot be read")
            .because(error)
            .hint("correct `password_file` in `url`, or let the agent's user read it")
    })?;
    let mut config = Config::new();
    config.user(&settings.user).dbname(&settings.database).port(settings.port);
    config.application_name("handover").connect_timeout(CONNECT);
    config.keepalives_idle(Duration::from_secs(30));
    if let Some(password) = password {
        config.password(password);
    }
    match (&settings.socket, &settings.ca) {
        (Some(_), _) => config.ssl_mode(SslMode::Disable),
        // Nothing is negotiated for what takes TLS's place (`Plain`).
        (None, None) => {
            config.host(&settings.host).ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct)
        }
        (None, Some(_)) => config.host(&settings.host).ssl_mode(SslMode::Require),
    };
    Ok(config)
}

async fn within<T>(item: &str, connecting: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(2 * CONNECT, connecting).await.map_err(|_| {
        Failure::transient(item, "the server does not answer")
            .hint("is the server running, and reachable at this address?")
    })
}

/// Runs a connection until its client is dropped or the server ends it; the client's next call tells why.
fn drive<S, T>(connection: Connection<S, T>) -> JoinHandle<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %crate::error::describe(&error), "a connection ended");
        }
    })
}
