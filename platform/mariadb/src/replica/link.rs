//! A replica's connection to its primary: made, started, stopped, put out of the way.

use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::status::{self, Slave};
use crate::live::position::Gtids;
use crate::session::Session;
use crate::settings::Settings;
use crate::sql;

const WHAT: &str = "its replication cannot be changed";
/// What a replica that is deactivated takes for its primary: a name that nobody has. A server starts its replication by itself when it is
/// started, and another server may be at its primary's address by then.
pub const NOBODY: &str = "deactivated.handover.invalid";
/// Seconds between its tries to reach its primary.
const RETRIES: u32 = 5;
/// How long a replica may take without getting on.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);
/// What helps where a server's own log is in the way.
pub const OWN_LOG: &str = "RESET MASTER there drops its own log, if nobody follows it; then resume";
/// Seconds that the server waits for a position before it is looked whether it gets on.
const LOOKS_EVERY: f64 = 0.5;

/// Whom a replica followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Followed {
    /// The connection's name; empty for the usual one.
    pub connection: String,
    /// Its primary.
    pub host: String,
    /// Its primary's port.
    pub port: u16,
    /// It was at work.
    pub running: bool,
    /// How it goes on, as its server names it: `No`, `Slave_Pos`, `Current_Pos`.
    pub gtid: String,
}

impl Followed {
    pub fn by(slave: &Slave) -> Self {
        Self {
            connection: slave.connection.clone(),
            host: slave.host.clone(),
            port: slave.port,
            running: slave.is_started(),
            gtid: slave.gtid.clone(),
        }
    }
}

/// A string where no expression may stand. The session's `sql_mode` knows backslashes.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Statements that follow are about this connection.
pub async fn name(session: &mut Session, connection: &str) -> Result<()> {
    session.run(WHAT, &format!("SET default_master_connection = {}", sql::text(connection))).await
}

pub async fn stop(session: &mut Session) -> Result<()> {
    session.run(WHAT, "STOP SLAVE").await
}

pub async fn start(session: &mut Session) -> Result<()> {
    session.run("its replication cannot be started", "START SLAVE").await
}

/// Takes a replica that stands still from its primary, so that it stays so when its server is started again. One that goes by files and
/// offsets would lose its place: it only stands still.
pub async fn park(session: &mut Session, followed: &Followed) -> Result<()> {
    if followed.gtid == "No" {
        return Ok(());
    }
    let change = format!("CHANGE MASTER TO MASTER_HOST = {}, MASTER_USE_GTID = slave_pos", literal(NOBODY));
    session.run(WHAT, &change).await
}

/// Gives it back its primary. How it signs in there it has kept.
pub async fn unpark(session: &mut Session, followed: &Followed) -> Result<()> {
    let gtid = if followed.gtid == "Current_Pos" { "current_pos" } else { "slave_pos" };
    let change = format!(
        "CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, MASTER_USE_GTID = {gtid}",
        literal(&followed.host),
        followed.port
    );
    session.run(WHAT, &change).await
}

/// Tells a replica whom it follows, from where. The connection is there only once everything is set: it is the last statement.
pub async fn make(session: &mut Session, login: &Settings, position: &str) -> Result<()> {
    unmake(session).await?;
    set_position(session, position).await?;
    let password = login.password().map_err(|error| {
        Failure::operator(session.item().to_owned(), "the password_file of `replication` cannot be read")
            .because(error)
            .hint("make it, readable by the agent's user")
    })?;
    let tls = match (&login.ca, login.tls) {
        (Some(ca), _) => format!(
            ", MASTER_SSL = 1, MASTER_SSL_CA = {}, MASTER_SSL_VERIFY_SERVER_CERT = 1",
            literal(&ca.to_string_lossy())
        ),
        (None, true) => ", MASTER_SSL = 1".to_owned(),
        (None, false) => String::new(),
    };
    let change = format!(
        "CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, MASTER_USER = {}, MASTER_PASSWORD = {}, \
         MASTER_CONNECT_RETRY = {RETRIES}, MASTER_USE_GTID = slave_pos{tls}",
        literal(&login.host),
        login.port,
        literal(&login.user),
        literal(&password.unwrap_or_default()),
    );
    session.run(WHAT, &change).await
}

