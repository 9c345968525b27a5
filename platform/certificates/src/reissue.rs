//! A new certificate from a CA whose files lie on this host.

use handover_engine::time::Timestamp;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::checked;
use crate::material::{Pair, Unfit};

/// A new one is good from a little before now: clients' clocks are behind.
const BEFORE_NOW_SECONDS: i64 = 300;
const DAY_SECONDS: i64 = 24 * 3600;
/// A common name holds no more (X.520).
const LONGEST_COMMON_NAME: usize = 64;

/// A CA that can sign.
pub struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    /// Its own certificate, then those above it.
    chain: Vec<CertificateDer<'static>>,
    expires: i64,
}

impl Authority {
    /// The CA whose certificate (and those above it) and key are in these texts. Refused are a key that is another's, a certificate that
    /// is no CA's, and one that is not valid `now`.
    pub fn read(certificate: &[u8], key: &[u8], now: Timestamp) -> Result<Self, Unfit> {
        let pair = Pair::read(certificate, key)?;
        checked::keys_match(&pair)?;
        let own = checked::parse(&pair.chain[0])?;
        let usage = own.key_usage().ok().flatten();
        if !own.is_ca() || usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            let what = format!("{} is no CA that may sign", own.subject());
            return Err(Unfit::new(what, "name the CA's own certificate in `ca_certificate`"));
        }
        checked::valid_at(&own, now)?;
        let expires = own.validity().not_after.timestamp();
        let unusable = |error: rcgen::Error| {
            let hint = "make its key PKCS#8: `openssl pkey -in KEY -out NEW`";
            Unfit::new(format!("the CA cannot be used ({error})"), hint)
        };
        let key = KeyPair::try_from(&pair.key).map_err(unusable)?;
        let issuer = rcgen::Issuer::from_ca_cert_der(&pair.chain[0], key).map_err(unusable)?;
        Ok(Self { issuer, expires, chain: pair.chain })
    }

    /// Issues one for a server with these names, with a fresh key (ECDSA P-256), good for so many days or as long as the CA is. CAs
    /// above it come with it, those that clients must have already (self-signed ones) left out.
    pub fn issue(&self, names: &[String], days: u32, now: Timestamp) -> Result<Pair, Unfit> {
        let failed = |error: rcgen::Error| {
            let hint = "look at `names` and at the CA in the certificate's section";
            Unfit::new(format!("no new certificate can be issued ({error})"), hint)
        };
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let params = self.params(names, days, now)?;
        let issued = params.signed_by(&key, &self.issuer).map_err(failed)?;
        self.refuse_another_name(issued.der())?;
        let mut chain = issued.pem();
        for certificate in &self.chain {
            let parsed = checked::parse(certificate)?;
            if parsed.subject() != parsed.issuer() {
                chain.push_str(&pem::encode(&pem::Pem::new("CERTIFICATE", certificate.as_ref())));
            }
        }
        Pair::read(chain.as_bytes(), key.serialize_pem().as_bytes())
    }

    fn params(&self, names: &[String], days: u32, now: Timestamp) -> Result<CertificateParams, Unfit> {
        let bad = |what: String| Unfit::new(what, "look at `names` in the certificate's section");
        let mut params = CertificateParams::new(names.to_vec())
            .map_err(|error| bad(format!("no certificate can be for these names ({error})")))?;
        let first = names.first().ok_or_else(|| bad("it would be for no name".to_owned()))?;
        let common = if first.len() > LONGEST_COMMON_NAME { "server" } else { first };
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        let moment = |seconds: i64| {
            OffsetDateTime::from_unix_timestamp(seconds)
                .map_err(|error| bad(format!("it would be good until no time ({error})")))
        };
        params.not_before = moment(now.seconds - BEFORE_NOW_SECONDS)?;
        params.not_after = moment(self.expires.min(now.seconds + i64::from(days) * DAY_SECONDS))?;
        params.serial_number = Some(serial()?);
        // With this comes the identifier of its key, too.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok(params)
    }

    /// The library writes the CA's name anew and cannot write each (one with two parts of a kind, like `DC=example, DC=org`): clients
    /// would not find the CA by it.
    fn refuse_another_name(&self, issued: &CertificateDer<'_>) -> Result<(), Unfit> {
        let (issued, own) = (checked::parse(issued)?, checked::parse(&self.chain[0])?);
        if issued.issuer().as_raw() == own.subject().as_raw() {
            return Ok(());
        }
        let what = format!("the name of this CA ({}) cannot be written into a certificate", own.subject());
        Err(Unfit::new(what, "let a program issue it instead: `acme_command`"))
    }
}

/// Positive, of 127 bits, 126 of them random.
fn serial() -> Result<SerialNumber, Unfit> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Unfit::new("there is no randomness for a serial number", "look at the host's kernel"))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests;
