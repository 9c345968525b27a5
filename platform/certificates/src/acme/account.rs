//! The account at an authority: its key, kept in a file for the agent alone, so that whoever renews can be the one who ordered.

use std::path::Path;

use instant_acme::{Account, Error, Key};
use pem::Pem;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use super::https::Https;
use crate::material::Unfit;
use crate::place::{self, Stored};
use crate::section::{self, Acme};

/// Grows with its form.
const VERSION: u32 = 1;

/// What went wrong with an account.
pub enum Trouble {
    /// Here.
    Unfit(Unfit),
    /// At the authority.
    Refused(Error),
}

/// An account, as it lies in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    version: u32,
    /// Whose account it is.
    directory: String,
    /// The account's address there. None: it is not known to be made yet.
    account: Option<String>,
    /// What the authority was told to reach us by.
    contact: Vec<String>,
    /// ECDSA P-256, PKCS#8 in PEM.
    key: String,
}

/// A name for the file of a directory's account.
pub fn file_name(directory: &str) -> String {
    let authority = section::authority(directory).map(|authority| authority.to_string());
    format!("{}.json", authority.unwrap_or_default().replace(':', "_"))
}

fn refuse(path: &Path, problem: &str, hint: &str) -> Unfit {
    Unfit::new(format!("the account's file {} {problem}", path.display()), hint)
}

/// Whether the account's file can be used, or made.
pub fn usable(path: &Path, acme: &Acme<'_>) -> Result<(), Unfit> {
    if Kept::read(path, acme)?.is_some() || acme.account.is_none() {
        return Ok(());
    }
    let hint = "make its directory, and let the agent write there: a unit that is hardened needs ReadWritePaths= for it";
    place::may_write(path).map_err(|error| refuse(path, &format!("cannot be made ({error})"), hint))
}

impl Kept {
    fn read(path: &Path, acme: &Acme<'_>) -> Result<Option<Self>, Unfit> {
        let hint = "mend `acme_account`; or move the file away: another account is made";
        let read = place::resolve(path).and_then(|place| place::read(&place));
        let stored = read
            .map_err(|error| refuse(path, &format!("cannot be read ({error})"), "let the agent read it"))?;
        let Some(stored) = stored else { return Ok(None) };
        if stored.mode & 0o077 != 0 {
            let hint = "chmod 600 it, and move it away if anybody did read it: another account is made";
            return Err(refuse(path, "may be read by others", hint));
        }
        let kept: Self = serde_json::from_slice(&stored.contents)
            .map_err(|error| refuse(path, &format!("is none ({error})"), hint))?;
        if kept.version != VERSION {
            let what = format!("has version {}, this agent reads {VERSION}", kept.version);
            return Err(refuse(path, &what, hint));
        }
        if kept.directory != acme.directory {
            // A key that nobody knows, as one is left by a directory's address that was wrong, is no loss.
            if kept.account.is_none() {
                return Ok(None);
            }
            return Err(refuse(path, &format!("is of another authority ({})", kept.directory), hint));
        }
        Ok(Some(kept))
    }

    fn write(&self, path: &Path) -> Result<(), Unfit> {
        let written = || {
            let place = place::resolve(path)?;
            let contents = serde_json::to_vec_pretty(self)?;
            let mut stored = Stored::in_place_of(None, contents, true);
            if let Some(before) = place::read(&place)? {
                stored = Stored { contents: stored.contents, ..before };
            }
            place::stage(&place, &stored)?;
            place::land(&place)?;
            place::settle(&place)
        };
        written().map_err(|error: std::io::Error| {
            refuse(path, &format!("cannot be written ({error})"), "let the agent write there, then resume")
        })
    }

