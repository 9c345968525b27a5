//! How far a server's replica is behind, as it tells it itself.

use std::time::Duration;

use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use tokio::time::{Instant, timeout};

use crate::replica::status;
use crate::session::{Role, Session};
use crate::settings::Settings;

/// How long it is waited for: the server's own load must not wait for a replica that is gone.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long one that has not told is left alone.
const ALONE: Duration = Duration::from_secs(30);

/// A replica that is asked now and then.
pub struct Beside {
    dataset: DatasetName,
    settings: Settings,
    open: Option<Session>,
    /// It is not asked before.
    not_before: Option<Instant>,
}

impl Beside {
    /// The replica at these settings.
    pub fn new(dataset: DatasetName, settings: Settings) -> Self {
        Self { dataset, settings, open: None, not_before: None }
    }

    /// Seconds that it is behind the server of this number; none where that is not known, or it applies nothing.
    pub async fn lag(&mut self, primary: u64) -> Option<f64> {
        if self.not_before.is_some_and(|when| Instant::now() < when) {
            return None;
        }
        // Also where nobody waits for this to the end.
        self.not_before = Some(Instant::now() + ALONE);
        match timeout(PATIENCE, self.look(primary)).await {
            Ok(Ok(behind)) => {
                self.not_before = None;
                return behind.map(|seconds| seconds as f64);
            }
            Ok(Err(failure)) => tracing::debug!(%failure, "how far the replica is behind is not known"),
            Err(_) => tracing::debug!(dataset = %self.dataset, "the replica does not answer"),
        }
        // One that has failed, or was not waited for to the end, is not used again.
        self.rest();
        None
    }

    async fn look(&mut self, primary: u64) -> Result<Option<u64>> {
        let mut session = match self.open.take() {
            Some(session) => session,
            None => Session::open(&self.dataset, &self.settings, Role::Reader).await?,
        };
        let all = status::slaves(&mut session).await?;
        self.open = Some(session);
        Ok(all.iter().filter(|slave| slave.primary == primary).filter_map(|slave| slave.behind).max())
    }

    /// Closes what is open.
    pub fn rest(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn one_that_was_not_waited_for_to_the_end_is_left_alone() {
        // It takes connections, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("mariadb://root@127.0.0.1:{}/shop", silent.local_addr().unwrap().port());
        let mut beside = Beside::new("shop".parse().unwrap(), Settings::parse(&url).unwrap());
        timeout(PATIENCE / 7, beside.lag(1)).await.unwrap_err();
        assert_eq!(timeout(PATIENCE / 7, beside.lag(1)).await, Ok(None), "it is asked again at once");
    }
}
