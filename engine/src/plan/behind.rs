//! What a plan leaves behind at the source: the old system stays, and somebody must know what is there alone.

use serde::{Deserialize, Serialize};

use super::Options;
use crate::changeover::{CertificateAction, Scope};
use crate::inventory::{Dataset, Inventory};

/// Something of the source that the plan does not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftBehind {
    /// What it is, as manifests name it.
    pub item: String,
    /// Why it stays.
    pub why: String,
}

fn left(item: impl Into<String>, why: impl Into<String>) -> LeftBehind {
    LeftBehind { item: item.into(), why: why.into() }
}

/// What stays, in the order of the source's manifest.
pub(super) fn behind(
    source: &Inventory,
    target: &Inventory,
    chosen: &[&Dataset],
    options: &Options,
) -> Vec<LeftBehind> {
    let mut out = Vec::new();
    for dataset in &source.datasets {
        let item = format!("dataset {}", dataset.name);
        if !chosen.iter().any(|one| one.name == dataset.name) {
            let is_named = options.datasets.is_empty() || options.datasets.contains(&dataset.name);
            out.push(left(
                item,
                match is_named && dataset.is_log {
                    true => "logs stay: the plan is without them",
                    false => "it is not among those that were chosen",
                },
            ));
        } else if !dataset.excluded.is_empty() {
            out.push(left(
                item,
                format!("the source's manifest leaves out: {}", dataset.excluded.join(", ")),
            ));
        }
        if options.decisions.is_some() && chosen.iter().any(|one| one.name == dataset.name) {
            out.extend(super::fitting::homeless(dataset, target));
        }
    }
    if source.licence.guid().is_some() && !options.licence {
        out.push(left("licence", "it moves with --licence alone"));
    }
    changeover(source, target, options, &mut out);
    out
}

