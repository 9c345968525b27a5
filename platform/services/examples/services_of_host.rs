//! Does to this host's services what is named, as an agent would: for trying them against a systemd that runs.
//!
//!     services_of_host MANIFEST STATE_DIRECTORY facts | stop MIGRATION [SECONDS] | hold MIGRATION | start MIGRATION
//!         | release MIGRATION | put-back MIGRATION | forget MIGRATION | watch | reload UNIT | reboot
//!
//! MANIFEST holds `[[service]]` and nothing else. `watch` ends the leases that are over, and says so.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use handover_engine::name::MigrationId;
use handover_engine::ports::changeover::Services;
use handover_services::{LocalServices, ServiceSection, Systemd, section};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(default)]
    service: Vec<ServiceSection>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [manifest, state, act, rest @ ..] = words.as_slice() else { return Err("see its head".into()) };
    let Manifest { service } = toml::from_str(&std::fs::read_to_string(manifest)?)?;
    section::check(&service)
        .map_err(|(section, name, problem)| format!("[[{section}]] `{name}`: {problem}"))?;
    let systemd = Arc::new(Systemd::new());
    let services = LocalServices::new(service, Path::new(state), systemd.clone()).at_target();
    let migration =
        || -> Result<MigrationId, Box<dyn Error>> { Ok(rest.first().ok_or("which migration?")?.parse()?) };
    let began = Instant::now();
    let done = match act.as_str() {
        "facts" => services.facts().await.map(|facts| facts.iter().for_each(|fact| println!("{fact:?}"))),
        "stop" => {
            let lease = rest.get(1).map(|seconds| seconds.parse().map(Duration::from_secs)).transpose()?;
            services.stop(&migration()?, lease).await
        }
        "hold" => services.hold(&migration()?).await,
        "start" => services.start(&migration()?).await,
        "release" => services.release(&migration()?).await,
        "put-back" => services.put_back(&migration()?).await,
        "forget" => services.forget(&migration()?).await,
        "watch" => {
            let on_end = async |migration: MigrationId| {
                println!("ended {migration}");
                Ok(())
            };
            match services.end_stale_leases(on_end).await {}
        }
        "reload" => systemd.reload_or_try_restart(rest.first().ok_or("which unit?")?).await,
        "reboot" => systemd.reboot().await,
        other => return Err(format!("`{other}` is nothing that can be done").into()),
    };
    match done {
        Ok(()) => println!("done in {} ms", began.elapsed().as_millis()),
        Err(failure) => return Err(format!("{:?}: {failure}", failure.class).into()),
    }
    Ok(())
}
