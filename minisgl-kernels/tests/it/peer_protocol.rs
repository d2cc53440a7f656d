//! The protocol of `csrc/peer.cu` as a model, in all orders in which its steps can happen.
//!
//! A model of the protocol and not its code: who changes `meet`, the halves or the epochs there
//! changes [`Model`] as well. Never knows numbers; memory holds what was written when.
//!
//! What a block does between two meetings is one step: no other rank can tell how far it is. Then two
//! such steps that touch the same memory and could come next in one state are a data race; and if
//! there are none, the orders that are tried here are all that matter, whatever the memory model
//! between releases and acquires. Flags are told one by one, in all orders.

use std::collections::HashSet;

/// Most ranks and blocks; arrays are small so that millions of states fit.
const RANKS: usize = 3;
const BLOCKS: usize = 2;

/// One sum, the same on all ranks.
#[derive(Clone, Copy)]
struct Launch {
    two_shot: bool,
    /// Whether there is work for the last block.
    is_large: bool,
}

const ONE: Launch = Launch { two_shot: false, is_large: true };
const TWO: Launch = Launch { two_shot: true, is_large: true };
const SMALL: Launch = Launch { two_shot: false, is_large: false };

/// What can be done wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    /// All launches use the same half of the staging memory.
    OneHalf,
    /// A rank waits for a flag to be its epoch, rather than that or more.
    Equal,
    /// The epochs come from the host: a graph of so many launches has the same ones in each replay.
    FrozenEpochs(u8),
    /// The sums are fetched as soon as the own one is there.
    OneMeeting,
    /// A rank's launch begins while the one before still runs.
    EarlyLaunch,
    /// A rank does not wait for the last one.
    Impatient,
}

struct Model {
    ranks: usize,
    blocks: usize,
    launches: Vec<Launch>,
    mistake: Option<Mistake>,
    /// A rank that never comes.
    absent: Option<usize>,
    /// Whether a rank that waits may lose patience, and raise the abort flag.
    may_abort: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Copy,
    Tell(u8),
    Wait(u8),
    Sum,
    Fetch,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Block {
    launch: u8,
    at: At,
    /// Who has been told, as bits.
    told: u8,
    epoch: u8,
}

/// What lies in staging memory: the launch that wrote it, from 1, and whether it is a sum.
type Written = (u8, bool);

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    blocks: [[Block; BLOCKS]; RANKS],
    /// By phase, block, reader and teller.
    flags: [[[[u8; RANKS]; RANKS]; BLOCKS]; 2],
    /// By rank, block, half and share.
    staging: [[[[Written; RANKS]; 2]; BLOCKS]; RANKS],
    is_aborted: bool,
}

#[derive(Debug, PartialEq)]
enum Violation {
    Race,
    Stale,
    Deadlock,
}

/// A place in staging memory, as a bit.
fn cell(rank: usize, block: usize, half: usize, share: usize) -> u64 {
    1 << (((rank * BLOCKS + block) * 2 + half) * RANKS + share)
}

impl Model {
    fn new(ranks: usize, blocks: usize, launches: &[Launch]) -> Self {
        let launches = launches.to_vec();
        Self { ranks, blocks, launches, mistake: None, absent: None, may_abort: false }
    }

    fn with(mut self, mistake: Mistake) -> Self {
        self.mistake = Some(mistake);
        self
    }

    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// Tries everything; the number of states.
    fn check(&self) -> Result<usize, Violation> {
        let block = Block { launch: 0, at: At::Copy, told: 0, epoch: 0 };
        let start = State {
            blocks: [[block; BLOCKS]; RANKS],
            flags: Default::default(),
            staging: Default::default(),
            is_aborted: false,
        };
        let mut seen = HashSet::from([start.clone()]);
        let mut open = vec![start];
        while let Some(state) = open.pop() {
            if !state.is_aborted {
                self.check_races(&state)?;
            }
            let mut is_stuck = !self.is_done(&state);
            for (rank, block) in self.everyone() {
                for next in self.steps(&state, rank, block)? {
                    is_stuck = false;
                    if seen.insert(next.clone()) {
                        open.push(next);
                    }
                }
            }
            if is_stuck {
                return Err(Violation::Deadlock);
            }
        }
        Ok(seen.len())
    }

    fn everyone(&self) -> impl Iterator<Item = (usize, usize)> {
        let ranks = (0..self.ranks).filter(|rank| Some(*rank) != self.absent);
        ranks.flat_map(|rank| (0..self.blocks).map(move |block| (rank, block)))
    }

