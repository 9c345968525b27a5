//! Cut short at every step, and done again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use handover_engine::changeover::CertificateMaterial;
use handover_engine::ports::changeover::Certificates;

use super::world::{World, migration, section};
use crate::minted::{Ca, Minted};
use crate::{CertificateSection, LocalCertificates};

/// Ends the act before its step number `at`, as a killed process would: nothing is cleared up behind it.
fn cut_at(host: LocalCertificates, at: usize) -> LocalCertificates {
    let steps = AtomicUsize::new(0);
    host.cut_by(Arc::new(move |step| {
        if steps.fetch_add(1, Ordering::SeqCst) == at { Err(std::io::Error::other(step)) } else { Ok(()) }
    }))
}

struct Case {
    name: &'static str,
    world: World,
    sections: Vec<CertificateSection>,
    offered: Vec<CertificateMaterial>,
    old: Option<Minted>,
}

impl Case {
    fn lay(&self) {
        for section in &self.sections {
            let _ = std::fs::remove_file(&section.certificate);
            let _ = std::fs::remove_file(&section.key);
            let Some(old) = &self.old else { continue };
            if section.certificate == section.key {
                std::fs::write(&section.key, format!("{}{}", old.key, old.chain)).unwrap();
                self.world.mode(&format!("{}.pem", section.name), 0o600);
            } else {
                self.world.lay(&section.name, old);
            }
        }
    }

    fn host(&self) -> LocalCertificates {
        self.world.host(self.sections.clone())
    }

    /// What lies in the files, and with which mode.
    fn seen(&self) -> Vec<(String, Vec<u8>, u32)> {
        let seen = |name: String| {
            let bytes = std::fs::read(self.world.path(&name)).unwrap();
            let mode = self.world.mode_of(&name);
            (name, bytes, mode)
        };
        self.world.files().into_iter().map(seen).collect()
    }
}

fn cases() -> Vec<Case> {
    let root = Ca::root("Root");
    let (old, new) = (root.leaf(&["www"]), root.leaf(&["www"]));
    let case = |name, is_combined: bool, is_reissued: bool, old: Option<&Minted>| {
        let world = World::new();
        let mut www = if is_reissued { world.reissued("www", &root) } else { section(&world, "www") };
        if is_combined {
            www.key.clone_from(&www.certificate);
        }
        let offered = [world.offer("www", &new), world.offer("mail", &new)].concat();
        let sections = vec![www, section(&world, "mail")];
        Case { name, sections, offered, old: old.cloned(), world }
    };
    vec![
        case("two files", false, false, Some(&old)),
        case("one file", true, false, Some(&old)),
        case("nothing there", false, false, None),
        case("issued here", false, true, Some(&old)),
    ]
}

#[tokio::test]
async fn an_install_that_was_cut_short_is_done_again_or_undone() {
    for case in cases() {
        let mut cuts = 0;
        for at in 0.. {
            case.lay();
            let before = case.seen();
            let cut = cut_at(case.host(), at).install(&migration(), &case.offered).await;
            let is_done = cut.is_ok();
            // Undone from there, ...
            case.host().restore(&migration()).await.unwrap();
            assert!(case.seen() == before, "{}: undone after step {at}", case.name);
            // ... done after that, and undone again.
            case.host().install(&migration(), &case.offered).await.unwrap();
            let after = case.seen();
            assert!(after != before);
            case.host().restore(&migration()).await.unwrap();
            assert!(case.seen() == before, "{}: undone after all, {at}", case.name);
            case.host().forget(&migration()).await.unwrap();
            // Done again from there.
            let cut = cut_at(case.host(), at).install(&migration(), &case.offered).await;
            assert_eq!(cut.is_ok(), is_done);
            case.host().install(&migration(), &case.offered).await.unwrap();
            for section in &case.sections {
                let read = |path| std::fs::read(path).unwrap();
                let pair = crate::Pair::read(&read(&section.certificate), &read(&section.key)).unwrap();
                crate::checked::keys_match(&pair).unwrap();
            }
            assert_eq!(case.seen().len(), after.len(), "{}: nothing is left beside, {at}", case.name);
            case.host().restore(&migration()).await.unwrap();
            assert!(case.seen() == before, "{}: done and undone after step {at}", case.name);
            case.host().forget(&migration()).await.unwrap();
            if is_done {
                break;
            }
            cuts += 1;
        }
        // Two for the record; per file, one for writing it and two for putting it in place.
        let files = if case.name == "one file" { 3 } else { 4 };
        assert_eq!(cuts, 2 + 3 * files, "{}", case.name);
    }
}

#[tokio::test]
async fn a_restore_that_was_cut_short_is_done_again() {
    for case in cases() {
        let mut cuts = 0;
        for at in 0.. {
            case.lay();
            let before = case.seen();
            case.host().install(&migration(), &case.offered).await.unwrap();
            let is_done = cut_at(case.host(), at).restore(&migration()).await.is_ok();
            case.host().restore(&migration()).await.unwrap();
            assert!(case.seen() == before, "{}: after step {at}", case.name);
            case.host().forget(&migration()).await.unwrap();
            if is_done {
                break;
            }
            cuts += 1;
        }
        assert!(cuts >= 6, "{}: {cuts}", case.name);
    }
}

