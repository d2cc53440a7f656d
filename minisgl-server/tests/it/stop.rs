//! Stop strings against their definition, however the text is cut into pieces.

use std::sync::Arc;

use minisgl_server::stop::{StopMatcher, StopStrings};

use crate::fixture::Random;

/// Where the output ends: before the longest of the stop strings that are complete at the first
/// character where any is.
fn naive(text: &str, stops: &[String], keep: bool) -> (String, bool) {
    for (end, c) in text.char_indices().map(|(start, c)| (start + c.len_utf8(), c)) {
        let _ = c;
        let complete = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
        if let Some(longest) = complete.map(String::len).max() {
            return (text[..if keep { end } else { end - longest }].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

/// How much of the end of `text` must be held back.
fn naive_hold(text: &str, stops: &[String]) -> usize {
    let proper = |len: &usize| {
        let tail = &text.as_bytes()[text.len() - len..];
        stops.iter().any(|stop| stop.len() > *len && stop.as_bytes().starts_with(tail))
    };
    (1..=text.len()).rev().find(proper).unwrap_or(0)
}

fn random_text(random: &mut Random, max: usize) -> String {
    // Few letters, so that strings overlap themselves and each other.
    let letters = ['a', 'b', 'é', '😀', '\u{fffd}'];
    (0..random.below(max + 1)).map(|_| letters[random.below(letters.len())]).collect()
}

#[test]
fn any_cut_of_the_text_gives_what_the_definition_says() {
    let mut random = Random(4);
    let mut matched = 0;
    for _ in 0..30_000 {
        let text = random_text(&mut random, 14);
        let count = random.below(4);
        let stops: Vec<String> = (0..count).map(|_| random_text(&mut random, 5)).collect();
        let stops: Vec<String> = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        let keep = random.below(2) == 0;
        let (expected, expected_match) = naive(&text, &stops, keep);
        let mut matcher = StopMatcher::new(Arc::new(StopStrings::new(&stops)), keep);
        let (mut out, mut seen, mut stopped) = (String::new(), String::new(), false);
        let mut rest = text.as_str();
        while !rest.is_empty() && !stopped {
            let characters = random.below(4);
            let cut = rest.char_indices().nth(characters).map_or(rest.len(), |(index, _)| index);
            let (piece, after) = rest.split_at(cut);
            stopped = matcher.push(piece, &mut out);
            seen.push_str(piece);
            rest = after;
            if !stopped {
                let certain = seen.len() - naive_hold(&seen, &stops);
                assert_eq!(out, seen[..certain], "held back too much or too little: {stops:?}");
            }
        }
        if !stopped {
            matcher.finish(&mut out);
        }
        assert_eq!((out, stopped), (expected, expected_match), "{text:?} {stops:?}");
        matched += usize::from(stopped);
    }
    assert!(matched > 5_000, "only {matched} matched");
}

#[test]
fn an_empty_stop_string_is_none() {
    let mut matcher = StopMatcher::new(Arc::new(StopStrings::new([""])), false);
    let mut out = String::new();
    assert!(!matcher.push("text", &mut out));
    assert_eq!(out, "text");
}
