//! The client's buffers.

/// Settings of the client that it takes from the environment alone, when it is first used.
///
/// It keeps buffers for later: of its own accord up to 128, each of up to 4 MiB once it has held as much. A query of so many columns
/// uses so many at once, and large values then go through all of them.
pub const CLIENT_SETTINGS: [(&str, &str); 2] =
    [("MYSQL_ASYNC_BUFFER_POOL_CAP", "4"), ("MYSQL_ASYNC_BUFFER_SIZE_CAP", "262144")];
