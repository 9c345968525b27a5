//! The protocol version, which every call carries in its metadata. Another major version is refused on either side.
//!
//! A minor version adds calls and fields. A field that a peer does not know means nothing to it. A call that it does not know fails by itself,
//! and says so: nothing else between the two is touched.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

/// Changes that an older peer cannot understand.
pub const MAJOR: u32 = 1;
/// Additions that an older peer may lack. Raised with each release that has any.
///
/// 1.1: following, throttling, hooks, the licence, changing over, files that come home, rehearsals, signed reports and the audit log.
pub const MINOR: u32 = 1;
/// The release, for messages.
pub const SOFTWARE: &str = concat!("handover ", env!("CARGO_PKG_VERSION"));

const KEY: &str = "handover-protocol";

/// Puts our version on a call.
pub fn announce(mut request: Request<()>) -> Result<Request<()>, Status> {
    let value =
        MetadataValue::try_from(format!("{MAJOR}.{MINOR}")).map_err(|_| Status::internal("version"))?;
    request.metadata_mut().insert(KEY, value);
    Ok(request)
}

/// What is to be said of a call that a peer does not know: what it is, and what to do.
pub fn unknown_call() -> (String, String) {
    let what =
        format!("it is of an earlier release, and does not know a call of protocol version {MAJOR}.{MINOR}");
    (what, format!("install {SOFTWARE} there too; the preflight tells which release it has"))
}

/// Refuses a call from a peer of another major version.
pub fn check(metadata: &MetadataMap) -> Result<(), Status> {
    let theirs = metadata.get(KEY).and_then(|value| value.to_str().ok()).unwrap_or("none");
    let major = theirs.split('.').next().and_then(|major| major.parse().ok());
    refuse_other(major, theirs).map_err(Status::failed_precondition)
}

/// Refuses a peer that answers with another major version.
pub fn check_reply(major: u32, minor: u32) -> Result<(), String> {
    refuse_other(Some(major), &format!("{major}.{minor}"))
}

fn refuse_other(major: Option<u32>, theirs: &str) -> Result<(), String> {
    if major == Some(MAJOR) {
        return Ok(());
    }
    Err(format!(
        "the peer speaks protocol version {theirs}, this is {SOFTWARE} with version {MAJOR}.{MINOR}: install the same \
         release on both sides"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calls of each minor version. Whoever adds one adds it here, below a version that no release has had, and raises [`MINOR`]
    /// to that.
    const CALLS: [(u32, &[&str]); 2] = [
        (
            0,
            &[
                "control.Act",
                "control.Check",
                "control.Hello",
                "control.Inspect",
                "control.List",
                "control.Plan",
                "control.Probe",
                "control.Report",
                "control.Start",
                "control.Watch",
                "source.Close",
                "source.File",
                "source.Hello",
                "source.Inspect",
                "source.Open",
                "source.Pack",
                "source.Probe",
                "source.Rows",
                "source.Scan",
            ],
        ),
        (
            1,
            &[
                "control.Audit",
                "control.Backups",
                "control.Rehearsal",
                "control.Rehearse",
                "control.SignedReport",
                "control.Throttle",
                "source.Backups",
                "source.BeginCapture",
                "source.BringHome",
                "source.ChangeOver",
                "source.Changed",
                "source.Changes",
                "source.Clear",
                "source.Confirm",
                "source.EndCapture",
                "source.Fence",
                "source.FindChildren",
                "source.Keys",
                "source.Licence",
                "source.MakeReady",
                "source.MayFence",
                "source.Room",
                "source.RunHooks",
                "source.SetPositions",
                "source.Signals",
                "source.StandDown",
                "source.Unfence",
                "source.Write",
            ],
        ),
    ];

    #[test]
    fn a_call_that_is_added_raises_the_minor_version() {
        let proto = |name: &str| {
            let path = format!("{}/../proto/handover/v1/{name}.proto", env!("CARGO_MANIFEST_DIR"));
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let mut found = Vec::new();
        for service in ["control", "source"] {
            let calls = proto(service)
                .lines()
                .filter_map(|line| Some(line.trim().strip_prefix("rpc ")?.split('(').next()?.to_owned()))
                .collect::<Vec<_>>();
            found.extend(calls.into_iter().map(|call| format!("{service}.{call}")));
        }
        found.sort_unstable();
        let mut listed: Vec<_> =
            CALLS.iter().flat_map(|(_, calls)| calls.iter().map(ToString::to_string)).collect();
        listed.sort_unstable();
        assert_eq!(found, listed);
        assert_eq!(CALLS.iter().map(|(minor, _)| *minor).max(), Some(MINOR));
    }

    #[test]
    fn only_the_same_major_version_passes() {
        let announced = announce(Request::new(())).unwrap();
        assert!(check(announced.metadata()).is_ok());
        for (text, ok) in [("1.7", true), ("2.0", false), ("0.9", false), ("", false), ("x", false)] {
            let mut metadata = MetadataMap::new();
            metadata.insert(KEY, text.parse().unwrap());
            assert_eq!(check(&metadata).is_ok(), ok, "{text}");
        }
        // A newer peer knows all that this one asks for.
        assert_eq!((check_reply(MAJOR, MINOR + 1), check_reply(MAJOR, 0)), (Ok(()), Ok(())));
        let refusal = check(&MetadataMap::new()).unwrap_err();
        assert!(refusal.message().contains("protocol version none"), "{refusal}");
    }
}
