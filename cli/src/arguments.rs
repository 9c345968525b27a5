//! What a user types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use handover_certs::identity::Role;
use handover_engine::name::{DatasetName, MigrationId};
use handover_engine::plan::OnFailure;
use handover_engine::time::Timestamp;

use crate::backups::{BackupArguments, BackupsArguments, RestoreArguments};
use crate::rehearse::RehearseArguments;
use crate::report::{AuditArguments, ReportArguments};
use crate::throttle::ThrottleArguments;

/// Moves a running appliance from one host to another.
#[derive(Debug, Parser)]
#[command(name = "handover", version, after_help = crate::exit::HELP)]
pub struct Arguments {
    /// The target agent.
    #[arg(long, global = true, env = "HANDOVER_TARGET", value_name = "HOST:PORT")]
    pub target: Option<String>,
    /// Directory of an identity: yours, or the one that `certs renew` and `certs revoke` are about.
    #[arg(long, global = true, env = "HANDOVER_IDENTITY", value_name = "DIR")]
    pub identity: Option<PathBuf>,
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a certificate authority; issue, renew, revoke and show certificates.
    #[command(subcommand)]
    Certs(CertsVerb),
    /// Show what source and target consist of.
    Inspect,
    /// Look for what stands in the way of a migration.
    Check(PlanArguments),
    /// Make a plan and print it with its digest.
    Plan(PlanArguments),
    /// Start the plan with this digest (its first eight digits or more).
    Start {
        /// The digest.
        digest: String,
        /// Watch it until it settles.
        #[arg(long)]
        watch: bool,
    },
    /// Show progress until the migration settles.
    Watch(Which),
    /// Show where a migration stands.
    Status(Which),
    /// List all migrations.
    List,
    /// Finish the chunks at hand and stop.
    Pause(Act),
    /// Go on after a pause or a failure.
    Resume(Act),
    /// Bring the target up to date with what has changed.
    Sync(Act),
    /// Read the target's data again and compare it; also while the source is followed.
    Verify {
        /// Which migration, and whether to watch it.
        #[command(flatten)]
        act: Act,
        /// Put right what differs, and look at it again. While the source is followed.
        #[arg(long)]
        repair: bool,
    },
    /// Fence the source off and let the target take over.
    Cutover {
        /// Which migration, and whether to watch it.
        #[command(flatten)]
        act: Act,
        /// Unless the target has taken over so many seconds after the source was fenced off, undo that and go on following.
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        max_downtime: u32,
        /// Do not begin while the copy is further behind than so many seconds.
        #[arg(long, default_value_t = 5, value_name = "SECONDS")]
        max_lag: u32,
        /// Begin at this time, for instance 2026-01-31T02:30:00+01:00. Should it have passed by more than five minutes when it can
        /// begin, it does not.
        #[arg(long, value_name = "TIME", conflicts_with_all = ["dry_run", "never", "watch"])]
        at: Option<Timestamp>,
        /// Do everything up to the fence, print what would be done from there on and how long writers would wait, and go on
        /// following.
        #[arg(long, conflicts_with_all = ["never", "watch"])]
        dry_run: bool,
        /// Forget the time that was given with --at.
        #[arg(long, conflicts_with = "watch")]
        never: bool,
    },
    /// The target is good: it stays.
    Accept(Act),
    /// Undo everything: the target is as it was before. What was written there since it took over is brought back to the source first.
    Abort {
        /// Which migration, and whether to watch it.
        #[command(flatten)]
        act: Act,
        /// Give up what was written at the target since it took over: because the source cannot take it, or does not follow (any more).
        #[arg(long)]
        discard: bool,
    },
    /// Keep everything; undo is no longer possible.
    Finalize(Act),
    /// Remove what an abort has kept of what was migrated; or take what a migration has built at the target away without the source, where that is
    /// gone for good. `abort` is for all other cases.
    Terminate {
        /// Which migration, and whether to watch it.
        #[command(flatten)]
        act: Act,
        /// Yes, do it: what it removes is gone for good. Nothing is undone at the source.
        #[arg(long)]
        yes: bool,
    },
    /// Try production's data in scratch databases beside the target's own: what does not fit there is found, and nothing else is touched.
    Rehearse(RehearseArguments),
    /// Show or change how fast the source is read, and when.
    Throttle(ThrottleArguments),
    /// Show what was moved and how it was verified; have it signed; check a signed report.
    Report(ReportArguments),
    /// Show who did what at the target, or check that the log of it is as it was written.
    Audit(AuditArguments),
    /// Back up a host's datasets with their engines' own tools, and read the backup again. It stays on that host.
    Backup(BackupArguments),
    /// List the backups of both hosts, or read them again.
    Backups(BackupsArguments),
    /// Put back what is in a backup, on the host that it lies on. What stands there now is kept beside it. Stop the services first.
    Restore(RestoreArguments),
    /// Measure the way between the agents.
    Probe {
        /// Bytes to send.
        #[arg(long, default_value_t = 1 << 30)]
        bytes: u64,
    },
}

