//! Bringing the files home that were written at the target, when an abort puts the source back in its place.
//!
//! The journal's index says what every file at the target looked like when it landed: what looks otherwise by now was changed there, what
//! stands there and is not in it is new, and what is in it and stands there no more was removed. Only that goes home. The index says as
//! well what the source had then: where the source has something else by now, that stays, and the target's is told of. It is not lost, since an abort
//! keeps the target's tree.
//!
//! Whoever is interrupted begins anew: what is home already looks as it does at the target.

mod bring;
mod decide;

pub use self::bring::{Brought, Homecoming};
