//! A certificate that an authority issues over ACME (RFC 8555), shown by texts in DNS that the names are ours: until users are led to this host, it is
//! found by no other challenge.
//!
//! An order that is cut short leaves nothing that matters: its key was in memory alone, and its texts are written down where they are put in.
//! It is ordered again.

mod account;
mod https;
mod refusal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use handover_engine::dns::TextRecord;
use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Challenges, Result};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use self::refusal::Stage;
use crate::item::{item, unfit};
use crate::material::{Pair, Unfit};
use crate::section::{self, Acme, CertificateSection};

/// No order may take longer.
const LIMIT: Duration = Duration::from_secs(600);
/// How the authority is asked whether it has decided: it may say itself when to ask again.
const ASKING: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.3).timeout(LIMIT);

/// What orders need beside their sections.
#[derive(Clone)]
pub struct Orders {
    /// None at a host whose names nobody proves.
    pub challenges: Option<Arc<dyn Challenges>>,
    accounts: PathBuf,
}

impl Orders {
    /// Accounts are kept below the agent's `state`, unless a section says otherwise.
    pub fn new(state: &Path) -> Self {
        Self { challenges: None, accounts: state.join("acme") }
    }

    fn challenges(&self) -> Result<&dyn Challenges, Unfit> {
        let none =
            || Unfit::new("no server of its names is known", "write [dns] into the manifest (docs/dns.md)");
        self.challenges.as_deref().ok_or_else(none)
    }

    fn account(&self, acme: &Acme<'_>) -> PathBuf {
        acme.account.map_or_else(|| self.accounts.join(account::file_name(acme.directory)), Path::to_owned)
    }

    /// What keeps an order from being made, as far as this host's own files tell: nobody is asked.
    pub fn usable(&self, acme: &Acme<'_>) -> Result<(), Unfit> {
        let usable = self.challenges()?.usable();
        usable.map_err(|failure| Unfit::new(format!("{}: {}", failure.item, failure.what), failure.hint))?;
        https::roots(acme.root)?;
        account::usable(&self.account(acme), acme)
    }

    /// Orders one for these names, and waits until it is there.
    pub async fn obtain(
        &self,
        section: &CertificateSection,
        acme: &Acme<'_>,
        names: &[String],
        migration: &MigrationId,
    ) -> Result<Pair> {
        let challenges = self.challenges().map_err(|bad| unfit(section, "", bad))?;
        // What an agent that was killed has left.
        challenges.take_away(migration).await?;
        let account = self.account(acme);
        let attempt = Attempt { section, acme, account: &account, challenges, migration };
        let ordered = tokio::time::timeout(LIMIT, attempt.order(names)).await;
        if let Err(failure) = challenges.take_away(migration).await {
            // What was issued is not thrown away for that: it is tried again at the end, or when the migration is aborted.
            tracing::warn!(certificate = section.name, %failure, "what the authority asked for stays in DNS for now");
        }
        ordered.unwrap_or_else(|_| {
            let what = format!("{} took longer than {} s", attempt.authority(), LIMIT.as_secs());
            Err(Failure::operator(item(section), what).hint("ask it what is the matter, then resume"))
        })
    }

    /// Takes away what a cut-short order may have left.
    pub async fn clear(&self, migration: &MigrationId) -> Result<()> {
        match &self.challenges {
            Some(challenges) => challenges.take_away(migration).await,
            None => Ok(()),
        }
    }
}

/// One order.
struct Attempt<'a> {
    section: &'a CertificateSection,
    acme: &'a Acme<'a>,
    account: &'a Path,
    challenges: &'a dyn Challenges,
    migration: &'a MigrationId,
}

