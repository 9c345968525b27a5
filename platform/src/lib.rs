//! The real host behind the engine's ports: databases, files, host facts, state store.
