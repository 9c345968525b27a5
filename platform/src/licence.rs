//! The licence in its file: checked against its issuer's key, moved durably.
//!
//! What is kept for a migration lies in the agent's own directory, with the owner and the mode that the file in its place is to have.

mod signed;
mod stored;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::licence::{Document, Standing};
use handover_engine::name::MigrationId;
use handover_engine::ports::{Held, Licences, Result};

pub use self::signed::{BadKey, IssuerKey};
use self::stored::{Stored, make_directory, may_write, read, remove, write};

/// The licence of this host.
#[derive(Debug, Clone)]
pub struct LicenceFile {
    place: PathBuf,
    key: IssuerKey,
    kept: PathBuf,
}

/// This host's licence, where its manifest declares one.
#[derive(Debug, Clone, Default)]
pub struct LocalLicence(Option<Arc<Mutex<LicenceFile>>>);

impl LocalLicence {
    /// The licence at `place`; what is kept for migrations goes into a directory of `state`.
    pub fn new(declared: Option<(PathBuf, IssuerKey)>, state: &Path) -> Self {
        let file = |(place, key)| LicenceFile { place, key, kept: state.join("licence") };
        Self(declared.map(file).map(Mutex::new).map(Arc::new))
    }

    /// Does something with the file, where there is one, on a thread that may wait for the disk. One after another: what was given up
    /// on comes to its end before anything else is looked at.
    async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&LicenceFile) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let Some(file) = self.0.clone() else { return Ok(None) };
        let locked = move || act(&file.lock().unwrap_or_else(PoisonError::into_inner));
        let done = tokio::task::spawn_blocking(locked).await;
        done.map_err(|e| Failure::transient("licence", "it was not looked at").because(e))?.map(Some)
    }

    async fn declared<T: Send + 'static>(
        &self,
        act: impl FnOnce(&LicenceFile) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.with(act).await?.ok_or_else(|| {
            Failure::operator("licence", "this host's manifest declares none")
                .hint("add [licence] to its appliance.toml")
        })
    }
}

impl LicenceFile {
    fn item(&self) -> String {
        format!("licence {}", self.place.display())
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
        let item = self.item();
        move |error| Failure::operator(item, what).because(error).hint("mend that, then resume")
    }

    fn kept_at(&self, migration: &MigrationId) -> PathBuf {
        self.kept.join(migration.as_str())
    }

    fn valid(&self) -> Result<Option<Stored>> {
        read(&self.place).map_err(self.failed("it cannot be read"))
    }

    fn kept(&self, migration: &MigrationId) -> Result<Option<Stored>> {
        read(&self.kept_at(migration)).map_err(self.failed("what is kept of it cannot be read"))
    }

    fn standing(&self) -> Standing {
        let invalid = |problem: String, hint: &str| Standing::Invalid { problem, hint: hint.to_owned() };
        if let Err(error) = may_write(&self.place) {
            let problem = format!("its directory cannot be written to: {error}");
            return invalid(
                problem,
                "let the agent write there: a unit that is hardened needs ReadWritePaths= for it",
            );
        }
        match read(&self.place) {
            Ok(None) => Standing::None,
            Ok(Some(stored)) => match self.key.licence(&stored.document.0) {
                Ok(licence) => Standing::Valid(licence),
                Err(bad) => invalid(bad.to_string(), "put the licence in place as its issuer sent it"),
            },
            Err(error) => {
                let problem = format!("{} cannot be read: {error}", self.place.display());
                invalid(problem, "let the agent read it, or mend [licence] in appliance.toml")
            }
        }
    }

    fn keep(&self, migration: &MigrationId, document: Document) -> Result<()> {
        self.key.licence(&document.0).map_err(|bad| {
            Failure::operator(self.item(), "what comes is not signed by the issuer that is named here")
                .because(bad)
                .hint("is `public_key` in [licence] the same on both hosts?")
        })?;
        let known = self.kept(migration)?;
        if known.as_ref().is_some_and(|known| known.document == document) {
            return Ok(());
        }
        let stored = match known {
            Some(known) => Stored { document, ..known },
            None => {
                Stored::beside(&self.place, document).map_err(self.failed("its directory cannot be read"))?
            }
        };
        self.store(migration, &stored)
    }

    fn store(&self, migration: &MigrationId, stored: &Stored) -> Result<()> {
        make_directory(&self.kept).map_err(self.failed("nothing can be kept for it"))?;
        write(&self.kept_at(migration), stored).map_err(self.failed("it cannot be kept"))
    }

    fn withdraw(&self, migration: &MigrationId, digest: Digest) -> Result<()> {
        let Some(valid) = self.valid()? else {
            if self.kept(migration)?.is_some_and(|kept| kept.document.digest() == digest) {
                return Ok(());
            }
            return Err(Failure::transient(self.item(), "it is not in its place any more: who moves it?"));
        };
        if valid.document.digest() != digest {
            return Err(Failure::transient(self.item(), "it was renewed while it was moved"));
        }
        self.store(migration, &valid)?;
        remove(&self.place).map_err(self.failed("it cannot be taken out of its place"))
    }

    fn instate(&self, migration: &MigrationId) -> Result<()> {
        let kept = self.kept(migration)?.ok_or_else(|| {
            Failure::operator(self.item(), "nothing is kept of it for this migration")
                .hint("put it back in place by hand")
        })?;
        match self.valid()? {
            Some(valid) if valid.document == kept.document => Ok(()),
            Some(_) => Err(Failure::operator(self.item(), "another one lies in its place")
                .hint("look at it, move it away, then resume")),
            None => write(&self.place, &kept).map_err(self.failed("it cannot be put in place")),
        }
    }
}

#[async_trait]
impl Licences for LocalLicence {
    async fn standing(&self) -> Result<Standing> {
        Ok(self.with(|file| Ok(file.standing())).await?.unwrap_or_default())
    }

    async fn held(&self, migration: &MigrationId) -> Result<Held> {
        let migration = migration.clone();
        let held = move |file: &LicenceFile| {
            let document = |stored: Stored| stored.document;
            let (valid, kept) = (file.valid()?.map(document), file.kept(&migration)?.map(document));
            let guid = |document: &Option<Document>| {
                document
                    .as_ref()
                    .and_then(|document| file.key.licence(&document.0).ok())
                    .map(|licence| licence.guid)
            };
            let is_of_kept = guid(&valid).is_some() && guid(&valid) == guid(&kept);
            Ok(Held { valid, kept, is_of_kept })
        };
        Ok(self.with(held).await?.unwrap_or_default())
    }

    async fn keep(&self, migration: &MigrationId, document: &Document) -> Result<()> {
        let (migration, document) = (migration.clone(), document.clone());
        self.declared(move |file| file.keep(&migration, document)).await
    }

    async fn withdraw(&self, migration: &MigrationId, digest: Digest) -> Result<()> {
        let migration = migration.clone();
        self.declared(move |file| file.withdraw(&migration, digest)).await
    }

    async fn instate(&self, migration: &MigrationId) -> Result<()> {
        let migration = migration.clone();
        self.declared(move |file| file.instate(&migration)).await
    }

    async fn forget(&self, migration: &MigrationId) -> Result<()> {
        let migration = migration.clone();
        let forget = move |file: &LicenceFile| {
            remove(&file.kept_at(&migration)).map_err(file.failed("what is kept of it cannot be removed"))
        };
        self.with(forget).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
