//! Putting certificates in place, and back.

use std::collections::BTreeSet;
use std::io::Error;

use handover_engine::changeover::{CertificateAction, CertificateMaterial};
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;

use super::Here;
use super::survey::{self, Found, Survey};
use crate::checked::Checked;
use crate::item::{failed, item, unfit};
use crate::material::{Pair, Unfit};
use crate::place::{self, Stored};
use crate::record::{Entry, Kept, Record, digest};
use crate::section::{self, CertificateSection, Issuer};

/// What a program or an authority is to be asked for.
pub struct Due {
    pub section: CertificateSection,
    pub names: Vec<String>,
}

fn kept(error: Error) -> Failure {
    Failure::operator("certificates", "what is kept of them for this migration cannot be read or written")
        .because(error)
        .hint("look at `certificates` in the agent's state directory, and at its free space; then resume")
}

/// Contents of a section's files, the key's first.
fn contents(section: &CertificateSection, pair: &Pair) -> Vec<Vec<u8>> {
    let (key, chain) = (pair.key_pem().into_bytes(), pair.chain_pem().into_bytes());
    if section.is_combined() { vec![[chain, key].concat()] } else { vec![key, chain] }
}

impl Here {
    pub fn record(&self, migration: &MigrationId) -> Result<Option<Record>> {
        self.records.read(migration).map_err(kept)
    }

    fn write(&self, migration: &MigrationId, record: &Record) -> Result<()> {
        (self.cut)("before the record").map_err(kept)?;
        self.records.write(migration, record).map_err(kept)?;
        (self.cut)("after the record").map_err(kept)
    }

    /// Checks all, issues what is to be issued here, and writes down what was there and what will be. What is to be obtained from others is
    /// answered: it comes last, when nothing else stands in the way.
    pub fn prepare(&self, migration: &MigrationId, offered: &[CertificateMaterial]) -> Result<Vec<Due>> {
        let mut record = self.record(migration)?.unwrap_or_default();
        let due = self.look(&mut record, offered)?;
        if !record.entries.is_empty() {
            self.write(migration, &record)?;
        }
        Ok(due)
    }

    /// Refuses what would be refused if it were to be put in place now.
    pub fn check(&self, offered: &[CertificateMaterial]) -> Result<()> {
        self.look(&mut Record::default(), offered)?;
        let survey = Survey { now: self.clock.now(), is_target: true, orders: &self.orders };
        for section in self.sections.iter().filter(|section| section.action != CertificateAction::Keep) {
            if let Some(bad) = survey.in_the_way(section) {
                return Err(unfit(section, "", bad));
            }
        }
        Ok(())
    }

    fn look(&self, record: &mut Record, offered: &[CertificateMaterial]) -> Result<Vec<Due>> {
        let mut due = Vec::new();
        for section in self.sections.iter().filter(|section| section.action != CertificateAction::Keep) {
            let found =
                survey::read(section).map_err(failed(section, "what is in its place cannot be read"))?;
            let entry = self.entry(section, &found, record.entries.remove(&section.name))?;
            let offered = offered.iter().find(|material| material.name == section.name);
            let names = names(section, &entry, offered);
            let next = match section.action {
                CertificateAction::Reissue => self.issued(section, &entry, &names)?,
                _ => Some(self.copied(section, offered, &names)?),
            };
            let entry = match next {
                Some(checked) => known(section, entry, &checked),
                None => {
                    due.push(Due { section: section.clone(), names });
                    entry
                }
            };
            record.entries.insert(section.name.clone(), entry);
        }
        Ok(due)
    }

