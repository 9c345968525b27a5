//! What is told, for the report, of changes that are made beside the data, and of what is taken back of them. Names, never values.

use std::collections::BTreeMap;

use super::task::Runner;
use crate::backup::Host;
use crate::changeover::{CertificateAction, Scope, SettingsFacts};
use crate::dns::{RecordChange, Stage};
use crate::name::DatasetName;
use crate::pass::Message;
use crate::plan::StepKind;
use crate::ports::Result;
use crate::report::Change;

/// What is told of a service that is started as it is to stay.
const STARTED: &str = "started";

impl Runner {
    /// Tells what a step that is done has changed beside the data.
    pub(super) async fn tell_changed(&self, kind: &StepKind) -> Result<()> {
        let changes = match kind {
            StepKind::Withdraw => self.records_changed(kind, Stage::Before),
            StepKind::Maintain => self.services_stopped(kind),
            StepKind::Deactivate => {
                self.of_structure(kind, Host::Source, "replica of ", |_| "it follows no more".to_owned())
            }
            StepKind::Configure => self.settings_changed(kind).await,
            StepKind::Certify => self.certificates_changed(kind).await,
            StepKind::Label => self.label_shown(kind).await,
            StepKind::Serve => self.services_started(""),
            StepKind::Licence => self.licence_moved(kind).await,
            StepKind::Replicate => self.of_structure(kind, Host::Target, "replica of ", |server| {
                format!("set up at {server}, which follows the target")
            }),
            StepKind::Repoint => self.records_changed(kind, Stage::Cutover),
            StepKind::Rejoin => self.records_changed(kind, Stage::End),
            _ => Vec::new(),
        };
        self.tell_all(changes).await
    }

    /// The trial is over: services are what they are to stay.
    pub(super) async fn tell_released(&self) -> Result<()> {
        let mut changes = self.services_started(" until the target was accepted");
        // Those that were not on trial are as they were: when they were started is told already.
        changes.retain(|change| change.what != STARTED);
        self.tell_all(changes).await
    }

    /// Tells that what these steps have changed was taken back: at one host, where it is named.
    pub(super) async fn tell_undone(&self, steps: &[StepKind], host: Option<Host>) -> Result<()> {
        let steps: Vec<String> = steps.iter().filter(|step| self.plans(step)).map(StepKind::id).collect();
        if steps.is_empty() {
            return Ok(());
        }
        self.work.desk.send(Message::Undone { steps, host, at: self.work.clock.now() }).await
    }

    async fn tell_all(&self, changes: Vec<Change>) -> Result<()> {
        if changes.is_empty() { Ok(()) } else { self.work.desk.send(Message::Changed(changes)).await }
    }

    fn change(&self, step: &StepKind, host: Option<Host>, item: String, what: String) -> Change {
        let at = self.work.clock.now();
        Change { step: step.id(), host, item, what, facts: BTreeMap::new(), at, undone_at: None }
    }

    /// What the plan knows of a host by a name of this kind; `what` is told of each.
    fn of_structure(
        &self,
        step: &StepKind,
        host: Host,
        kind: &str,
        what: impl Fn(&str) -> String,
    ) -> Vec<Change> {
        let side = match host {
            Host::Source => &self.plan.source,
            Host::Target => &self.plan.target,
        };
        let known = side.structure.iter().filter(|(item, _)| item.starts_with(kind));
        known.map(|(item, known)| self.change(step, Some(host), item.clone(), what(known))).collect()
    }

    fn services_stopped(&self, step: &StepKind) -> Vec<Change> {
        let stopped = |_: &str| "stopped, and kept from starting with the host".to_owned();
        let of = |host| self.of_structure(step, host, "service ", stopped);
        Host::BOTH.into_iter().flat_map(of).collect()
    }

    /// Those of the target; `until` is when it ended that some of them are on trial.
    fn services_started(&self, until: &str) -> Vec<Change> {
        self.of_structure(&StepKind::Serve, Host::Target, "service ", |trial| match trial {
            "" => STARTED.to_owned(),
            "stopped" => format!("left stopped on trial{until}"),
            sealed => format!("started, {sealed} on trial{until}"),
        })
    }

