//! An exhaustive check of the staging protocol, as a model: every order in which three ranks can
//! take their steps, for every sequence of rounds, also with an abort at any point. In each, a rank
//! must find in a staging buffer exactly what its owner put there for the same round.
//! That meetings are what they are taken for here is checked beside `rendezvous`.
//!
//! A copy that overlaps another is covered: it stands for both orders of the two steps, and if the
//! steps could overlap then the model takes them in both orders.

use std::collections::HashSet;

const WORLD_SIZE: usize = 3;

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    /// All rounds use the same input.
    OneInput,
    /// The shares are fetched without a second meeting.
    OneMeeting,
    /// A rank whose meeting fails begins another round all the same.
    GoOn,
}

#[derive(Debug, PartialEq)]
enum Violation {
    /// A rank found what was written for another round.
    Stale,
    Deadlock,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Buffer {
    Input(usize),
    Output,
}

impl Buffer {
    fn index(self, owner: usize) -> usize {
        match self {
            Self::Input(index) => owner * 3 + index,
            Self::Output => owner * 3 + 2,
        }
    }
}

#[derive(Clone, Copy)]
enum Step {
    /// Looks whether the group is whole.
    Begin,
    Write(Buffer),
    Meet,
    Read {
        owner: usize,
        buffer: Buffer,
    },
}

/// The rounds a collective can consist of.
#[derive(Clone, Copy, Debug)]
enum Round {
    /// Everybody reads everybody's input: all_gather, and all_reduce of a small block.
    Exchange,
    /// all_reduce of a large block.
    Shares,
    /// broadcast from rank 0.
    Broadcast,
}

/// What `rank` does, and the round each step is for.
fn program(rank: usize, rounds: &[Round], mistake: Option<Mistake>) -> Vec<(usize, Step)> {
    let mut steps = Vec::new();
    for (number, round) in rounds.iter().enumerate() {
        let one_input = mistake == Some(Mistake::OneInput);
        let input = Buffer::Input(if one_input { 0 } else { number % 2 });
        let read_all = |buffer| (0..WORLD_SIZE).map(move |owner| Step::Read { owner, buffer });
        let mut round_steps = vec![Step::Begin];
        match round {
            Round::Exchange => {
                round_steps.extend([Step::Write(input), Step::Meet]);
                round_steps.extend(read_all(input));
            }
            Round::Shares => {
                round_steps.extend([Step::Write(input), Step::Meet]);
                round_steps.extend(read_all(input));
                round_steps.push(Step::Write(Buffer::Output));
                round_steps.extend((mistake != Some(Mistake::OneMeeting)).then_some(Step::Meet));
                round_steps.extend(read_all(Buffer::Output));
            }
            Round::Broadcast if rank == 0 => round_steps.extend([Step::Write(input), Step::Meet]),
            Round::Broadcast => {
                round_steps.extend([Step::Meet, Step::Read { owner: 0, buffer: input }]);
            }
        }
        steps.extend(round_steps.into_iter().map(|step| (number, step)));
    }
    steps
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// The next step of each rank.
    next: [usize; WORLD_SIZE],
    /// Whether the rank has come to the meeting that is its next step.
    waits: [bool; WORLD_SIZE],
    /// The round each buffer was last written for.
    written: [Option<usize>; WORLD_SIZE * 3],
    is_aborted: bool,
}

struct Model {
    programs: Vec<Vec<(usize, Step)>>,
    mistake: Option<Mistake>,
}

impl Model {
    fn new(rounds: &[Round], mistake: Option<Mistake>) -> Self {
        let program = |rank| program(rank, rounds, mistake);
        Self { programs: (0..WORLD_SIZE).map(program).collect(), mistake }
    }

