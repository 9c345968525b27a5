//! A certificate that a real authority issues while an appliance is cut over, through an agent that is killed meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use handover_tests::acme::Authority;
use handover_tests::appliance::Spec;
use handover_tests::bed::Bed;
use handover_tests::name_server::{KEY, NameServer};
use handover_tests::poll;

use super::{SETTLES_WITHIN, settle_and_compare};

/// Where an authority that asks for `www` looks.
const ASKED: &str = "_acme-challenge.www";

fn manifest(bed: &Bed, side: &str) -> PathBuf {
    bed.root().join(side).join("appliance.toml")
}

fn edit(file: &Path, change: impl FnOnce(String) -> String) {
    fs::write(file, change(fs::read_to_string(file).unwrap())).unwrap();
}

#[test]
fn an_authority_issues_through_an_agent_that_is_killed() {
    let mut bed = Bed::temporary(&Spec::small(84)).unwrap();
    let server = NameServer::start(&["www 3600 A 192.0.2.10"]).unwrap();
    let authority = Authority::start(server.address()).unwrap();
    for (side, address) in [("source", "192.0.2.10"), ("target", "192.0.2.20")] {
        let addresses = format!("addresses = ['{address}']");
        edit(&manifest(&bed, side), |text| text.replace("addresses = []", &addresses));
    }
    let chain = bed.root().join("target/www.pem");
    let certificate = format!(
        "\n[[certificate]]\nname = 'www'\ncertificate = '{}'\nkey = '{}'\naction = 'reissue'\nnames = ['www.example.net']\n\
         acme = '{}'\nacme_root = '{}'\nacme_wait_seconds = 300\n\
         [dns]\nserver = '{}'\nservice_names = ['www.example.net']\n",
        chain.display(),
        bed.root().join("target/www.key").display(),
        authority.directory(),
        authority.root().display(),
        server.address(),
    );
    edit(&manifest(&bed, "target"), |text| text + &certificate);
    bed.source.restart().unwrap();
    bed.target.restart().unwrap();
    let refused = bed.cli(&["check", "--follow"]).unwrap();
    assert!(refused.text().contains("the target's manifest has no [dns.update]"), "{}", refused.text());

    let secret = server.secret_file(KEY);
    let update = format!("[dns.update]\nkey_name = '{KEY}'\nsecret_file = '{}'\n", secret.display());
    edit(&manifest(&bed, "target"), |text| text + &update);
    bed.target.restart().unwrap();
    let plan = bed.json(&["plan", "--follow"]).unwrap();
    bed.cli(&["start", plan["digest"].as_str().unwrap(), "--watch"]).unwrap().success().unwrap();
    bed.json(&["cutover"]).unwrap();
    poll::until("the text that the authority asks for", SETTLES_WITHIN, || {
        Ok((!server.values(ASKED, "TXT")?.is_empty()).then_some(()))
    })
    .unwrap();
    bed.target.kill().unwrap();
    assert_eq!(server.values(ASKED, "TXT").unwrap().len(), 1, "nobody has taken it away");

    let soon = |text: String| text.replace("acme_wait_seconds = 300", "acme_wait_seconds = 0");
    edit(&manifest(&bed, "target"), soon);
    bed.target.restart().unwrap();
    assert_eq!(settle_and_compare(&bed).phase, "trial");
    assert!(authority.verify(&chain).unwrap().contains("DNS:www.example.net"));
    assert!(server.values(ASKED, "TXT").unwrap().is_empty());
    assert_eq!(fs::read_dir(bed.root().join("target/state/challenges")).unwrap().count(), 0);
    let report = bed.json(&["report"]).unwrap();
    let changed = report["changed"].as_array().unwrap();
    let named = |item: &str| {
        changed.iter().find(|one| one["item"] == item).unwrap_or_else(|| panic!("{item}: {report}"))
    };
    let certificate = &named("certificate www")["facts"];
    assert_eq!(
        (&certificate["names"], certificate["fingerprint"].as_str().map(str::len)),
        (&"www.example.net".into(), Some(64))
    );
    bed.cli(&["abort", "--watch"]).unwrap().success().unwrap();
    assert!(!chain.exists());
}
