//! Carrying out a command.

mod undone;

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use handover_certs::identity::Role;
use handover_certs::material::MaterialPaths;
use handover_certs::reload::Credentials;
use handover_engine::check::Severity;
use handover_engine::driver::Status;
use handover_engine::failure::Failure;
use handover_engine::journal::{Event, Logged};
use handover_engine::name::MigrationId;
use handover_engine::phase::{Condition, Operation, Phase};
use handover_engine::plan::Options;
use handover_engine::ports::Result;
use handover_engine::report::{Terms, When};
use handover_transport::control::client::RemoteControl;
use handover_transport::control::{Control, Seen};
use serde_json::{Value, json};

use crate::arguments::{Act, Arguments, PlanArguments, Verb, Which};
use crate::exit::Code;
use crate::report::{AuditArguments, ReportArguments};
use crate::throttle::ThrottleArguments;
use crate::{backups, certs, documents, rehearse, render, report, throttle, watch};

/// Prints text, or the document.
fn print(json: bool, text: &str, document: &Value) {
    println!("{}", if json { document.to_string() } else { text.to_owned() });
}

/// Runs one command.
pub async fn run(arguments: Arguments) -> Result<Code> {
    if let Verb::Certs(verb) = arguments.verb {
        let (text, document) = certs::run(verb, arguments.identity.as_deref())?;
        print(arguments.json, &text, &document);
        return Ok(Code::Done);
    }
    if let Some((text, document)) = offline(&arguments).await? {
        print(arguments.json, &text, &document);
        return Ok(Code::Done);
    }
    let session = Session { control: connect(&arguments)?, json: arguments.json };
    match arguments.verb {
        Verb::Certs(_) => Ok(Code::Done),
        Verb::Inspect => session.inspect().await,
        Verb::Check(plan) => session.check(plan).await,
        Verb::Plan(plan) => session.plan(plan).await,
        Verb::Start { digest, watch } => session.start(&digest, watch).await,
        Verb::Watch(which) => session.watch(which).await,
        Verb::Status(which) => session.status(which).await,
        Verb::List => session.list().await,
        Verb::Pause(act) => session.act(Operation::Pause, act).await,
        Verb::Resume(act) => session.resume(act).await,
        Verb::Sync(act) => session.act(Operation::Sync, act).await,
        Verb::Verify { act, repair } => session.verify(repair, act).await,
        Verb::Cutover { act, max_downtime, max_lag, at, dry_run, never } => {
            let ms = |seconds: u32| u64::from(seconds) * 1000;
            let when = match at {
                Some(at) => When::At(at),
                None if dry_run => When::DryRun,
                None if never => When::Never,
                None => When::Now,
            };
            let terms = Terms {
                max_downtime_ms: ms(max_downtime),
                max_lag_ms: ms(max_lag),
                when,
                ..Terms::default()
            };
            match when {
                When::DryRun => session.try_cutover(terms, act.which).await,
                _ => session.cut_over(terms, act).await,
            }
        }
        Verb::Accept(act) => session.act(Operation::Accept, act).await,
        Verb::Abort { act, discard } => {
            let terms = Terms { discard, ..Terms::default() };
            session.ask(Operation::Abort, terms, act).await.map(|(_, code)| code)
        }
        Verb::Finalize(act) => session.act(Operation::Finalize, act).await,
        Verb::Terminate { act, yes } => session.terminate(act, yes).await,
        Verb::Rehearse(asked) => rehearse::run(&session.control, asked, session.json).await,
        Verb::Throttle(asked) => session.throttle(asked).await,
        Verb::Report(asked) => session.report(asked).await,
        Verb::Audit(asked) => session.audit(asked, arguments.identity.as_deref()).await,
        Verb::Backup(asked) => {
            backups::make(&session.control, asked, session.json).await.map(|done| session.done(&done))
        }
        Verb::Backups(asked) => {
            backups::look(&session.control, asked, session.json).await.map(|done| session.done(&done))
        }
        Verb::Restore(asked) => {
            backups::restore(&session.control, asked, session.json).await.map(|done| session.done(&done))
        }
        Verb::Probe { bytes } => session.probe(bytes).await,
    }
}

