//! The appliance's licence.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::bed::Output;

/// A licence, and how a manifest names its issuer.
pub(super) struct Licence {
    pub document: String,
    pub section: String,
}

impl Licence {
    /// By an issuer who is never seen again.
    pub fn issue(dir: &Path) -> Result<Self> {
        let openssl =
            |args: &[&str]| Output::of(Command::new("openssl").args(args).current_dir(dir))?.success();
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", "key"])?;
        let public = openssl(&["pkey", "-in", "key", "-pubout"])?.stdout;
        let text = "guid = \"4f1c\"\nmaintenance_until = \"2999-01-01T00:00:00Z\"\n";
        fs::write(dir.join("text"), text)?;
        openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", "key", "-in", "text", "-out", "signature"])?;
        let signature = openssl(&["base64", "-A", "-in", "signature"])?.stdout;
        Ok(Self {
            document: format!(
                "{text}-----BEGIN SIGNATURE-----\n{}\n-----END SIGNATURE-----\n",
                signature.trim()
            ),
            section: format!(
                "\n[licence]\nfile = \"/etc/shop/licence\"\npublic_key = \"\"\"\n{public}\"\"\"\n"
            ),
        })
    }
}
