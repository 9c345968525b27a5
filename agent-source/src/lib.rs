//! The source agent: serves an appliance's inventory, snapshots and chunks.