/// What needs no agent.
async fn offline(arguments: &Arguments) -> Result<Option<report::Printed>> {
    let identity = arguments.identity.as_deref();
    match &arguments.verb {
        Verb::Report(ReportArguments { verify: Some(path), trust, .. }) => {
            report::verify(path, trust, identity).map(Some)
        }
        Verb::Audit(asked) if matches!(asked.verify, Some(Some(_))) => {
            report::audit(None, asked, identity).await.map(Some)
        }
        _ => Ok(None),
    }
}

fn connect(arguments: &Arguments) -> Result<RemoteControl> {
    let missing = |what: &str, hint: &str| Failure::operator("handover", what).hint(hint);
    let target = arguments
        .target
        .as_deref()
        .ok_or_else(|| missing("say which target", "--target HOST:PORT, or HANDOVER_TARGET"))?;
    let identity = arguments
        .identity
        .as_deref()
        .ok_or_else(|| missing("say who you are", "--identity DIR, or HANDOVER_IDENTITY"))?;
    let credentials =
        Credentials::load(MaterialPaths::in_dir(identity), Some(Role::Target)).map_err(|error| {
            Failure::operator(format!("identity {}", identity.display()), "it cannot be used").because(error)
        })?;
    RemoteControl::new(target, Arc::clone(&credentials))
}

struct Session {
    control: RemoteControl,
    json: bool,
}

impl Session {
    fn print(&self, text: &str, document: &Value) {
        print(self.json, text, document);
    }

    fn done(&self, (text, document): &(String, Value)) -> Code {
        self.print(text, document);
        Code::Done
    }

    /// The migration meant: the one named, else the one that has not ended, else the newest.
    async fn pick(&self, which: Which) -> Result<Status> {
        let mut all = self.control.list().await?;
        let at = match &which.id {
            Some(id) => all.iter().position(|status| status.migration == *id),
            None => all.iter().position(|s| !s.state.phase.is_final()).or(all.len().checked_sub(1)),
        };
        at.map(|at| all.swap_remove(at)).ok_or_else(|| match which.id {
            Some(id) => Failure::operator(format!("migration {id}"), "the target has no such migration")
                .hint("`handover list` names those it has"),
            None => Failure::operator("migration", "the target has none")
                .hint("`handover plan`, then `handover start`"),
        })
    }

    async fn inspect(&self) -> Result<Code> {
        let (source, target) = self.control.inspect().await?;
        self.print(&render::inventories(&source, &target), &json!({ "source": source, "target": target }));
        Ok(Code::Done)
    }

    async fn check(&self, plan: PlanArguments) -> Result<Code> {
        let findings = self.control.check(options(plan)?).await?;
        self.print(&render::findings(&findings), &json!({ "findings": findings }));
        let refused = findings.iter().any(|finding| finding.severity == Severity::Error);
        Ok(if refused { Code::Refused } else { Code::Done })
    }

    async fn plan(&self, plan: PlanArguments) -> Result<Code> {
        let plan = self.control.plan(options(plan)?, "").await?;
        self.print(&render::plan(&plan), &json!({ "digest": plan.digest(), "plan": plan }));
        Ok(Code::Done)
    }

    async fn start(&self, digest: &str, watch: bool) -> Result<Code> {
        let id = self.control.start(digest, "").await?;
        self.print(&format!("migration {id} has started"), &json!({ "migration": id }));
        self.settle(&id, watch).await
    }

    async fn settle(&self, id: &MigrationId, watch: bool) -> Result<Code> {
        if watch { watch::watch(&self.control, id, self.json).await } else { Ok(Code::Done) }
    }

    async fn status(&self, which: Which) -> Result<Code> {
        let status = self.pick(which).await?;
        self.print(&render::status(&status), &documents::status(&status));
        Ok(Code::Done)
    }

