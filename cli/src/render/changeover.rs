//! What a host does to itself when it is changed over, as people read it.

use std::fmt::Write;

use handover_engine::changeover::{CertificateAction, Facts};
use handover_engine::replication::ServerRole;

/// Services, settings, certificates, the label and what part database servers play, a line each.
pub fn facts(facts: &Facts, out: &mut String) {
    let problem = |problem: &Option<String>| match problem {
        Some(text) => format!(": {text}"),
        None => String::new(),
    };
    for one in &facts.services {
        let enabled = if one.enabled { "enabled" } else { "not enabled" };
        let trial = match one.trial.is_open() {
            true => String::new(),
            false => format!(", {} on trial", one.trial),
        };
        let (state, problem) = (&one.state, problem(&one.problem));
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  service {}: {state}, {enabled}{trial}{problem}", one.unit);
    }
    for one in &facts.settings {
        let left = if one.group.is_of_the_host() { ", only swapped" } else { "" };
        let _ = writeln!(
            out,
            "  settings {} ({}{left}) in {}{}",
            one.name,
            one.group,
            one.file,
            problem(&one.problem)
        );
    }
    for one in &facts.certificates {
        let action = match one.action {
            CertificateAction::Copy => "copied",
            CertificateAction::Reissue => "reissued",
            CertificateAction::Keep => "kept",
        };
        let until = one.expires.map_or_else(String::new, |at| format!(", good until {at}"));
        let _ = writeln!(
            out,
            "  certificate {} ({action}) for {}{until}{}",
            one.name,
            one.names.join(" "),
            problem(&one.problem)
        );
    }
    let role = |role: &Option<ServerRole>| {
        role.as_ref().map_or("its role is not known".to_owned(), ToString::to_string)
    };
    for one in &facts.replication {
        // A named replica's trouble is told with it.
        let (here, there) = if one.replica.is_none() { (&one.problem, &None) } else { (&None, &one.problem) };
        let _ =
            writeln!(out, "  server {} of {}: {}{}", one.server, one.names(), role(&one.role), problem(here));
        if let Some(replica) = &one.replica {
            let _ = writeln!(out, "  replica {}: {}{}", replica.server, role(&replica.role), problem(there));
        }
    }
    if let Some(one) = &facts.label {
        let file = one.file.as_ref().map_or_else(String::new, |file| format!(" in {file}"));
        let _ = writeln!(out, "  label \"{}\"{file}{}", one.text, problem(&one.problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::changeover::{Group, LabelFacts, ServiceFacts, SettingsFacts, Trial};
    use handover_engine::replication::{ReplicaFacts, ReplicationFacts};

    #[test]
    fn a_line_for_each() {
        let problem = Some("it cannot be read".to_owned());
        let all = Facts {
            services: vec![ServiceFacts {
                unit: "web.service".into(),
                state: "active".into(),
                enabled: true,
                trial: Trial::Sealed(vec!["10.0.0.0/8".into()]),
                problem: None,
            }],
            settings: vec![SettingsFacts {
                name: "ip".into(),
                group: Group("network".into()),
                file: "/etc/ip".into(),
                dataset: None,
                problem,
            }],
            replication: vec![ReplicationFacts {
                datasets: vec!["shop".parse().unwrap()],
                server: "db1:3306".into(),
                role: Some(ServerRole { replicas: vec!["db2".into()], ..ServerRole::default() }),
                replica: Some(ReplicaFacts { server: "db2:3306".into(), role: None }),
                problem: Some("it does not answer".into()),
            }],
            label: Some(LabelFacts {
                text: "On trial".into(),
                file: Some("/etc/label".into()),
                problem: None,
            }),
            ..Facts::default()
        };
        let mut out = String::new();
        facts(&all, &mut out);
        assert_eq!(
            out,
            "  service web.service: active, enabled, sealed off but for 10.0.0.0/8 on trial\n  \
             settings ip (network, only swapped) in /etc/ip: it cannot be read\n  \
             server db1:3306 of shop: primary of the replica db2\n  \
             replica db2:3306: its role is not known: it does not answer\n  label \"On trial\" in /etc/label\n"
        );
    }
}
