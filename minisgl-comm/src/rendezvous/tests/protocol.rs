//! The rendezvous in all orders in which its threads can take their steps: ranks that meet and then
//! leave, somebody who aborts from outside at any point, somebody who wants to hear of an abort.
//!
//! What is decided under the lock is the real code, [`State`]; what is a model is the lock, the
//! condition variable, which may also wake a thread for nothing, and the few steps around them. Who
//! changes those in `rendezvous.rs` changes [`System::steps`] as well.

use std::collections::HashSet;

use minisgl_kernels::{DType, Shape};

use super::super::{Arrival, State};
use crate::call::Call;

const RANKS: usize = 3;
const MEETINGS: usize = 2;
/// Who aborts from outside, and who has a hook, after the ranks.
const ABORTER: usize = RANKS;
const LISTENER: usize = RANKS + 1;
const THREADS: usize = RANKS + 2;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    /// The last to come wakes nobody.
    SilentArrival,
    /// An abort wakes nobody.
    SilentAbort,
    /// A rank lets go of the lock before it sleeps.
    SleepAfterUnlock,
    /// A rank that wakes does not look whether it may.
    NoSecondLook,
    /// A rank that wakes looks for an abort before it looks whether all had come.
    AbortFirst,
    /// Ranks wait until nobody waits, rather than for the next generation.
    NoGeneration,
    /// The next meeting is compared with the call of the one before.
    StaleCall,
    /// A later abort changes the reason.
    LastReason,
    /// The hooks are called before the abort.
    HooksFirst,
    /// Who adds a hook does not look whether it is too late for it.
    HookTooLate,
    /// Hooks are called and stay.
    HooksStay,
}

#[derive(Debug, PartialEq)]
enum Violation {
    Deadlock,
    /// A rank passed before all had come.
    Early,
    /// Some ranks passed a meeting and others did not.
    Split,
    /// A meeting failed for another reason than that of the first abort.
    Reason,
    /// A meeting failed although nobody was at fault.
    Needless,
    /// A hook was not called once.
    Hook,
}

/// Where a thread is; each step that takes the lock is one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Come,
    /// It came last, and has let go of the lock.
    Wake,
    /// It has let go of the lock and does not sleep yet.
    Falling(u64),
    Asleep(u64),
    Awake(u64),
    /// It aborts; and then goes on as told.
    Abort(Then),
    /// It looks whether there is a reason to call the hooks.
    LookForReason(Then),
    CallHooks(Then),
    /// After a mismatch it fails with the reason that there is.
    Fail,
    AddHook,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Then {
    Fail,
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Unknown,
    Passed,
    Failed,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    state: State,
    at: [At; THREADS],
    /// How often each rank has come.
    arrivals: [usize; RANKS],
    outcomes: [[Outcome; MEETINGS]; RANKS],
    /// By whom the group was aborted first.
    culprit: Option<usize>,
    has_hook: bool,
    hook_calls: u8,
}

struct System {
    /// What each rank calls.
    calls: [[Call; MEETINGS]; RANKS],
    /// Whether somebody aborts from outside, too.
    has_aborter: bool,
    mistake: Option<Mistake>,
}

impl System {
    fn new(has_aborter: bool) -> Self {
        let sum = Call::AllReduce { dtype: DType::F32, shape: Shape::from([2]) };
        Self { calls: [[Call::Barrier, sum]; RANKS], has_aborter, mistake: None }
    }

    fn with(mut self, mistake: Mistake) -> Self {
        self.mistake = Some(mistake);
        self
    }

    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// Tries everything; the number of worlds.
    fn check(&self) -> Result<usize, Violation> {
        let mut at = [At::Come; THREADS];
        at[ABORTER] = if self.has_aborter { self.abort(Then::End) } else { At::Done };
        at[LISTENER] = At::AddHook;
        let start = World {
            state: State::new(),
            at,
            arrivals: [0; RANKS],
            outcomes: [[Outcome::Unknown; MEETINGS]; RANKS],
            culprit: None,
            has_hook: false,
            hook_calls: 0,
        };
        let mut seen = HashSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(world) = open.pop() {
            let mut is_stuck = true;
            for thread in 0..THREADS {
                if let Some(next) = self.step(&world, thread)? {
                    is_stuck = false;
                    if seen.insert(next.clone()) {
                        open.push(next);
                    }
                }
                // Waking for nothing is allowed, but nothing to rely on.
                if let At::Asleep(generation) = world.at[thread] {
                    let mut next = world.clone();
                    next.at[thread] = At::Awake(generation);
                    if seen.insert(next.clone()) {
                        open.push(next);
                    }
                }
            }
            if is_stuck {
                self.check_end(&world)?;
            }
        }
        Ok(seen.len())
    }

