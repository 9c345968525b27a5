//! Certificates put in place, cut short at every step, proved, and put back.

mod cuts;
mod orders;
mod proofs;
mod world;

use std::os::unix::fs::{PermissionsExt, symlink};

use handover_engine::changeover::CertificateAction;
use handover_engine::ports::changeover::Certificates;

use self::world::{World, migration, section};
use crate::minted::{Ca, DAY, NOW, self_signed};
use crate::place;

#[tokio::test]
async fn a_copy_takes_the_place_and_goes_again() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let (old, new) = (root.leaf(&["www"]), root.leaf(&["www", "mail"]));
    world.lay("www", &old);
    world.mode("www.key", 0o640);
    world.mode("www.pem", 0o664);
    // Only root can give files away.
    let owner = if world.owner().0 == 0 { (33, 106) } else { world.owner() };
    for name in ["www.key", "www.pem"] {
        std::os::unix::fs::chown(world.path(name), Some(owner.0), Some(owner.1)).unwrap();
    }
    let owners = || ["www.key", "www.pem"].map(|name| world.owner_of(name));
    let host = world.host(vec![section(&world, "www")]);
    let offered = world.offer("www", &new);
    for _ in 0..2 {
        host.install(&migration(), &offered).await.unwrap();
        assert!(world.pair("www") == new.pair());
        assert_eq!((world.mode_of("www.key"), world.mode_of("www.pem")), (0o640, 0o664));
        assert_eq!(owners(), [owner; 2]);
        assert_eq!(world.files(), ["www.key", "www.pem"]);
    }
    assert_eq!(world.mode_of("state/certificates/m-1"), 0o700);
    assert_eq!(world.mode_of("state/certificates/m-1/record.json"), 0o600);
    for _ in 0..2 {
        host.restore(&migration()).await.unwrap();
        assert_eq!((world.text("www.pem"), world.text("www.key")), (old.chain.clone(), old.key.clone()));
        assert_eq!((world.mode_of("www.key"), world.mode_of("www.pem")), (0o640, 0o664));
        assert_eq!(owners(), [owner; 2]);
    }
    assert_eq!(world.reloaded(), ["www.service", "www.service"]);
    for _ in 0..2 {
        host.forget(&migration()).await.unwrap();
        assert!(!world.path("state/certificates/m-1").exists());
    }
    host.restore(&migration()).await.unwrap();
    host.prove(&migration()).await.unwrap();
    assert_eq!(world.reloaded().len(), 2, "nothing is known of it any more");
}

#[tokio::test]
async fn where_nothing_was_nothing_stays() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let new = root.leaf(&["www"]);
    let host = world.host(vec![section(&world, "www")]);
    host.install(&migration(), &world.offer("www", &new)).await.unwrap();
    assert_eq!((world.mode_of("www.key"), world.mode_of("www.pem")), (0o600, 0o644));
    host.restore(&migration()).await.unwrap();
    assert!(world.files().is_empty());
}

#[tokio::test]
async fn chain_and_key_may_be_one_file() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let (old, new) = (root.leaf(&["www"]), root.leaf(&["www"]));
    let mut www = section(&world, "www");
    www.key.clone_from(&www.certificate);
    std::fs::write(world.path("www.pem"), format!("{}{}", old.key, old.chain)).unwrap();
    world.mode("www.pem", 0o644);
    let host = world.host(vec![www]);
    host.install(&migration(), &world.offer("www", &new)).await.unwrap();
    assert_eq!(world.text("www.pem"), format!("{}{}", new.chain, new.key));
    assert_eq!(world.mode_of("www.pem"), 0o640, "there is a key in it");
    host.restore(&migration()).await.unwrap();
    assert_eq!(world.text("www.pem"), format!("{}{}", old.key, old.chain));
    assert_eq!(world.mode_of("www.pem"), 0o644);
}

#[tokio::test]
async fn links_stay_links() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let (old, new) = (root.leaf(&["www"]), root.leaf(&["www"]));
    world.lay("www", &old);
    std::fs::create_dir(world.path("archive")).unwrap();
    for name in ["www.key", "www.pem"] {
        std::fs::rename(world.path(name), world.path("archive").join(name)).unwrap();
        symlink(format!("archive/{name}"), world.path(name)).unwrap();
    }
    let host = world.host(vec![section(&world, "www")]);
    host.install(&migration(), &world.offer("www", &new)).await.unwrap();
    assert!(world.path("www.key").is_symlink() && world.path("www.pem").is_symlink());
    assert!(world.pair("www") == new.pair());
    host.restore(&migration()).await.unwrap();
    assert!(world.path("www.key").is_symlink() && world.path("www.pem").is_symlink());
    assert!(world.pair("www") == old.pair());
}

