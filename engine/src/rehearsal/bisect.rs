//! Finding what cannot be loaded in a batch that is refused as a whole.

use std::ops::Range;

use super::super::ports::Result;
use super::super::ports::scratch::Refusal;

/// Loads parts of a batch, all or none of each.
pub trait Parts {
    /// Loads the rows at these places; why not, where one of them is refused: then none is there.
    fn load(&mut self, rows: Range<usize>) -> impl Future<Output = Result<Option<Refusal>>> + Send;
}

/// Loads `rows` rows, the first before the later ones: halves what is refused until single rows are left, and returns these
/// with their reasons, in their order. Rows that no other one is in the way of are tried about twice for each row that is refused, and
/// once more for each halving.
pub async fn load(parts: &mut impl Parts, rows: usize) -> Result<Vec<(usize, Refusal)>> {
    let mut refused = Vec::new();
    let whole: Range<usize> = 0..rows;
    let mut left = Vec::from([whole]);
    while let Some(part) = left.pop() {
        if part.is_empty() {
            continue;
        }
        let Some(why) = parts.load(part.clone()).await? else { continue };
        if part.len() == 1 {
            refused.push((part.start, why));
            continue;
        }
        let middle = part.start + part.len() / 2;
        left.push(middle..part.end);
        left.push(part.start..middle);
    }
    Ok(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::ConflictKind;

    /// Takes each value once, and none below zero.
    struct Values {
        rows: Vec<i32>,
        there: Vec<i32>,
        tries: usize,
    }

    impl Parts for Values {
        async fn load(&mut self, rows: Range<usize>) -> Result<Option<Refusal>> {
            self.tries += 1;
            let before = self.there.len();
            for row in &self.rows[rows] {
                let kind = match row {
                    ..0 => ConflictKind::Check,
                    _ if self.there.contains(row) => ConflictKind::Unique,
                    _ => {
                        self.there.push(*row);
                        continue;
                    }
                };
                self.there.truncate(before);
                return Ok(Some(Refusal { kind, constraint: row.to_string(), in_the_way: None }));
            }
            Ok(None)
        }
    }

    #[tokio::test]
    async fn exactly_the_bad_rows_are_found() {
        use ConflictKind::{Check, Unique};
        for (rows, expected) in [
            (vec![], vec![]),
            (vec![1, 2, 3], vec![]),
            (vec![-1], vec![(0, Check)]),
            (vec![1, 2, 1, 3, -7, 2], vec![(2, Unique), (4, Check), (5, Unique)]),
            (vec![5; 4], vec![(1, Unique), (2, Unique), (3, Unique)]),
            (vec![-1, -1, -1], vec![(0, Check), (1, Check), (2, Check)]),
        ] {
            let mut values = Values { rows: rows.clone(), there: Vec::new(), tries: 0 };
            let refused = load(&mut values, rows.len()).await.unwrap();
            let refused: Vec<_> = refused.into_iter().map(|(at, why)| (at, why.kind)).collect();
            assert_eq!(refused, expected, "{rows:?}");
            assert_eq!(values.there.len() + expected.len(), rows.len());
        }
        let mut one = Values {
            rows: (0..1024).map(|n| if n == 700 { -1 } else { n }).collect(),
            there: Vec::new(),
            tries: 0,
        };
        assert_eq!(load(&mut one, 1024).await.unwrap().len(), 1);
        assert!(one.tries <= 21, "{}", one.tries);
    }
}
