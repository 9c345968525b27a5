//! `handover certs …`

use std::path::Path;

use handover_certs::authority::{Authority, AuthorityError, InitOptions, IssueOptions, KeyAlgorithm, Which};
use handover_certs::identity::{Identity, Role};
use handover_certs::summary::{self, CertificateSummary};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use serde_json::{Value, json};

use crate::arguments::CertsVerb;

fn failed(error: AuthorityError) -> Failure {
    Failure::operator("certs", "this did not work").because(error)
}

/// An identity's directory that the verb needs.
fn needed(identity: Option<&Path>) -> Result<&Path> {
    identity.ok_or_else(|| Failure::operator("certs", "say which identity").hint("--identity DIR"))
}

/// Runs one verb; returns what it prints: text and document.
pub fn run(verb: CertsVerb, identity: Option<&Path>) -> Result<(String, Value)> {
    match verb {
        CertsVerb::Init { ca, trust_domain } => {
            Authority::init(&ca, &trust_domain, &InitOptions::default()).map_err(failed)?;
            show(&ca)
        }
        CertsVerb::Issue { ca, role, name, out, days, ed25519 } => {
            issue(&ca, role, &name, &out, days, ed25519)
        }
        CertsVerb::Renew { ca } => {
            let dir = needed(identity)?;
            Authority::open(&ca).and_then(|mut ca| ca.renew(dir)).map_err(failed)?;
            show(dir)
        }
        CertsVerb::Revoke { ca, serial } => revoke(&ca, serial, identity),
        CertsVerb::Rotate { ca, new } => {
            Authority::rotate(&ca, &new, &InitOptions::default()).map_err(failed)?;
            show(&new)
        }
        CertsVerb::Retire { ca } => {
            Authority::open(&ca).and_then(|ca| ca.trust_only_itself()).map_err(failed)?;
            show(&ca)
        }
        CertsVerb::Publish { ca } => {
            let dir = needed(identity)?;
            Authority::open(&ca).and_then(|ca| ca.publish(dir)).map_err(failed)?;
            show(dir)
        }
        CertsVerb::Show { dir } => show(&dir),
    }
}

fn issue(ca: &Path, role: Role, name: &str, out: &Path, days: u16, ed25519: bool) -> Result<(String, Value)> {
    let mut authority = Authority::open(ca).map_err(failed)?;
    let identity = Identity::new(authority.trust_domain(), role, name).map_err(|e| failed(e.into()))?;
    let key_algorithm = if ed25519 { KeyAlgorithm::Ed25519 } else { KeyAlgorithm::default() };
    let validity = time::Duration::days(days.into());
    let options = IssueOptions { validity, key_algorithm, ..IssueOptions::default() };
    authority.issue(&identity, &options).and_then(|issued| issued.write(out)).map_err(failed)?;
    show(out)
}

fn revoke(ca: &Path, serial: Option<String>, identity: Option<&Path>) -> Result<(String, Value)> {
    let serial = match serial {
        Some(serial) => serial,
        None => CertificateSummary::of_directory(needed(identity)?).map_err(failed)?.serial,
    };
    let mut authority = Authority::open(ca).map_err(failed)?;
    let revoked = authority.revoke(&Which::Serial(serial)).map_err(failed)?;
    let lines: Vec<String> =
        revoked.iter().map(|issued| format!("revoked {} ({})", issued.identity, issued.serial)).collect();
    let hint = format!("hand {} to every agent (`handover certs publish`)", ca.join("crl.pem").display());
    Ok((format!("{}\n{hint}", lines.join("\n")), json!({ "revoked": revoked })))
}

fn show(dir: &Path) -> Result<(String, Value)> {
    let summary = summary::of_directory(dir).map_err(failed)?;
    Ok((summary.to_string(), json!(summary)))
}
