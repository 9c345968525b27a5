//! The protocol version, which every call carries in its metadata. Another major version is refused on either side.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Status};

/// Changes that an older peer cannot understand.
pub const MAJOR: u32 = 1;
/// Additions that an older peer may ignore.
pub const MINOR: u32 = 0;
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

    #[test]
    fn only_the_same_major_version_passes() {
        let announced = announce(Request::new(())).unwrap();
        assert!(check(announced.metadata()).is_ok());
        for (text, ok) in [("1.7", true), ("2.0", false), ("0.9", false), ("", false), ("x", false)] {
            let mut metadata = MetadataMap::new();
            metadata.insert(KEY, text.parse().unwrap());
            assert_eq!(check(&metadata).is_ok(), ok, "{text}");
        }
        let refusal = check(&MetadataMap::new()).unwrap_err();
        assert!(refusal.message().contains("protocol version none"), "{refusal}");
    }
}
