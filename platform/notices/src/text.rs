//! What a notice says: its kinds, and the texts that are filled in.

use std::fmt;
use std::str::FromStr;

use handover_engine::ports::hooks::{Moment, Occasion};
use handover_engine::time::Timestamp;

/// What clients are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A cut-over was planned for a time.
    CutoverPlanned,
    /// It is planned no more.
    CutoverWithdrawn,
    /// Users are about to be kept out.
    MaintenanceBegins,
    /// The target serves.
    CutOver,
    /// The cut-over was called off, and the source serves again.
    CalledOff,
    /// The target stays.
    Accepted,
    /// Everything was undone.
    Aborted,
}

impl Kind {
    /// Every kind, in the order of a migration.
    pub const ALL: [Kind; 7] = [
        Kind::CutoverPlanned,
        Kind::CutoverWithdrawn,
        Kind::MaintenanceBegins,
        Kind::CutOver,
        Kind::CalledOff,
        Kind::Accepted,
        Kind::Aborted,
    ];

    /// What an occasion is for clients; none where they need not know.
    pub fn of(occasion: &Occasion) -> Option<Self> {
        match occasion.moment {
            Moment::Notice if occasion.at.is_some() => Some(Kind::CutoverPlanned),
            Moment::Notice => Some(Kind::CutoverWithdrawn),
            Moment::BeforeFence => Some(Kind::MaintenanceBegins),
            Moment::AfterPublish => Some(Kind::CutOver),
            Moment::CalledOff => Some(Kind::CalledOff),
            Moment::AfterAccept => Some(Kind::Accepted),
            Moment::AfterAbort => Some(Kind::Aborted),
            Moment::BeforeStart
            | Moment::AfterCopy
            | Moment::AfterFence
            | Moment::BeforePublish
            | Moment::LabelOn
            | Moment::LabelOff
            | Moment::AfterFinalize => None,
        }
    }

    /// As it is written in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::CutoverPlanned => "cutover-planned",
            Kind::CutoverWithdrawn => "cutover-withdrawn",
            Kind::MaintenanceBegins => "maintenance-begins",
            Kind::CutOver => "cut-over",
            Kind::CalledOff => "called-off",
            Kind::Accepted => "accepted",
            Kind::Aborted => "aborted",
        }
    }

    /// The subject where the manifest has none.
    pub fn subject(self) -> &'static str {
        match self {
            Kind::CutoverPlanned => "{appliance}: maintenance planned for {at}",
            Kind::CutoverWithdrawn => "{appliance}: the planned maintenance does not take place",
            Kind::MaintenanceBegins => "{appliance}: maintenance begins",
            Kind::CutOver => "{appliance}: in use again on the new system",
            Kind::CalledOff => "{appliance}: in use again",
            Kind::Accepted => "{appliance}: the move to the new system is complete",
            Kind::Aborted => "{appliance}: in use again on the old system",
        }
    }

    /// The text where the manifest has none.
    pub fn body(self) -> &'static str {
        match self {
            Kind::CutoverPlanned => {
                "{appliance} moves to a new system on {at}. It cannot be used for a short time then."
            }
            Kind::CutoverWithdrawn => {
                "The move of {appliance} to a new system that was announced does not take place at that time."
            }
            Kind::MaintenanceBegins => {
                "{appliance} moves to a new system now. It cannot be used until that is done."
            }
            Kind::CutOver => "{appliance} is in use again, on its new system.",
            Kind::CalledOff => "{appliance} is in use again as before. Its move to a new system was put off.",
            Kind::Accepted => "The move of {appliance} to its new system is complete.",
            Kind::Aborted => "{appliance} is in use as before: its move to a new system was taken back.",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Kind::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| {
            let all = Kind::ALL.map(Kind::as_str).join(", ");
            format!("`{text}` is nothing that notice is given of: write one of {all}")
        })
    }
}

/// Names that notices tell.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The appliance.
    pub appliance: String,
    /// The host name that users know it by.
    pub host: String,
}

/// What can be filled in.
const PLACES: [&str; 6] = ["appliance", "host", "migration", "what", "at", "now"];

/// Fills in a text whose places are known. (`{{` and `}}` are no braces here: texts are short, and have none of their own.)
pub fn fill(text: &str, names: &Names, kind: Kind, occasion: &Occasion, now: Timestamp) -> String {
    let value = |place: &str| match place {
        "appliance" => names.appliance.clone(),
        "host" => names.host.clone(),
        "migration" => occasion.migration.to_string(),
        "what" => kind.to_string(),
        "at" => occasion.at.map(spoken).unwrap_or_default(),
        _ => spoken(now),
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((place, after)) = after.split_once('}') else { break };
        out.push_str(&value(place));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A time as people read it, to the second.
fn spoken(at: Timestamp) -> String {
    Timestamp { nanos: 0, ..at }.to_string().replace('T', " ").replace('Z', " UTC")
}

/// What cannot be filled in.
pub fn problem(text: &str) -> Option<String> {
    let known = PLACES.map(|place| format!("{{{place}}}")).join(", ");
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((place, after)) = after.split_once('}') else {
            return Some(format!("a brace is not closed: write one of {known}"));
        };
        if !PLACES.contains(&place) {
            return Some(format!("`{{{place}}}` is not known: write one of {known}"));
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occasion(moment: Moment, at: Option<i64>) -> Occasion {
        Occasion { migration: "m-1".parse().unwrap(), moment, at: at.map(Timestamp::from_millis) }
    }

    #[test]
    fn texts_are_filled_in() {
        let names = Names { appliance: "shop".into(), host: "shop.example.org".into() };
        let told = occasion(Moment::Notice, Some(1_800_000_000_123));
        let kind = Kind::of(&told).unwrap();
        let filled = |text| fill(text, &names, kind, &told, Timestamp::from_millis(0));
        assert_eq!(filled(kind.subject()), "shop: maintenance planned for 2027-01-15 08:00:00 UTC");
        assert_eq!(
            filled("{host} {migration} {what} {now}"),
            "shop.example.org m-1 cutover-planned 1970-01-01 00:00:00 UTC"
        );
        for kind in Kind::ALL {
            assert_eq!((problem(kind.subject()), problem(kind.body())), (None, None));
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!(problem("{names}").unwrap().contains("`{names}` is not known"));
        assert!(problem("{at").unwrap().contains("not closed"));
    }

    #[test]
    fn clients_are_told_what_matters_to_them() {
        assert_eq!(Kind::of(&occasion(Moment::Notice, None)), Some(Kind::CutoverWithdrawn));
        assert_eq!(Kind::of(&occasion(Moment::AfterFence, None)), None);
        let told = Moment::ALL.into_iter().filter_map(|moment| Kind::of(&occasion(moment, None)));
        assert_eq!(told.count(), Kind::ALL.len() - 1);
    }
}
