//! The target agent: plans, runs, journals and verifies migrations.
