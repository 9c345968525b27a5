//! A server and its replica, which one agent reaches over SQL.
//!
//! At the source the replica is taken from its primary, and given back. At the target it is set up: one snapshot of the primary is copied to
//! it by what copies databases from host to host, put in place as there, with what stood there before kept; it goes on from the
//! snapshot's position. Nothing of that gets into the replica's own log.

mod compare;
mod link;
mod seed;
pub mod status;
mod survey;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use handover_engine::failure::Failure;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::ports::Result;
use handover_engine::replication::ServerRole;
use serde::{Deserialize, Serialize};

use self::link::{Followed, NOBODY};
use self::status::Slave;
use crate::session::{Role, Session};
use crate::settings::Settings;

pub use self::survey::Survey;

const WHAT: &str = "it cannot be asked";

/// A database on a server and on its replica.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The dataset's name.
    pub dataset: DatasetName,
    /// Where it is.
    pub primary: Settings,
    /// Where it is on the replica, under the same name.
    pub replica: Settings,
}

/// Which host a pair is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The source: the replica is there.
    Source,
    /// The target: the replica is to be made.
    Target,
}

/// What a replica was before it was first touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// Whom it followed; nobody, where it was no replica.
    followed: Option<Followed>,
    /// Its position.
    position: String,
}

impl Before {
    /// It followed its primary already.
    pub fn is_replica(&self) -> bool {
        self.followed.is_some()
    }
}

/// A server and its replica.
#[derive(Debug, Clone)]
pub struct Pair {
    shared: Vec<Shared>,
    login: Option<Settings>,
    /// Rows that were copied and compared.
    rows: Arc<AtomicU64>,
}

/// The part that the settings' server plays.
pub async fn role_of(dataset: &DatasetName, settings: &Settings) -> Result<ServerRole> {
    let mut session = Session::open(dataset, settings, Role::Reader).await?;
    status::role(&mut session, &settings.server()).await
}

impl Pair {
    /// A pair by the databases on it (at least one); how the replica signs in at its primary, where it is to be made.
    pub fn new(mut shared: Vec<Shared>, login: Option<Settings>) -> Self {
        for one in &mut shared {
            // Its log holds what its primary has logged, and nothing of its own.
            one.replica.binlog = false;
            one.replica.accounts.clone_from(&one.primary.accounts);
        }
        Self { shared, login, rows: Arc::default() }
    }

