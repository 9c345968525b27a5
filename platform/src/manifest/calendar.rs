//! `[calendar]`: what is planned for the appliance otherwise.

use handover_engine::calendar::{Calendar, Entry, Kind};
use handover_engine::time::Timestamp;
use serde::{Deserialize, Deserializer};

/// `[calendar]`. Read at the target.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CalendarSection {
    /// Nothing is started or accepted while the next downtime is nearer than so many hours.
    pub safety_hours: u32,
    /// Planned downtimes.
    pub downtime: Vec<DowntimeSection>,
    /// Billing closes.
    pub billing_close: Vec<DowntimeSection>,
}

/// `[[calendar.downtime]]`, `[[calendar.billing_close]]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DowntimeSection {
    /// Its name, for messages.
    pub name: String,
    /// When it begins.
    #[serde(deserialize_with = "time")]
    pub begin: Timestamp,
    /// When it is over…
    #[serde(default, deserialize_with = "some_time")]
    pub end: Option<Timestamp>,
    /// …or how long it takes.
    #[serde(default)]
    pub minutes: Option<u32>,
}

impl Default for CalendarSection {
    fn default() -> Self {
        let safety_hours = Calendar::default().safety_hours;
        Self { safety_hours, downtime: Vec::new(), billing_close: Vec::new() }
    }
}

fn time<'de, D: Deserializer<'de>>(value: D) -> Result<Timestamp, D::Error> {
    String::deserialize(value)?.parse().map_err(serde::de::Error::custom)
}

fn some_time<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Timestamp>, D::Error> {
    time(value).map(Some)
}

impl DowntimeSection {
    /// When it is over; none where that is not said, or said twice.
    fn over(&self) -> Option<Timestamp> {
        match (self.end, self.minutes) {
            (Some(end), None) => Some(end),
            (None, Some(minutes)) => {
                Some(Timestamp::from_millis(self.begin.millis().saturating_add(i64::from(minutes) * 60_000)))
            }
            _ => None,
        }
    }

    fn check(&self, section: &'static str) -> Result<(), (&'static str, String, String)> {
        let refuse = |problem: &str| Err((section, self.name.clone(), problem.to_owned()));
        match self.over() {
            None => refuse("write either `end` or `minutes`"),
            Some(end) if end <= self.begin => refuse("it ends before it has begun"),
            Some(_) => Ok(()),
        }
    }
}

impl CalendarSection {
    /// What makes no sense, as [`super::Manifest`] tells it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String, String)> {
        self.downtime.iter().try_for_each(|entry| entry.check("calendar.downtime"))?;
        self.billing_close.iter().try_for_each(|entry| entry.check("calendar.billing_close"))
    }

    /// The calendar.
    pub fn calendar(&self) -> Calendar {
        let entries = |kind, sections: &[DowntimeSection]| {
            let entry = |section: &DowntimeSection| {
                let DowntimeSection { name, begin, .. } = section.clone();
                Entry { name, kind, begin, end: section.over().unwrap_or(begin) }
            };
            sections.iter().map(entry).collect::<Vec<_>>()
        };
        let mut all = entries(Kind::Downtime, &self.downtime);
        all.extend(entries(Kind::BillingClose, &self.billing_close));
        Calendar { safety_hours: self.safety_hours, entries: all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    const CALENDAR: &str = "[appliance]\nname = 'mail'\n[calendar]\nsafety_hours = 12\n\
        [[calendar.downtime]]\nname = 'kernel'\nbegin = '2026-12-01T02:00:00+01:00'\nminutes = 90\n\
        [[calendar.billing_close]]\nname = 'december'\nbegin = '2026-12-31T23:00:00Z'\nend = '2027-01-01T06:00:00Z'\n";

    fn read(text: &str) -> Result<Calendar, String> {
        let manifest: Manifest = toml::from_str(text).map_err(|e| e.to_string())?;
        manifest.check().map_err(|(section, name, problem)| format!("[[{section}]] `{name}`: {problem}"))?;
        Ok(manifest.calendar.calendar())
    }

    #[test]
    fn a_calendar_is_read() {
        let calendar = read(CALENDAR).unwrap();
        assert_eq!(calendar.safety_hours, 12);
        let shown: Vec<_> =
            calendar.entries.iter().map(|e| (e.kind, e.begin.to_string(), e.end.to_string())).collect();
        let text = |text: &str| text.to_owned();
        assert_eq!(
            shown,
            [
                (Kind::Downtime, text("2026-12-01T01:00:00Z"), text("2026-12-01T02:30:00Z")),
                (Kind::BillingClose, text("2026-12-31T23:00:00Z"), text("2027-01-01T06:00:00Z")),
            ]
        );
        assert_eq!(read("[appliance]\nname = 'mail'\n").unwrap(), Calendar::default());
    }

    #[test]
    fn a_bad_one_is_refused_by_name() {
        for (text, part) in [
            (CALENDAR.replace("minutes = 90", ""), "`kernel`: write either `end` or `minutes`"),
            (CALENDAR.replace("minutes = 90", "minutes = 0"), "`kernel`: it ends before it has begun"),
            (CALENDAR.replace("2027-01", "2025-01"), "`december`: it ends before it has begun"),
            (CALENDAR.replace("02:00:00+01:00", "02:00"), "is no time like"),
            (CALENDAR.replace("02:00:00+01:00", "02:00"), "line 7"),
            (CALENDAR.replace("minutes", "hours"), "hours"),
        ] {
            let told = read(&text).unwrap_err();
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
