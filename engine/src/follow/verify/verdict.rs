//! What can be said of a key whose row was looked at on both sides.

/// What was seen of one key, between a moment when everything that was committed before had been carried out, and one when
/// everything that was committed meanwhile has been, too.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a, T> {
    /// Its row at the source, before the first of these moments.
    pub before: Option<&'a T>,
    /// Its row at the target, between them.
    pub here: Option<&'a T>,
    /// Its row at the source, after that.
    pub after: Option<&'a T>,
    /// A change of it was carried out meanwhile.
    pub is_told: bool,
}

/// What can be said of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The target's row is the source's.
    Same,
    /// It was changing: nothing can be said.
    Moving,
    /// It was quiet, and differs.
    Differs(&'static str),
}

impl<T: PartialEq> Seen<'_, T> {
    /// Why it is right: a row at the target that is not the source's is either wrong, or a change of its key was committed
    /// and not yet carried out. One that was committed before the first moment is carried out; one that was committed later
    /// is carried out by the second, and so is told of.
    pub fn verdict(&self) -> Verdict {
        if self.here == self.before || self.here == self.after {
            return Verdict::Same;
        }
        if self.is_told || self.before != self.after {
            return Verdict::Moving;
        }
        Verdict::Differs(match (self.here, self.after) {
            (None, _) => "it is missing at the target",
            (_, None) => "it is not at the source",
            _ => "its values are not the source's",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_verdicts() {
        use Verdict::{Differs, Moving, Same};
        let table = [
            ((Some(1), Some(1), Some(1)), false, Same),
            ((None, None, None), false, Same),
            ((Some(1), Some(2), Some(2)), true, Same),
            ((Some(1), Some(1), Some(2)), false, Same),
            ((Some(1), Some(3), Some(2)), false, Moving),
            ((Some(1), Some(2), Some(1)), true, Moving),
            ((Some(1), None, Some(1)), true, Moving),
            ((Some(1), Some(2), Some(1)), false, Differs("its values are not the source's")),
            ((Some(1), None, Some(1)), false, Differs("it is missing at the target")),
            ((None, Some(1), None), false, Differs("it is not at the source")),
        ];
        for ((before, here, after), is_told, expected) in table {
            let seen = Seen { before: before.as_ref(), here: here.as_ref(), after: after.as_ref(), is_told };
            assert_eq!(seen.verdict(), expected, "{seen:?}");
        }
    }
}
