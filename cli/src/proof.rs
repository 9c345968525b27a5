//! Whether a signed report and an audit log are what was written. Needs no agent.

use std::path::{Path, PathBuf};

use clap::Args;
use handover_certs::file;
use handover_certs::identity::Identity;
use handover_certs::material::MaterialPaths;
use handover_certs::signed::{Believed, Signed, Signer};
use handover_certs::summary::CertificateSummary;
use handover_engine::audit::{self, Head};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::report::{Made, Report};
use time::OffsetDateTime;

/// Whose signatures are believed.
#[derive(Debug, Args)]
pub struct TrustArguments {
    /// The CA's certificates (ca.pem); those of --identity when left out.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// What the CA has revoked (crl.pem).
    #[arg(long, value_name = "FILE")]
    pub crl: Option<PathBuf>,
    /// The trust domain; that of --identity when left out, and any of the CA's without one.
    #[arg(long, value_name = "DOMAIN")]
    pub trust_domain: Option<String>,
}

impl TrustArguments {
    fn believed(&self, identity: Option<&Path>) -> Result<Believed> {
        // Whoever names a CA need not belong to it.
        let own = identity.filter(|_| self.ca.is_none());
        let paths = own.map(MaterialPaths::in_dir);
        let ca =
            self.ca.clone().or_else(|| paths.as_ref().map(|paths| paths.ca.clone())).ok_or_else(|| {
                Failure::operator("signed report", "say which CA is to be believed")
                    .hint("--ca FILE: the CA's ca.pem")
            })?;
        let unusable = |path: &Path, error: Box<dyn std::error::Error + Send + Sync>| {
            let item = path.display().to_string();
            Failure::operator(item, format!("nothing can be checked with it: {error}"))
        };
        let domain = match (&self.trust_domain, own) {
            (Some(domain), _) => Some(domain.clone()),
            (None, Some(dir)) => {
                let summary = CertificateSummary::of_directory(dir).map_err(|e| unusable(dir, e.into()))?;
                Some(summary.identity.trust_domain)
            }
            (None, None) => None,
        };
        let crl = self.crl.clone().or_else(|| paths.and_then(|paths| paths.crl));
        Believed::load(&ca, crl.as_deref(), domain).map_err(|error| unusable(&ca, error.into()))
    }
}

/// A report, and who is proven to have signed it.
#[derive(Debug)]
pub struct Proven {
    /// What was signed.
    pub report: Report,
    /// What it says of itself; `by` is the signer.
    pub made: Made,
    /// Who has signed it.
    pub signer: Signer,
}

/// Reads a file that is to be checked.
fn read(path: &Path) -> Result<Vec<u8>> {
    file::read(path)
        .map_err(|error| Failure::operator(path.display().to_string(), "it cannot be read").because(error))
}

/// The report in a file, if one of our targets has signed it so.
pub fn report(path: &Path, trust: &TrustArguments, identity: Option<&Path>) -> Result<Proven> {
    let believed = trust.believed(identity)?;
    prove(&path.display().to_string(), &read(path)?, &believed)
}

fn prove(item: &str, document: &[u8], believed: &Believed) -> Result<Proven> {
    let doubted = |error| Failure::permanent(item, "it does not verify").because(error);
    let signed = Signed::read(document).map_err(doubted)?;
    let parsed = |text: &str| serde_json::from_str::<Report>(text);
    let time = |text: &str| {
        let at = parsed(text).ok()?.made?.at;
        OffsetDateTime::from_unix_timestamp(at.seconds).ok()
    };
    let signer = signed.verify(believed, time).map_err(doubted)?;
    let other = |what: String| Failure::permanent(item, "it does not verify").because(Other(what));
    let report =
        parsed(signed.text()).map_err(|error| other(format!("it is no report of this release: {error}")))?;
    let made = report.made.clone().ok_or_else(|| other("it does not tell who made it".to_owned()))?;
    for (whose, claimed) in [("made by", &made.by), ("about a migration to", &report.agents.1)] {
        if claimed.parse() != Ok::<Identity, _>(signer.identity.clone()) {
            return Err(other(format!(
                "it says that it is {whose} {claimed}, and {} has signed it",
                signer.identity
            )));
        }
    }
    Ok(Proven { report, made, signer })
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Other(String);

/// The lines of an audit log in a file.
pub fn log(path: &Path) -> Result<Vec<String>> {
    let bytes = read(path)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Failure::permanent(path.display().to_string(), "the log does not verify")
            .because(audit::Broken::Unreadable { line })
    })?;
    Ok(audit::lines(&text).into_iter().map(str::to_owned).collect())
}

/// The head of a log, if it is the one that was written, and goes on from where a report saw its end.
pub fn chain(item: &str, lines: &[String], told: Option<Head>) -> Result<Head> {
    let doubted = |error| Failure::permanent(item, "the log does not verify").because(error);
    let head = audit::check(lines).map_err(doubted)?;
    audit::of_head(lines, told.unwrap_or(Head::NONE)).map_err(doubted)?;
    Ok(head)
}
