//! Certificates that vouch for themselves, as `openssl` makes them.

/// The arguments that every one of them begins with; its names and its files follow.
pub const SELF_SIGNED: [&str; 9] =
    ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"];
