//! End-to-end tests, and what they share with the scenarios: appliances, processes, an independent comparison.
