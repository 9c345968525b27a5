//! From measured seconds to medians, spreads and ratios.

use std::fmt::Write;

use serde::Serialize;

/// A benchmark's figures, as written to `target/bench/<name>.json`.
#[derive(Debug, Serialize)]
pub struct Bench {
    /// Its name.
    pub name: String,
    /// Its cases.
    pub cases: Vec<Case>,
}

/// One case: medians over all pairs, and the ratios' spread over single pairs. Lower is better for us.
#[derive(Debug, PartialEq, Serialize)]
pub struct Case {
    /// Its name.
    pub case: String,
    /// Who it was measured against.
    pub peer: String,
    /// Number of pairs.
    pub pairs: usize,
    /// Our median in seconds.
    pub ours_s: f64,
    /// The peer's median in seconds.
    pub peer_s: f64,
    /// Ours by the peer's.
    pub ratio: f64,
    /// The smallest ratio of a pair.
    pub ratio_min: f64,
    /// The largest ratio of a pair.
    pub ratio_max: f64,
}

impl Case {
    /// The figures of pairs of (ours, peer) in seconds; there is at least one.
    pub fn of(case: &str, peer: &str, pairs: &[(f64, f64)]) -> Self {
        let ours_s = median(pairs.iter().map(|pair| pair.0).collect());
        let peer_s = median(pairs.iter().map(|pair| pair.1).collect());
        let ratios = || pairs.iter().map(|(ours, peer)| ours / peer);
        Self {
            case: case.to_owned(),
            peer: peer.to_owned(),
            pairs: pairs.len(),
            ours_s: round(ours_s),
            peer_s: round(peer_s),
            ratio: round(ours_s / peer_s),
            ratio_min: round(ratios().fold(f64::INFINITY, f64::min)),
            ratio_max: round(ratios().fold(0.0, f64::max)),
        }
    }
}

impl Bench {
    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:10} {:52} {:>5} {:>9} {:>9} {:>7} {:>15}\n",
            "case", "peer", "pairs", "ours", "peer", "ratio", "of single pairs"
        );
        for c in &self.cases {
            let spread = format!("{:.2} to {:.2}", c.ratio_min, c.ratio_max);
            let _ = writeln!(
                text,
                "{:10} {:52} {:>5} {:>7.3} s {:>7.3} s {:>7.2} {spread:>15}",
                c.case, c.peer, c.pairs, c.ours_s, c.peer_s, c.ratio
            );
        }
        text
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// To a tenth of a millisecond: more would be noise.
fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let case = Case::of("tree", "rsync", &[(1.0, 4.0), (3.0, 2.0), (2.0, 4.0)]);
        let numbers = (case.pairs, case.ours_s, case.peer_s, case.ratio, case.ratio_min, case.ratio_max);
        assert_eq!(numbers, (3, 2.0, 4.0, 0.5, 0.25, 1.5));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
    }

    #[test]
    fn the_file_has_the_agreed_form() {
        let bench = Bench { name: "files".to_owned(), cases: vec![Case::of("tree", "rsync", &[(1.0, 2.0)])] };
        let expected = serde_json::json!({"name": "files", "cases": [{"case": "tree", "peer": "rsync", "pairs": 1,
            "ours_s": 1.0, "peer_s": 2.0, "ratio": 0.5, "ratio_min": 0.5, "ratio_max": 0.5}]});
        assert_eq!(serde_json::to_value(&bench).unwrap(), expected);
        assert_eq!(bench.table().lines().count(), 2);
    }
}
