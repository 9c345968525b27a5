//! Backups of an appliance's datasets behind the engine's port: made with the engines' own tools, verified, restored.
//!
//! A backup is a directory with a file for each dataset and `backup.json`. It is made as a `.partial` one, read again, and only then given its
//! name: it is whole, or not there. What is restored is built beside its place and swapped in; what stood there stays under
//! another name.

mod archive;
mod beside;
mod contents;
mod local;
mod make;
mod mariadb;
mod note;
mod pack;
mod postgres;
mod restore;
mod room;
mod shelf;
mod sqlite;
mod tool;
mod tree;
mod work;

pub use contents::{Contents, Dataset, MariadbServer, Password, PostgresServer, Tree};
pub use local::{Guard, LocalBackups, Running, Setting};
pub use tool::Tools;
