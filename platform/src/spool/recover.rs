//! What a spool knew before the agent was started again, from its files.

use std::fs::{self, File, OpenOptions};

use handover_engine::ports::{Result, SpoolMark};

use super::frame::{self, FRAME, Framed};
use super::{Shared, State, Waiting, record};

impl Shared {
    /// Learns what the files hold, and cuts off what was never acknowledged.
    pub(super) fn recover(&self) -> Result<()> {
        let segments = self.segments().map_err(|error| self.unreadable(error))?;
        let head = self.head();
        let mut state = self.lock();
        for &segment in &segments {
            let is_last = segments.last() == Some(&segment);
            self.recover_segment(segment, is_last, head, &mut state)?;
        }
        Ok(())
    }

    fn recover_segment(&self, segment: u64, is_last: bool, head: SpoolMark, state: &mut State) -> Result<()> {
        let unreadable = |error| self.unreadable(error);
        let mut file = File::open(self.path(segment)).map_err(unreadable)?;
        let len = file.metadata().map_err(unreadable)?.len();
        let mut offset = 0;
        while offset < len {
            let contents = match frame::read(&mut file, len - offset).map_err(unreadable)? {
                Framed::Whole(contents) => contents,
                Framed::CutOff if is_last => {
                    let file = OpenOptions::new().write(true).open(self.path(segment)).map_err(unreadable)?;
                    file.set_len(offset).and_then(|()| file.sync_all()).map_err(unreadable)?;
                    break;
                }
                Framed::CutOff | Framed::Damaged => return Err(self.damaged(segment)),
            };
            let part = record::parse_head(&contents).ok_or_else(|| self.damaged(segment))?;
            let start = SpoolMark { segment, offset };
            offset += (FRAME + contents.len()) as u64;
            let end = SpoolMark { segment, offset };
            state.position = Some(part.until);
            state.known_at = part.at;
            if start >= head && part.changes > 0 {
                state.waiting.push_back(Waiting { start, end, changes: part.changes, at: part.at });
            }
        }
        state.tail = SpoolMark { segment, offset };
        Ok(())
    }

    /// How far the changes were carried out when that was last written down.
    fn head(&self) -> SpoolMark {
        let text = fs::read_to_string(self.dir.join("head")).unwrap_or_default();
        let mut parts = text.split_whitespace().map(str::parse);
        match (parts.next(), parts.next()) {
            (Some(Ok(segment)), Some(Ok(offset))) => SpoolMark { segment, offset },
            // What was carried out is carried out again, which is the same.
            _ => SpoolMark { segment: 0, offset: 0 },
        }
    }
}
