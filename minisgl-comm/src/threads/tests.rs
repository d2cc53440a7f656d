//! An exhaustive check of the staging protocol, as a model: every order in which three ranks can
//! take their steps, for every sequence of four rounds. In each, a rank must find in a staging buffer
//! exactly what its owner put there for the same round.
//!
//! A copy that overlaps another is covered: it stands for both orders of the two steps, and if the
//! steps could overlap then the model takes them in both orders.

use std::collections::HashSet;

const WORLD_SIZE: usize = 3;
const NUM_ROUNDS: usize = 4;

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
    Write(Buffer),
    Meet,
    Read { owner: usize, buffer: Buffer },
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
fn program(rank: usize, rounds: &[Round]) -> Vec<(usize, Step)> {
    let mut steps = Vec::new();
    for (number, round) in rounds.iter().enumerate() {
        let input = Buffer::Input(number % 2);
        let read_all = |buffer| (0..WORLD_SIZE).map(move |owner| Step::Read { owner, buffer });
        let mut round_steps = Vec::new();
        match round {
            Round::Exchange => {
                round_steps.extend([Step::Write(input), Step::Meet]);
                round_steps.extend(read_all(input));
            }
            Round::Shares => {
                round_steps.extend([Step::Write(input), Step::Meet]);
                round_steps.extend(read_all(input));
                round_steps.extend([Step::Write(Buffer::Output), Step::Meet]);
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
}

/// The state after `rank` has taken its next step, `None` if it has to wait or is done.
fn advance(state: &State, rank: usize, programs: &[Vec<(usize, Step)>]) -> Option<State> {
    let &(round, step) = programs[rank].get(state.next[rank])?;
    let mut state = state.clone();
    match step {
        Step::Write(buffer) => {
            state.written[buffer.index(rank)] = Some(round);
            state.next[rank] += 1;
        }
        Step::Read { owner, buffer } => {
            assert_eq!(state.written[buffer.index(owner)], Some(round), "rank {rank}");
            state.next[rank] += 1;
        }
        Step::Meet if state.waits[rank] => return None,
        Step::Meet => {
            state.waits[rank] = true;
            if state.waits == [true; WORLD_SIZE] {
                state.waits = [false; WORLD_SIZE];
                state.next.iter_mut().for_each(|next| *next += 1);
            }
        }
    }
    Some(state)
}

#[test]
fn in_every_order_of_steps_a_rank_reads_what_was_written_for_its_round() {
    let kinds = [Round::Exchange, Round::Shares, Round::Broadcast];
    for sequence in 0..kinds.len().pow(NUM_ROUNDS as u32) {
        let kind_of = |round: usize| kinds[sequence / kinds.len().pow(round as u32) % kinds.len()];
        let rounds: Vec<_> = (0..NUM_ROUNDS).map(kind_of).collect();
        let programs: Vec<_> = (0..WORLD_SIZE).map(|rank| program(rank, &rounds)).collect();
        let start = State {
            next: [0; WORLD_SIZE],
            waits: [false; WORLD_SIZE],
            written: [None; WORLD_SIZE * 3],
        };
        let mut seen = HashSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(state) = open.pop() {
            let mut stuck = true;
            for rank in 0..WORLD_SIZE {
                if let Some(after) = advance(&state, rank, &programs) {
                    stuck = false;
                    if seen.insert(after.clone()) {
                        open.push(after);
                    }
                }
            }
            let done = (0..WORLD_SIZE).all(|rank| state.next[rank] == programs[rank].len());
            assert_eq!(stuck, done, "deadlock in {rounds:?}");
        }
    }
}