    /// The one in the file; or a new key, which is there before anybody hears of it: an agent that is killed just then asks with the same one
    /// again, and gets the same account.
    pub fn open(path: &Path, acme: &Acme<'_>) -> Result<Self, Unfit> {
        if let Some(kept) = Self::read(path, acme)? {
            return Ok(kept);
        }
        if acme.account.is_none() {
            let directory = place::directory(path);
            place::make_directory(directory).map_err(|error| {
                refuse(path, &format!("cannot be made ({error})"), "let the agent write there")
            })?;
        }
        let (_, key) = Key::generate_pkcs8().map_err(|error| {
            Unfit::new(format!("no key can be made for an account ({error})"), "look at the host's kernel")
        })?;
        let key = pem::encode(&Pem::new("PRIVATE KEY", key.secret_pkcs8_der()));
        let directory = acme.directory.to_owned();
        let kept = Self { version: VERSION, directory, account: None, contact: Vec::new(), key };
        kept.write(path)?;
        Ok(kept)
    }

    /// The account there, made where there is none with this key. Idempotent.
    pub async fn register(mut self, path: &Path, acme: &Acme<'_>, http: Https) -> Result<Account, Trouble> {
        let bad = |error: &dyn std::fmt::Display| {
            let hint = "move the file away: another account is made";
            Trouble::Unfit(refuse(path, &format!("holds no key ({error})"), hint))
        };
        let key = pem::parse(&self.key).map_err(|error| bad(&error))?.into_contents();
        let (key, directory) = (PrivatePkcs8KeyDer::from(key), self.directory.clone());
        let builder = Account::builder_with_http(Box::new(http));
        let account = match &self.account {
            Some(id) => builder.from_parts(id.clone(), key, directory).await.map_err(Trouble::Refused)?,
            None => {
                let signing = Key::from_pkcs8_der(key.clone_key()).map_err(|error| bad(&error))?;
                let made = builder.create_from_key((signing, PrivateKeyDer::Pkcs8(key)), directory).await;
                made.map_err(Trouble::Refused)?.0
            }
        };
        let is_new = self.account.is_none();
        if self.contact != acme.contact {
            let contact: Vec<_> = acme.contact.iter().map(String::as_str).collect();
            account.update_contacts(&contact).await.map_err(Trouble::Refused)?;
        } else if !is_new {
            return Ok(account);
        }
        (self.account, self.contact) = (Some(account.id().to_owned()), acme.contact.to_vec());
        self.write(path).map_err(Trouble::Unfit)?;
        Ok(account)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn acme<'a>(directory: &'a str, account: &'a Path) -> Acme<'a> {
        Acme { directory, contact: &[], root: None, account: Some(account), wait: Duration::ZERO }
    }

    #[test]
    fn each_authority_has_its_file() {
        for (directory, expected) in [
            ("https://acme-v02.api.letsencrypt.org/directory", "acme-v02.api.letsencrypt.org.json"),
            ("https://127.0.0.1:14000/dir", "127.0.0.1_14000.json"),
            ("https://[::1]:14000/dir", "[__1]_14000.json"),
        ] {
            assert_eq!(file_name(directory), expected);
        }
    }

    #[test]
    fn a_key_is_kept_for_the_agent_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acme.json");
        let ours = acme("https://ca.example/dir", &path);
        assert_eq!(usable(&path, &ours), Ok(()));
        let mut made = Kept::open(&path, &ours).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(Kept::open(&path, &ours).unwrap().key, made.key);
        let told = |acme: &Acme<'_>| usable(&path, acme).unwrap_err().to_string();
        let other = acme("https://ca.example/other", &path);
        assert_eq!(usable(&path, &other), Ok(()), "nobody knows this key yet");
        made.account = Some("https://ca.example/account/1".to_owned());
        made.write(&path).unwrap();
        assert!(told(&other).contains("is of another authority (https://ca.example/dir)"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(told(&ours).contains("may be read by others"));
        for (text, part) in [("{", "is none"), (r#"{"version":1,"key":"k"}"#, "is none")] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(told(&ours).contains(part));
        }
        let lost = dir.path().join("nowhere/acme.json");
        let told = usable(&lost, &acme("https://ca.example/dir", &lost)).unwrap_err().to_string();
        assert!(told.contains("cannot be made"), "{told}");
    }
}