impl Attempt<'_> {
    fn authority(&self) -> String {
        section::authority(self.acme.directory).map(|authority| authority.to_string()).unwrap_or_default()
    }

    fn refused(&self, stage: Stage, error: Error) -> Failure {
        refusal::failure(item(self.section), &self.authority(), self.account, stage, error)
    }

    async fn order(&self, names: &[String]) -> Result<Pair> {
        let bad = |bad: Unfit| unfit(self.section, "no new one can be ordered", bad);
        let http = https::Https::new(https::roots(self.acme.root).map_err(bad)?).map_err(bad)?;
        let kept = account::Kept::open(self.account, self.acme).map_err(bad)?;
        let account = kept.register(self.account, self.acme, http).await.map_err(|error| match error {
            account::Trouble::Unfit(unfit) => bad(unfit),
            account::Trouble::Refused(error) => self.refused(Stage::Account, error),
        })?;
        let mut order = self.placed(&account, names).await?;
        self.prove(&mut order).await?;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        let key = key.map_err(|error| bad(unsigned(&error)))?;
        let request = request(names, &key).map_err(|error| bad(unsigned(&error)))?;
        order.finalize_csr(&request).await.map_err(|error| self.refused(Stage::Order, error))?;
        let chain = order.poll_certificate(&ASKING).await;
        let chain = chain.map_err(|error| self.refused(Stage::Order, error))?;
        let issued = "what was issued cannot be used";
        Pair::read(chain.as_bytes(), key.serialize_pem().as_bytes())
            .map_err(|bad| unfit(self.section, issued, bad))
    }

    async fn placed(&self, account: &Account, names: &[String]) -> Result<Order> {
        let mut names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        names.sort();
        names.dedup();
        let identifiers: Vec<_> = names.into_iter().map(Identifier::Dns).collect();
        let placed = account.new_order(&NewOrder::new(&identifiers)).await;
        placed.map_err(|error| self.refused(Stage::Order, error))
    }

    /// Shows that all names are ours. Those that the authority knows of from before need no text.
    async fn prove(&self, order: &mut Order) -> Result<()> {
        let texts = self.texts(order).await?;
        if !texts.is_empty() {
            self.challenges.put_in(self.migration, &texts).await?;
            tokio::time::sleep(self.acme.wait).await;
        }
        self.answer(order).await.map_err(|error| self.refused(Stage::Proof, error))?;
        let told = match order.poll_ready(&ASKING).await {
            Ok(OrderStatus::Ready) => return Ok(()),
            Ok(_) => Error::Str("the order is not valid, and it does not say why"),
            Err(error) => error,
        };
        Err(self.refused(Stage::Proof, why(order).await.unwrap_or(told)))
    }

    async fn texts(&self, order: &mut Order) -> Result<Vec<TextRecord>> {
        let (mut texts, mut next) = (Vec::new(), order.authorizations());
        while let Some(authorization) = next.next().await {
            let mut authorization = authorization.map_err(|error| self.refused(Stage::Order, error))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let name = match authorization.identifier().identifier {
                Identifier::Dns(name) => name.clone(),
                _ => continue,
            };
            let Some(challenge) = authorization.challenge(ChallengeType::Dns01) else {
                let what = format!("{} has no DNS challenge for {name}", self.authority());
                return Err(Failure::operator(item(self.section), what)
                    .hint("let a program obtain it: `acme_command`"));
            };
            texts.push(TextRecord::challenge(&name, challenge.key_authorization().dns_value()));
        }
        Ok(texts)
    }

    async fn answer(&self, order: &mut Order) -> Result<(), Error> {
        let mut next = order.authorizations();
        while let Some(authorization) = next.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(ChallengeType::Dns01) {
                challenge.set_ready().await?;
            }
        }
        Ok(())
    }
}

/// What the authority has found wrong with a name, where it says so.
async fn why(order: &mut Order) -> Option<Error> {
    // With the order's state those of its names are asked for anew.
    order.refresh().await.ok()?;
    let mut next = order.authorizations();
    while let Some(authorization) = next.next().await {
        let authorization = authorization.ok()?;
        let problem = authorization.challenges.iter().find_map(|challenge| challenge.error.clone());
        if let Some(mut problem) = problem {
            let detail = problem.detail.unwrap_or_default();
            problem.detail = Some(format!("{}: {detail}", authorization.identifier()));
            return Some(Error::Api(problem));
        }
    }
    None
}

/// Asks for a certificate: names and key alone, the rest is the authority's to say.
fn request(names: &[String], key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

fn unsigned(error: &rcgen::Error) -> Unfit {
    let hint = "look at `names` in the certificate's section";
    Unfit::new(format!("no request for one can be made ({error})"), hint)
}
