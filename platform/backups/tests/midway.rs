//! What is asked of a host while it works on a backup: to end it, or to let itself be read.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use handover_backups::{Guard, Tools};
use handover_engine::failure::Class;
use handover_engine::name::DatasetName;
use handover_engine::ports::backups::Standing;
use handover_engine::ports::changeover::Changeover;
use handover_engine::ports::hooks::{Hooks, Moment, NoHooks, Occasion};
use handover_engine::ports::{Backups, ChangeSource, Parts, SourceHost, TreeSource};
use handover_platform::SystemClock;
use handover_platform::hooks::note::Noting;
use handover_platform::manifest::Manifest;
use handover_platform::source::{CaptureLimits, LocalSource};
use handover_tests::appliance::{Appliance, Spec};
use handover_tests::poll;

use support::{Host, make, restore, sqlite, tree};

/// How long something may take to begin, or to end.
const WITHIN: Duration = Duration::from_secs(30);

/// A host with an appliance, and a backup of it.
async fn stage(seed: u64) -> (Host, Appliance) {
    let dir = tempfile::tempdir().unwrap();
    let appliance = Appliance::make(&dir.path().join("own"), &Spec::small(seed)).unwrap();
    let datasets = vec![sqlite("app", &appliance.database), tree("files", &appliance.files, &[])];
    let host = Host::new(dir, datasets);
    host.make("whole").await.unwrap();
    (host, appliance)
}

/// Tools of which `tar` with this argument says that it has begun, and then hangs for as long as the file `hang` is there.
fn hanging(dir: &Path, wanted: &str) -> Tools {
    let (programs, place) = (dir.join("programs"), dir.display());
    fs::create_dir(&programs).unwrap();
    fs::write(dir.join("hang"), "").unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in {wanted}) touch '{place}/reached'; while [ -e '{place}/hang' ]; do sleep 0.02; done;; esac\n\
         exec /usr/bin/tar \"$@\"\n"
    );
    fs::write(programs.join("tar"), script).unwrap();
    fs::set_permissions(programs.join("tar"), fs::Permissions::from_mode(0o755)).unwrap();
    Tools::within(vec![programs, "/usr/bin".into(), "/bin".into()])
}

async fn reached(host: &Host) {
    let file = host.dir.path().join("reached");
    let wait = tokio::task::spawn_blocking(move || {
        poll::until("the tool to begin", WITHIN, || Ok(file.exists().then_some(()))).unwrap();
    });
    wait.await.unwrap();
}

#[tokio::test]
async fn a_backup_that_is_cancelled_leaves_nothing_and_is_made_again() {
    let (mut host, _) = stage(214).await;
    host.restart(hanging(host.dir.path(), "--create")).await;
    let (backups, place) = (host.backups.clone(), host.place());
    let (first, waiting) = (make("b-1"), make("b-2"));
    backups.begin(&first).await.unwrap();
    reached(&host).await;
    assert!(place.join("b-1.partial").exists());
    // One that waits for its turn ends at once, and one that is worked on with its tool.
    backups.begin(&waiting).await.unwrap();
    for order in [&waiting, &first, &first, &make("unknown"), &make("whole")] {
        let ended = tokio::time::timeout(WITHIN, backups.cancel(order)).await;
        ended.expect("it does not end").unwrap();
    }
    for order in [&waiting, &first] {
        let standing = backups.standing(order).await.unwrap();
        assert!(matches!(&standing, Standing::Failed { failure } if failure.is_transient()), "{standing:?}");
    }
    assert!(!place.join("b-1.partial").exists(), "half a backup is left");
    let left: Vec<_> = host.list().await.backups.into_iter().map(|one| one.id.to_string()).collect();
    assert_eq!(left, ["whole"]);
    fs::remove_file(host.dir.path().join("hang")).unwrap();
    host.make("b-1").await.unwrap();
    let refused = backups.cancel(&restore("b-1", None)).await.unwrap_err();
    assert!(refused.what.contains("goes on to its end"), "{refused}");
}

#[tokio::test]
async fn what_is_being_restored_is_not_copied_from() {
    let (mut host, appliance) = stage(215).await;
    host.restart(hanging(host.dir.path(), "--extract")).await;
    let (state, manifest) = (host.dir.path().join("state"), host.dir.path().join("appliance.toml"));
    fs::create_dir(&state).unwrap();
    let text = format!(
        "[appliance]\nname = \"shop\"\n[[database]]\nname = \"app\"\nurl = \"sqlite:{}\"\n[[files]]\nname = \"files\"\nroot = \"{}\"\n",
        appliance.database.display(),
        appliance.files.display()
    );
    fs::write(&manifest, text).unwrap();
    let manifest = Manifest::read(&manifest).unwrap();
    let (limits, clock) = (CaptureLimits::default(), Arc::new(SystemClock));
    let source = LocalSource::new(&manifest, &state, WITHIN, limits, clock, Changeover::default()).unwrap();
    let guard: Guard = Arc::new({
        let backups = host.backups.clone();
        move || backups.refuse_while_restoring()
    });
    source.guarded_by(guard.clone());
    let hooks = Noting::new(&state, Arc::new(NoHooks)).guarded_by(guard);
    let (app, files): (DatasetName, DatasetName) = ("app".parse().unwrap(), "files".parse().unwrap());
    let asked = async |n: u32| {
        let lease = format!("l-{n}").parse().unwrap();
        let begins = Occasion { migration: "m-1".parse().unwrap(), moment: Moment::BeforeStart, at: None };
        [
            source.open(&lease, &app, Parts::Whole).await.err(),
            source.begin(&app, &format!("c{n}").parse().unwrap()).await.err(),
            source.scan(&files).await.err(),
            hooks.run(&begins).await.err(),
        ]
    };
    host.backups.begin(&restore("whole", Some("files"))).await.unwrap();
    reached(&host).await;
    for refused in asked(1).await {
        let refused = refused.expect("it goes on");
        assert_eq!((refused.class, refused.item.as_str()), (Class::NeedsOperator, "backup whole"));
        assert!(refused.what.contains("is being restored"), "{refused}");
    }
    assert!(!state.join("migration").exists(), "it is noted that a migration goes on");
    fs::remove_file(host.dir.path().join("hang")).unwrap();
    host.restore("whole", Some("files")).await.unwrap();
    assert_eq!(asked(2).await, [None, None, None, None]);
}