#[tokio::test]
async fn nothing_is_changed_when_one_is_bad() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let old = root.leaf(&["www.example.org"]);
    let good = root.leaf(&["www.example.org"]);
    let late = root.leaf_of(&rcgen::PKCS_ED25519, &["www.example.org"], -9 * DAY, -DAY);
    let mismatched = crate::minted::Minted { key: old.key.clone(), ..good.clone() };
    for (bad, part) in [
        (Some(late), "expired"),
        (Some(mismatched), "does not belong"),
        (Some(root.leaf(&["www.example.com"])), "not good for www.example.org"),
        (None, "does not hand it out"),
    ] {
        for name in ["first", "second"] {
            world.lay(name, &old);
        }
        let host = world.host(vec![section(&world, "first"), section(&world, "second")]);
        let mut offered = world.offer("first", &good);
        offered.extend(bad.into_iter().flat_map(|bad| world.offer("second", &bad)));
        let failure = host.install(&migration(), &offered).await.unwrap_err();
        assert_eq!(host.check(&offered).await.unwrap_err(), failure);
        assert_eq!(failure.item, "certificate second");
        assert!(failure.what.contains(part) && !failure.hint.is_empty(), "{failure}");
        assert!(world.pair("first") == old.pair() && world.pair("second") == old.pair());
        assert!(!world.path("state/certificates").exists(), "nothing was to be changed");
    }
}

#[tokio::test]
async fn what_a_placeholder_names_is_not_asked_for() {
    let (world, root) = (World::new(), Ca::root("Root"));
    world.lay("www", &self_signed(&["debian"]));
    let host = world.host(vec![section(&world, "www")]);
    host.install(&migration(), &world.offer("www", &root.leaf(&["www"]))).await.unwrap();
    let facts = host.facts().await.unwrap();
    assert_eq!(facts[0].names, ["www"]);
}

#[tokio::test]
async fn what_is_kept_is_neither_handed_out_nor_touched() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let own = root.leaf(&["www"]);
    world.lay("www", &own);
    let mut www = section(&world, "www");
    www.action = CertificateAction::Keep;
    let host = world.host(vec![www]);
    assert!(host.hand_out().await.unwrap().is_empty());
    host.install(&migration(), &world.offer("www", &root.leaf(&["www"]))).await.unwrap();
    host.prove(&migration()).await.unwrap();
    assert!(world.pair("www") == own.pair());
    assert!(world.reloaded().is_empty());
}

#[tokio::test]
async fn a_source_hands_out_what_it_has() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let (www, mail) = (root.leaf(&["www"]), root.leaf(&["mail"]));
    world.lay("www", &www);
    let mut combined = section(&world, "mail");
    combined.key.clone_from(&combined.certificate);
    std::fs::write(world.path("mail.pem"), format!("comment\n{}\n{}", mail.key, mail.chain)).unwrap();
    let mut reissued = section(&world, "absent");
    reissued.action = CertificateAction::Reissue;
    reissued.acme_command = vec!["/usr/bin/at-the-target".to_owned()];
    let host = world.host(vec![section(&world, "www"), combined, reissued]);
    let handed = host.hand_out().await.unwrap();
    assert_eq!(handed, [world.offer("www", &www), world.offer("mail", &mail)].concat());

    let host = world.host(vec![section(&world, "absent")]);
    let failure = host.hand_out().await.unwrap_err();
    assert!(
        failure.to_string().contains("certificate absent: it cannot be handed out: there is no"),
        "{failure}"
    );
    world.lay("torn", &crate::minted::Minted { key: mail.key, ..www });
    let failure = world.host(vec![section(&world, "torn")]).hand_out().await.unwrap_err();
    assert!(failure.what.contains("does not belong"), "{failure}");
}

