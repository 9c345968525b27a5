//! SQLite: databases read from one snapshot, and built beside their final place.
//!
//! Through rusqlite, since values must be read and bound as the bytes they are (text need not be valid UTF-8, every bit of
//! a real counts). Each value travels with its storage class: `i` and the decimal integer, `r` and the 16 hex digits of the
//! IEEE 754 bits, `t` and the text, `b` and the blob (escaped as in every text block), `\N` for NULL. Text travels in the
//! database's own encoding, which both sides share, so that what is no valid UTF-16 arrives too.

mod catalog;
mod database;
mod error;
mod estimate;
mod fenced;
mod gauge;
mod held;
mod live;
mod read;
mod scratch;
mod settings_table;
mod shape;
mod state;
mod target;
mod value;
mod write;

pub use database::{SqliteDatabase, remove_stale_copies};
pub use fenced::SqliteFenced;
pub use gauge::SqliteGauge;
pub use live::SqliteLive;
pub use scratch::SqliteScratch;
pub use settings_table::SqliteSettingsTable;
pub use target::SqliteTarget;
pub use value::{BadValue, Value, check_block, parse_row};
