//! What a host does to itself when it is changed over, as people read it.

use std::fmt::Write;

use handover_engine::changeover::{CertificateAction, Facts};

/// Services, settings and certificates, a line each.
pub fn facts(facts: &Facts, out: &mut String) {
    let problem = |problem: &Option<String>| match problem {
        Some(text) => format!(": {text}"),
        None => String::new(),
    };
    for one in &facts.services {
        let enabled = if one.enabled { "enabled" } else { "not enabled" };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  service {}: {}, {enabled}{}", one.unit, one.state, problem(&one.problem));
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_engine::changeover::{Group, ServiceFacts, SettingsFacts};

    #[test]
    fn a_line_for_each() {
        let problem = Some("it cannot be read".to_owned());
        let all = Facts {
            services: vec![ServiceFacts {
                unit: "web.service".into(),
                state: "active".into(),
                enabled: true,
                problem: None,
            }],
            settings: vec![SettingsFacts {
                name: "ip".into(),
                group: Group("network".into()),
                file: "/etc/ip".into(),
                dataset: None,
                problem,
            }],
            ..Facts::default()
        };
        let mut out = String::new();
        facts(&all, &mut out);
        assert_eq!(
            out,
            "  service web.service: active, enabled\n  settings ip (network, only swapped) in /etc/ip: it cannot be read\n"
        );
    }
}
