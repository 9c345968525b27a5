//! MariaDB databases behind the engine's ports.
//!
//! Reading: [`MariaDatabase`] opens several connections that share one snapshot. Loading: [`MariaTarget`] builds beside the
//! final place, in a database of its own, and publishes with one `RENAME TABLE`.
//!
//! Values are never decoded: what the source prints is what the target's `LOAD DATA` parses. What the server would print
//! with a loss (FLOAT) or convert (BIT, ENUM, SET) travels as a number.

mod accounts;
mod buffers;
mod catalog;
mod cursor;
mod database;
mod error;
mod gauge;
mod live;
mod load;
mod needs;
mod own;
mod privileges;
mod replica;
mod scratch;
mod session;
mod settings;
mod settings_table;
mod shape;
mod sql;
mod target;

pub use buffers::CLIENT_SETTINGS;
pub use database::MariaDatabase;
pub use gauge::MariaGauge;
pub use live::{MariaFenced, MariaLive};
pub use needs::offers;
pub use privileges::{Finding, returning_privileges, source_privileges, target_privileges};
pub use replica::{Before, Pair, Shared, Side as ReplicaSide, Survey, role_of};
pub use scratch::MariaScratch;
pub use settings::{BadSettings, Settings};
pub use settings_table::MariaSettingsTable;
pub use target::MariaTarget;
