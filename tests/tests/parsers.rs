//! The bodies of the fuzz targets, on stable: with any bytes, and with valid ones that were changed a little.

#[path = "parsers/bodies.rs"]
mod bodies;
#[path = "parsers/samples.rs"]
mod samples;

use proptest::prelude::*;

/// A change of valid bytes.
#[derive(Debug, Clone)]
enum Change {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let place = 0..4096_usize;
    prop_oneof![
        (place.clone(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        place.clone().prop_map(Change::Cut),
        (place.clone(), proptest::collection::vec(any::<u8>(), 1..6))
            .prop_map(|(at, b)| Change::Insert(at, b)),
        (place, 1..40_usize).prop_map(|(at, len)| Change::Repeat(at, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let len = bytes.len();
    match change {
        _ if len == 0 => {}
        Change::Flip(at, bit) => bytes[at % len] ^= 1 << bit,
        Change::Cut(at) => bytes.truncate(at % len),
        Change::Insert(at, more) => drop(bytes.splice(at % len..at % len, more.iter().copied())),
        Change::Repeat(at, count) => {
            let again = bytes[at % len..len.min(at % len + count)].to_vec();
            bytes.splice(at % len..at % len, again);
        }
    }
}

/// Runs a body with the samples as they are, changed, and with any bytes.
fn exercise(body: fn(&[u8]), samples: &[Vec<u8>]) {
    samples.iter().for_each(|sample| body(sample));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(2000));
    let changed = (0..samples.len(), proptest::collection::vec(change(), 1..6));
    let changed = changed.prop_map(|(sample, changes)| {
        let mut bytes = samples[sample].clone();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        bytes
    });
    let any = proptest::collection::vec(any::<u8>(), 0..300);
    let run = |bytes: Vec<u8>| {
        body(&bytes);
        Ok(())
    };
    runner.run(&prop_oneof![3 => changed, 1 => any], run).unwrap();
}

#[test]
fn blocks_of_rows() {
    exercise(bodies::rows_block, &samples::rows_blocks());
}

#[test]
fn rows_of_sqlite() {
    exercise(bodies::sqlite_row, &samples::sqlite_rows());
}

#[test]
fn streams_of_frames() {
    exercise(bodies::frame_stream, &samples::frame_streams());
}

#[test]
fn messages() {
    exercise(bodies::wire_message, &samples::wire_messages());
}

#[test]
fn documents() {
    exercise(bodies::document, &samples::documents());
}
