//! What part a server plays in replication, as it tells itself.

use handover_engine::failure::{Class, Failure};
use handover_engine::ports::Result;
use handover_engine::replication::{Link, ServerRole};
use mysql_async::Row;
use mysql_async::prelude::Queryable;

use crate::error::without_values;
use crate::session::Session;
use crate::{own, privileges};

const WHAT: &str = "it cannot be asked what it replicates";

/// A server's own account of one of its primaries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slave {
    /// The connection's name; empty for the usual one.
    pub connection: String,
    pub host: String,
    pub port: u16,
    /// The primary's `server_id`; 0 until it has been reached.
    pub primary: u64,
    /// Receives: `Yes`, `No`, `Connecting`, `Preparing`.
    pub receives: String,
    /// Applies.
    pub applies: bool,
    /// By which global transaction ids it goes on: `No`, `Slave_Pos`, `Current_Pos`.
    pub gtid: String,
    pub behind: Option<u64>,
    /// What keeps it from receiving.
    pub receiving: Option<(u16, String)>,
    /// What keeps it from applying.
    pub applying: Option<(u16, String)>,
}

impl Slave {
    /// Its primary, for messages.
    pub fn of(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Both of its threads run, and it is connected.
    pub fn runs(&self) -> bool {
        self.receives == "Yes" && self.applies
    }

    /// One of its threads runs, or tries to.
    pub fn is_started(&self) -> bool {
        self.receives != "No" || self.applies
    }

    /// What has stopped it: nothing that goes over by itself. Its primary may be away for a while.
    pub fn refuse_errors(&self, item: &str) -> Result<()> {
        if let Some((code, text)) = &self.applying {
            return Err(Failure::operator(item, format!("it has stopped applying what {} sends", self.of()))
                .because(Told(*code, text.clone()))
                .hint("mend what it stumbles over and START SLAVE there; or RESET SLAVE ALL there, to have it set up anew"));
        }
        match &self.receiving {
            Some((code, text)) if class(*code) != Class::Transient => {
                Err(Failure::operator(item, format!("it cannot receive what {} logs", self.of()))
                    .because(Told(*code, text.clone()))
                    .hint(hint(*code)))
            }
            _ => Ok(()),
        }
    }

    fn link(&self, position: &str) -> Link {
        let error = self.applying.as_ref().or(self.receiving.as_ref());
        Link {
            of: self.of(),
            running: self.runs(),
            behind_seconds: self.behind,
            position: position.to_owned(),
            error: error.map(|(code, text)| Told(*code, text.clone()).to_string()),
        }
    }
}

/// What a thread of a replica says, fit to be shown.
#[derive(Debug, thiserror::Error)]
#[error("{1} (error {0})")]
struct Told(u16, String);

/// Whether it may go over by itself.
fn class(code: u16) -> Class {
    match code {
        1040 | 1053 | 1077 | 1079 | 1158..=1161 | 1203 | 2002 | 2003 | 2005 | 2006 | 2013 => Class::Transient,
        _ => Class::NeedsOperator,
    }
}

fn hint(code: u16) -> &'static str {
    match code {
        1045 | 1130 | 1227 | 1698 => {
            "check `replication` in appliance.toml: the account must have REPLICATION SLAVE at the primary, and may come from the replica's host"
        }
        1236 => {
            "the primary's log no longer holds what it needs: RESET SLAVE ALL there, to have it set up anew"
        }
        1593 => "give both servers a server_id of their own",
        2026 => {
            "check `ca` in `replication`: a file on the replica's host, and the name in the primary's certificate"
        }
        _ => "look at the error log of both servers",
    }
}

/// A thread's message without row data: these quote whole statements, and keys.
fn fit(code: u16, text: &str) -> String {
    let text = text.split(" Query: '").next().unwrap_or_default();
    // Which table it was about is worth keeping: `Could not execute Write_rows_v1 event on table shop.sale; Duplicate entry …`
    match text.split_once("; ").filter(|(head, _)| head.starts_with("Could not execute ")) {
        Some((head, rest)) => {
            let rest = without_values(code, rest);
            format!("{head}; {}", rest.split("; ").next().unwrap_or_default())
        }
        None => without_values(code, text),
    }
}

