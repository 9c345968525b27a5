//! Signs reports with the agent's key, and keeps those of migrations that have ended.

use std::path::PathBuf;
use std::sync::Arc;

use handover_certs::file;
use handover_certs::reload::Credentials;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::report::Report;
use handover_engine::time::Timestamp;

/// The agent as one who signs.
pub struct Notary {
    credentials: Arc<Credentials>,
    /// Where the last reports of migrations are kept.
    directory: PathBuf,
}

impl Notary {
    /// Signs with what `credentials` holds at that time.
    pub fn new(credentials: Arc<Credentials>, directory: PathBuf) -> Self {
        Self { credentials, directory }
    }

    /// Who signs.
    pub fn identity(&self) -> String {
        self.credentials.identity().to_string()
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> Timestamp {
        Timestamp { seconds: self.credentials.not_after().unix_timestamp(), nanos: 0 }
    }

    /// The signed document.
    pub fn sign(&self, report: &Report) -> Result<Vec<u8>> {
        let failed = |what| Failure::permanent(format!("report {}", report.migration), what);
        let text =
            serde_json::to_string(report).map_err(|error| failed("it cannot be written").because(error))?;
        let signed =
            self.credentials.sign(text).map_err(|error| failed("it cannot be signed").because(error))?;
        Ok(signed.to_bytes())
    }

    fn place(&self, id: &MigrationId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// Whether the last report of a migration is kept.
    pub fn has(&self, id: &MigrationId) -> bool {
        self.place(id).exists()
    }

    /// Keeps a migration's last report, durably.
    pub fn keep(&self, id: &MigrationId, document: &[u8]) -> Result<()> {
        let kept = file::make_directory(&self.directory)
            .and_then(|()| file::replace(&self.place(id), document, file::SECRET));
        kept.map_err(|error| {
            Failure::operator(format!("report {id}"), "it cannot be kept")
                .because(error)
                .hint("`handover report --out FILE` signs it again")
        })
    }
}
