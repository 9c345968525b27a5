use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;

/// Notes what is reloaded.
#[derive(Default)]
struct Reloads(Mutex<Vec<String>>);

#[async_trait]
impl Reloader for Reloads {
    async fn reload(&self, unit: &str) -> Result<()> {
        self.0.lock().unwrap().push(unit.to_owned());
        Ok(())
    }
}

struct Host {
    dir: tempfile::TempDir,
    reloads: Arc<Reloads>,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), reloads: Arc::default() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("label.conf")
    }

    /// Its label, as an agent that has just started sees it.
    fn label(&self, text: &str) -> LocalLabel {
        let section = LabelSection {
            text: text.to_owned(),
            file: Some(self.file()),
            template: "header \"{label}\";".to_owned(),
            mode: 0o640,
            reload: vec!["web.service".to_owned()],
        };
        LocalLabel::new(Some(section), &self.dir.path().join("state"), self.reloads.clone())
    }

    fn shown(&self) -> Option<String> {
        fs::read_to_string(self.file()).ok()
    }
}

fn m(number: u32) -> MigrationId {
    format!("m-{number}").parse().unwrap()
}

#[tokio::test]
async fn it_is_shown_and_taken_away_and_that_is_no_less_twice() {
    let host = Host::new();
    for _ in 0..2 {
        host.label("Try me").show(&m(1)).await.unwrap();
        assert_eq!(host.shown().as_deref(), Some("header \"Try me\";\n"));
        assert!(host.label("Try me").is_known(&m(1)).await.unwrap());
    }
    assert_eq!(fs::metadata(host.file()).unwrap().permissions().mode() & 0o777, 0o640);
    let facts = host.label("Try me").facts().await.unwrap().unwrap();
    assert_eq!((facts.text.as_str(), facts.problem), ("Try me", None));
    // The manifest has been changed since.
    host.label("Other").show(&m(1)).await.unwrap();
    assert_eq!(host.shown().as_deref(), Some("header \"Other\";\n"));
    for _ in 0..2 {
        host.label("Third").take_away(&m(1)).await.unwrap();
        assert_eq!(host.shown(), None);
    }
    assert!(host.label("x").is_known(&m(1)).await.unwrap(), "it is known until it is forgotten");
    for _ in 0..2 {
        host.label("x").forget(&m(1)).await.unwrap();
        assert!(!host.label("x").is_known(&m(1)).await.unwrap());
    }
    assert_eq!(host.reloads.0.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn what_was_cut_short_is_known_for_ours() {
    let host = Host::new();
    let label = host.label("Try me");
    label.show(&m(1)).await.unwrap();
    // Cut short after the record, before the file; and once more in the middle of a write.
    fs::remove_file(host.file()).unwrap();
    fs::write(host.dir.path().join(".label.conf.handover"), "head").unwrap();
    label.show(&m(1)).await.unwrap();
    assert_eq!(host.shown().as_deref(), Some("header \"Try me\";\n"));
    // An earlier migration could not take its own away.
    label.show(&m(2)).await.unwrap();
    label.take_away(&m(2)).await.unwrap();
    label.take_away(&m(1)).await.unwrap();
    assert_eq!(host.shown(), None);
}

#[tokio::test]
async fn what_is_not_ours_stays() {
    let host = Host::new();
    fs::write(host.file(), "mine\n").unwrap();
    let label = host.label("Try me");
    let problem = label.facts().await.unwrap().unwrap().problem.unwrap();
    assert!(problem.contains("another file stands there already"), "{problem}");
    let refused = label.show(&m(1)).await.unwrap_err();
    assert!(refused.hint.contains("name another file"), "{refused}");
    assert_eq!(host.shown().as_deref(), Some("mine\n"));
    assert!(!label.is_known(&m(1)).await.unwrap());

    fs::remove_file(host.file()).unwrap();
    label.show(&m(1)).await.unwrap();
    fs::write(host.file(), "header \"Try me\"; # and mine\n").unwrap();
    let refused = label.take_away(&m(1)).await.unwrap_err().to_string();
    assert!(refused.contains("somebody has changed it"), "{refused}");
    assert!(host.shown().is_some());
    fs::remove_file(host.file()).unwrap();
    label.take_away(&m(1)).await.unwrap();
}

#[tokio::test]
async fn without_a_file_hooks_alone_show_it() {
    let host = Host::new();
    let state = host.dir.path().join("state");
    let label = LocalLabel::new(Some(LabelSection::default()), &state, host.reloads.clone());
    assert_eq!(label.facts().await.unwrap().unwrap().text, "Warning: Migration Environment.");
    label.show(&m(1)).await.unwrap();
    assert!(label.is_known(&m(1)).await.unwrap());
    label.take_away(&m(1)).await.unwrap();
    let none = LocalLabel::new(None, &host.dir.path().join("other"), host.reloads.clone());
    assert_eq!(none.facts().await.unwrap(), None);
    none.show(&m(1)).await.unwrap();
    assert!(!none.is_known(&m(1)).await.unwrap());
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_told_before() {
    let host = Host::new();
    let file = Some(host.dir.path().join("none/label"));
    let section = LabelSection { file, ..LabelSection::default() };
    let label = LocalLabel::new(Some(section), host.dir.path(), host.reloads.clone());
    let problem = label.facts().await.unwrap().unwrap().problem.unwrap();
    assert!(problem.contains("/none cannot be written to"), "{problem}");
}