fn slave(row: &Row) -> Slave {
    let text = |name: &str| -> String {
        row.get_opt::<Option<String>, _>(name).and_then(std::result::Result::ok).flatten().unwrap_or_default()
    };
    let number = |name: &str| text(name).parse::<u64>().ok();
    let error = |which: &str| {
        let code = u16::try_from(number(&format!("Last_{which}_Errno"))?).unwrap_or(u16::MAX);
        (code != 0).then(|| (code, fit(code, &text(&format!("Last_{which}_Error")))))
    };
    Slave {
        connection: text("Connection_name"),
        host: text("Master_Host"),
        port: number("Master_Port").and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
        primary: number("Master_Server_Id").unwrap_or_default(),
        receives: text("Slave_IO_Running"),
        applies: text("Slave_SQL_Running") == "Yes",
        gtid: text("Using_Gtid"),
        behind: number("Seconds_Behind_Master"),
        receiving: error("IO"),
        applying: error("SQL"),
    }
}

/// What a server is a replica of.
pub async fn slaves(session: &mut Session) -> Result<Vec<Slave>> {
    let rows: std::result::Result<Vec<Row>, _> = session.conn().query("SHOW ALL SLAVES STATUS").await;
    let rows = rows.map_err(|error| session.failed(None, WHAT, error))?;
    Ok(rows.iter().map(slave).filter(|slave| !slave.host.is_empty()).collect())
}

/// The part that a server plays. Who only follows its log for a migration is no replica of it.
pub async fn role(session: &mut Session, server: &str) -> Result<ServerRole> {
    let (grants, account) = privileges::grants(session).await?;
    if !privileges::has(&grants, None, "PROCESS") {
        let what = "PROCESS is missing: whether it has replicas cannot be told";
        return Err(Failure::operator(session.item().to_owned(), what)
            .hint(format!("GRANT PROCESS, SLAVE MONITOR ON *.* TO {account}")));
    }
    let own = own::of(server);
    let query =
        "SELECT ID, HOST FROM information_schema.PROCESSLIST WHERE COMMAND = 'Binlog Dump' ORDER BY ID";
    let readers = session.records(WHAT, query).await?;
    let others = readers.iter().filter(|row| !own.iter().any(|id| u64::from(*id) == row.number(0)));
    let replicas = others.map(|row| {
        let host = row.text(1);
        host.rsplit_once(':').map_or(host.clone(), |(host, _)| host.to_owned())
    });
    let replicas = replicas.collect();
    let position = session.record(WHAT, "SELECT @@global.gtid_slave_pos").await?.text(0);
    let follows = slaves(session).await?.iter().map(|slave| slave.link(&position)).collect();
    Ok(ServerRole { replicas, follows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_hold_no_rows() {
        for (code, text, expected) in [
            (
                1062,
                "Could not execute Write_rows_v1 event on table shop.sale; Duplicate entry 's3cret' for key 'PRIMARY', Error_code: 1062; handler error HA_ERR_FOUND_DUPP_KEY; the event's master log b.1, end_log_pos 9",
                "Could not execute Write_rows_v1 event on table shop.sale; duplicate entry for key 'PRIMARY', Error_code: 1062",
            ),
            (
                1146,
                "Error 'Table 'shop.x' doesn't exist' on query. Default database: 'shop'. Query: 'INSERT INTO x VALUES ('s3cret')'",
                "Error 'Table 'shop.x' doesn't exist' on query. Default database: 'shop'.",
            ),
        ] {
            assert_eq!(fit(code, text), expected);
        }
    }

    #[test]
    fn a_primary_that_is_away_is_waited_for() {
        let slave = |receiving, applying| Slave {
            receiving,
            applying,
            host: "db1".into(),
            port: 1,
            ..Slave::default()
        };
        let error = |code| Some((code, "told".to_owned()));
        assert!(slave(None, None).refuse_errors("replica").is_ok());
        assert!(slave(error(2003), None).refuse_errors("replica").is_ok());
        let refused = slave(error(1045), None).refuse_errors("replica").unwrap_err().to_string();
        assert!(refused.contains("db1:1") && refused.contains("told (error 1045)"), "{refused}");
        let refused = slave(error(2003), error(1062)).refuse_errors("replica").unwrap_err().to_string();
        assert!(refused.contains("stopped applying") && refused.contains("RESET SLAVE ALL"), "{refused}");
    }
}