    /// The state after `rank` has taken its next step, `None` if it has to wait or is done.
    fn advance(&self, state: &State, rank: usize) -> Result<Option<State>, Violation> {
        let Some(&(round, step)) = self.programs[rank].get(state.next[rank]) else {
            return Ok(None);
        };
        let goes_on = self.mistake == Some(Mistake::GoOn);
        let mut state = state.clone();
        match step {
            Step::Begin | Step::Meet if state.is_aborted && !goes_on => {
                state.waits[rank] = false;
                // It leaves.
                state.next[rank] = self.programs[rank].len();
            }
            Step::Meet if state.is_aborted => {
                state.waits[rank] = false;
                // It does not read what it has not waited for.
                let rest = &self.programs[rank][state.next[rank]..];
                state.next[rank] += rest.iter().take_while(|step| step.0 == round).count();
            }
            Step::Begin => state.next[rank] += 1,
            Step::Write(buffer) => {
                state.written[buffer.index(rank)] = Some(round);
                state.next[rank] += 1;
            }
            Step::Read { owner, buffer } => {
                if state.written[buffer.index(owner)] != Some(round) {
                    return Err(Violation::Stale);
                }
                state.next[rank] += 1;
            }
            Step::Meet if state.waits[rank] => return Ok(None),
            Step::Meet => {
                state.waits[rank] = true;
                if state.waits == [true; WORLD_SIZE] {
                    state.waits = [false; WORLD_SIZE];
                    state.next.iter_mut().for_each(|next| *next += 1);
                }
            }
        }
        Ok(Some(state))
    }

    /// Tries everything.
    fn check(&self, may_abort: bool) -> Result<(), Violation> {
        let start = State {
            next: [0; WORLD_SIZE],
            waits: [false; WORLD_SIZE],
            written: [None; WORLD_SIZE * 3],
            is_aborted: false,
        };
        let mut seen = HashSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(state) = open.pop() {
            let mut is_stuck = true;
            for rank in 0..WORLD_SIZE {
                if let Some(after) = self.advance(&state, rank)? {
                    is_stuck = false;
                    if seen.insert(after.clone()) {
                        open.push(after);
                    }
                }
            }
            let done = (0..WORLD_SIZE).all(|rank| state.next[rank] == self.programs[rank].len());
            if is_stuck && !done {
                return Err(Violation::Deadlock);
            }
            if may_abort && !state.is_aborted {
                let aborted = State { is_aborted: true, ..state };
                if seen.insert(aborted.clone()) {
                    open.push(aborted);
                }
            }
        }
        Ok(())
    }
}

/// All sequences of so many rounds.
fn sequences(num_rounds: u32) -> impl Iterator<Item = Vec<Round>> {
    let kinds = [Round::Exchange, Round::Shares, Round::Broadcast];
    (0..kinds.len().pow(num_rounds)).map(move |sequence| {
        let kind_of = |round| kinds[sequence / kinds.len().pow(round) % kinds.len()];
        (0..num_rounds).map(kind_of).collect()
    })
}

#[test]
fn in_every_order_of_steps_a_rank_reads_what_was_written_for_its_round() {
    for rounds in sequences(4) {
        assert_eq!(Model::new(&rounds, None).check(false), Ok(()), "{rounds:?}");
    }
}

#[test]
fn wherever_an_abort_comes_no_rank_reads_anything_else_or_waits_for_ever() {
    for rounds in sequences(3) {
        assert_eq!(Model::new(&rounds, None).check(true), Ok(()), "{rounds:?}");
    }
}

#[test]
fn every_mistake_is_found() {
    for (mistake, rounds, may_abort) in [
        (Mistake::OneInput, vec![Round::Exchange; 2], false),
        (Mistake::OneMeeting, vec![Round::Shares], false),
        (Mistake::GoOn, vec![Round::Exchange; 3], true),
    ] {
        assert_eq!(Model::new(&rounds, None).check(may_abort), Ok(()));
        let found = Model::new(&rounds, Some(mistake)).check(may_abort);
        assert_eq!(found, Err(Violation::Stale), "{mistake:?}");
    }
}
