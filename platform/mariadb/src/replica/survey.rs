//! What a pair is, and what stands in the way of handling its replica. Changes nothing.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::replication::ServerRole;

use super::{Pair, Side, status};
use crate::privileges;
use crate::session::Session;
use crate::sql;

const WHAT: &str = "it cannot be asked";
/// What names of databases beside a final place hold.
const OWN: &str = "%\\_\\_handover\\_%";

/// What was found of a pair.
#[derive(Debug)]
pub struct Survey {
    /// The part that the primary plays.
    pub primary: Result<ServerRole>,
    /// The part that the replica plays.
    pub replica: Result<ServerRole>,
    /// What keeps the agent from handling it, with what to do.
    pub problem: Option<Failure>,
}

impl Pair {
    /// Looks at both servers.
    pub async fn survey(&self, side: Side) -> Survey {
        let primary = async { status::role(&mut self.at_primary().await?, &self.primary()).await };
        let replica = async { status::role(&mut self.at_replica().await?, &self.replica()).await };
        let (primary, replica) = (primary.await, replica.await);
        let problem = match (&primary, &replica) {
            (Err(failure), _) | (_, Err(failure)) => Some(failure.clone()),
            _ => self.problem(side).await.err(),
        };
        Survey { primary, replica, problem }
    }

    async fn problem(&self, side: Side) -> Result<()> {
        let (mut primary, mut replica) = (self.at_primary().await?, self.at_replica().await?);
        let ids = (server_id(&mut primary).await?, server_id(&mut replica).await?);
        if ids.0 == ids.1 {
            let what = format!("it has the server_id {} of its primary, if it is not the same server", ids.0);
            return Err(Failure::operator(self.item(), what).hint("give each server a server_id of its own"));
        }
        let ours = self.ours(&mut primary, &mut replica).await?;
        let mut needed = vec!["REPLICATION SLAVE ADMIN"];
        match side {
            Side::Source if ours.is_none() => {
                let what = format!("it is no replica of {}", self.primary());
                return Err(Failure::operator(self.item(), what).hint("take `replica` out of appliance.toml"));
            }
            Side::Source => {}
            Side::Target if ours.is_some() => self.refuse_unlogged()?,
            Side::Target => {
                self.refuse_what_cannot_be_made(&mut primary, &mut replica).await?;
                needed.extend(["BINLOG ADMIN", "CREATE", "DROP"]);
                if replica.record(WHAT, "SELECT @@global.read_only").await?.text(0) != "0" {
                    needed.push("READ_ONLY ADMIN");
                }
            }
        }
        self.refuse_missing(&mut replica, &needed).await
    }

    /// One that is there already gets everything from the log.
    fn refuse_unlogged(&self) -> Result<()> {
        if self.shared.iter().all(|one| one.primary.binlog) {
            return Ok(());
        }
        let what = "it follows its primary already, and what is loaded there would not be logged";
        Err(Failure::operator(self.item(), what)
            .hint("take binlog=off out of `url`, or RESET SLAVE ALL at the replica"))
    }

    async fn refuse_what_cannot_be_made(&self, primary: &mut Session, replica: &mut Session) -> Result<()> {
        if self.login.is_none() {
            return Err(Failure::operator(
                self.item(),
                "`replication` is missing: how it signs in at its primary",
            )
            .hint("name the account and the primary's address as the replica sees it, in appliance.toml"));
        }
        if primary.record(WHAT, "SELECT @@log_bin").await?.text(0) != "1" {
            return Err(Failure::operator(self.item(), "its primary has no binary log")
                .hint("set log_bin and binlog_format=ROW in the primary's configuration, and restart it"));
        }
        let names: Vec<String> = self.shared.iter().map(|one| sql::text(&one.primary.database)).collect();
        let others = format!(
            "SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_schema NOT IN \
             ('mysql', 'information_schema', 'performance_schema', 'sys', {}) AND table_schema NOT LIKE '{OWN}'",
            names.join(", ")
        );
        let others: Vec<String> =
            primary.records(WHAT, &others).await?.iter().map(|row| row.text(0)).collect();
        if others.is_empty() || is_filtered(replica).await? {
            return Ok(());
        }
        let what = format!(
            "it would get the changes of other databases of its primary, too, and not these themselves: {}",
            others.join(", ")
        );
        Err(Failure::operator(self.item(), what)
            .hint("name them as [[database]] with the same `replica`, or set replicate_do_db in the replica's configuration"))
    }

    async fn refuse_missing(&self, replica: &mut Session, needed: &[&str]) -> Result<()> {
        let (grants, account) = privileges::grants(replica).await?;
        if privileges::has(&grants, None, "SUPER") {
            return Ok(());
        }
        let missing: Vec<&str> =
            needed.iter().copied().filter(|privilege| !privileges::has(&grants, None, privilege)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(Failure::operator(self.item(), format!("its account lacks {missing}"))
            .hint(format!("GRANT {missing} ON *.* TO {account}")))
    }
}

async fn server_id(session: &mut Session) -> Result<u64> {
    Ok(session.record(WHAT, "SELECT @@server_id").await?.number(0))
}

/// Its own configuration says what it takes from its primary's log.
async fn is_filtered(replica: &mut Session) -> Result<bool> {
    let query = "SELECT CONCAT(@@replicate_do_db, @@replicate_do_table, @@replicate_wild_do_table, @@replicate_ignore_db, \
                 @@replicate_ignore_table, @@replicate_wild_ignore_table)";
    Ok(!replica.record(WHAT, query).await?.text(0).is_empty())
}