    /// What is known of it already, or what is there now. What somebody else has put there since is what was there before.
    fn entry(&self, section: &CertificateSection, found: &Found, known: Option<Entry>) -> Result<Entry> {
        let mut files = vec![Kept { path: section.key.clone(), before: found.key.clone() }];
        if !section.is_combined() {
            files.push(Kept { path: section.certificate.clone(), before: found.chain.clone() });
        }
        let services = section.services.clone();
        let Some(known) = known else {
            return Ok(Entry { files, after: None, ours: BTreeSet::new(), services });
        };
        if paths(&files) != paths(&known.files) {
            // The manifest was mended: the former places are given up.
            self.put_back(&section.name, &known)
                .map_err(failed(section, "its former files cannot be put back"))?;
            return Ok(Entry { files, services, ..known });
        }
        let is_ours = |file: &Kept| file.before.as_ref().is_none_or(|stored| known.is_ours(stored));
        let files = if files.iter().any(is_ours) { known.files } else { files };
        Ok(Entry { files, services, after: known.after, ours: known.ours })
    }

    fn copied(
        &self,
        section: &CertificateSection,
        offered: Option<&CertificateMaterial>,
        names: &[String],
    ) -> Result<Checked> {
        let material = offered.ok_or_else(|| {
            Failure::operator(item(section), "the source does not hand it out").hint(
                "declare it in the source's manifest, under the same name and not with action = \"keep\"",
            )
        })?;
        let pair = Pair::read(material.chain.as_bytes(), material.key.as_bytes());
        let checked = pair.and_then(|pair| Checked::new(pair, self.clock.now(), names));
        checked.map_err(|bad| unfit(section, "the source's cannot be put in place", bad))
    }

    /// None when it is to be obtained from others. What was issued for this migration already is not issued again.
    fn issued(
        &self,
        section: &CertificateSection,
        entry: &Entry,
        names: &[String],
    ) -> Result<Option<Checked>> {
        let now = self.clock.now();
        let refuse = |bad: Unfit| unfit(section, "no new one can be issued", bad);
        if names.is_empty() {
            let hint = "set `names` in the certificate's section";
            return Err(refuse(Unfit::new("it is not known for which names", hint)));
        }
        let known = entry.after.as_ref().and_then(|material| {
            let pair = Pair::read(material.chain.as_bytes(), material.key.as_bytes()).ok()?;
            Checked::new(pair, now, names).ok()
        });
        match (known, section.issuer()) {
            (Some(known), _) => Ok(Some(known)),
            (None, Some(Issuer::Authority { certificate, key })) => {
                let issued = survey::authority(certificate, key, now)
                    .and_then(|authority| authority.issue(names, section.days, now))
                    .and_then(|pair| Checked::new(pair, now, names));
                issued.map(Some).map_err(refuse)
            }
            (None, Some(Issuer::Acme(_))) => match section::address_among(names) {
                Some(address) => {
                    let hint = "set `names` without it, or let a program obtain it: `acme_command`";
                    let what = format!("{address} is an address: no DNS challenge is for that");
                    Err(refuse(Unfit::new(what, hint)))
                }
                None => Ok(None),
            },
            (None, Some(Issuer::Command(_))) => Ok(None),
            (None, None) => {
                let hint = "set `ca_certificate` and `ca_key`, or `acme`, or `acme_command`, in its section";
                Err(refuse(Unfit::new("its section names no issuer", hint)))
            }
        }
    }

    /// Writes down what is to be in place.
    pub fn know(
        &self,
        migration: &MigrationId,
        section: &CertificateSection,
        checked: &Checked,
    ) -> Result<()> {
        let mut record = self.record(migration)?.unwrap_or_default();
        if let Some(entry) = record.entries.remove(&section.name) {
            record.entries.insert(section.name.clone(), known(section, entry, checked));
        }
        self.write(migration, &record)
    }

    /// Puts in place what is written down.
    pub fn put(&self, migration: &MigrationId) -> Result<()> {
        let Some(record) = self.record(migration)? else { return Ok(()) };
        for section in self.sections.iter() {
            let Some(entry) = record.entries.get(&section.name) else { continue };
            let Some(after) = &entry.after else { continue };
            let refuse = |bad| unfit(section, "what is kept of it cannot be read", bad);
            let pair = Pair::read(after.chain.as_bytes(), after.key.as_bytes()).map_err(refuse)?;
            let contents = contents(section, &pair);
            let wanted = entry.files.iter().zip(contents).enumerate().map(|(number, (file, contents))| {
                // The key's comes first.
                (file, Some(Stored::in_place_of(file.before.as_ref(), contents, number == 0)))
            });
            self.replace(wanted.collect()).map_err(failed(section, "it cannot be put in place"))?;
        }
        Ok(())
    }

