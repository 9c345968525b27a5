//! What the source's databases keep for those who follow them, and for how long: a target that never comes back must not fill
//! the source's disk. In a file, so that an agent that is started again still knows whose it was.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handover_engine::failure::Failure;
use handover_engine::name::{CaptureId, DatasetName};
use handover_engine::ports::Result;
use handover_engine::time::Clock;
use serde::{Deserialize, Serialize};

/// The file, in the agent's state directory.
const FILE: &str = "captures.json";
/// How often it is noted that somebody has asked.
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// How much is kept for a target that follows.
#[derive(Debug, Clone, Copy)]
pub struct CaptureLimits {
    /// Nobody has asked for so long.
    pub idle: Duration,
    /// About so many bytes are kept.
    pub bytes: u64,
}

impl Default for CaptureLimits {
    fn default() -> Self {
        Self { idle: Duration::from_secs(24 * 3600), bytes: 10 << 30 }
    }
}

/// What is kept for one who follows a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The database.
    pub dataset: DatasetName,
    /// Whose it is.
    pub capture: CaptureId,
    /// When somebody has asked for it last, in milliseconds since the epoch.
    asked_ms: i64,
    /// Writers are fenced off: the target may have taken over, and the fence does not fall by itself.
    fenced: bool,
    /// Why it is kept no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<String>,
}

impl Kept {
    /// Why it is kept no more, where it is not.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// Whether writers are fenced off for it.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }
}

/// The captures of a source.
pub struct Captures {
    file: PathBuf,
    limits: CaptureLimits,
    clock: Arc<dyn Clock>,
    kept: Mutex<Vec<Kept>>,
}

impl Captures {
    /// Those that are noted in `state`.
    pub fn open(state: &Path, limits: CaptureLimits, clock: Arc<dyn Clock>) -> Result<Self> {
        let file = state.join(FILE);
        let unusable = |what: &str| Failure::operator(file.display().to_string(), what.to_owned());
        let kept = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| {
                unusable("is not what an agent has written")
                    .because(e)
                    .hint("move it away: what databases keep for targets that are gone is to be removed by hand then")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unusable("cannot be read").because(error)),
        };
        Ok(Self { file, limits, clock, kept: Mutex::new(kept) })
    }

    /// How often it is to be looked for what nobody asks for any more.
    pub fn look_every(&self) -> Duration {
        (self.limits.idle / 4).clamp(Duration::from_millis(50), Duration::from_secs(30))
    }

    fn table(&self) -> MutexGuard<'_, Vec<Kept>> {
        // Every change is one assignment or insertion: a panic elsewhere leaves the table sound.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, kept: &[Kept]) -> Result<()> {
        let write = || {
            let new = self.file.with_extension("new");
            std::fs::write(&new, serde_json::to_vec(kept)?)?;
            std::fs::File::open(&new)?.sync_all()?;
            std::fs::rename(&new, &self.file)
        };
        write().map_err(|e: std::io::Error| {
            Failure::transient(self.file.display().to_string(), "cannot be written")
                .because(e)
                .hint("is the disk full?")
        })
    }

    /// Something is to be kept from now on. Noted before it is.
    pub fn begin(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<()> {
        self.change(dataset, capture, |kept| kept.ended = None)
    }

    /// Writers are about to be fenced off, or have been let in again.
    pub fn fence(&self, dataset: &DatasetName, capture: &CaptureId, fenced: bool) -> Result<()> {
        self.change(dataset, capture, |kept| kept.fenced = fenced)
    }

    fn change(&self, dataset: &DatasetName, capture: &CaptureId, how: impl FnOnce(&mut Kept)) -> Result<()> {
        let now = self.clock.now().millis();
        let mut table = self.table();
        how(Self::find(&mut table, dataset, capture, now));
        self.note(&table)
    }

    fn find<'a>(
        table: &'a mut Vec<Kept>,
        dataset: &DatasetName,
        capture: &CaptureId,
        now: i64,
    ) -> &'a mut Kept {
        let at = table.iter().position(|kept| kept.dataset == *dataset && kept.capture == *capture);
        let at = at.unwrap_or_else(|| {
            let (dataset, capture) = (dataset.clone(), capture.clone());
            table.push(Kept { dataset, capture, asked_ms: now, fenced: false, ended: None });
            table.len() - 1
        });
        &mut table[at]
    }

    /// Somebody asks for what is kept; a failure if it is kept no more.
    pub fn asked(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<()> {
        let now = self.clock.now().millis();
        let mut table = self.table();
        let kept = Self::find(&mut table, dataset, capture, now);
        if let Some(why) = &kept.ended {
            let what = format!("the source keeps its changes no more: {why}");
            return Err(Failure::operator(format!("dataset {dataset}"), what).begin_anew(
                "`handover abort`, then start again; `capture_hours` and `capture_bytes` in source.toml say how much is kept",
            ));
        }
        let before = std::mem::replace(&mut kept.asked_ms, now);
        // A new one was pushed with this very moment.
        if now - before > NOTE_EVERY.as_millis() as i64 { self.note(&table) } else { Ok(()) }
    }

    /// Nothing is kept any more, as was asked, but for the fence.
    pub fn keep_fence(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<()> {
        if self.is_fenced(dataset, capture) { Ok(()) } else { self.forget(dataset, capture) }
    }

    /// Nothing is kept any more, as was asked.
    pub fn forget(&self, dataset: &DatasetName, capture: &CaptureId) -> Result<()> {
        let mut table = self.table();
        let before = table.len();
        table.retain(|kept| kept.dataset != *dataset || kept.capture != *capture);
        if table.len() == before { Ok(()) } else { self.note(&table) }
    }

    /// Whether writers are fenced off for it.
    pub fn is_fenced(&self, dataset: &DatasetName, capture: &CaptureId) -> bool {
        let table = self.table();
        table.iter().any(|kept| kept.fenced && kept.dataset == *dataset && kept.capture == *capture)
    }

    /// All that is kept, or has to be let go still.
    pub fn all(&self) -> Vec<Kept> {
        self.table().clone()
    }

    /// The same as it is by now, if it is still there.
    pub fn again(&self, seen: &Kept) -> Option<Kept> {
        self.all().into_iter().find(|kept| (&kept.dataset, &kept.capture) == (&seen.dataset, &seen.capture))
    }

    fn idle(&self, kept: &Kept) -> Duration {
        Duration::from_millis(u64::try_from(self.clock.now().millis() - kept.asked_ms).unwrap_or(0))
    }

    /// Whether nobody asks for it any more.
    pub fn is_idle(&self, kept: &Kept) -> bool {
        self.idle(kept) > self.limits.idle
    }

    /// Why something is kept no longer, if it is not, when so many bytes are.
    pub fn too_much(&self, kept: &Kept, bytes: u64) -> Option<String> {
        if let Some(why) = &kept.ended {
            // It was to be let go, and that failed or was cut short.
            Some(why.clone())
        } else if self.is_idle(kept) {
            Some(format!("nobody has asked for them for {} s", self.idle(kept).as_secs()))
        } else if bytes > self.limits.bytes {
            Some(format!("{} MiB had gathered, and {} MiB may", bytes >> 20, self.limits.bytes >> 20))
        } else {
            None
        }
    }

    /// It was let go, for this reason; whoever asks is told.
    pub fn let_go(&self, kept: &Kept, why: String) -> Result<()> {
        self.change(&kept.dataset, &kept.capture, |known| known.ended = Some(why))
    }
}
