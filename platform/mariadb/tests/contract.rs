//! The contract of database adapters, on databases of two shapes.

mod support;

use handover_platform::contract::database_contract;
use support::subject::{AWKWARD_CHANGE, Maria, PLAIN, PLAIN_CHANGE, awkward};

#[tokio::test(flavor = "multi_thread")]
async fn plain_tables_keep_the_contract() {
    database_contract(|| Maria::new(PLAIN, PLAIN_CHANGE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn awkward_tables_keep_the_contract() {
    database_contract(|| Maria::new(&awkward(), AWKWARD_CHANGE)).await.unwrap();
}
