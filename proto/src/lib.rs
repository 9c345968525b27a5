//! The wire: gRPC messages and services, generated from handover/v1.
