//! `[hooks]` and `[[hook]]`: what a host runs at certain moments of a migration.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use handover_engine::ports::hooks::Moment;
use serde::{Deserialize, Deserializer};

/// No hook may take longer.
const LONGEST_SECONDS: u64 = 24 * 3600;

/// `[hooks]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HooksSection {
    /// The directory that the executables lie in, absolute.
    pub directory: PathBuf,
}

impl Default for HooksSection {
    fn default() -> Self {
        Self { directory: PathBuf::from("/etc/handover/hooks.d") }
    }
}

/// `[[hook]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookSection {
    /// The executable's name in the directory. Hooks run in the order of their names.
    pub name: String,
    /// When it runs.
    #[serde(deserialize_with = "moments")]
    pub moments: Vec<Moment>,
    /// What its failure leads to.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How long it may take, in seconds.
    #[serde(default = "default_seconds")]
    pub seconds: u64,
}

/// What a failing hook leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// What comes next does not happen, where it still can be stopped.
    #[default]
    Stop,
    /// It is noted.
    Warn,
}

fn default_seconds() -> u64 {
    60
}

fn moments<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<Moment>, D::Error> {
    let names = Vec::<String>::deserialize(value)?;
    names.iter().map(|name| name.parse().map_err(serde::de::Error::custom)).collect()
}

impl HookSection {
    /// How long it may take.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What makes no sense, as [`super::Manifest`] tells it.
pub(super) fn check(
    section: &HooksSection,
    hooks: &[HookSection],
) -> Result<(), (&'static str, String, String)> {
    let mut names = HashSet::new();
    for hook in hooks {
        let refuse = |problem: &str| Err(("hook", hook.name.clone(), problem.to_owned()));
        if !section.directory.is_absolute() {
            return refuse("`hooks.directory`: write an absolute path");
        }
        if hook.name.is_empty() || hook.name.starts_with('.') || hook.name.contains(['/', '\0']) {
            return refuse("`name`: write the name of an executable in `hooks.directory`, without a path");
        }
        if !names.insert(&hook.name) {
            return refuse("the name is used twice");
        }
        if hook.moments.is_empty() {
            return refuse("`moments`: write at least one");
        }
        if !(1..=LONGEST_SECONDS).contains(&hook.seconds) {
            return refuse("`seconds`: write 1 to 86400");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    const HOOK: &str = "[appliance]\nname = 'mail'\n[hooks]\ndirectory = '/opt/hooks'\n[[hook]]\nname = '10-page'\nmoments = ['before-fence']\n";

    fn read(text: &str) -> Result<Manifest, String> {
        let manifest: Manifest = toml::from_str(text).map_err(|e| e.to_string())?;
        manifest.check().map_err(|(section, name, problem)| format!("[[{section}]] `{name}`: {problem}"))?;
        Ok(manifest)
    }

    #[test]
    fn hooks_are_read() {
        let manifest = read(HOOK).unwrap();
        let hook = &manifest.hook[0];
        assert_eq!((hook.on_failure, hook.limit()), (OnFailure::Stop, Duration::from_secs(60)));
        assert_eq!(hook.moments, [Moment::BeforeFence]);
        let warns = read(&format!("{HOOK}on_failure = 'warn'\nseconds = 5\n")).unwrap();
        assert_eq!((warns.hook[0].on_failure, warns.hook[0].seconds), (OnFailure::Warn, 5));
        assert_eq!(HooksSection::default().directory, PathBuf::from("/etc/handover/hooks.d"));
    }

    #[test]
    fn bad_ones_are_refused_by_name() {
        for (text, part) in [
            (HOOK.replace("before-fence", "before-lunch"), "`before-lunch` is no moment"),
            (HOOK.replace("'before-fence'", ""), "`10-page`: `moments`"),
            (HOOK.replace("10-page", "../page"), "without a path"),
            (HOOK.replace("10-page", ".page"), "without a path"),
            (HOOK.replace("/opt", "opt"), "`hooks.directory`: write an absolute path"),
            (format!("{HOOK}seconds = 0"), "`seconds`"),
            (format!("{HOOK}on_failure = 'ignore'"), "ignore"),
            (format!("{HOOK}command = 'x'"), "command"),
            (format!("{HOOK}[[hook]]\nname = '10-page'\nmoments = ['notice']"), "used twice"),
        ] {
            let told = read(&text).unwrap_err();
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
