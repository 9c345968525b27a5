//! The ports: small traits between what a migration is and the host it runs on.
//!
//! A remote source is an ordinary trait: the in-process source (`platform`) and the gRPC client (`transport`) both
//! implement [`SourceHost`], [`RowSource`] and [`TreeSource`], and the driver cannot tell them apart.

pub mod backups;
pub mod changeover;
pub mod changes;
pub mod credentials;
pub mod dns;
pub mod gauge;
pub mod home;
pub mod hooks;
pub mod keeper;
pub mod licences;
pub mod rows;
pub mod scratch;
pub mod settings_table;
pub mod source;
pub mod spool;
pub mod tree;

use futures::stream::BoxStream;

use crate::failure::Failure;

pub use backups::{Backups, NoBackups};
pub use changes::{ChangeSource, ChangesRequest, Fence, FencedSource, KeysRequest, LiveDatabase};
pub use credentials::{Credentials, NoCredentials};
pub use dns::{Challenges, NameServer};
pub use home::{HomeTree, HomeTrees, NoHome};
pub use keeper::Keeper;
pub use licences::{Held, Licences};
pub use rows::{Database, DatabaseSnapshot, DatabaseTarget, FencedDatabase, KeyedTarget};
pub use source::{Followed, Opened, Parts, RowSource, Source, SourceHost, TreeSource};
pub use spool::{Backlog, Direction, Spool, SpoolMark, Spools, Window};
pub use tree::{TreeOp, TreeReader, TreeTarget};

/// What a port answers.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// A bounded stream of answers; it ends after the first failure.
pub type Answers<T> = BoxStream<'static, Result<T>>;
