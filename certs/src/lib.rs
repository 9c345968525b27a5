//! Handover's PKI: issue, load, reload and verify identities.