#[tokio::test]
async fn what_was_issued_before_the_cut_is_what_is_put_in_place() {
    let (world, root) = (World::new(), Ca::root("Root"));
    let mut www = world.reissued("www", &root);
    www.names = vec!["www".to_owned()];
    let host = || world.host(vec![www.clone()]);
    // Cut after the key was put in place.
    assert!(cut_at(host(), 4).install(&migration(), &[]).await.is_err());
    let key = world.text("www.key");
    assert!(!world.path("www.pem").exists());
    host().install(&migration(), &[]).await.unwrap();
    assert_eq!(world.text("www.key"), key);
    crate::checked::keys_match(&world.pair("www")).unwrap();
}

#[tokio::test]
async fn a_place_that_cannot_be_written_to_keeps_what_it_has() {
    let case = cases().remove(0);
    case.lay();
    let before = case.seen();
    // Whatever the agent may do, a directory stands where it would write.
    std::fs::create_dir(case.world.path(".www.pem.handover")).unwrap();
    let failure = case.host().install(&migration(), &case.offered).await.unwrap_err();
    assert!(failure.to_string().starts_with("certificate www: it cannot be put in place"), "{failure}");
    std::fs::remove_dir(case.world.path(".www.pem.handover")).unwrap();
    assert!(case.seen() == before);
    case.host().install(&migration(), &case.offered).await.unwrap();
    case.host().restore(&migration()).await.unwrap();
    assert!(case.seen() == before);
}

/// Says to a test's second process where it works, and at which step it ends itself.
const SECOND_IN: &str = "HANDOVER_TEST_SECOND_IN";
const KILLED_AT: &str = "HANDOVER_TEST_KILLED_AT";

/// The one that runs is this very test, once more: it kills itself while it installs.
#[tokio::test]
async fn an_agent_that_was_killed_leaves_what_can_be_done_again() {
    let own = concat!(module_path!(), "::an_agent_that_was_killed_leaves_what_can_be_done_again");
    let own = own.split_once("::").unwrap().1;
    let root = Ca::root("Root");
    if let Ok(at) = std::env::var(KILLED_AT) {
        let world = World::at(std::env::var_os(SECOND_IN).unwrap().as_ref());
        let (steps, at) = (AtomicUsize::new(0), at.parse::<usize>().unwrap());
        let host = world.host(vec![section(&world, "www")]).cut_by(Arc::new(move |_| {
            if steps.fetch_add(1, Ordering::SeqCst) == at {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
            }
            Ok(())
        }));
        host.install(&migration(), &world.offer("www", &world.minted("offered"))).await.unwrap();
        return;
    }
    let (world, old) = (World::new(), root.leaf(&["www"]));
    let mut killed = 0;
    for at in 0.. {
        world.lay("www", &old);
        world.lay("offered", &root.leaf(&["www"]));
        let mut second = tokio::process::Command::new(std::env::current_exe().unwrap());
        second.args(["--exact", own]).env(SECOND_IN, world.path("")).env(KILLED_AT, at.to_string());
        let ended = second.kill_on_drop(true).output().await.unwrap().status;
        let host = world.host(vec![section(&world, "www")]);
        host.restore(&migration()).await.unwrap();
        assert_eq!((world.text("www.pem"), world.text("www.key")), (old.chain.clone(), old.key.clone()));
        host.install(&migration(), &world.offer("www", &world.minted("offered"))).await.unwrap();
        assert!(world.pair("www") == world.pair("offered"), "killed at step {at}");
        assert_eq!(world.files().len(), 4, "{:?}", world.files());
        host.forget(&migration()).await.unwrap();
        if ended.success() {
            break;
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
        killed += 1;
    }
    assert_eq!(killed, 8);
}

/// The one that runs is this very test, once more: it may write files of 512 bytes, and finds the disk full then.
#[tokio::test]
async fn a_full_disk_leaves_all_as_it_was() {
    let own = concat!(module_path!(), "::a_full_disk_leaves_all_as_it_was").split_once("::").unwrap().1;
    if let Some(place) = std::env::var_os(SECOND_IN) {
        let world = World::at(place.as_ref());
        let host = world.host(vec![section(&world, "www")]);
        let failure = host.install(&migration(), &world.offer("www", &world.minted("offered"))).await;
        let told = failure.unwrap_err().to_string();
        assert!(told.contains("kept of them for this migration") && told.contains("too large"), "{told}");
        return;
    }
    let (world, root) = (World::new(), Ca::root("Root"));
    let old = root.leaf(&["www"]);
    world.lay("www", &old);
    world.lay("offered", &root.leaf(&["www"]));
    for has_record in [false, true] {
        let mut second = tokio::process::Command::new("sh");
        second.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact \"$1\""]);
        second.arg(std::env::current_exe().unwrap()).arg(own).env(SECOND_IN, world.path(""));
        let output = second.kill_on_drop(true).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(world.pair("www") == old.pair());
        let kept = std::fs::read_dir(world.path("state/certificates/m-1")).unwrap().count();
        assert_eq!(kept, usize::from(has_record));
        let host = world.host(vec![section(&world, "www")]);
        host.install(&migration(), &world.offer("www", &world.minted("offered"))).await.unwrap();
        host.restore(&migration()).await.unwrap();
        assert_eq!((world.text("www.pem"), world.text("www.key")), (old.chain.clone(), old.key.clone()));
    }
}
