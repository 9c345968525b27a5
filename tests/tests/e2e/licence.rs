//! The licence moves at the cut-over, and comes home with an abort.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::poll;

use super::SETTLES_WITHIN;

/// A bed whose manifests declare a licence.
struct Licensed {
    bed: Bed,
    issuer: Ed25519KeyPair,
}

impl Licensed {
    fn new(seed: u64) -> Self {
        let mut bed = Bed::temporary(&Spec::small(seed)).unwrap();
        let issuer = Ed25519KeyPair::generate().unwrap();
        let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let key = STANDARD.encode([&prefix[..], issuer.public_key().as_ref()].concat());
        for side in ["source", "target"] {
            let manifest = bed.root().join(side).join("appliance.toml");
            let section = format!(
                "\n[licence]\nfile = \"{}\"\npublic_key = \"\"\"\n-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n\"\"\"\n",
                bed.root().join(side).join("licence").display()
            );
            fs::write(&manifest, fs::read_to_string(&manifest).unwrap() + &section).unwrap();
        }
        bed.source.restart().unwrap();
        bed.target.restart().unwrap();
        let licensed = Self { bed, issuer };
        licensed.put("source", "guid = \"4f1c\"\nmaintenance_until = \"2999-01-01T00:00:00Z\"\n");
        licensed
    }

    fn place(&self, side: &str) -> PathBuf {
        self.bed.root().join(side).join("licence")
    }

    fn put(&self, side: &str, text: &str) {
        let signature = STANDARD.encode(self.issuer.sign(text.as_bytes()));
        let signed = format!("{text}-----BEGIN SIGNATURE-----\n{signature}\n-----END SIGNATURE-----\n");
        fs::write(self.place(side), signed).unwrap();
    }

    /// On which sides it is valid.
    fn valid(&self) -> Vec<&str> {
        ["source", "target"].into_iter().filter(|side| self.place(side).exists()).collect()
    }

    fn follow(&self) {
        let plan = self.bed.json(&["plan", "--follow", "--licence"]).unwrap();
        self.bed.cli(&["start", plan["digest"].as_str().unwrap(), "--watch"]).unwrap().success().unwrap();
    }
}

#[test]
fn it_is_valid_where_the_appliance_is() {
    let licensed = Licensed::new(71);
    let bed = &licensed.bed;
    let shown = bed.cli(&["inspect"]).unwrap().success().unwrap().text();
    assert!(
        shown.contains("licence 4f1c, maintained until 2999") && shown.contains("licence: none"),
        "{shown}"
    );
    licensed.follow();
    assert_eq!(licensed.valid(), ["source"]);
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    assert_eq!(licensed.valid(), ["target"]);
    // Renewed meanwhile: that one comes home.
    licensed.put("target", "guid = \"4f1c\"\nseats = 9\n");
    let renewed = fs::read(licensed.place("target")).unwrap();
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(licensed.valid(), ["source"]);
    assert_eq!(fs::read(licensed.place("source")).unwrap(), renewed);
    assert_eq!(fs::read_dir(bed.root().join("source/state/licence")).unwrap().count(), 0);

    licensed.follow();
    bed.cli(&["cutover", "--watch"]).unwrap().success().unwrap();
    bed.cli(&["accept", "--watch"]).unwrap().success().unwrap();
    bed.cli(&["finalize", "--watch"]).unwrap().success().unwrap();
    assert_eq!(licensed.valid(), ["target"]);
    assert_eq!(fs::read_dir(bed.root().join("source/state/licence")).unwrap().count(), 0);
}

#[test]
fn it_does_not_move_unless_it_may() {
    let licensed = Licensed::new(72);
    let bed = &licensed.bed;
    let refused = |args: &[&str], part: &str| {
        let told = bed.cli(args).unwrap();
        assert!(told.code != Some(0) && told.text().contains(part), "{part}: {}", told.text());
    };
    let plan = ["plan", "--follow", "--licence"];
    licensed.put("source", "guid = \"4f1c\"\nmaintenance_until = \"2020-01-01T00:00:00Z\"\n");
    refused(&plan, "the maintenance contract of 4f1c ended on 2020-01-01T00:00:00Z");
    refused(&["check", "--follow", "--licence"], "the maintenance contract of 4f1c ended");
    licensed.put("source", "guid = \"4f1c\"\n");
    licensed.put("target", "guid = \"9e9e\"\n");
    refused(&plan, "the target has one already: 9e9e");
    fs::remove_file(licensed.place("target")).unwrap();
    licensed.follow();
    // Found at the cut-over, before the source is fenced off: it is called off.
    fs::remove_file(licensed.place("source")).unwrap();
    let told = bed.cli(&["cutover", "--watch"]).unwrap().text();
    assert!(told.contains("called off") && told.contains("the source has none"), "{told}");
    assert_eq!(bed.status().unwrap().phase, "following");
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert_eq!(licensed.valid(), [""; 0]);
}

#[test]
fn kills_do_not_lose_it() {
    let mut licensed = Licensed::new(73);
    licensed.follow();
    licensed.bed.json(&["cutover"]).unwrap();
    let mut pause = 5;
    poll::until("the target to take over", SETTLES_WITHIN, || {
        poll::pause(Duration::from_millis(pause));
        pause += 15;
        let side = if pause % 2 == 0 { &mut licensed.bed.target } else { &mut licensed.bed.source };
        side.kill()?;
        assert!(licensed.valid().len() < 2);
        let side = if pause % 2 == 0 { &mut licensed.bed.target } else { &mut licensed.bed.source };
        side.restart()?;
        let Ok(status) = licensed.bed.json(&["status"]) else { return Ok(None) };
        assert_ne!(status["condition"], "failed", "{status}");
        let is_over = status["phase"] == "trial" && status["activity"] == "following_back";
        if status["activity"] == "following" {
            // Called off since the source was away: once more.
            let _ = licensed.bed.cli(&["cutover"]);
        }
        Ok(is_over.then_some(()))
    })
    .unwrap();
    assert_eq!(licensed.valid(), ["target"]);
}
