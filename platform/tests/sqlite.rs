//! The SQLite adapter on real files: the contract of every adapter, and what is SQLite's own.

#[path = "sqlite/captures.rs"]
mod captures;
#[path = "sqlite/contract.rs"]
mod contract;
#[path = "sqlite/definitions.rs"]
mod definitions;
#[path = "sqlite/following.rs"]
mod following;
#[path = "sqlite/place.rs"]
mod place;
#[path = "sqlite/schema.rs"]
mod schema;
#[path = "sqlite/settings_table.rs"]
mod settings_table;
#[path = "sqlite/support.rs"]
mod support;
#[path = "sqlite/trouble.rs"]
mod trouble;
#[path = "sqlite/values.rs"]
mod values;