/// What a plan covers.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// Replace what the target's datasets hold already (abort brings it back until finalize).
    #[arg(long)]
    pub overwrite: bool,
    /// Only this dataset; may be given several times.
    #[arg(long = "dataset", value_name = "NAME")]
    pub datasets: Vec<DatasetName>,
    /// Keep the copy up to date while the source is in use, until `cutover`.
    #[arg(long)]
    pub follow: bool,
    /// Do not let the source follow the target once that has taken over: `abort` loses what was written there then.
    #[arg(long, requires = "follow")]
    pub one_way: bool,
    /// Move the licence, too: the source's is valid no more then. `abort` brings it back.
    #[arg(long, requires = "follow")]
    pub licence: bool,
    /// Let both hosts exchange all settings that both manifests name, and reboot. Each takes its own back unless they find each other
    /// again
    #[arg(long, requires = "follow", conflicts_with = "data_only")]
    pub swap: bool,
    /// Leave services, settings and certificates alone, whatever the manifests name
    #[arg(long)]
    pub data_only: bool,
    /// Leave logs where they are: the log sections of the source's manifest. They are named as not moved
    #[arg(long)]
    pub without_logs: bool,
    /// Bring the databases into the schemas that stand at the target, and do what this file says about rows that do not fit (TOML,
    /// docs/rehearsal.md). Nothing written at the target comes back then: `abort` leaves it there, aside
    #[arg(long, value_name = "FILE", requires = "follow", conflicts_with = "swap")]
    pub decisions: Option<PathBuf>,
    /// What it leads to when the target has taken over and its certificates, label or services fail: `stop` names the failure and leaves it to the
    /// operator, `undo` goes back to the source at once, with what was written at the target. `stop` when left out
    #[arg(long, value_name = "stop|undo", requires = "follow")]
    pub on_failure: Option<OnFailure>,
}

/// Which migration.
#[derive(Debug, Args)]
pub struct Which {
    /// The migration; the running one, or else the newest, when left out.
    pub id: Option<MigrationId>,
}

/// An operation on a migration.
#[derive(Debug, Args)]
pub struct Act {
    /// Which migration.
    #[command(flatten)]
    pub which: Which,
    /// Watch it until it settles.
    #[arg(long)]
    pub watch: bool,
}

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum CertsVerb {
    /// Make a certificate authority.
    Init {
        /// Its directory.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// The trust domain of all its certificates, for instance `example.org`.
        #[arg(long)]
        trust_domain: String,
    },
    /// Issue a certificate with a new key.
    Issue {
        /// The CA's directory.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// source, target, operator or watcher.
        #[arg(long)]
        role: Role,
        /// The holder's name.
        #[arg(long)]
        name: String,
        /// Directory to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Days that it is good for.
        #[arg(long, default_value_t = 90)]
        days: u16,
        /// An Ed25519 key instead of ECDSA P-256.
        #[arg(long)]
        ed25519: bool,
    },
    /// Issue a new certificate for the identity in --identity DIR.
    Renew {
        /// The CA's directory.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
    },
    /// Revoke a certificate: by serial, or the one in --identity DIR.
    Revoke {
        /// The CA's directory.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// Serial number in hex.
        #[arg(long)]
        serial: Option<String>,
    },
    /// Begin a CA swap: make a second CA; both are trusted until `retire`.
    Rotate {
        /// The old CA's directory.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// The new CA's directory.
        #[arg(long, value_name = "DIR")]
        new: PathBuf,
    },
    /// End a CA swap: the new CA hands out trust in itself alone. Bring it to the identities with `publish`.
    Retire {
        /// The new CA's directory.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
    },
    /// Bring an identity's ca.pem and crl.pem up to date with the CA's.
    Publish {
        /// The CA's directory.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
    },
    /// Show an identity, or a CA with what it has issued.
    Show {
        /// The directory.
        dir: PathBuf,
    },
}
