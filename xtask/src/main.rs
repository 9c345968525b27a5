//! The project's own commands: demo, test, bench, scenario, ci.
fn main() {}
