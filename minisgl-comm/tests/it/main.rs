//! The collectives, from outside the crate.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

/// What a collective gives, against straightforward loops.
mod equality;
/// Groups that are aborted, or whose ranks panic, leave or fail.
mod failures;
/// Long random sequences of all collectives, with ranks that dawdle.
mod mixed;
/// Groups over several nodes, connected over the loopback.
mod nodes;
/// Ranks on threads, arrays with known contents, random numbers.
mod support;