    fn is_done(&self, state: &State) -> bool {
        let last = self.launches.len() as u8;
        self.everyone().all(|(rank, block)| state.blocks[rank][block].launch == last)
    }

    /// The launch that a block is in or may begin: launches of a rank come one after another.
    fn current(&self, state: &State, rank: usize, block: usize) -> Option<Launch> {
        let own = state.blocks[rank][block].launch;
        let others = &state.blocks[rank][..self.blocks];
        let may_begin = others.iter().all(|other| other.launch >= own);
        let may_begin = may_begin || self.has(Mistake::EarlyLaunch);
        may_begin.then(|| self.launches.get(usize::from(own)).copied()).flatten()
    }

    fn epoch(&self, block: Block) -> u8 {
        match self.mistake {
            Some(Mistake::FrozenEpochs(len)) => block.launch % len + 1,
            _ => block.epoch + 1,
        }
    }

    fn half(&self, block: Block) -> usize {
        if self.has(Mistake::OneHalf) { 0 } else { usize::from(self.epoch(block) % 2) }
    }

    /// What the block's next step reads and writes, if it is not about flags.
    fn touches(&self, state: &State, rank: usize, index: usize) -> (u64, u64) {
        let block = state.blocks[rank][index];
        let Some(launch) = self.current(state, rank, index) else { return (0, 0) };
        if !self.has_work(launch, index) {
            return (0, 0);
        }
        let half = self.half(block);
        let all = |cells: &mut dyn Iterator<Item = (usize, usize)>| {
            cells.fold(0, |bits, (rank, share)| bits | cell(rank, index, half, share))
        };
        let ranks = 0..self.ranks;
        match block.at {
            At::Copy => (0, all(&mut ranks.map(|share| (rank, share)))),
            At::Sum if launch.two_shot => {
                (all(&mut ranks.map(|from| (from, rank))), cell(rank, index, half, rank))
            }
            At::Sum => {
                let shares = |from| (0..self.ranks).map(move |share| (from, share));
                (all(&mut ranks.flat_map(shares)), 0)
            }
            At::Fetch => {
                (all(&mut ranks.filter(|owner| *owner != rank).map(|owner| (owner, owner))), 0)
            }
            At::Tell(_) | At::Wait(_) => (0, 0),
        }
    }

    fn has_work(&self, launch: Launch, block: usize) -> bool {
        launch.is_large || block == 0
    }

    fn check_races(&self, state: &State) -> Result<(), Violation> {
        let (mut read, mut written) = (0, 0);
        for (rank, block) in self.everyone() {
            let (reads, writes) = self.touches(state, rank, block);
            if (reads | writes) & written != 0 || writes & read != 0 {
                return Err(Violation::Race);
            }
            read |= reads;
            written |= writes;
        }
        Ok(())
    }

    /// All states that this block can make of `state`.
    fn steps(&self, state: &State, rank: usize, index: usize) -> Result<Vec<State>, Violation> {
        let Some(launch) = self.current(state, rank, index) else { return Ok(Vec::new()) };
        let block = state.blocks[rank][index];
        let (epoch, half) = (self.epoch(block), self.half(block));
        let stamp = block.launch + 1;
        let mut next = state.clone();
        let own = &mut next.blocks[rank][index];
        let ended = Block { launch: stamp, at: At::Copy, told: 0, epoch };
        if !self.has_work(launch, index) {
            *own = ended;
            return Ok(vec![next]);
        }
        let expect = |from: usize, share: usize, is_sum: bool| {
            let found = state.staging[from][index][half][share];
            let is_right = found == (stamp, is_sum) || state.is_aborted;
            if is_right { Ok(()) } else { Err(Violation::Stale) }
        };
        match block.at {
            At::Copy => {
                own.at = At::Tell(0);
                next.staging[rank][index][half] = [(stamp, false); RANKS];
            }
            At::Tell(phase) => {
                let told = block.told | 1 << rank;
                let tell = |peer: usize| {
                    let mut next = state.clone();
                    next.flags[usize::from(phase)][index][peer][rank] = epoch;
                    let told = told | 1 << peer;
                    let all = told.count_ones() as usize == self.ranks;
                    let (at, told) = if all { (At::Wait(phase), 0) } else { (block.at, told) };
                    next.blocks[rank][index] = Block { at, told, ..block };
                    next
                };
                let untold = (0..self.ranks).filter(|peer| told & 1 << peer == 0);
                return Ok(untold.map(tell).collect());
            }
            At::Wait(phase) => {
                let mut peers = (0..self.ranks).filter(|peer| *peer != rank);
                if self.has(Mistake::Impatient) {
                    peers.next_back();
                }
                let has_come = |peer: usize| {
                    let flag = state.flags[usize::from(phase)][index][rank][peer];
                    if self.has(Mistake::Equal) { flag == epoch } else { flag >= epoch }
                };
                let mut found = Vec::new();
                if self.may_abort {
                    let mut given_up = state.clone();
                    given_up.is_aborted = true;
                    given_up.blocks[rank][index] = ended;
                    found.push(given_up);
                }
                if peers.all(has_come) {
                    own.at = if phase == 0 { At::Sum } else { At::Fetch };
                    found.push(next);
                }
                return Ok(found);
            }
            At::Sum if launch.two_shot => {
                (0..self.ranks).try_for_each(|from| expect(from, rank, false))?;
                own.at = if self.has(Mistake::OneMeeting) { At::Fetch } else { At::Tell(1) };
                next.staging[rank][index][half][rank] = (stamp, true);
            }
            At::Sum => {
                for from in 0..self.ranks {
                    (0..self.ranks).try_for_each(|share| expect(from, share, false))?;
                }
                *own = ended;
            }
            At::Fetch => {
                let mut owners = (0..self.ranks).filter(|owner| *owner != rank);
                owners.try_for_each(|owner| expect(owner, owner, true))?;
                *own = ended;
            }
        }
        Ok(vec![next])
    }
}

