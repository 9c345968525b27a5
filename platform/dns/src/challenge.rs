//! Texts that an authority asks for before it issues a certificate.

use std::time::Duration;

use async_trait::async_trait;
use handover_engine::dns::TextRecord;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Challenges, Result};
use tokio::time::Instant;

use crate::local::{LocalNames, Named};
use crate::record::Texts;
use crate::server::Key;

/// Others may keep a text for so many seconds, where the name has none yet: another attempt has another one.
const TTL: u32 = 10;
/// A server that puts changes into its zone later than it answers has so long.
const SHOWN_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

impl LocalNames {
    fn texts_of(&self, migration: &MigrationId) -> Result<Option<Texts>> {
        self.texts.read(migration).map_err(|error| {
            Failure::operator("dns", "which texts were put in for an authority is not known")
                .because(error)
                .hint("take away what begins with _acme-challenge at the server, and then `challenges/` in the agent's state directory")
        })
    }
}

impl Named {
    async fn put_text_in(&self, key: &Key, text: &TextRecord) -> Result<()> {
        let found = self.server.look_up_texts(&text.name).await.map_err(|error| self.failure(error))?;
        if let Some(other) = found.alias {
            // Beside an alias servers leave it out without a word (RFC 2136, section 3.4.2.2).
            let what = format!("it is an alias for {other}, and can have no text of its own");
            return Err(Failure::operator(item(text), what)
                .hint("take the alias away, or let a program obtain the certificate: `acme_command`"));
        }
        if found.values.contains(&text.value) {
            return Ok(());
        }
        // All records of a set have one time (RFC 2181, section 5.2).
        let ttl = found.ttl.unwrap_or(TTL);
        self.server.change_text(key, text, Some(ttl)).await.map_err(|error| self.failure(error))
    }

    async fn until_shown(&self, text: &TextRecord) -> Result<()> {
        let until = Instant::now() + SHOWN_WITHIN;
        loop {
            let found = self.server.look_up_texts(&text.name).await.map_err(|error| self.failure(error))?;
            if found.values.contains(&text.value) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Failure::operator(item(text), "the server took the text and does not show it")
                    .hint("is it the zone's primary?"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn item(text: &TextRecord) -> String {
    format!("dns {}", text.name.trim_end_matches('.'))
}

#[async_trait]
impl Challenges for LocalNames {
    fn usable(&self) -> Result<()> {
        let named = self.named().ok().filter(|named| named.updates());
        let Some(named) = named else {
            return Err(Failure::operator("dns", "the target's manifest has no [dns.update]").hint(
                "write [dns] with [dns.update] into it (docs/dns.md), or let a program obtain the certificate: `acme_command`",
            ));
        };
        named.key().map(drop)
    }

    async fn put_in(&self, migration: &MigrationId, texts: &[TextRecord]) -> Result<()> {
        self.usable()?;
        let named = self.named()?;
        let key = named.key()?;
        let mut known = self.texts_of(migration)?.unwrap_or_default();
        known.add(texts);
        self.texts.write(migration, &known).map_err(|error| {
            Failure::operator("dns", "what is to be put in cannot be written down")
                .because(error)
                .hint("is the disk full? Make room in the agent's state directory, then resume")
        })?;
        for text in texts {
            named.put_text_in(&key, text).await?;
        }
        for text in texts {
            named.until_shown(text).await?;
        }
        Ok(())
    }

    async fn take_away(&self, migration: &MigrationId) -> Result<()> {
        let Some(known) = self.texts_of(migration)? else { return Ok(()) };
        let named = self.named()?;
        let key = named.key()?;
        for text in &known.texts {
            named.server.change_text(&key, text, None).await.map_err(|error| named.failure(error))?;
        }
        self.texts.forget(migration).map_err(|error| {
            Failure::operator("dns", "what was put in cannot be forgotten")
                .because(error)
                .hint("let the agent write its own state directory")
        })
    }
}
