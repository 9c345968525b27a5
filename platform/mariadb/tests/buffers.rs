//! What the client keeps of memory once it has held large values.

mod support;

use std::fs;
use std::process::Command;

use handover_mariadb::CLIENT_SETTINGS;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use support::Server;

/// The socket of the server that the second process of this test reads from.
const SOCKET: &str = "HANDOVER_TEST_SOCKET";

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// By how many MiB the client has grown after a hundred values of 4 MiB, read one after another.
async fn grown_by_reading(socket: &str) -> u64 {
    let options = OptsBuilder::default().socket(Some(socket)).user(Some("root")).db_name(Some("mysql"));
    let mut conn = Conn::new(options).await.unwrap();
    // As many buffers are in use at once.
    let columns: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    conn.query_drop(format!("SELECT {}", columns.join(", "))).await.unwrap();
    let before = resident_mib();
    conn.query_drop("SELECT REPEAT('x', 4 << 20) FROM seq_1_to_100").await.unwrap();
    let after = resident_mib();
    conn.disconnect().await.unwrap();
    after.saturating_sub(before)
}

/// The one that reads is this very test, in another process: the client looks at its settings once.
#[tokio::test]
async fn agents_settings_keep_its_buffers_few_and_small() {
    if let Ok(socket) = std::env::var(SOCKET) {
        println!("grown by {} MiB", grown_by_reading(&socket).await);
        return;
    }
    let server = Server::shared();
    let grown = |settings: &[(&str, &str)]| -> u64 {
        let mut second = Command::new(std::env::current_exe().unwrap());
        second.args(["--exact", "agents_settings_keep_its_buffers_few_and_small", "--nocapture"]);
        second.env(SOCKET, server.socket()).envs(settings.iter().copied());
        let output = second.output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let figure = told.split("grown by ").nth(1).and_then(|rest| rest.split(' ').next());
        let figure = figure.and_then(|figure| figure.parse().ok());
        figure.unwrap_or_else(|| panic!("{told}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let (with, without) = (grown(&CLIENT_SETTINGS), grown(&[]));
    assert!(with < 64, "{with} MiB");
    // Should the client have changed its ways, this tells that the settings may go.
    assert!(without > 256, "{without} MiB");
}