#[tokio::test]
async fn what_is_issued_here_is_issued_once() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let www = world.reissued("www", &root);
    let host = world.host(vec![www.clone()]);
    // Nothing says for which names.
    let failure = host.install(&migration(), &[]).await.unwrap_err();
    assert!(failure.what.contains("for which names"), "{failure}");
    let of_source = root.leaf(&["www.example.org", "10.0.0.1"]);
    host.install(&migration(), &world.offer("www", &of_source)).await.unwrap();
    let issued = world.pair("www");
    assert_ne!(issued.key_pem(), of_source.key);
    assert_eq!(host.facts().await.unwrap()[0].names, ["www.example.org", "10.0.0.1"]);
    // The same, also by an agent that was started anew.
    world.host(vec![www.clone()]).install(&migration(), &world.offer("www", &of_source)).await.unwrap();
    assert!(world.pair("www") == issued);
    // Another one, once it is to be for other names.
    let names = vec!["shop.example.org".to_owned()];
    world.host(vec![crate::CertificateSection { names, ..www }]).install(&migration(), &[]).await.unwrap();
    assert_eq!(host.facts().await.unwrap()[0].names, ["shop.example.org"]);
    host.restore(&migration()).await.unwrap();
    assert!(world.files().iter().all(|name| name.starts_with("ca.")), "{:?}", world.files());
}

#[tokio::test]
async fn a_program_is_run_once() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let leaf = root.leaf(&["www"]);
    world.lay("given", &leaf);
    let script = "#!/bin/sh\nset -e\ncd $1\necho ran >> runs\ntest ! -e fails\ncp given.pem $HANDOVER_CERTIFICATE\ncp given.key $HANDOVER_KEY\n";
    std::fs::write(world.path("obtain.new"), script).unwrap();
    world.mode("obtain.new", 0o755);
    std::fs::rename(world.path("obtain.new"), world.path("obtain")).unwrap();
    let mut www = section(&world, "www");
    (www.action, www.names) = (CertificateAction::Reissue, vec!["www".to_owned()]);
    www.acme_command = ["obtain", ""].map(|name| world.path(name).display().to_string()).into();
    let host = world.host(vec![www]);
    std::fs::write(world.path("fails"), "").unwrap();
    let failure = host.install(&migration(), &[]).await.unwrap_err();
    assert!(failure.to_string().contains("certificate www: no new one was obtained"), "{failure}");
    assert!(!world.path("www.pem").exists());
    std::fs::remove_file(world.path("fails")).unwrap();
    for _ in 0..2 {
        host.install(&migration(), &[]).await.unwrap();
        assert!(world.pair("www") == leaf.pair());
    }
    assert_eq!(world.text("runs"), "ran\nran\n", "once in vain, once for good");
}

#[tokio::test]
async fn what_somebody_else_has_put_there_stays() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let (old, new, renewed) = (root.leaf(&["www"]), root.leaf(&["www"]), root.leaf(&["www"]));
    world.lay("www", &old);
    let host = world.host(vec![section(&world, "www")]);
    host.install(&migration(), &world.offer("www", &new)).await.unwrap();
    world.lay("www", &renewed);
    host.restore(&migration()).await.unwrap();
    assert!(world.pair("www") == renewed.pair(), "a renewal is not undone");
    // Replaced again, it is what was there before.
    host.install(&migration(), &world.offer("www", &new)).await.unwrap();
    assert!(world.pair("www") == new.pair());
    host.restore(&migration()).await.unwrap();
    assert!(world.pair("www") == renewed.pair());
    // The source's, renewed between two attempts, is still the source's.
    host.install(&migration(), &world.offer("www", &new)).await.unwrap();
    host.install(&migration(), &world.offer("www", &root.leaf(&["www"]))).await.unwrap();
    host.restore(&migration()).await.unwrap();
    assert!(world.pair("www") == renewed.pair());
}

#[tokio::test]
async fn a_place_that_was_wrong_is_given_up() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let (old, new) = (root.leaf(&["www"]), root.leaf(&["www"]));
    world.lay("wrong", &old);
    let www = section(&world, "www");
    let (certificate, key) = (world.path("wrong.pem"), world.path("wrong.key"));
    let wrong = crate::CertificateSection { certificate, key, ..www.clone() };
    let offered = world.offer("www", &new);
    world.host(vec![wrong]).install(&migration(), &offered).await.unwrap();
    assert!(world.pair("wrong") == new.pair());
    let host = world.host(vec![www]);
    host.install(&migration(), &offered).await.unwrap();
    assert!(world.pair("wrong") == old.pair() && world.pair("www") == new.pair());
    host.restore(&migration()).await.unwrap();
    assert_eq!(world.files(), ["wrong.key", "wrong.pem"]);
}

