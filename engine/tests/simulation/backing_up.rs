//! A backup that a plan has made, while somebody pauses, aborts, or lets the agent end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use handover_engine::backup::{Backup, FORMAT, Host, Occasion};
use handover_engine::driver::{Driver, Handle, Settings};
use handover_engine::journal::{Journal, Migration};
use handover_engine::phase::{Operation, Phase};
use handover_engine::plan::{PlannedStep, StepKind};
use handover_engine::ports::backups::{Order, Standing};
use handover_engine::ports::{Backups, Result};
use handover_engine::progress::StepState;
use handover_engine::report::Terms;
use handover_engine::time::Timestamp;
use tokio_util::sync::CancellationToken;

use super::world::{Port, World};
use super::{migration, ports};

/// A host that makes its backup for as long as it is let, and notes what is asked of it.
#[derive(Default)]
struct Slow {
    asked: Mutex<Vec<&'static str>>,
    is_done: Mutex<bool>,
}

impl Slow {
    fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Backups for Slow {
    async fn begin(&self, _: &Order) -> Result<()> {
        self.asked.lock().unwrap().push("begin");
        Ok(())
    }

    async fn standing(&self, order: &Order) -> Result<Standing> {
        if !*self.is_done.lock().unwrap() {
            return Ok(Standing::Running { bytes: 1 });
        }
        let backup = Backup {
            format: FORMAT,
            id: order.id().clone(),
            made_at: Timestamp::default(),
            occasion: Occasion::Start,
            migration: None,
            host: "source".to_owned(),
            datasets: Vec::new(),
            absent: Vec::new(),
        };
        Ok(Standing::Made { backup: Box::new(backup) })
    }

    async fn cancel(&self, _: &Order) -> Result<()> {
        self.asked.lock().unwrap().push("cancel");
        Ok(())
    }
}

fn backed_up() -> Migration {
    let mut migration = migration();
    let step = PlannedStep { step: StepKind::BackUp(Host::Source), ..migration.plan.steps[0].clone() };
    migration.plan.steps = vec![step];
    migration
}

/// Drives it at a source that backs itself up so.
async fn drive(
    backups: &Arc<Slow>,
    stop: &CancellationToken,
) -> (tokio::task::JoinHandle<Result<()>>, Handle) {
    let mut world = World::new(1);
    world.quiet = true;
    let port = Port { world: Arc::new(Mutex::new(world)), crashed: Arc::default(), life: 0 };
    let migration = backed_up();
    port.create(&migration).await.unwrap();
    let mut ports = ports(&port);
    ports.source = ports.source.with_backups(backups.clone());
    let (driver, handle) = Driver::new(ports, Settings::default(), migration, 0, stop.clone());
    let driver = tokio::spawn(driver.run());
    makes(&handle).await;
    (driver, handle)
}

async fn makes(handle: &Handle) {
    let mut status = handle.status();
    let runs = status.wait_for(|now| {
        now.progress.steps.iter().any(|step| step.state == StepState::Running && step.bytes > 0)
    });
    runs.await.expect("it is being made");
}

async fn ask(handle: &Handle, operation: Operation) {
    handle.ask(operation, Terms::default(), "operator").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_pauses_or_aborts_ends_it() {
    let (backups, stop) = (Arc::default(), CancellationToken::new());
    let (driver, handle) = drive(&backups, &stop).await;
    ask(&handle, Operation::Pause).await;
    assert_eq!(backups.asked(), ["begin", "cancel"], "it goes on while the migration is paused");
    ask(&handle, Operation::Resume).await;
    while backups.asked().len() < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ask(&handle, Operation::Abort).await;
    driver.await.unwrap().unwrap();
    assert_eq!(backups.asked(), ["begin", "cancel", "begin", "cancel"]);
    assert_eq!(handle.status().borrow().state.phase, Phase::Aborted);
}

#[tokio::test(start_paused = true)]
async fn it_outlives_the_agent_and_is_left_alone_once_it_is_made() {
    let (backups, stop) = (Arc::default(), CancellationToken::new());
    let (driver, _handle) = drive(&backups, &stop).await;
    stop.cancel();
    driver.await.unwrap().unwrap();
    assert_eq!(backups.asked(), ["begin"], "the agent that is started again asks after it");

    let stop = CancellationToken::new();
    let (driver, handle) = drive(&backups, &stop).await;
    *backups.is_done.lock().unwrap() = true;
    let mut status = handle.status();
    status.wait_for(|now| now.state.phase == Phase::Following).await.unwrap();
    ask(&handle, Operation::Abort).await;
    driver.await.unwrap().unwrap();
    assert_eq!(backups.asked(), ["begin", "begin"]);
}
