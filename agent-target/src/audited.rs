//! Writes down who asks for what, before it is done, and what came of it. Only what reads is not written down.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::audit::{Act, Begun};
use handover_engine::backup::{Host, Shelf};
use handover_engine::check::Finding;
use handover_engine::driver::Status;
use handover_engine::failure::Failure;
use handover_engine::inventory::Inventory;
use handover_engine::name::MigrationId;
use handover_engine::phase::Operation;
use handover_engine::plan::{Options, Plan};
use handover_engine::ports::backups::{Order, Standing, Wanted};
use handover_engine::ports::{Answers, Result};
use handover_engine::rehearsal::decision::Decisions;
use handover_engine::rehearsal::report::RehearsalReport;
use handover_engine::report::{Report, Terms, When};
use handover_engine::throttle::Change;
use handover_engine::time::Clock;
use handover_platform::SystemClock;
use handover_platform::store::Store;
use handover_transport::control::{Control, Rehearsing, Seen};

use crate::supervisor::Supervisor;

/// A [`Supervisor`] whose callers are written down.
pub struct Audited {
    supervisor: Arc<Supervisor>,
    store: Store,
}

impl Audited {
    /// Writes to the audit log in `store`.
    pub fn new(supervisor: Arc<Supervisor>, store: Store) -> Arc<Self> {
        Arc::new(Self { supervisor, store })
    }

    /// Does what `by` asks for, between two entries. On a task of its own: a client that goes away meanwhile must not leave it without
    /// its second one.
    async fn noted<T: Send + 'static>(
        &self,
        (by, id, what): (&str, Option<&MigrationId>, String),
        call: impl Future<Output = Result<T>> + Send + 'static,
        told: impl FnOnce(&T) -> String + Send + 'static,
    ) -> Result<T> {
        self.noted_begun((by, id, what), call, told, |_| None).await
    }

    /// The same, of what may only be begun then: its end is written down as well.
    async fn noted_begun<T: Send + 'static>(
        &self,
        (by, id, what): (&str, Option<&MigrationId>, String),
        call: impl Future<Output = Result<T>> + Send + 'static,
        told: impl FnOnce(&T) -> String + Send + 'static,
        begun: impl FnOnce(&T) -> Option<Begun> + Send + 'static,
    ) -> Result<T> {
        let asked = self.store.note(SystemClock.now(), Some(by), id, Act::Asked { what }).await?;
        let (store, supervisor, id) = (self.store.clone(), self.supervisor.clone(), id.cloned());
        let answered = tokio::spawn(async move {
            let result = call.await;
            let (done, begun, refused) = match &result {
                Ok(value) => (Some(told(value)), begun(value), None),
                Err(failure) => (None, None, Some(failure.to_string())),
            };
            let act = Act::Answered { asked, done, refused, begun: begun.clone() };
            // Done, and not written down: nothing more may be acknowledged.
            let written = store.note(SystemClock.now(), None, id.as_ref(), act).await;
            written.inspect_err(|failure| supervisor.give_up(failure.clone()))?;
            if let Some(begun) = begun {
                supervisor.note_end(asked, begun);
            }
            result
        });
        answered.await.map_err(|_| Failure::transient("agent", "the agent is stopping"))?
    }
}

fn state(status: &Status) -> String {
    format!("it is {}", status.state)
}

/// What is asked of a migration, in words.
fn words(operation: Operation, terms: Terms) -> String {
    let mut out = operation.to_string();
    if operation == Operation::Cutover {
        out +=
            &format!(" (downtime at most {} ms, lag at most {} ms)", terms.max_downtime_ms, terms.max_lag_ms);
        match terms.when {
            When::Now => {}
            When::At(at) => out += &format!(" at {at}"),
            When::DryRun => out += ", as a dry run",
            When::Never => out += ", the planned one no more",
        }
    }
    if terms.discard {
        out += ", discarding what was written at the target";
    }
    if terms.alone {
        out += ", without the source";
    }
    out
}

fn words_of_change(change: &Change) -> String {
    let mut named = Vec::new();
    if change.reset {
        named.push("as configured".to_owned());
    }
    named.extend(change.max_rate.map(|rate| format!("max_rate {rate}")));
    named.extend(change.hours.as_ref().map(|hours| format!("hours {hours}")));
    for (signal, limit) in &change.limits {
        let limit = limit.0.map_or_else(|| "off".to_owned(), |limit| limit.to_string());
        let signal = serde_json::to_value(signal).unwrap_or_default();
        named.push(format!("{} {limit}", signal.as_str().unwrap_or_default()));
    }
    format!("throttle: {}", named.join(", "))
}

fn words_of_plan(options: &Options) -> String {
    // The decisions are in the plan, which its digest names.
    let decided = options.decisions.as_ref().map(|decisions| decisions.decision.len());
    let decided = decided.map(|count| format!(", with {count} decisions")).unwrap_or_default();
    let options = Options { decisions: None, ..options.clone() };
    format!("plan {}{decided}", serde_json::to_string(&options).unwrap_or_default())
}

#[async_trait]
impl Control for Audited {
    async fn inspect(&self) -> Result<(Inventory, Inventory)> {
        self.supervisor.inspect().await
    }

    async fn check(&self, options: Options) -> Result<Vec<Finding>> {
        self.supervisor.check(options).await
    }

    async fn plan(&self, options: Options, by: &str) -> Result<Plan> {
        let (me, who) = (self.supervisor.clone(), by.to_owned());
        let what = words_of_plan(&options);
        let call = async move { me.plan(options, &who).await };
        self.noted((by, None, what), call, |plan| format!("plan {}", plan.digest())).await
    }

