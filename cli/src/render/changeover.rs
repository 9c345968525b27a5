//! What a host does to itself when it is changed over, as people read it.

use std::fmt::Write;

use handover_engine::changeover::{CertificateAction, Facts};

/// Services, settings, certificates and the label, a line each.
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
    if let Some(one) = &facts.label {
        let file = one.file.as_ref().map_or_else(String::new, |file| format!(" in {file}"));
        let _ = writeln!(out, "  label \"{}\"{file}{}", one.text, problem(&one.problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::changeover::{Group, LabelFacts, ServiceFacts, SettingsFacts, Trial};

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
                problem,
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
             settings ip (network, only swapped) in /etc/ip: it cannot be read\n  label \"On trial\" in /etc/label\n"
        );
    }
}
