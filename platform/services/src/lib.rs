//! An appliance's services: those that its host's manifest names, stopped, started and put back through systemd, with a lease that
//! brings them back when nobody says any more that they are to stay away.

pub mod boot;
pub mod local;
pub mod place;
mod probe;
mod process;
mod record;
mod seal;
pub mod section;
pub mod systemd;
pub mod units;

pub use boot::{BootClock, HostBoot, Moment};
pub use local::LocalServices;
pub use section::ServiceSection;
pub use systemd::Systemd;
pub use units::{UnitState, Units};
