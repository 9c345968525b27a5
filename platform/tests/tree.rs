//! The file-tree adapter on a real file system: every kind and property arrives, undo restores exactly, nothing leads out of
//! the root, and large files cost what has changed in them.

#[path = "tree/arrive.rs"]
mod arrive;
#[path = "tree/kept.rs"]
mod kept;
#[path = "tree/large.rs"]
mod large;
#[path = "tree/logs.rs"]
mod logs;
#[path = "tree/moving.rs"]
mod moving;
#[path = "tree/safety.rs"]
mod safety;
#[path = "tree/support.rs"]
mod support;
#[path = "tree/undo.rs"]
mod undo;
#[path = "tree/watching.rs"]
mod watching;
