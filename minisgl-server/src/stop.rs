//! Stop strings: where the output ends, and what must be held back until that is known.
//!
//! All strings are matched at once, byte by byte, each with the automaton of Knuth, Morris and Pratt
//! (1977): its state is the length of the longest suffix of the text that begins the string. So the
//! work per byte is constant on average, and what must be held back is the largest state.
//! Never knows: tokens.

use std::sync::Arc;

/// Strings that end an output.
#[derive(Debug, Default)]
pub struct StopStrings {
    automata: Vec<Automaton>,
}

#[derive(Debug)]
struct Automaton {
    pattern: Box<[u8]>,
    /// For each proper prefix of the pattern by its length less one: the length of its longest
    /// proper suffix that begins the pattern.
    borders: Box<[usize]>,
}

impl StopStrings {
    /// Empty strings are left out: they would end an output before it begins.
    pub fn new<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> Self {
        let strings = strings.into_iter();
        let automata = strings.filter(|string| !string.as_ref().is_empty());
        Self { automata: automata.map(|string| Automaton::new(string.as_ref())).collect() }
    }
}

impl Automaton {
    fn new(pattern: &str) -> Self {
        let pattern: Box<[u8]> = pattern.as_bytes().into();
        let mut automaton = Self { borders: vec![0; pattern.len()].into(), pattern };
        let mut state = 0;
        for index in 1..automaton.pattern.len() {
            state = automaton.next(state, automaton.pattern[index]);
            automaton.borders[index] = state;
        }
        automaton
    }

    /// The state after `byte`; the pattern's length if it is complete.
    fn next(&self, mut state: usize, byte: u8) -> usize {
        while state > 0 && self.pattern[state] != byte {
            state = self.borders[state - 1];
        }
        if self.pattern[state] == byte { state + 1 } else { state }
    }
}

/// The state of one output. The first stop string to be completed ends it; of several completed by
/// the same byte, the longest.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    strings: Arc<StopStrings>,
    /// By automaton.
    states: Vec<usize>,
    /// The end of the text, which may turn out to begin a stop string.
    held: String,
    keep_match: bool,
}

impl StopMatcher {
    /// At the beginning of an output. With `keep_match` the stop string is part of it.
    pub fn new(strings: Arc<StopStrings>, keep_match: bool) -> Self {
        let states = vec![0; strings.automata.len()];
        Self { strings, states, held: String::new(), keep_match }
    }

    /// Takes more text and appends to `out` what is certain to be part of the output. Returns
    /// whether a stop string is complete: the output has ended, and nothing more must be pushed.
    pub fn push(&mut self, text: &str, out: &mut String) -> bool {
        if self.states.is_empty() {
            out.push_str(text);
            return false;
        }
        let known = self.held.len();
        self.held.push_str(text);
        for (index, byte) in text.bytes().enumerate() {
            let mut matched = 0;
            for (automaton, state) in self.strings.automata.iter().zip(&mut self.states) {
                *state = automaton.next(*state, byte);
                if *state == automaton.pattern.len() {
                    matched = matched.max(*state);
                }
            }
            if matched > 0 {
                let end = known + index + 1;
                self.held.truncate(if self.keep_match { end } else { end - matched });
                self.states.fill(0);
                self.finish(out);
                return true;
            }
        }
        let hold = self.states.iter().copied().max().unwrap_or(0);
        let certain = self.held.len() - hold;
        out.push_str(&self.held[..certain]);
        self.held.drain(..certain);
        false
    }

    /// Appends what is held back: no stop string came of it.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}