fn changeover(source: &Inventory, target: &Inventory, options: &Options, out: &mut Vec<LeftBehind>) {
    let (there, here) = (&source.changeover, &target.changeover);
    let apart = match (options.data_only, options.follow) {
        (true, _) => Some("the plan moves data only"),
        (false, false) => Some("it changes over with a cut-over alone, and the plan has none (--follow)"),
        (false, true) => None,
    };
    let scope = if options.swap { Scope::All } else { Scope::Basic };
    for one in &there.settings {
        let item = format!("settings {}", one.name);
        let is_known = here.settings.iter().any(|known| known.name == one.name);
        match apart {
            Some(why) => out.push(left(item, why)),
            None if !is_known => out.push(left(item, "the target's manifest has no such section")),
            None if !scope.holds(&one.group) => {
                out.push(left(item, format!("group {} makes a host the one it is: only swapped", one.group)));
            }
            None => {}
        }
    }
    for one in &there.services {
        let item = format!("service {}", one.unit);
        let is_known = here.services.iter().any(|known| known.unit == one.unit);
        match apart {
            Some(why) => out.push(left(item, why)),
            None if !is_known => out.push(left(item, "the target's manifest does not name it")),
            None => {}
        }
    }
    for one in &there.certificates {
        let item = format!("certificate {}", one.name);
        let known = here.certificates.iter().find(|known| known.name == one.name);
        match (apart, known.map(|known| known.action)) {
            (Some(why), _) => out.push(left(item, why)),
            (None, None) => out.push(left(item, "the target's manifest has no such section")),
            (None, Some(CertificateAction::Keep)) => out.push(left(item, "the target keeps its own")),
            (None, Some(CertificateAction::Reissue)) => {
                out.push(left(item, "the target is issued a new one"));
            }
            (None, Some(CertificateAction::Copy)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changeover::{CertificateFacts, Facts, Group, ServiceFacts, SettingsFacts, Trial};
    use crate::inventory::{DatasetFacts, TreeFacts, sample};

    fn host(datasets: &[(&str, &[&str])], changeover: Facts) -> Inventory {
        let dataset = |(name, excluded): &(&str, &[&str])| Dataset {
            excluded: excluded.iter().map(|text| (*text).to_owned()).collect(),
            ..sample::dataset(name, DatasetFacts::Files(TreeFacts::default()))
        };
        Inventory { changeover, ..sample::host(datasets.iter().map(dataset).collect()) }
    }

    fn facts(
        settings: &[(&str, &str)],
        services: &[&str],
        certificates: &[(&str, CertificateAction)],
    ) -> Facts {
        let section = |(name, group): &(&str, &str)| SettingsFacts {
            name: (*name).into(),
            group: Group((*group).into()),
            file: "/etc/x".into(),
            dataset: None,
            problem: None,
        };
        let service = |unit: &&str| ServiceFacts {
            unit: (*unit).into(),
            state: "active".into(),
            enabled: true,
            trial: Trial::Open,
            problem: None,
        };
        let certificate = |(name, action): &(&str, CertificateAction)| CertificateFacts {
            name: (*name).into(),
            action: *action,
            names: Vec::new(),
            fingerprint: None,
            expires: None,
            problem: None,
        };
        Facts {
            services: services.iter().map(service).collect(),
            settings: settings.iter().map(section).collect(),
            certificates: certificates.iter().map(certificate).collect(),
            ..Facts::default()
        }
    }

    fn told(options: &Options) -> Vec<String> {
        use CertificateAction::{Copy, Keep};
        let there = facts(
            &[("mail", "mail"), ("ip", "network"), ("old", "x")],
            &["web", "cron"],
            &[("www", Copy), ("imap", Copy)],
        );
        let here = facts(&[("mail", "mail"), ("ip", "network")], &["web"], &[("www", Keep), ("imap", Copy)]);
        let source = host(&[("db", &["session"]), ("www", &[]), ("tmp", &[])], there);
        let target = host(&[], here);
        let chosen: Vec<_> = source.datasets.iter().filter(|one| one.name.as_str() != "tmp").collect();
        let all = behind(&source, &target, &chosen, options);
        all.into_iter().map(|left| format!("{}: {}", left.item, left.why)).collect()
    }

    #[test]
    fn logs_stay_where_the_plan_is_without_them() {
        use crate::plan::sample::{ids, make};
        let mut source = host(&[("www", &[]), ("traffic", &[])], Facts::default());
        source.datasets[1].is_log = true;
        let target = host(&[("www", &[]), ("traffic", &[])], Facts::default());
        let plan = |options| make(&source, &target, options);
        let all = plan(Options::default()).unwrap();
        assert_eq!(
            (ids(&all.steps), all.left_behind.len()),
            ("prepare copy:www copy:traffic verify:www verify:traffic".into(), 0)
        );
        let without = plan(Options { without_logs: true, ..Options::default() }).unwrap();
        assert_eq!(ids(&without.steps), "prepare copy:www verify:www");
        assert_eq!(without.left_behind, [left("dataset traffic", "logs stay: the plan is without them")]);
        assert_ne!(all.digest(), without.digest());
        assert!(!String::from_utf8(all.to_bytes()).unwrap().contains("without_logs"));
        // A source of an earlier release does not tell.
        let mut older = source.clone();
        older.datasets[1].is_log = false;
        let mut knows = target.clone();
        knows.datasets[1].is_log = true;
        let without_logs = Options { without_logs: true, ..Options::default() };
        let refused = make(&older, &knows, without_logs).unwrap_err();
        assert!(refused.to_string().contains("dataset traffic: it is a log by the target's"), "{refused}");
        let datasets = vec!["traffic".parse().unwrap()];
        let nothing = plan(Options { without_logs: true, datasets, ..Options::default() }).unwrap_err();
        assert!(nothing.what.contains("all that was chosen are logs"), "{nothing}");
    }

    #[test]
    fn what_stays_is_named_with_why() {
        let follow = Options { follow: true, ..Options::default() };
        let data = [
            "dataset db: the source's manifest leaves out: session",
            "dataset tmp: it is not among those that were chosen",
        ];
        let rest = [
            "settings ip: group network makes a host the one it is: only swapped",
            "settings old: the target's manifest has no such section",
            "service cron: the target's manifest does not name it",
            "certificate www: the target keeps its own",
        ];
        assert_eq!(told(&follow), [&data[..], &rest[..]].concat());
        let swap = told(&Options { swap: true, ..follow.clone() });
        assert_eq!(swap, [&data[..], &rest[1..]].concat());
        for options in [Options::default(), Options { data_only: true, ..follow }] {
            assert_eq!(told(&options).len(), data.len() + 7);
        }
    }
}