    async fn list(&self) -> Result<Code> {
        let all = self.control.list().await?;
        let text: Vec<String> = all.iter().map(render::line).collect();
        let text = if text.is_empty() { "no migrations".to_owned() } else { text.join("\n") };
        let documents: Vec<Value> = all.iter().map(documents::status).collect();
        self.print(&text, &json!({ "migrations": documents }));
        Ok(Code::Done)
    }

    async fn act(&self, operation: Operation, act: Act) -> Result<Code> {
        self.ask(operation, Terms::default(), act).await.map(|(_, code)| code)
    }

    async fn ask(&self, operation: Operation, terms: Terms, act: Act) -> Result<(MigrationId, Code)> {
        let id = match act.which.id {
            Some(id) => id,
            None => self.pick(act.which).await?.migration,
        };
        let status = self.control.act(&id, operation, terms, "").await?;
        self.print(&render::status(&status), &documents::status(&status));
        let code = self.settle(&id, act.watch).await?;
        Ok((id, code))
    }

    /// Takes the instance that a migration has built away, if there is one still: what an abort has kept of it, too.
    async fn terminate(&self, act: Act, yes: bool) -> Result<Code> {
        let Act { which, watch } = act;
        let status = self.pick(which).await?;
        let id = status.migration.clone();
        let item = format!("migration {id}");
        match status.state.phase {
            Phase::Aborted if status.allowed.contains(&Operation::Terminate) => {
                if !yes {
                    let places: Vec<&str> = status.kept.values().map(|kept| kept.place.as_str()).collect();
                    let what = format!("what is kept of it goes for good: {}", places.join(", "));
                    return Err(Failure::operator(item, what).hint("add --yes once nobody needs it any more"));
                }
                let act = Act { which: Which { id: Some(id) }, watch };
                return self.ask(Operation::Terminate, Terms::default(), act).await.map(|(_, code)| code);
            }
            Phase::Aborted => {
                self.print(&format!("{item} is aborted: nothing of it is left"), &documents::status(&status));
                return Ok(Code::Done);
            }
            Phase::Finalized => {
                let what = "its instance has become the appliance itself: there is nothing to take away";
                return Err(Failure::operator(item, what));
            }
            _ if !yes => {
                let what = "what it has built at the target goes, and nothing is undone at the source";
                let hint =
                    "add --yes where the source is gone for good; `handover abort` undoes it on both hosts";
                return Err(Failure::operator(item, what).hint(hint));
            }
            _ => {}
        }
        let terms = Terms { alone: true, ..Terms::default() };
        let act = Act { which: Which { id: Some(id) }, watch };
        self.ask(Operation::Abort, terms, act).await.map(|(_, code)| code)
    }

    /// A watched verification that was called off has failed, although the migration goes on.
    async fn verify(&self, repair: bool, act: Act) -> Result<Code> {
        let id = match act.which.id {
            Some(id) => id,
            None => self.pick(act.which).await?.migration,
        };
        let status = self.control.verify(&id, repair, "").await?;
        self.print(&render::status(&status), &documents::status(&status));
        let code = self.settle(&id, act.watch).await?;
        if !act.watch || code != Code::Done {
            return Ok(code);
        }
        let ended = self.control.report(&id).await?.outcome.verifying_ended;
        Ok(if ended.is_some() { Code::Failed } else { Code::Done })
    }

    /// A watched cut-over that was called off has failed, although the migration goes on; so has one that was undone.
    async fn cut_over(&self, terms: Terms, act: Act) -> Result<Code> {
        let is_watched = act.watch;
        let (id, code) = self.ask(Operation::Cutover, terms, act).await?;
        if !is_watched || code != Code::Done {
            return Ok(code);
        }
        let status = self.pick(Which { id: Some(id) }).await?;
        let is_undone = matches!(status.state.phase, Phase::Following | Phase::Aborted);
        Ok(if is_undone { Code::Failed } else { Code::Done })
    }

