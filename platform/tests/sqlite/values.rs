//! (see the other modules)