#[tokio::test]
async fn facts_tell_what_is_wrong() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let facts = async |section| {
        let facts = world.host(vec![section]).facts().await.unwrap().remove(0);
        // Which one it is, is told wherever there is one.
        let digits = facts.fingerprint.map_or(0, |fingerprint| fingerprint.len());
        assert_eq!(digits, if facts.expires.is_some() { 64 } else { 0 });
        (facts.expires.map(|at| (at.seconds - NOW.seconds) / DAY), facts.problem.unwrap_or_default())
    };
    assert_eq!(facts(section(&world, "none")).await, (None, String::new()));
    world.lay("good", &root.leaf(&["www"]));
    assert_eq!(facts(section(&world, "good")).await, (Some(90), String::new()));
    world.mode("good.key", 0o644);
    assert!(facts(section(&world, "good")).await.1.contains("everybody may read its key: chmod o-rwx"));
    world.lay("soon", &root.leaf_of(&rcgen::PKCS_ED25519, &["www"], -DAY, 2 * DAY));
    let soon = facts(section(&world, "soon")).await;
    assert_eq!((soon.0, soon.1.contains("expires within 48 h")), (Some(2), true));
    world.lay("late", &root.leaf_of(&rcgen::PKCS_ED25519, &["www"], -9 * DAY, -DAY));
    let late = facts(section(&world, "late")).await;
    assert_eq!((late.0, late.1.contains("expired at")), (Some(-1), true));
    std::fs::remove_file(world.path("late.key")).unwrap();
    assert!(facts(section(&world, "late")).await.1.contains("there is no key in its place"));
    let mut named = section(&world, "soon");
    named.names = vec!["mail".to_owned()];
    assert!(facts(named).await.1.contains("not good for mail, only for www"));
    std::fs::create_dir(world.path("dir.pem")).unwrap();
    assert!(facts(section(&world, "dir")).await.1.contains("no regular file"));
}

#[tokio::test]
async fn a_target_tells_what_is_in_the_way() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let problem = async |section| {
        let facts = world.host(vec![section]).at_target().facts().await.unwrap().remove(0);
        facts.problem.unwrap_or_default()
    };
    let www = world.reissued("www", &root);
    assert_eq!(problem(www.clone()).await, "");
    // What is there will be replaced.
    world.lay("www", &root.leaf_of(&rcgen::PKCS_ED25519, &["www"], -9 * DAY, -DAY));
    assert_eq!(problem(www.clone()).await, "");
    assert_eq!(problem(section(&world, "www")).await, "");
    let kept = crate::CertificateSection { action: CertificateAction::Keep, ..section(&world, "www") };
    assert!(problem(kept).await.contains("expired at"));
    let mut lost = www.clone();
    lost.certificate = world.path("nowhere/www.pem");
    assert!(problem(lost).await.contains("nothing can be put there"));
    std::fs::remove_file(world.path("ca.key")).unwrap();
    let told = problem(www.clone()).await;
    assert!(told.contains("no new one can be issued") && told.contains("ca.key is not there"), "{told}");
    let mut by_program = section(&world, "www");
    by_program.action = CertificateAction::Reissue;
    by_program.acme_command = vec![world.path("none").display().to_string()];
    by_program.names = vec!["www".to_owned()];
    assert!(problem(by_program.clone()).await.contains("is it installed?"));
    let failure = world.host(vec![by_program]).check(&[]).await.unwrap_err();
    assert!(failure.hint.contains("is it installed?"), "{failure}");
    // What would be taken is not touched by asking.
    let (host, offered) =
        (world.host(vec![section(&world, "www")]), world.offer("www", &root.leaf(&["www"])));
    let before = (world.text("www.pem"), world.files());
    host.check(&offered).await.unwrap();
    assert_eq!((world.text("www.pem"), world.files()), before);
    assert!(!world.path("state").exists());
}

#[tokio::test]
async fn a_damaged_record_stops_it_all() {
    let world = World::new();
    let host = world.host(vec![section(&world, "www")]);
    std::fs::create_dir_all(world.path("state/certificates/m-1")).unwrap();
    for (text, part) in [("{", "damaged"), ("{\"version\":9,\"entries\":{}}", "version 9")] {
        std::fs::write(world.path("state/certificates/m-1/record.json"), text).unwrap();
        let failure = host.restore(&migration()).await.unwrap_err();
        assert!(failure.to_string().contains(part), "{failure}");
    }
}

#[test]
fn a_key_is_never_open_to_others_before_it_is_in_place() {
    let world = World::new();
    let stored = place::Stored { contents: b"key".into(), owner: world.owner(), mode: 0o640, list: None };
    let place = world.path("www.key");
    place::stage(&place, &stored).unwrap();
    let beside = std::fs::metadata(world.path(".www.key.handover")).unwrap();
    assert_eq!(beside.permissions().mode() & 0o007, 0);
}
