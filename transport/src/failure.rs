//! Failures on the wire: a gRPC status whose details are the failure as JSON.

use handover_engine::failure::{Class, Failure};
use tonic::{Code, Status};

use crate::version;

/// The status that carries `failure`.
pub fn to_status(failure: Failure) -> Status {
    let code = match failure.class {
        Class::Transient => Code::Unavailable,
        Class::NeedsOperator => Code::FailedPrecondition,
        Class::Permanent => Code::Aborted,
    };
    let details = serde_json::to_vec(&failure).unwrap_or_default();
    Status::with_details(code, failure.to_string(), details.into())
}

/// The failure that `status` carries, or one made of what the gRPC library found; `peer` names who was called.
pub fn from_status(peer: &str, status: Status) -> Failure {
    if let Ok(failure) = serde_json::from_slice::<Failure>(status.details()) {
        return failure;
    }
    if status.code() == Code::Unimplemented {
        let (what, hint) = version::unknown_call();
        return Failure::operator(peer, what).hint(hint);
    }
    let causes = chain(&status);
    let class = match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => Class::NeedsOperator,
        Code::InvalidArgument | Code::DataLoss => Class::Permanent,
        _ if causes.contains("alert") || causes.contains("certificate") => Class::NeedsOperator,
        _ => Class::Transient,
    };
    // As tonic tells that a message is larger than our bound: sending it again would not make it smaller. (The code alone also stands for
    // an HTTP/2 peer that asks for calm.)
    let is_too_large = matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted)
        && status.message().contains("message length too large");
    let class = if is_too_large { Class::NeedsOperator } else { class };
    let what = if causes.is_empty() { status.message().to_owned() } else { causes };
    let hint = match class {
        _ if is_too_large => {
            "one entry or schema is larger than a message may be: leave it out (`exclude`), and report this"
        }
        Class::NeedsOperator if what.contains("alert") || what.contains("certificate") => {
            "the peer refused this certificate or the other way round: `handover certs show` tells role, expiry and CA"
        }
        Class::Transient => "is the agent running and reachable?",
        _ => "",
    };
    Failure::new(class, peer, what).hint(hint)
}

/// The causes of a transport error, from the outermost; empty when the status came from the peer itself.
fn chain(status: &Status) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use handover_proto::v1;
    use handover_proto::v1::source_client::SourceClient;
    use hyper_util::rt::TokioIo;
    use tonic::service::Routes;
    use tonic::transport::{Endpoint, Server, Uri};

    use super::*;

    #[test]
    fn a_failure_arrives_as_it_left() {
        let failure = Failure::operator("files www", "cannot be read").hint("mount it");
        assert_eq!(from_status("source", to_status(failure.clone())), failure);
        assert!(!from_status("source", to_status(failure.clone())).begins_anew());
        assert!(from_status("source", to_status(failure.begin_anew("start again"))).begins_anew());
    }

    /// A peer of an earlier release has no such call.
    #[tokio::test]
    async fn a_call_that_the_peer_does_not_know_is_told_by_its_version() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let nothing = Server::builder().add_routes(Routes::default());
        let serving =
            tokio::spawn(nothing.serve_with_incoming(tokio_stream::once(Ok::<_, std::io::Error>(there))));
        let mut here = Some(here);
        let connect = tower::service_fn(move |_: Uri| {
            let io = here.take().map(TokioIo::new);
            async move { io.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionReset)) }
        });
        let channel = Endpoint::from_static("http://older").connect_with_connector(connect).await.unwrap();
        let status = SourceClient::new(channel).hello(v1::HelloRequest::default()).await.unwrap_err();
        let failure = from_status("source older:7431", status);
        assert_eq!(failure.class, Class::NeedsOperator);
        assert!(failure.what.contains("does not know a call of protocol version 1."), "{failure}");
        assert!(failure.hint.contains("install handover"), "{}", failure.hint);
        serving.abort();
    }

    #[test]
    fn a_bare_status_is_classified() {
        let table = [
            (Code::Unavailable, Class::Transient),
            (Code::Internal, Class::Transient),
            (Code::PermissionDenied, Class::NeedsOperator),
            (Code::InvalidArgument, Class::Permanent),
            (Code::ResourceExhausted, Class::Transient),
        ];
        for (code, class) in table {
            assert_eq!(from_status("source", Status::new(code, "x")).class, class, "{code:?}");
        }
        let large = Status::out_of_range(
            "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
        );
        assert_eq!(from_status("source", large).class, Class::NeedsOperator);
    }
}
