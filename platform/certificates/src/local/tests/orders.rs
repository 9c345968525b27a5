//! Orders that are refused before an authority is asked.

use handover_engine::changeover::CertificateAction;
use handover_engine::ports::changeover::Certificates;

use super::world::{World, migration, section};
use crate::CertificateSection;
use crate::minted::Ca;

#[tokio::test]
async fn an_address_is_refused_by_name() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let www = CertificateSection {
        action: CertificateAction::Reissue,
        acme: Some("https://ca.example.org/dir".to_owned()),
        ..section(&world, "www")
    };
    let host = world.host(vec![www]);
    // The section names none: they are those of the source's.
    let offered = world.offer("www", &root.leaf(&["www.example.org", "10.0.0.1"]));
    let failure = host.install(&migration(), &offered).await.unwrap_err();
    assert!(failure.what.contains("10.0.0.1 is an address"), "{failure}");
    assert_eq!(host.check(&offered).await.unwrap_err(), failure);
    assert!(world.files().is_empty());
    // Nobody shows here that names are ours.
    let failure = host.check(&world.offer("www", &root.leaf(&["www.example.org"]))).await.unwrap_err();
    assert!(failure.to_string().contains("no server of its names is known"), "{failure}");
}