/// All series of four of `kinds`.
fn series(kinds: &[Launch]) -> Vec<Vec<Launch>> {
    let mut all = vec![Vec::new()];
    for _ in 0..4 {
        let longer = |series: &Vec<Launch>| {
            let series = series.clone();
            kinds.iter().map(move |kind| [&series[..], &[*kind]].concat())
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

#[test]
fn two_ranks_sum_the_right_parts_in_every_order() {
    // The second block has nobody to meet in the small sums.
    for launches in series(&[ONE, TWO, SMALL]) {
        assert!(Model::new(2, 2, &launches).check().is_ok());
    }
    assert!(Model::new(2, 2, &[TWO, TWO, TWO, TWO]).check().unwrap() > 1000);
}

#[test]
fn three_ranks_sum_the_right_parts_in_every_order() {
    for launches in series(&[ONE, TWO]) {
        assert!(Model::new(3, 1, &launches).check().is_ok());
    }
    assert!(Model::new(3, 1, &[TWO, TWO, TWO, TWO]).check().unwrap() > 1000);
    assert!(Model::new(3, 2, &[ONE, SMALL, ONE]).check().unwrap() > 10_000);
}

#[test]
fn every_mistake_is_found() {
    let mistakes: [(Mistake, usize, &[Launch]); 6] = [
        (Mistake::OneHalf, 1, &[ONE, ONE]),
        (Mistake::Equal, 1, &[ONE, ONE]),
        (Mistake::FrozenEpochs(2), 1, &[ONE, ONE, ONE, ONE]),
        (Mistake::OneMeeting, 1, &[TWO]),
        // That a small sum keeps the second blocks apart, too, is due to the launches' order.
        (Mistake::EarlyLaunch, 2, &[ONE, SMALL, ONE]),
        (Mistake::Impatient, 1, &[ONE]),
    ];
    for ranks in [2, 3] {
        for (mistake, blocks, launches) in mistakes {
            assert!(Model::new(ranks, blocks, launches).check().is_ok());
            let found = Model::new(ranks, blocks, launches).with(mistake).check();
            // Whether a race or what comes of it is found first is up to the order of the search.
            let is_expected = match mistake {
                Mistake::Equal => found == Err(Violation::Deadlock),
                _ => matches!(found, Err(Violation::Race | Violation::Stale)),
            };
            assert!(is_expected, "{ranks} ranks, {mistake:?}: {found:?}");
        }
    }
}

#[test]
fn a_rank_that_never_comes_holds_nobody_once_someone_loses_patience() {
    for ranks in [2, 3] {
        for launches in [[ONE, ONE], [TWO, TWO]] {
            let mut model = Model::new(ranks, 1, &launches);
            model.absent = Some(ranks - 1);
            assert_eq!(model.check().err(), Some(Violation::Deadlock));
            model.may_abort = true;
            assert!(model.check().is_ok());
        }
    }
}
