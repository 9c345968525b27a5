//! gRPC over mutually authenticated TLS: the engine's ports on the wire.
