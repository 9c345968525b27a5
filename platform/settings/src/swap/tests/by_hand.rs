//! A swap taken back by hand.

use super::super::by_hand::take_back_on;
use super::*;

impl Host {
    async fn confirmed() -> Self {
        let host = Self::armed().await;
        host.machine.boot();
        host.swap().met(&migration()).await.unwrap();
        host.swap().confirm(&migration()).await.unwrap();
        assert_eq!((host.standing().await, host.address()), (SwapStanding::Confirmed, "new".into()));
        host
    }

    async fn take_back(&self, disk: Disk) -> Result<bool> {
        take_back_on(disk, &self.state(), self.machine.clone(), self.machine.clone()).await
    }

    async fn is_its_own(&self, boots: usize) {
        assert_eq!((self.standing().await, self.address()), (SwapStanding::RolledBack, "own".into()));
        assert_eq!(self.machine.boots(), boots);
    }
}

#[tokio::test]
async fn a_host_has_its_own_settings_again_and_is_rebooted_once() {
    for host in [Host::armed().await, Host::confirmed().await] {
        let before = host.machine.boots();
        assert!(host.take_back(Disk::default()).await.unwrap());
        host.is_its_own(before + 1).await;
        assert!(!host.take_back(Disk::default()).await.unwrap());
        // The migration goes on from there.
        host.swap().reboot(&migration()).await.unwrap();
        host.watch().await.unwrap().unwrap();
        host.is_its_own(before + 1).await;
        assert!(!host.is_marked());
    }
    let host = Host::new();
    host.stage().await;
    assert!(!host.take_back(Disk::default()).await.unwrap());
    assert_eq!((host.standing().await, host.address()), (SwapStanding::Own, "own".into()));
}

#[tokio::test]
async fn it_is_cut_at_every_step() {
    let mut step = 0;
    loop {
        let host = Host::confirmed().await;
        let (disk, is_over) = ending_at(step);
        let cut = host.take_back(disk).await;
        assert_eq!(cut.is_err(), is_over.load(Ordering::SeqCst), "step {step}: {cut:?}");
        host.take_back(Disk::default()).await.unwrap();
        host.is_its_own(2).await;
        if cut.is_ok() {
            break;
        }
        step += 1;
    }
    assert!(step > 5, "{step}");
}

#[tokio::test]
async fn a_reboot_that_fails_is_asked_for_by_the_watch() {
    let host = Host::confirmed().await;
    host.machine.is_stuck.store(true, Ordering::SeqCst);
    assert!(host.take_back(Disk::default()).await.is_err());
    assert!(host.is_marked());
    host.watch().await.unwrap().unwrap();
    host.is_its_own(2).await;
}
