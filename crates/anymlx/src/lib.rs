//! anymlx
