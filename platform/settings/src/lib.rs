//! An appliance's settings: what of which files travels, how a file is changed without disturbing what is not ours, how
//! it is put back, and the dead-man timer of a swap.
//!
//! Nothing that a host's own `[[settings]]` do not name is read or written. What is to be undone is durable before anything is changed.

mod apply;
mod disk;
pub mod format;
mod key;
mod rows;
pub mod section;
mod store;
pub mod swap;

pub use self::key::{BadKey, KeyPath, Segment};
pub use self::section::SettingsSection;
pub use self::store::LocalSettings;
pub use self::swap::LocalSwap;
pub use self::swap::by_hand::take_back;
pub use self::swap::clock::Boot;
pub use self::swap::reboot::{Reboot, SystemctlReboot};
pub use self::swap::watch::watch;
