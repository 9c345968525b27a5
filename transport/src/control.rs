//! The control API: one trait, served by the target agent and called by the CLI (and by anyone's scripts).

pub mod client;
pub mod service;

use std::time::Duration;

use async_trait::async_trait;
use handover_engine::backup::{Host, Shelf};
use handover_engine::check::Finding;
use handover_engine::driver::Status;
use handover_engine::inventory::Inventory;
use handover_engine::journal::Logged;
use handover_engine::name::MigrationId;
use handover_engine::phase::Operation;
use handover_engine::plan::{Options, Plan};
use handover_engine::ports::backups::{Order, Standing, Wanted};
use handover_engine::ports::{Answers, Result};
use handover_engine::rehearsal::decision::Decisions;
use handover_engine::rehearsal::report::RehearsalReport;
use handover_engine::report::{Report, Terms};
use handover_engine::throttle::Change;

/// What a watcher receives.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// Something that happened; in order, without gaps.
    Event(Logged),
    /// The status now; in-between ones may be left out.
    Status(Box<Status>),
}

/// What whoever rehearses receives.
#[derive(Debug, Clone, PartialEq)]
pub enum Rehearsing {
    /// How far it is.
    Line(String),
    /// What was found: the last.
    Report(Box<RehearsalReport>),
}

/// What can be asked of a target agent. `by` is who asks: a SPIFFE id.
#[async_trait]
pub trait Control: Send + Sync {
    /// Both hosts: source and target.
    async fn inspect(&self) -> Result<(Inventory, Inventory)>;
    /// A preflight.
    async fn check(&self, options: Options) -> Result<Vec<Finding>>;
    /// Makes a plan and keeps it.
    async fn plan(&self, options: Options, by: &str) -> Result<Plan>;
    /// Runs the kept plan whose digest begins so.
    async fn start(&self, digest: &str, by: &str) -> Result<MigrationId>;
    /// Every migration, oldest first.
    async fn list(&self) -> Result<Vec<Status>>;
    /// Events after `after`, and the status whenever it changes; ends when the migration does.
    async fn watch(&self, id: &MigrationId, after: u64) -> Result<Answers<Seen>>;
    /// Asks for an operation; returns the status once it is journaled.
    /// `terms` are those of a cut-over.
    async fn act(&self, id: &MigrationId, operation: Operation, terms: Terms, by: &str) -> Result<Status>;
    /// Changes how the source is throttled; returns the status once that is journaled.
    async fn throttle(&self, id: &MigrationId, change: Change, by: &str) -> Result<Status>;
    /// Asks for a verification, as [`Self::act`]. `repair`: what differs is put right.
    async fn verify(&self, id: &MigrationId, repair: bool, by: &str) -> Result<Status>;
    /// What was moved and how it was verified.
    async fn report(&self, id: &MigrationId) -> Result<Report>;
    /// The same as a document that the target has signed.
    async fn signed_report(&self, id: &MigrationId) -> Result<Vec<u8>>;
    /// Lines of the audit log after an entry, oldest first; none when there are no more.
    async fn audit(&self, after: u64) -> Result<Vec<String>>;
    /// Rehearses; it goes on when nobody listens any more. `keep`: the scratch databases stay for the next one.
    async fn rehearse(&self, decisions: Decisions, keep: bool, by: &str) -> Result<Answers<Rehearsing>>;
    /// What the last rehearsal found.
    async fn rehearsal(&self) -> Result<RehearsalReport>;
    /// Begins work on the backups of one host, which goes on when nobody asks after it any more. The work, by which to ask after it.
    async fn begin_backups(&self, host: Host, wanted: Wanted, by: &str) -> Result<Order>;
    /// How work on backups stands.
    async fn backups_standing(&self, host: Host, order: &Order) -> Result<Standing>;
    /// The backups of one host.
    async fn backups(&self, host: Host) -> Result<Shelf>;
    /// Measures the way to the source: bytes and the time they took.
    async fn probe(&self, bytes: u64, by: &str) -> Result<(u64, Duration)>;
}