    /// Sections that both hosts have, but for rows of databases that are moved.
    async fn settings_changed(&self, step: &StepKind) -> Vec<Change> {
        let scope = if self.plan.options.swap { Scope::All } else { Scope::Basic };
        let is_moved = |dataset: &DatasetName| self.plan.datasets().any(|moved| moved == dataset);
        let comes_along = |one: &SettingsFacts| one.dataset.as_ref().is_some_and(is_moved);
        let mut out = Vec::new();
        for one in known(self.own().settings.facts().await) {
            let item = format!("settings {}", one.name);
            let Some(there) = self.plan.source.structure.get(&item) else { continue };
            if !scope.holds(&one.group) || comes_along(&one) {
                continue;
            }
            let group = one.group.to_string();
            let section = |host, file: &str, from: Host| Change {
                facts: facts([("group", group.clone()), ("file", file.to_owned())]),
                ..self.change(step, Some(host), item.clone(), format!("taken from the {from}"))
            };
            if self.plan.options.swap {
                let file = there.split_once(' ').map_or("", |(_, file)| file);
                out.push(section(Host::Source, file, Host::Target));
            }
            out.push(section(Host::Target, &one.file, Host::Source));
        }
        out
    }

    async fn certificates_changed(&self, step: &StepKind) -> Vec<Change> {
        let all = known(self.own().certificates.facts().await).into_iter();
        let put = all.filter(|one| one.action != CertificateAction::Keep);
        put.map(|one| {
            let what = match one.action {
                CertificateAction::Reissue => "a new one was put in place",
                CertificateAction::Copy | CertificateAction::Keep => "the source's was put in place",
            };
            let mut facts = facts([("names", one.names.join(" "))]);
            facts.extend(one.fingerprint.map(|digest| ("fingerprint".to_owned(), digest)));
            facts.extend(one.expires.map(|at| ("expires".to_owned(), at.to_string())));
            let item = format!("certificate {}", one.name);
            Change { facts, ..self.change(step, Some(Host::Target), item, what.to_owned()) }
        })
        .collect()
    }

    async fn label_shown(&self, step: &StepKind) -> Vec<Change> {
        let label = known(self.own().label.facts().await);
        let shown = label.map(|one| {
            let mut facts = facts([("text", one.text)]);
            facts.extend(one.file.map(|file| ("file".to_owned(), file)));
            Change { facts, ..self.change(step, Some(Host::Target), "label".to_owned(), "shown".to_owned()) }
        });
        shown.into_iter().collect()
    }

    async fn licence_moved(&self, step: &StepKind) -> Vec<Change> {
        let standing = known(self.here.licences.standing().await);
        let guid = standing.guid().or_else(|| self.plan.source.structure.get("licence").map(String::as_str));
        let moved = |(host, what): (Host, &str)| Change {
            facts: guid.map(|guid| facts([("guid", guid.to_owned())])).unwrap_or_default(),
            ..self.change(step, Some(host), "licence".to_owned(), what.to_owned())
        };
        [(Host::Source, "withdrawn"), (Host::Target, "put in place")].into_iter().map(moved).collect()
    }

    fn records_changed(&self, step: &StepKind, at: Stage) -> Vec<Change> {
        let changes = self.plan.dns.iter().flat_map(|advice| advice.at(at));
        let changed = |one: &RecordChange| {
            let item = format!("dns {} {}", one.name, one.kind);
            self.change(step, None, item, one.lines().join("; "))
        };
        changes.map(changed).collect()
    }
}

fn facts<const N: usize>(facts: [(&str, String); N]) -> BTreeMap<String, String> {
    facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect()
}

/// What cannot be looked at is not told; what was done stays done.
fn known<T: Default>(found: Result<T>) -> T {
    found.unwrap_or_else(|failure| {
        tracing::info!(%failure, "what a step has changed could not be looked at");
        T::default()
    })
}