    /// Puts back what was there, where what is there is ours or what was there. Answers none when nothing was ever to be changed.
    pub fn restore(&self, migration: &MigrationId) -> Result<Option<Record>> {
        let Some(record) = self.record(migration)? else { return Ok(None) };
        for (name, entry) in &record.entries {
            self.put_back(name, entry).map_err(|error| {
                Failure::operator(format!("certificate {name}"), "what was there cannot be put back")
                    .because(error)
                    .hint("mend that, then abort again")
            })?;
        }
        Ok(Some(record))
    }

    fn put_back(&self, name: &str, entry: &Entry) -> std::io::Result<()> {
        if self.is_anothers(entry)? {
            tracing::warn!(certificate = name, "somebody has replaced it since: it is left alone");
            return Ok(());
        }
        self.replace(entry.files.iter().map(|file| (file, file.before.clone())).collect())
    }

    fn is_anothers(&self, entry: &Entry) -> std::io::Result<bool> {
        for file in &entry.files {
            let there = place::read(&place::resolve(&file.path)?)?;
            let is_before =
                |there: &Stored| file.before.as_ref().is_some_and(|b| b.contents == there.contents);
            if there.is_some_and(|there| !entry.is_ours(&there) && !is_before(&there)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All files are durable beside their places before the first of them is changed; what is as it should be is left alone.
    fn replace(&self, wanted: Vec<(&Kept, Option<Stored>)>) -> std::io::Result<()> {
        let mut changes = Vec::new();
        for (file, wanted) in wanted {
            let place = place::resolve(&file.path)?;
            place::unstage(&place)?;
            if place::read(&place)? != wanted {
                changes.push((place, wanted));
            }
        }
        for (place, wanted) in &changes {
            if let Some(stored) = wanted {
                place::stage(place, stored)?;
                (self.cut)("staged")?;
            }
        }
        for (place, wanted) in &changes {
            match wanted {
                Some(_) => place::land(place)?,
                None => place::remove(place)?,
            }
            (self.cut)("replaced")?;
            place::settle(place)?;
            (self.cut)("settled")?;
        }
        Ok(())
    }
}

fn paths(files: &[Kept]) -> Vec<&std::path::PathBuf> {
    files.iter().map(|file| &file.path).collect()
}

fn known(section: &CertificateSection, mut entry: Entry, checked: &Checked) -> Entry {
    let pair = checked.pair();
    entry.ours.extend(contents(section, pair).iter().map(|contents| digest(contents)));
    let (chain, key) = (pair.chain_pem(), pair.key_pem());
    entry.after = Some(CertificateMaterial { name: section.name.clone(), chain, key });
    entry
}

/// What a new one must be good for: what the section says; or what the one before was for, unless that vouched for itself; or, where it is
/// issued here, what the source's is for.
fn names(section: &CertificateSection, entry: &Entry, offered: Option<&CertificateMaterial>) -> Vec<String> {
    if !section.names.is_empty() {
        return section.names.clone();
    }
    let before = entry.files.last().and_then(|file| survey::named(file.before.as_ref()));
    if let Some((names, false)) = &before {
        return names.clone();
    }
    if section.action != CertificateAction::Reissue {
        return Vec::new();
    }
    let chain = offered.map(|material| Stored::in_place_of(None, material.chain.clone().into_bytes(), false));
    let of_source = survey::named(chain.as_ref()).map(|(names, _)| names).filter(|names| !names.is_empty());
    of_source.or(before.map(|(names, _)| names)).unwrap_or_default()
}
