//! Certificates for tests, made when they run.

use std::sync::Arc;

use handover_engine::time::{Clock, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SignatureAlgorithm,
};
use time::OffsetDateTime;

use crate::material::Pair;

/// The moment at which tests take place: in January of 2027.
pub const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanos: 0 };
pub const DAY: i64 = 24 * 3600;

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        NOW
    }
}

pub fn clock() -> Arc<dyn Clock> {
    Arc::new(Stopped)
}

/// PEM.
#[derive(Clone)]
pub struct Minted {
    pub chain: String,
    pub key: String,
}

impl Minted {
    pub fn pair(&self) -> Pair {
        Pair::read(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }
}

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub minted: Minted,
}

fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

pub fn params(common: &str, names: &[&str], from: i64, to: i64) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    (params.not_before, params.not_after) = (moment(NOW.seconds + from), moment(NOW.seconds + to));
    params
}

fn ca_params(common: &str) -> CertificateParams {
    let mut params = params(common, &[], -DAY, 3650 * DAY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

impl Ca {
    pub fn root(common: &str) -> Self {
        Self::of(ca_params(common), &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub fn of(params: CertificateParams, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        let minted = Minted { chain, key: key.serialize_pem() };
        Self { issuer: Issuer::new(params, key), minted }
    }

    /// Its chain ends with this CA's.
    pub fn intermediate(&self, common: &str) -> Self {
        self.signed(ca_params(common))
    }

    pub fn signed(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem() + &self.minted.chain;
        let minted = Minted { chain, key: key.serialize_pem() };
        Self { issuer: Issuer::new(params, key), minted }
    }

    pub fn leaf(&self, names: &[&str]) -> Minted {
        self.leaf_of(&rcgen::PKCS_ECDSA_P256_SHA256, names, -DAY, 90 * DAY)
    }

    /// Good from and to so many seconds after now. Its chain is without this CA's.
    pub fn leaf_of(
        &self,
        algorithm: &'static SignatureAlgorithm,
        names: &[&str],
        from: i64,
        to: i64,
    ) -> Minted {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = params(names.first().unwrap_or(&"nobody"), names, from, to);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Minted { chain, key: key.serialize_pem() }
    }
}

/// One that vouches for itself, marked as `openssl req -x509` does.
pub fn self_signed(names: &[&str]) -> Minted {
    let mut params = params("self", names, -DAY, 90 * DAY);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ca::of(params, &rcgen::PKCS_ECDSA_P256_SHA256).minted
}
