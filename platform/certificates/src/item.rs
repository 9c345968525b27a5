//! How a certificate is named to the operator, and what went wrong with it.

use handover_engine::failure::Failure;

use crate::material::Unfit;
use crate::section::CertificateSection;

/// As every failure names it.
pub fn item(section: &CertificateSection) -> String {
    format!("certificate {}", section.name)
}

/// What is wrong with it, for the operator.
pub fn unfit(section: &CertificateSection, what: &str, unfit: Unfit) -> Failure {
    let what = if what.is_empty() { unfit.what } else { format!("{what}: {}", unfit.what) };
    Failure::operator(item(section), what).hint(unfit.hint)
}

/// What the file system says.
pub fn failed(section: &CertificateSection, what: &str) -> impl FnOnce(std::io::Error) -> Failure {
    let (item, what) = (item(section), what.to_owned());
    move |error| Failure::operator(item, what).because(error).hint("mend that, then resume")
}
