//! How the certificates stand. Changes nothing.

use std::io::Result;

use handover_engine::changeover::{CertificateAction, CertificateFacts};
use handover_engine::time::Timestamp;
use std::path::Path;

use crate::acme::Orders;
use crate::checked::{self, Checked};
use crate::material::{self, Pair, Unfit};
use crate::place::{self, Stored};
use crate::record::digest;
use crate::reissue::Authority;
use crate::section::{CertificateSection, Issuer};
use crate::{command, names};

/// The files of a section as they are.
pub struct Found {
    pub key: Option<Stored>,
    pub chain: Option<Stored>,
}

/// Reads both files; where they are one, it is read once.
pub fn read(section: &CertificateSection) -> Result<Found> {
    let read = |path: &Path| place::resolve(path).and_then(|place| place::read(&place));
    let key = read(&section.key)?;
    let chain = if section.is_combined() { key.clone() } else { read(&section.certificate)? };
    Ok(Found { key, chain })
}

impl Found {
    pub fn is_absent(&self) -> bool {
        self.key.is_none() && self.chain.is_none()
    }

    /// Both, taken apart.
    pub fn pair(&self) -> std::result::Result<Pair, Unfit> {
        let there = |stored: &Option<Stored>, what: &str| match stored {
            Some(stored) => Ok(stored.contents.clone()),
            None => Err(Unfit::new(
                format!("there is no {what} in its place"),
                "put it there, or mend the path in the certificate's section",
            )),
        };
        Pair::read(&there(&self.chain, "certificate")?, &there(&self.key, "key")?)
    }
}

/// The names of the certificate in a file, and whether it vouches for itself, as those do that packages put there for a start.
pub fn named(stored: Option<&Stored>) -> Option<(Vec<String>, bool)> {
    let chain = material::certificates(&stored?.contents).ok()?;
    let leaf = checked::parse(&chain[0]).ok()?;
    Some((names::of(&leaf), leaf.subject() == leaf.issuer()))
}

/// Looks at certificates at a moment.
pub struct Survey<'a> {
    pub now: Timestamp,
    pub is_target: bool,
    pub orders: &'a Orders,
}

impl Survey<'_> {
    pub fn facts(&self, section: &CertificateSection) -> CertificateFacts {
        let (name, action) = (section.name.clone(), section.action);
        let (names, fingerprint) = (section.names.clone(), None);
        let blank = CertificateFacts { name, action, names, fingerprint, expires: None, problem: None };
        let found = match read(section) {
            Ok(found) => found,
            Err(error) => {
                let problem = Some(format!("it cannot be read: {error}; let the agent read it"));
                return CertificateFacts { problem, ..blank };
            }
        };
        let facts = self.of_found(section, &found, blank);
        if self.is_target && section.action != CertificateAction::Keep {
            // Whatever is wrong with what lies there: it will be replaced.
            return CertificateFacts {
                problem: self.in_the_way(section).map(|bad| bad.to_string()),
                ..facts
            };
        }
        facts
    }

    fn of_found(
        &self,
        section: &CertificateSection,
        found: &Found,
        blank: CertificateFacts,
    ) -> CertificateFacts {
        if found.is_absent() {
            return blank;
        }
        let chain = found.chain.as_ref().and_then(|stored| material::certificates(&stored.contents).ok());
        let leaf = chain.as_ref().and_then(|chain| checked::parse(&chain[0]).ok());
        let fingerprint = leaf.as_ref().and(chain.as_ref()).map(|chain| digest(&chain[0]));
        let expires = leaf.as_ref().map(|leaf| leaf.validity().not_after.timestamp());
        let names = leaf.as_ref().map_or(blank.names, names::of);
        let checked = found.pair().and_then(|pair| Checked::new(pair, self.now, &section.names));
        let open = found.key.as_ref().is_some_and(Stored::is_for_all);
        let problem = match &checked {
            Err(bad) => Some(bad.to_string()),
            Ok(_) if open => {
                let path = section.key.display();
                Some(format!("everybody may read its key: chmod o-rwx {path}, and have it issued again"))
            }
            Ok(checked) => checked.warning().map(str::to_owned),
        };
        let expires = expires.map(|seconds| Timestamp { seconds, nanos: 0 });
        CertificateFacts { names, fingerprint, expires, problem, ..blank }
    }

    /// What keeps a new one from being issued or put in place.
    pub fn in_the_way(&self, section: &CertificateSection) -> Option<Unfit> {
        for path in [&section.key, &section.certificate] {
            let writable = place::resolve(path).and_then(|place| place::may_write(&place));
            if let Err(error) = writable {
                let hint = "make the directory, and let the agent write there: a unit that is hardened needs ReadWritePaths= for it";
                return Some(Unfit::new(format!("nothing can be put there ({error})"), hint));
            }
        }
        let bad = match section.issuer() {
            _ if section.action != CertificateAction::Reissue => return None,
            Some(Issuer::Authority { certificate, key }) => authority(certificate, key, self.now).err(),
            Some(Issuer::Acme(acme)) => self.orders.usable(&acme).err(),
            Some(Issuer::Command([program, ..])) => command::trusted(Path::new(program)).err(),
            _ => None,
        };
        bad.map(|bad| Unfit::new(format!("no new one can be issued: {}", bad.what), bad.hint))
    }
}

/// The CA whose files these are.
pub fn authority(certificate: &Path, key: &Path, now: Timestamp) -> std::result::Result<Authority, Unfit> {
    let read = |path: &Path| {
        let unreadable = |problem: String| {
            let hint = "mend the path in the certificate's section, or let the agent read it";
            Unfit::new(format!("{} {problem}", path.display()), hint)
        };
        let read = place::resolve(path).and_then(|place| place::read(&place));
        let stored = read.map_err(|error| unreadable(format!("cannot be read ({error})")))?;
        stored.map(|stored| stored.contents).ok_or_else(|| unreadable("is not there".to_owned()))
    };
    let of_ca = |bad: Unfit| Unfit::new(format!("the CA's files: {}", bad.what), bad.hint);
    Authority::read(&read(certificate)?, &read(key)?, now).map_err(of_ca)
}
