//! Tests of the scheduler through its public interface.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod lifecycle;
mod simulation;