    /// Prints what a cut-over would do, and for how long writers would wait.
    async fn try_cutover(&self, terms: Terms, which: Which) -> Result<Code> {
        let id = self.pick(which).await?.migration;
        let begun = self.control.act(&id, Operation::Cutover, terms, "").await?;
        let acts = begun.progress.steps;
        let mut seen = self.control.watch(&id, begun.last_event).await?;
        // The last tells what it came to, those before what would stand in the way.
        let mut notes = Vec::new();
        // What was found is in the status from the end on.
        let predicted = loop {
            match seen.try_next().await? {
                Some(Seen::Status(status)) if status.state.phase != Phase::CuttingOver => {
                    break status.cutover.map_or(0, |cutover| cutover.predicted_ms);
                }
                Some(Seen::Status(status)) if matches!(status.state.condition, Condition::Failed(_)) => {
                    break 0;
                }
                Some(Seen::Event(Logged { event: Event::Note { item, text }, .. })) if item == "cutover" => {
                    notes.push(text);
                }
                Some(_) => {}
                None => break 0,
            }
        };
        let came_to = notes.pop();
        if predicted == 0 {
            let item = format!("migration {id}");
            return Err(match came_to {
                Some(what) => Failure::operator(item, what),
                None => Failure::operator(item, "it could not be tried")
                    .hint("`handover watch` tells what stood in its way"),
            });
        }
        let document = json!({
            "acts": acts, "predicted_ms": predicted, "max_downtime_ms": terms.max_downtime_ms, "in_the_way": notes,
        });
        self.print(&render::cutover(&acts, predicted, terms.max_downtime_ms, &notes), &document);
        let is_free = notes.is_empty() && predicted <= terms.max_downtime_ms;
        Ok(if is_free { Code::Done } else { Code::Refused })
    }

    /// Shows what the source is held to, or changes it.
    async fn throttle(&self, asked: ThrottleArguments) -> Result<Code> {
        let change = asked.change();
        let mut status = self.pick(asked.which).await?;
        if !change.is_empty() {
            status = self.control.throttle(&status.migration, change, "").await?;
        }
        self.print(&throttle::text(status.throttle.as_ref()), &documents::status(&status));
        Ok(Code::Done)
    }

    async fn report(&self, asked: ReportArguments) -> Result<Code> {
        let id = match asked.which.id {
            Some(id) => id,
            None => self.pick(asked.which).await?.migration,
        };
        let (text, document) = report::report(&self.control, &id, asked.out.as_deref()).await?;
        self.print(&text, &document);
        Ok(Code::Done)
    }

    async fn audit(&self, asked: AuditArguments, identity: Option<&Path>) -> Result<Code> {
        let (text, document) = report::audit(Some(&self.control), &asked, identity).await?;
        self.print(&text, &document);
        Ok(Code::Done)
    }

    async fn probe(&self, bytes: u64) -> Result<Code> {
        let (bytes, time) = self.control.probe(bytes, "").await?;
        let rate = bytes as f64 / time.as_secs_f64().max(1e-9);
        let text = format!(
            "{} in {:.2} s: {}/s",
            render::bytes(bytes),
            time.as_secs_f64(),
            render::bytes(rate as u64)
        );
        self.print(
            &text,
            &json!({ "bytes": bytes, "seconds": time.as_secs_f64(), "bytes_per_second": rate }),
        );
        Ok(Code::Done)
    }
}

fn options(plan: PlanArguments) -> Result<Options> {
    let PlanArguments {
        overwrite, datasets, follow, one_way, licence, swap, data_only, without_logs, ..
    } = plan;
    let decisions = plan.decisions.as_deref().map(rehearse::read).transpose()?;
    let on_failure = plan.on_failure.unwrap_or_default();
    Ok(Options {
        overwrite,
        datasets,
        follow,
        one_way,
        licence,
        swap,
        data_only,
        without_logs,
        decisions,
        on_failure,
    })
}
