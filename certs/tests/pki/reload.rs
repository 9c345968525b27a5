//! Credentials follow their files, and connections live on.

use std::sync::Arc;
use std::time::Duration;

use handover_certs::authority::Which;
use handover_certs::identity::Role;
use handover_certs::material::MaterialPaths;
use handover_certs::reload::Credentials;
use handover_certs::tls::server_config;
use tokio::sync::oneshot;

use super::bed::{Bed, load, ping, shake};

const EVERY: Duration = Duration::from_millis(10);

/// Credentials that are watched until the sender is dropped.
fn watched(
    dir: &std::path::Path,
    peer: Role,
) -> (Arc<Credentials>, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let credentials = Credentials::load(MaterialPaths::in_dir(dir), Some(peer)).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let watch = credentials.clone().watch(EVERY, async move { drop(stopped.await) });
    (credentials, stop, tokio::spawn(watch))
}

#[tokio::test]
async fn renewing_swaps_and_keeps_connections() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    let (credentials, stop, watch) = watched(&target, Role::Source);
    let server = server_config(&load(&source)).unwrap();
    let (mut near, mut far) = shake(credentials.client(), server.clone()).await.unwrap();
    let mut changed = credentials.changed();
    let before = far.get_ref().1.peer_certificates().unwrap().to_vec();
    bed.ca().renew(&target).unwrap();
    // Several reloads may come, when the files are looked at in the midst of being replaced.
    let after = loop {
        changed.changed().await.unwrap();
        let (_, far) = shake(credentials.client(), server.clone()).await.unwrap();
        let after = far.get_ref().1.peer_certificates().unwrap().to_vec();
        if after != before {
            break after;
        }
    };
    assert_ne!(before, after);
    let (one, two) = tokio::join!(ping(&mut near), ping(&mut far));
    one.and(two).unwrap();
    drop(stop);
    watch.await.unwrap();
}

#[tokio::test]
async fn a_revocation_reaches_a_running_server() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    let (credentials, _stop, _watch) = watched(&target, Role::Source);
    let client = handover_certs::tls::client_config(&load(&source), Role::Target).unwrap();
    shake(client.clone(), credentials.server()).await.unwrap();
    let mut changed = credentials.changed();
    bed.ca().revoke(&Which::Identity(load(&source).identity().clone())).unwrap();
    // As an operator brings it there: copied, not renamed.
    std::fs::copy(bed.path("ca/crl.pem"), target.join("crl.pem")).unwrap();
    let refused = loop {
        changed.changed().await.unwrap();
        if let Err((_, server)) = shake(client.clone(), credentials.server()).await {
            break server;
        }
    };
    assert!(refused.contains("Revoked"), "{refused}");
}

#[tokio::test]
async fn a_bad_set_leaves_the_old_one_in_use_until_it_is_mended() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    let (credentials, _stop, _watch) = watched(&target, Role::Source);
    let mut changed = credentials.changed();
    let not_after = credentials.not_after();
    let key = std::fs::read(target.join("key.pem")).unwrap();
    std::fs::write(target.join("key.pem"), &key[..key.len() / 2]).unwrap();
    credentials.reload().unwrap_err();
    let waited = tokio::time::timeout(EVERY * 5, changed.changed()).await;
    assert!(waited.is_err(), "a bad set was taken");
    assert_eq!(credentials.not_after(), not_after);
    assert_eq!(credentials.identity().role, Role::Target);
    shake(credentials.client(), server_config(&load(&source)).unwrap()).await.unwrap();
    std::fs::write(target.join("key.pem"), &key).unwrap();
    changed.changed().await.unwrap();
}

#[tokio::test]
async fn nothing_changed_means_nothing_reloaded() {
    let bed = Bed::new();
    let (credentials, _stop, _watch) = watched(&bed.issue(Role::Target), Role::Source);
    assert!(tokio::time::timeout(EVERY * 5, credentials.changed().changed()).await.is_err());
}

#[tokio::test]
async fn a_list_that_is_deleted_stays_in_use() {
    let bed = Bed::new();
    let (source, target) = (bed.issue(Role::Source), bed.issue(Role::Target));
    bed.ca().revoke(&Which::Identity(load(&source).identity().clone())).unwrap();
    std::fs::copy(bed.path("ca/crl.pem"), target.join("crl.pem")).unwrap();
    let (credentials, _stop, _watch) = watched(&target, Role::Source);
    let client = handover_certs::tls::client_config(&load(&source), Role::Target).unwrap();
    shake(client.clone(), credentials.server()).await.unwrap_err();
    let mut changed = credentials.changed();
    std::fs::remove_file(target.join("crl.pem")).unwrap();
    changed.changed().await.unwrap();
    let (_, refused) = shake(client, credentials.server()).await.unwrap_err();
    assert!(refused.contains("Revoked"), "{refused}");
}