    fn check_end(&self, world: &World) -> Result<(), Violation> {
        if world.at != [At::Done; THREADS] {
            return Err(Violation::Deadlock);
        }
        for meeting in 0..MEETINGS {
            let passed = |rank: usize| world.outcomes[rank][meeting] == Outcome::Passed;
            if (0..RANKS).any(passed) != (0..RANKS).all(passed) {
                return Err(Violation::Split);
            }
        }
        let all_agree = self.calls.iter().all(|calls| *calls == self.calls[0]);
        let all_passed = world.outcomes == [[Outcome::Passed; MEETINGS]; RANKS];
        if all_agree && !self.has_aborter && !all_passed {
            return Err(Violation::Needless);
        }
        // Ranks leave at the end, if not before, so there always was an abort.
        if world.hook_calls != 1 { Err(Violation::Hook) } else { Ok(()) }
    }

    /// What `thread` makes of `world` with its next step; `None` if it sleeps or is done.
    fn step(&self, world: &World, thread: usize) -> Result<Option<World>, Violation> {
        let mut next = world.clone();
        let meeting = match thread {
            ..RANKS => world.arrivals[thread].saturating_sub(1),
            _ => 0,
        };
        match world.at[thread] {
            At::Asleep(_) | At::Done => return Ok(None),
            At::Come => {
                next.arrivals[thread] += 1;
                let call = self.calls[thread][world.arrivals[thread]];
                let first = next.state.first;
                match next.state.arrive(RANKS, thread, call) {
                    Ok(Arrival::Complete) => {
                        if self.has(Mistake::StaleCall) {
                            next.state.first = first;
                        }
                        next.at[thread] = At::Wake;
                    }
                    Ok(Arrival::Wait(generation)) => {
                        let is_late = self.has(Mistake::SleepAfterUnlock);
                        next.at[thread] =
                            if is_late { At::Falling(generation) } else { At::Asleep(generation) };
                    }
                    // Under the same lock.
                    Ok(Arrival::Mismatch(..)) => {
                        self.set_reason(&mut next, thread);
                        next.at[thread] = At::LookForReason(Then::Fail);
                    }
                    Err(_) => self.fail(&mut next, thread)?,
                }
            }
            At::Wake => {
                if !self.has(Mistake::SilentArrival) {
                    next.wake_all();
                }
                self.pass(&mut next, thread, meeting)?;
            }
            At::Falling(generation) => next.at[thread] = At::Asleep(generation),
            At::Awake(generation) => {
                let must_wait = match self.mistake {
                    Some(Mistake::NoSecondLook) => false,
                    Some(Mistake::NoGeneration) => {
                        world.state.num_arrived > 0 && world.state.abort_reason.is_none()
                    }
                    _ => world.state.must_wait(generation),
                };
                let outcome = match self.mistake {
                    Some(Mistake::AbortFirst) => world.state.check(),
                    _ => world.state.outcome(generation),
                };
                match outcome {
                    _ if must_wait => next.at[thread] = At::Asleep(generation),
                    Ok(()) => self.pass(&mut next, thread, meeting)?,
                    Err(_) => self.fail(&mut next, thread)?,
                }
            }
            At::Abort(then) => {
                self.set_reason(&mut next, thread);
                next.at[thread] = At::LookForReason(then);
                if self.has(Mistake::HooksFirst) {
                    next.go_on(thread, then);
                }
            }
            At::LookForReason(then) => match world.state.abort_reason {
                Some(_) => next.at[thread] = At::CallHooks(then),
                None if self.has(Mistake::HooksFirst) && thread != LISTENER => {
                    next.at[thread] = At::Abort(then);
                }
                None => next.go_on(thread, then),
            },
            At::CallHooks(then) => {
                next.hook_calls += u8::from(world.has_hook);
                next.has_hook = self.has(Mistake::HooksStay) && world.has_hook;
                match self.has(Mistake::HooksFirst) && thread != LISTENER {
                    true => next.at[thread] = At::Abort(then),
                    false => next.go_on(thread, then),
                }
            }
            At::Fail => self.fail(&mut next, thread)?,
            At::AddHook => {
                next.has_hook = true;
                let is_late = self.has(Mistake::HookTooLate);
                next.at[thread] = if is_late { At::Done } else { At::LookForReason(Then::End) };
            }
        }
        // Enough to tell once from more than once.
        next.hook_calls = next.hook_calls.min(2);
        Ok(Some(next))
    }

