//! A host's licence, served.

use handover_engine::digest::Digest;
use handover_engine::licence::{Document, LARGEST};
use handover_engine::name::MigrationId;
use handover_engine::ports::{Held, Licences};
use handover_proto::v1;
use tonic::Status;
use v1::licence_request::Act;

use super::document;
use crate::failure::to_status;
use crate::wire::{self, BadField};

fn bad(field: &'static str, problem: &str) -> BadField {
    BadField { field, problem: problem.to_owned() }
}

/// Does what a request asks for.
pub async fn act(licences: &dyn Licences, request: v1::LicenceRequest) -> Result<v1::LicenceReply, Status> {
    let migration: MigrationId = wire::name("migration", &request.migration)?;
    let nothing = v1::LicenceReply::default();
    let done = match request.act.ok_or_else(|| bad("act", "is missing"))? {
        Act::Standing(_) => {
            let standing = licences.standing().await.map_err(to_status)?;
            return Ok(v1::LicenceReply { standing_json: document(&standing)?, ..nothing });
        }
        Act::Held(_) => {
            let Held { valid, kept, is_of_kept } = licences.held(&migration).await.map_err(to_status)?;
            let bytes = |document: Document| document.0;
            let (valid, kept) = (valid.map(bytes), kept.map(bytes));
            return Ok(v1::LicenceReply { valid, kept, is_of_kept, ..nothing });
        }
        Act::Keep(bytes) if bytes.len() > LARGEST => {
            return Err(bad("keep", "is larger than a licence may be").into());
        }
        Act::Keep(bytes) => licences.keep(&migration, &Document(bytes)).await,
        Act::Withdraw(digest) => {
            let digest = Digest::from_slice(&digest).ok_or_else(|| bad("withdraw", "is not 32 bytes"))?;
            licences.withdraw(&migration, digest).await
        }
        Act::Instate(_) => licences.instate(&migration).await,
        Act::Forget(_) => licences.forget(&migration).await,
    };
    done.map(|()| nothing).map_err(to_status)
}
