//! A host in a temporary directory.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use handover_engine::changeover::{CertificateAction, CertificateMaterial};
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;

use crate::material::Pair;
use crate::minted::{Ca, Minted, clock};
use crate::{CertificateSection, LocalCertificates, Reloader};

type OnReload = Box<dyn Fn(&str) + Send + Sync>;

/// Notes which units were reloaded, and lets the test do what they would.
#[derive(Default)]
pub struct Units {
    reloaded: Mutex<Vec<String>>,
    pub on_reload: Mutex<Option<OnReload>>,
}

#[async_trait]
impl Reloader for Units {
    async fn reload(&self, unit: &str) -> Result<()> {
        self.reloaded.lock().unwrap().push(unit.to_owned());
        if unit == "broken.service" {
            return Err(Failure::operator(unit, "it does not reload").hint("look at its journal"));
        }
        if let Some(act) = &*self.on_reload.lock().unwrap() {
            act(unit);
        }
        Ok(())
    }
}

pub struct World {
    place: PathBuf,
    /// Removed with it, where it was made for it.
    _dir: Option<tempfile::TempDir>,
    pub units: Arc<Units>,
}

pub fn migration() -> MigrationId {
    "m-1".parse().unwrap()
}

/// Files `NAME.pem` and `NAME.key`, read by `NAME.service`.
pub fn section(world: &World, name: &str) -> CertificateSection {
    CertificateSection {
        name: name.to_owned(),
        certificate: world.path(&format!("{name}.pem")),
        key: world.path(&format!("{name}.key")),
        services: vec![format!("{name}.service")],
        action: CertificateAction::Copy,
        names: Vec::new(),
        probe: Vec::new(),
        probe_name: None,
        probe_seconds: 30,
        ca_certificate: None,
        ca_key: None,
        days: 397,
        acme: None,
        acme_contact: Vec::new(),
        acme_root: None,
        acme_account: None,
        acme_wait_seconds: 0,
        acme_command: Vec::new(),
    }
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { place: dir.path().to_owned(), _dir: Some(dir), units: Arc::default() }
    }

    /// One that somebody else has made.
    pub fn at(place: &Path) -> Self {
        Self { place: place.to_owned(), _dir: None, units: Arc::default() }
    }

    pub fn host(&self, sections: Vec<CertificateSection>) -> LocalCertificates {
        crate::check(&sections).unwrap();
        LocalCertificates::new(sections, &self.path("state"), self.units.clone(), clock())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn lay(&self, name: &str, minted: &Minted) {
        std::fs::write(self.path(&format!("{name}.pem")), &minted.chain).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), &minted.key).unwrap();
        self.mode(&format!("{name}.key"), 0o600);
    }

    /// One to be issued by `ca`, whose files are laid down too.
    pub fn reissued(&self, name: &str, ca: &Ca) -> CertificateSection {
        self.lay("ca", &ca.minted);
        let (certificate, key) = (self.path("ca.pem"), self.path("ca.key"));
        CertificateSection {
            action: CertificateAction::Reissue,
            ca_certificate: Some(certificate),
            ca_key: Some(key),
            ..section(self, name)
        }
    }

    pub fn offer(&self, name: &str, minted: &Minted) -> Vec<CertificateMaterial> {
        let (chain, key) = (minted.pair().chain_pem(), minted.pair().key_pem());
        vec![CertificateMaterial { name: name.to_owned(), chain, key }]
    }

    pub fn minted(&self, name: &str) -> Minted {
        let (chain, key) = (self.text(&format!("{name}.pem")), self.text(&format!("{name}.key")));
        Minted { chain, key }
    }

    pub fn pair(&self, name: &str) -> Pair {
        let read = |what: &str| std::fs::read(self.path(&format!("{name}.{what}"))).unwrap();
        Pair::read(&read("pem"), &read("key")).unwrap()
    }

    pub fn mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    pub fn mode_of(&self, name: &str) -> u32 {
        std::fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
    }

    pub fn owner_of(&self, name: &str) -> (u32, u32) {
        let found = std::fs::metadata(self.path(name)).unwrap();
        (found.uid(), found.gid())
    }

    pub fn owner(&self) -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    /// All that lies there beside the agent's own directory, hidden files too.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.place).unwrap();
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = entries.map(name).filter(|name| name != "state").collect();
        names.sort();
        names
    }

    pub fn reloaded(&self) -> Vec<String> {
        self.units.reloaded.lock().unwrap().clone()
    }
}
