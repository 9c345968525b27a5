//! PostgreSQL: databases read from one snapshot, and built beside their final place.
//!
//! Rows travel in the text form of `COPY`, in the database's own encoding; schemas as the statements of `pg_dump`.

mod catalog;
mod connect;
mod dump;
mod error;
mod settings;
mod sql;
mod tls;
mod toc;

pub use settings::{BadSettings, Settings};
