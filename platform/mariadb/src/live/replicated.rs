//! What a server applies as a replica itself. Its row events fire no triggers, so that they pass the fence.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;

use crate::replica::status;
use crate::session::Session;

const WHAT: &str = "it cannot be asked what it replicates";
/// How to let nothing pass.
pub const FIX: &str = "STOP ALL SLAVES there, once nobody writes at its primary any more; START ALL SLAVES has it go on, should the \
    cut-over be called off";

/// Whether a thread applies what a primary sends. Every account may ask that.
pub async fn applies(session: &mut Session) -> Result<bool> {
    let running = session.record(WHAT, "SHOW GLOBAL STATUS LIKE 'Slaves_running'").await?;
    Ok(running.number(1) > 0)
}

/// Whose changes it applies, as far as the account may know (REPLICA MONITOR).
async fn primaries(session: &mut Session) -> String {
    let all = status::slaves(session).await.unwrap_or_default();
    let names: Vec<String> = all.iter().filter(|slave| slave.applies).map(status::Slave::of).collect();
    if names.is_empty() { "its primary".to_owned() } else { names.join(", ") }
}

/// What is told of a server that applies what its primary sends; nothing of any other.
pub async fn found(session: &mut Session) -> Result<Option<String>> {
    if !applies(session).await? {
        return Ok(None);
    }
    let from = primaries(session).await;
    Ok(Some(format!("it is a replica, and applies what {from} sends: no fence stops that")))
}

/// Refuses a server that applies what its primary sends: a fence does not stop that.
pub async fn refuse(session: &mut Session) -> Result<()> {
    match found(session).await? {
        Some(what) => Err(Failure::operator(session.item().to_owned(), what).hint(FIX)),
        None => Ok(()),
    }
}

/// The failure of a replica that was started again behind its fence.
pub async fn passed(session: &mut Session) -> Failure {
    let from = primaries(session).await;
    let what = format!(
        "it is a replica that was started again behind the fence, which does not stop what {from} sends"
    );
    Failure::operator(session.item().to_owned(), what).hint(FIX)
}
