//! PostgreSQL: databases read from one snapshot, and built beside their final place.
//!
//! Rows travel in the text form of `COPY`, in the database's own encoding; schemas as the statements of `pg_dump`.

mod accounts;
mod catalog;
mod connect;
mod database;
mod dump;
mod error;
mod fenced;
mod following;
mod gauge;
mod live;
mod needs;
mod pieces;
mod privileges;
mod read;
mod scratch;
mod settings;
mod settings_table;
mod shape;
mod sql;
mod target;
mod tls;
mod toc;
mod trust;

pub use database::PostgresDatabase;
pub use fenced::PostgresFenced;
pub use following::{following_privileges, returning_privileges};
pub use gauge::PostgresGauge;
pub use live::PostgresLive;
pub use needs::offers;
pub use privileges::{Side, privileges};
pub use scratch::PostgresScratch;
pub use settings::{BadSettings, Settings};
pub use settings_table::PostgresSettingsTable;
pub use target::PostgresTarget;