    /// Rows that were copied and compared so far.
    pub fn rows_done(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Its databases.
    pub fn datasets(&self) -> Vec<DatasetName> {
        self.shared.iter().map(|one| one.dataset.clone()).collect()
    }

    /// Where the primary is; never credentials.
    pub fn primary(&self) -> String {
        self.shared.first().map(|one| one.primary.server()).unwrap_or_default()
    }

    /// Where the replica is; never credentials.
    pub fn replica(&self) -> String {
        self.shared.first().map(|one| one.replica.server()).unwrap_or_default()
    }

    fn item(&self) -> String {
        let names: Vec<&str> = self.shared.iter().map(|one| one.dataset.as_str()).collect();
        format!("replica of {} at {}", names.join(", "), self.replica())
    }

    fn first(&self) -> Result<&Shared> {
        self.shared.first().ok_or_else(|| Failure::permanent("replica", "no database is named for it"))
    }

    async fn at_primary(&self) -> Result<Session> {
        let one = self.first()?;
        Session::open(&one.dataset, &one.primary, Role::Reader).await
    }

    async fn at_replica(&self) -> Result<Session> {
        let one = self.first()?;
        let opened = Session::open(&one.dataset, &one.replica, Role::Reader).await;
        // What is told is about the replica, not the database that it is named for.
        let session = opened.map_err(|mut failure| {
            failure.item = self.item();
            failure
        })?;
        Ok(session.called(self.item()))
    }

    /// The replica's connection to this primary, if it has one. Refuses a replica of another one.
    async fn ours(&self, primary: &mut Session, replica: &mut Session) -> Result<Option<Slave>> {
        let id = primary.record(WHAT, "SELECT @@server_id").await?.number(0);
        let known = self.first()?.primary.clone();
        let is_at = |settings: &Settings, slave: &Slave| {
            settings.socket.is_none() && settings.host == slave.host && settings.port == slave.port
        };
        let is_ours = |slave: &Slave| {
            // Until it has been there, a replica does not know its primary's number.
            let is_there =
                is_at(&known, slave) || self.login.as_ref().is_some_and(|login| is_at(login, slave));
            if slave.primary == 0 { is_there } else { slave.primary == id }
        };
        let mut all = status::slaves(replica).await?;
        if let Some(at) = all.iter().position(is_ours) {
            return Ok(Some(all.swap_remove(at)));
        }
        match all.first() {
            None => Ok(None),
            Some(slave) if slave.host == NOBODY => Err(Failure::operator(
                self.item(),
                "a migration has deactivated it, and it was not put back since",
            )
            .hint("CHANGE MASTER TO MASTER_HOST = …, MASTER_PORT = … there gives it back its primary, START SLAVE starts it")),
            Some(slave) => Err(Failure::operator(self.item(), format!("it is a replica of {} already", slave.of()))
                .hint("name another server, or take it from there: STOP SLAVE; RESET SLAVE ALL")),
        }
    }

    /// What the replica is now, to be written down before it is touched.
    pub async fn before(&self) -> Result<Before> {
        let (mut primary, mut replica) = (self.at_primary().await?, self.at_replica().await?);
        let ours = self.ours(&mut primary, &mut replica).await?;
        let position = replica.record(WHAT, "SELECT @@global.gtid_slave_pos").await?.text(0);
        Ok(Before { followed: ours.as_ref().map(Followed::by), position })
    }

    /// It follows its primary no more, not after a restart either.
    pub async fn deactivate(&self, before: &Before) -> Result<()> {
        let Some(followed) = &before.followed else { return Ok(()) };
        let mut replica = self.at_replica().await?;
        link::name(&mut replica, &followed.connection).await?;
        link::stop(&mut replica).await?;
        if link::slave(&mut replica, &followed.connection).await?.host != NOBODY {
            link::park(&mut replica, followed).await?;
        }
        Ok(())
    }

    /// It has its primary back, and is at work if it was. That it gets through to it is not waited for.
    pub async fn reactivate(&self, before: &Before) -> Result<()> {
        let Some(followed) = &before.followed else { return Ok(()) };
        let mut replica = self.at_replica().await?;
        link::name(&mut replica, &followed.connection).await?;
        if link::slave(&mut replica, &followed.connection).await?.host == NOBODY {
            link::stop(&mut replica).await?;
            link::unpark(&mut replica, followed).await?;
        }
        if followed.running { link::start(&mut replica).await } else { link::stop(&mut replica).await }
    }

    /// Whether the replica has a connection to this primary.
    pub async fn is_linked(&self) -> Result<bool> {
        let (mut primary, mut replica) = (self.at_primary().await?, self.at_replica().await?);
        Ok(self.ours(&mut primary, &mut replica).await?.is_some())
    }

    /// Copies what is on the primary to the replica; the position that it goes on from. What an earlier try has left is taken back first.
    pub async fn seed(&self, migration: &MigrationId) -> Result<String> {
        seed::seed(&self.shared, migration, &self.item(), &self.rows).await
    }

    /// The replica follows its primary from a position on, once it is started.
    pub async fn link(&self, position: &str) -> Result<()> {
        let login = self.login.as_ref().ok_or_else(|| {
            Failure::operator(self.item(), "`replication` is missing: how it signs in at its primary")
                .hint("name the account and the primary's address as the replica sees it, in appliance.toml")
        })?;
        let mut replica = self.at_replica().await?;
        self.refuse_own(&mut replica, position).await?;
        link::make(&mut replica, login, position).await
    }

    /// A server that keeps to the order of transactions refuses those that its own have overtaken.
    async fn refuse_own(&self, replica: &mut Session, position: &str) -> Result<()> {
        let row = replica.record(WHAT, "SELECT @@global.gtid_strict_mode, @@global.gtid_binlog_pos").await?;
        let parse = |text: &str| text.parse::<crate::live::position::Gtids>().unwrap_or_default();
        if row.text(0) != "1" || parse(position).overtaken_by(&parse(&row.text(1))).is_none() {
            return Ok(());
        }
        let what = format!(
            "its own log is at {}, beyond {position} of its primary: with gtid_strict_mode it would apply nothing",
            row.text(1)
        );
        Err(Failure::operator(self.item(), what).hint(link::OWN_LOG))
    }

    /// It runs, and has applied all that its primary had logged before the call.
    pub async fn activate(&self) -> Result<()> {
        let (mut primary, mut replica) = (self.at_primary().await?, self.at_replica().await?);
        let slave = self.ours(&mut primary, &mut replica).await?.ok_or_else(|| self.follows_nobody())?;
        let position = primary.record(WHAT, "SELECT @@global.gtid_binlog_pos").await?.text(0);
        link::name(&mut replica, &slave.connection).await?;
        if !slave.runs() {
            // What has stopped it may have been mended: it is tried at once.
            link::stop(&mut replica).await?;
            link::start(&mut replica).await?;
        }
        link::until_running(&mut replica, &slave.connection).await?;
        link::until_reached(&mut replica, &slave.connection, &position).await
    }

    fn follows_nobody(&self) -> Failure {
        Failure::operator(self.item(), "it follows nobody").hint("`handover resume` sets it up anew")
    }

    /// What differs between it and its primary, at one position; it stands still there until it is activated again.
    pub async fn differences(&self) -> Result<Vec<String>> {
        let (mut primary, mut replica) = (self.at_primary().await?, self.at_replica().await?);
        let slave = self.ours(&mut primary, &mut replica).await?.ok_or_else(|| self.follows_nobody())?;
        link::name(&mut replica, &slave.connection).await?;
        link::stop(&mut replica).await?;
        let here = compare::views(&self.shared, |one| &one.primary).await?;
        let position = seed::position(&here, &mut primary).await?;
        link::start_until(&mut replica, &position).await?;
        link::until_reached(&mut replica, &slave.connection, &position).await?;
        // Its threads end by themselves some time after they have got there: whoever started it meanwhile would find it at work.
        link::stop(&mut replica).await?;
        let there = compare::views(&self.shared, |one| &one.replica).await?;
        compare::differences(&self.shared, &here, &there, &self.rows).await
    }

    /// It is what it was before it was set up.
    pub async fn undo(&self, migration: &MigrationId, before: &Before) -> Result<()> {
        let mut replica = self.at_replica().await?;
        if let Some(followed) = &before.followed {
            link::name(&mut replica, &followed.connection).await?;
            return if followed.running {
                link::start(&mut replica).await
            } else {
                link::stop(&mut replica).await
            };
        }
        link::unmake(&mut replica).await?;
        seed::undo(&self.shared, migration).await?;
        link::restore_position(&mut replica, &before.position).await
    }

    /// What it held before goes for good.
    pub async fn forget(&self, migration: &MigrationId) -> Result<()> {
        seed::forget(&self.shared, migration).await
    }
}