    /// Where an abort begins.
    fn abort(&self, then: Then) -> At {
        if self.has(Mistake::HooksFirst) { At::LookForReason(then) } else { At::Abort(then) }
    }

    /// An abort, under the lock.
    fn set_reason(&self, next: &mut World, thread: usize) {
        if self.has(Mistake::LastReason) {
            next.state.abort_reason = None;
        }
        if next.state.abort(&thread.to_string()) {
            next.culprit.get_or_insert(thread);
            if !self.has(Mistake::SilentAbort) {
                next.wake_all();
            }
        }
    }

    fn pass(&self, next: &mut World, rank: usize, meeting: usize) -> Result<(), Violation> {
        if next.arrivals.iter().any(|arrivals| *arrivals <= meeting) {
            return Err(Violation::Early);
        }
        next.outcomes[rank][meeting] = Outcome::Passed;
        let is_last = meeting + 1 == MEETINGS;
        next.at[rank] = if is_last { self.abort(Then::End) } else { At::Come };
        Ok(())
    }

    /// A rank whose meeting fails leaves.
    fn fail(&self, next: &mut World, rank: usize) -> Result<(), Violation> {
        next.outcomes[rank][next.arrivals[rank] - 1] = Outcome::Failed;
        next.at[rank] = self.abort(Then::End);
        let expected = next.culprit.map(|culprit| culprit.to_string());
        match next.state.abort_reason.as_deref() == expected.as_deref() {
            true => Ok(()),
            false => Err(Violation::Reason),
        }
    }
}

impl World {
    fn wake_all(&mut self) {
        for at in &mut self.at {
            if let At::Asleep(generation) = *at {
                *at = At::Awake(generation);
            }
        }
    }

    fn go_on(&mut self, thread: usize, then: Then) {
        self.at[thread] = match then {
            Then::Fail => At::Fail,
            Then::End => At::Done,
        };
    }
}

#[test]
fn in_every_order_meetings_succeed_or_fail_for_all() {
    assert!(System::new(false).check().unwrap() > 1000);
    assert!(System::new(true).check().unwrap() > 10_000);
}

#[test]
fn in_every_order_a_mismatch_ends_the_group() {
    for (meeting, has_aborter) in [(0, false), (1, false), (0, true)] {
        let mut system = System::new(has_aborter);
        // Which rank it is makes no difference.
        system.calls[0][meeting] =
            Call::Broadcast { dtype: DType::F32, shape: Shape::from([2]), root: 1 };
        assert!(system.check().unwrap() > 1000);
    }
}

#[test]
fn every_mistake_is_found() {
    // With somebody who aborts from outside, unless that would wake who sleeps for ever.
    let mistakes = [
        (Mistake::SilentArrival, false, Violation::Deadlock),
        (Mistake::SilentAbort, true, Violation::Deadlock),
        (Mistake::SleepAfterUnlock, false, Violation::Deadlock),
        (Mistake::NoSecondLook, false, Violation::Early),
        (Mistake::AbortFirst, true, Violation::Split),
        (Mistake::NoGeneration, false, Violation::Deadlock),
        (Mistake::StaleCall, false, Violation::Needless),
        (Mistake::LastReason, true, Violation::Reason),
        (Mistake::HooksFirst, true, Violation::Hook),
        (Mistake::HookTooLate, true, Violation::Hook),
        (Mistake::HooksStay, true, Violation::Hook),
    ];
    for (mistake, has_aborter, expected) in mistakes {
        let found = System::new(has_aborter).with(mistake).check();
        assert_eq!(found.err(), Some(expected), "{mistake:?}");
    }
}
