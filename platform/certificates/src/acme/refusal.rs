//! What an authority says when it does not do what it was asked for, and what to do about it.

use std::path::Path;

use handover_engine::failure::Failure;
use instant_acme::{Error, Problem};

use super::https::Unanswered;

/// Letters of what an authority says that are told.
const TOLD: usize = 600;
/// What the types of problems that the protocol knows begin with.
const KNOWN: &str = "urn:ietf:params:acme:error:";

/// What it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// To know the account.
    Account,
    /// To take the order, or to issue.
    Order,
    /// To see that the names are ours.
    Proof,
}

/// What went wrong with `authority`, for the operator.
pub fn failure(item: String, authority: &str, account: &Path, stage: Stage, error: Error) -> Failure {
    let hint = "look at `acme` in the certificate's section, then resume";
    match error {
        Error::Api(problem) => {
            let hint = hint_of(&problem, stage, account);
            Failure::operator(item, format!("{authority} refuses: {}", told(&problem))).hint(hint)
        }
        Error::Timeout(_) => Failure::operator(item, format!("{authority} has not decided in time"))
            .hint("it may ask to wait for hours: resume then"),
        Error::Json(error) => {
            Failure::operator(item, format!("{authority} does not answer as an ACME server does"))
                .because(error)
                .hint("`acme` is the address of its directory")
        }
        Error::Other(other) => match other.downcast::<Unanswered>() {
            Ok(unanswered) => unheard(item, authority, *unanswered),
            Err(other) => Failure::operator(item, format!("{authority}: {other}")).hint(hint),
        },
        other => Failure::operator(item, format!("{authority}: {other}")).hint(hint),
    }
}

fn unheard(item: String, authority: &str, unanswered: Unanswered) -> Failure {
    let what = format!("no new one is issued by {authority}");
    match unanswered {
        // Nothing was asked of it yet.
        Unanswered::Unreachable(..) => Failure::transient(item, what)
            .because(unanswered)
            .hint("let this host reach it over TCP: the agent uses no proxy"),
        Unanswered::Untrusted(..) => Failure::operator(item, what)
            .because(unanswered)
            .hint("name the CA of the directory's own certificate in `acme_root`"),
        Unanswered::Refused(_) | Unanswered::Elsewhere(_) => Failure::operator(item, what)
            .because(unanswered)
            .hint("`acme` is the address of its directory; if that is so, ask the authority"),
        Unanswered::Silent | Unanswered::Broken(_) => {
            Failure::operator(item, what).because(unanswered).hint("see whether it is up, then resume")
        }
    }
}

/// In its own words, fit to be shown.
fn told(problem: &Problem) -> String {
    let of = |detail: &Option<String>, kind: &Option<String>| {
        let kind = kind.as_deref().unwrap_or("no type");
        let detail = detail.as_deref().unwrap_or("it does not say why");
        format!("{detail} ({})", kind.strip_prefix(KNOWN).unwrap_or(kind))
    };
    let mut text = of(&problem.detail, &problem.r#type);
    for sub in &problem.subproblems {
        let whose = sub.identifier.as_ref().map(|name| name.authorized(false).to_string());
        text += &format!("; {}: {}", whose.unwrap_or_default(), of(&sub.detail, &sub.r#type));
    }
    text.chars().take(TOLD).map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

fn hint_of(problem: &Problem, stage: Stage, account: &Path) -> String {
    let kind = problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(KNOWN)).unwrap_or_default();
    let hint = match (kind, stage) {
        ("rateLimited", _) => "wait for as long as it says, then resume: trying sooner may make that longer",
        ("rejectedIdentifier" | "unsupportedIdentifier", _) => {
            "it issues none for such a name: look at `names` in the certificate's section"
        }
        ("externalAccountRequired", _) => {
            "it wants an account that it knows from elsewhere: let a program obtain it, `acme_command`"
        }
        ("userActionRequired", _) => "agree to its terms as it says, then resume",
        ("invalidContact" | "unsupportedContact", _) => "mend `acme_contact` in the certificate's section",
        ("caa", _) => "let the name's CAA record allow this authority",
        ("accountDoesNotExist", _) | ("unauthorized", Stage::Account | Stage::Order) => {
            return format!(
                "it does not take the account in {}: move that file away, then resume with another account",
                account.display()
            );
        }
        (_, Stage::Proof) => {
            "is `server` of [dns] where the authority finds the names? give other servers of the zone `acme_wait_seconds`"
        }
        _ => "do what it says, then resume",
    };
    hint.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(stage: Stage, text: &str) -> String {
        let problem: Problem = serde_json::from_str(text).unwrap();
        let account = Path::new("/a/acme.json");
        failure("certificate www".to_owned(), "ca.example", account, stage, Error::Api(problem)).to_string()
    }

    #[test]
    fn problems_are_told_as_they_are() {
        for (kind, stage, part) in [
            ("rateLimited", Stage::Order, "wait for as long as it says"),
            ("rejectedIdentifier", Stage::Order, "look at `names`"),
            ("unauthorized", Stage::Order, "move that file away"),
            ("unauthorized", Stage::Proof, "`acme_wait_seconds`"),
            ("accountDoesNotExist", Stage::Account, "the account in /a/acme.json"),
            ("externalAccountRequired", Stage::Account, "`acme_command`"),
            ("caa", Stage::Proof, "CAA"),
            ("serverInternal", Stage::Order, "do what it says"),
        ] {
            let text = format!(r#"{{"type": "{KNOWN}{kind}", "detail": "so\nit is"}}"#);
            let told = refused(stage, &text);
            let expected = format!("certificate www: ca.example refuses: so?it is ({kind}) (");
            assert!(told.starts_with(&expected) && told.contains(part), "{told}");
        }
        let text = r#"{"subproblems": [{"identifier": {"type": "dns", "value": "a.example"}, "type": "x", "detail": "bad"}]}"#;
        let told = refused(Stage::Order, text);
        assert!(told.contains("it does not say why (no type); a.example: bad (x)"), "{told}");
    }

    #[test]
    fn who_is_not_reached_is_tried_again() {
        let account = Path::new("/a");
        let told = |unanswered: Unanswered| {
            failure("certificate www".to_owned(), "ca.example", account, Stage::Account, unanswered.into())
        };
        let refused = || std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let authority = || "ca.example".parse().unwrap();
        let unreachable = told(Unanswered::Unreachable(authority(), refused()));
        assert!(unreachable.is_transient());
        assert!(
            unreachable.to_string().contains("ca.example is not reached: connection refused"),
            "{unreachable}"
        );
        let untrusted = told(Unanswered::Untrusted(authority(), refused()));
        assert!(!untrusted.is_transient() && untrusted.hint.contains("`acme_root`"), "{untrusted}");
        let page = told(Unanswered::Refused(http::StatusCode::NOT_FOUND));
        assert!(page.to_string().contains("it answers 404 Not Found"), "{page}");
    }
}