    async fn start(&self, digest: &str, by: &str) -> Result<MigrationId> {
        let (me, plan, who) = (self.supervisor.clone(), digest.to_owned(), by.to_owned());
        let call = async move { me.start(&plan, &who).await };
        self.noted((by, None, format!("start {digest}")), call, |id| format!("migration {id}")).await
    }

    async fn list(&self) -> Result<Vec<Status>> {
        self.supervisor.list().await
    }

    async fn watch(&self, id: &MigrationId, after: u64) -> Result<Answers<Seen>> {
        self.supervisor.watch(id, after).await
    }

    async fn act(&self, id: &MigrationId, operation: Operation, terms: Terms, by: &str) -> Result<Status> {
        let (me, of, who) = (self.supervisor.clone(), id.clone(), by.to_owned());
        let call = async move { me.act(&of, operation, terms, &who).await };
        self.noted((by, Some(id), words(operation, terms)), call, state).await
    }

    async fn throttle(&self, id: &MigrationId, change: Change, by: &str) -> Result<Status> {
        let (me, of, who) = (self.supervisor.clone(), id.clone(), by.to_owned());
        let what = words_of_change(&change);
        let call = async move { me.throttle(&of, change, &who).await };
        let told = |status: &Status| {
            let kept = status.throttle.as_ref().map(|throttled| throttled.settings.to_string());
            kept.unwrap_or_else(|| state(status))
        };
        self.noted((by, Some(id), what), call, told).await
    }

    async fn verify(&self, id: &MigrationId, repair: bool, by: &str) -> Result<Status> {
        let (me, of, who) = (self.supervisor.clone(), id.clone(), by.to_owned());
        let what = if repair { "verify, repairing what differs" } else { "verify" };
        let call = async move { me.verify(&of, repair, &who).await };
        self.noted((by, Some(id), what.to_owned()), call, state).await
    }

    async fn report(&self, id: &MigrationId) -> Result<Report> {
        self.supervisor.report(id).await
    }

    async fn signed_report(&self, id: &MigrationId) -> Result<Vec<u8>> {
        self.supervisor.signed_report(id).await
    }

    async fn audit(&self, after: u64) -> Result<Vec<String>> {
        self.supervisor.audit(after).await
    }

    async fn rehearse(&self, decisions: Decisions, keep: bool, by: &str) -> Result<Answers<Rehearsing>> {
        let (me, who) = (self.supervisor.clone(), by.to_owned());
        let stays = if keep { ", keeping the scratch databases" } else { "" };
        let what = format!("rehearse with {} decisions{stays}", decisions.decision.len());
        let call = async move { me.rehearse(decisions, keep, &who).await };
        self.noted((by, None, what), call, |_| "it has begun".to_owned()).await
    }

    async fn rehearsal(&self) -> Result<RehearsalReport> {
        self.supervisor.rehearsal().await
    }

    async fn begin_backups(&self, host: Host, wanted: Wanted, by: &str) -> Result<Order> {
        let (me, who) = (self.supervisor.clone(), by.to_owned());
        let what = format!("{} at the {host}", wanted.words());
        let call = async move { me.begin_backups(host, wanted, &who).await };
        let by_whom = by.to_owned();
        let begun = move |order: &Order| {
            let is_noted = matches!(order, Order::Restore { .. });
            is_noted.then(|| Begun { by: by_whom, host, order: order.clone() })
        };
        self.noted_begun((by, None, what), call, |order| format!("it has begun: {}", order.id()), begun).await
    }

    async fn backups_standing(&self, host: Host, order: &Order) -> Result<Standing> {
        self.supervisor.backups_standing(host, order).await
    }

    async fn backups(&self, host: Host) -> Result<Shelf> {
        self.supervisor.backups(host).await
    }

    async fn probe(&self, bytes: u64, by: &str) -> Result<(u64, Duration)> {
        let (me, who) = (self.supervisor.clone(), by.to_owned());
        let call = async move { me.probe(bytes, &who).await };
        self.noted((by, None, format!("probe with {bytes} bytes")), call, |_| "measured".to_owned()).await
    }
}

#[cfg(test)]
mod tests {
    use handover_engine::throttle::{Limit, Rate, Signal};
    use handover_engine::time::Timestamp;

    use super::*;

    #[test]
    fn what_is_asked_is_told_in_words() {
        let terms = |when, discard| Terms { when, discard, ..Terms::default() };
        for (operation, terms, words_of_it) in [
            (Operation::Pause, Terms::default(), "pause"),
            (Operation::Abort, terms(When::Now, true), "abort, discarding what was written at the target"),
            (
                Operation::Cutover,
                terms(When::DryRun, false),
                "cutover (downtime at most 30000 ms, lag at most 5000 ms), as a dry run",
            ),
            (
                Operation::Cutover,
                terms(When::At(Timestamp::from_millis(0)), false),
                "cutover (downtime at most 30000 ms, lag at most 5000 ms) at 1970-01-01T00:00:00Z",
            ),
        ] {
            assert_eq!(words(operation, terms), words_of_it);
        }
        let limits = [(Signal::CpuPercent, Limit(Some(50))), (Signal::Threads, Limit(None))].into();
        let change = Change { reset: true, max_rate: Some(Rate(Some(20_000_000))), hours: None, limits };
        let told = words_of_change(&change);
        assert_eq!(told, "throttle: as configured, max_rate 20.0 MB/s, cpu_percent 50, threads off");
    }
}
