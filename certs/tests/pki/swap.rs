//! From an old CA to a new one.

use handover_certs::authority::{Authority, InitOptions, IssueOptions, Which};
use handover_certs::identity::Role;
use handover_certs::tls::{client_config, server_config};

use super::bed::{Bed, Ends, load, shake};

async fn connect(bed: &Bed) -> Result<Ends, (String, String)> {
    let (target, source) = (load(&bed.path("target")), load(&bed.path("source")));
    shake(client_config(&target, Role::Source).unwrap(), server_config(&source).unwrap()).await
}

#[tokio::test]
async fn at_no_step_do_peers_refuse_each_other() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    let mut new = Authority::rotate(&bed.path("ca"), &bed.path("new"), &InitOptions::default()).unwrap();
    for step in 0..6 {
        match step {
            0 => new.publish(&target).unwrap(),
            1 => bed.ca().publish(&source).unwrap(),
            // The old CA may renew in the middle: it hands out trust in both.
            2 => drop(bed.ca().renew(&target).unwrap()),
            3 => drop(new.renew(&source).unwrap()),
            4 => drop(new.renew(&target).unwrap()),
            _ => {
                new.trust_only_itself().unwrap();
                new.publish(&source).unwrap();
            }
        }
        connect(&bed).await.unwrap_or_else(|error| panic!("step {step}: {error:?}"));
    }
    new.publish(&target).unwrap();
    connect(&bed).await.unwrap();
    bed.issue_by("ca", Role::Source, "source", &IssueOptions::default());
    let (client, _) = connect(&bed).await.expect_err("the old CA is trusted no more");
    assert!(client.contains("UnknownIssuer"), "{client}");
}

#[tokio::test]
async fn in_the_middle_what_either_ca_has_revoked_is_refused() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    let mut new = Authority::rotate(&bed.path("ca"), &bed.path("new"), &InitOptions::default()).unwrap();
    let identity = load(&source).identity().clone();
    bed.ca().revoke(&Which::Identity(identity.clone())).unwrap();
    new.trust(&bed.path("ca")).unwrap();
    new.publish(&target).unwrap();
    let (client, _) = connect(&bed).await.expect_err("the old CA has revoked it");
    assert!(client.contains("Revoked"), "{client}");
    new.renew(&source).expect_err("not even by the new CA is a revoked identity renewed");
    bed.issue_by("new", Role::Source, "source", &IssueOptions::default());
    connect(&bed).await.unwrap();
    new.revoke(&Which::Identity(identity)).unwrap();
    new.publish(&target).unwrap();
    let (client, _) = connect(&bed).await.expect_err("the new CA has revoked it");
    assert!(client.contains("Revoked"), "{client}");
}