/// It follows nobody.
pub async fn unmake(session: &mut Session) -> Result<()> {
    stop(session).await?;
    session.run(WHAT, "RESET SLAVE ALL").await
}

/// It goes on from here.
async fn set_position(session: &mut Session, position: &str) -> Result<()> {
    let done = session.run(WHAT, &format!("SET GLOBAL gtid_slave_pos = {}", sql::text(position))).await;
    done.map_err(|failure| if failure.hint.is_empty() { failure.hint(OWN_LOG) } else { failure })
}

/// The position that one has which follows nobody: it means nothing until it follows somebody again. With `gtid_strict_mode` it cannot
/// be before what the server has logged of its own (1947, 1948), and stays what it is.
pub async fn restore_position(session: &mut Session, position: &str) -> Result<()> {
    let set = format!("SET GLOBAL gtid_slave_pos = {}", sql::text(position));
    session.run_unless(WHAT, &set, &[1947, 1948]).await.map(drop)
}

/// It goes on to this position, and stands still there.
pub async fn start_until(session: &mut Session, position: &str) -> Result<()> {
    session.run(WHAT, &format!("START SLAVE UNTIL master_gtid_pos = {}", literal(position))).await
}

/// The connection of this name.
pub async fn slave(session: &mut Session, connection: &str) -> Result<Slave> {
    let all = status::slaves(session).await?;
    all.into_iter().find(|slave| slave.connection == connection).ok_or_else(|| {
        Failure::operator(session.item().to_owned(), "it follows nobody any more")
            .hint("somebody has taken it from its primary: `handover resume` sets it up anew")
    })
}

/// Waits until it runs.
pub async fn until_running(session: &mut Session, connection: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let slave = slave(session, connection).await?;
        if slave.runs() {
            return Ok(());
        }
        slave.refuse_errors(session.item())?;
        if began.elapsed() > PATIENCE {
            let mut what = format!("it does not reach {}", slave.of());
            if let Some((code, text)) = slave.receiving {
                what.push_str(&format!(": {text} (error {code})"));
            }
            return Err(Failure::transient(session.item().to_owned(), what).hint(
                "check `replication` in appliance.toml, and that the primary can be reached from there",
            ));
        }
        sleep(PAUSE).await;
    }
}

/// Waits until it has applied everything up to a position, as long as it gets on.
pub async fn until_reached(session: &mut Session, connection: &str, position: &str) -> Result<()> {
    let awaited: Gtids = position.parse().unwrap_or_default();
    let (mut since, mut seen) = (Instant::now(), String::new());
    loop {
        let at = session.record(WHAT, "SELECT @@global.gtid_slave_pos").await?.text(0);
        if at.parse::<Gtids>().is_ok_and(|at| at.reaches(&awaited)) {
            return Ok(());
        }
        slave(session, connection).await?.refuse_errors(session.item())?;
        if at != seen {
            (since, seen) = (Instant::now(), at);
        }
        if since.elapsed() > PATIENCE {
            let what = format!("it does not get on: it is at {seen}, and its primary was at {position}");
            return Err(Failure::transient(session.item().to_owned(), what)
                .hint("SHOW SLAVE STATUS and SHOW PROCESSLIST there tell what it waits for"));
        }
        let wait = format!("SELECT MASTER_GTID_WAIT({}, {LOOKS_EVERY})", sql::text(position));
        session.record(WHAT, &wait).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes_its_quotes() {
        assert_eq!(literal("a'b\\"), "'a''b\\\\'");
    }
}
