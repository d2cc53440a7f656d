//! Tokens to text: against Hugging Face's own decoder, on random tokens.

use minisgl_server::detokenizer::Detokenizer;
use minisgl_server::output::{Delta, Output, OutputOptions};
use minisgl_server::tokenizer::{AddSpecial, Tokenizer};
use serde_json::Value;

use crate::fixture::{Random, byte_fallback_tokenizer, byte_level_tokenizer, metaspace_tokenizer};

/// Both our tokenizer and Hugging Face's.
fn load(json: &Value) -> (Tokenizer, tokenizers::Tokenizer) {
    let bytes = json.to_string().into_bytes();
    (Tokenizer::from_json(&bytes).unwrap(), tokenizers::Tokenizer::from_bytes(&bytes).unwrap())
}

fn random_tokens(random: &mut Random, vocab_size: usize) -> Vec<u32> {
    let len = random.below(24);
    // Some ids are outside of the vocabulary.
    (0..len).map(|_| random.below(vocab_size + 2) as u32).collect()
}

/// One token at a time; whole characters only.
fn stream(tokenizer: &Tokenizer, tokens: &[u32], skip_special_tokens: bool) -> String {
    let mut detokenizer = Detokenizer::new(skip_special_tokens);
    let mut text = String::new();
    for token in tokens {
        let mut piece = String::new();
        detokenizer.push(tokenizer.token_bytes(), *token, &mut piece);
        text.push_str(&piece);
    }
    detokenizer.finish(&mut text);
    text
}

#[test]
fn byte_level_streams_are_what_hugging_face_decodes() {
    let (tokenizer, reference) = load(&byte_level_tokenizer());
    let mut random = Random(1);
    for _ in 0..20_000 {
        let tokens = random_tokens(&mut random, 60);
        for skip in [true, false] {
            let expected = reference.decode(&tokens, skip).unwrap();
            assert_eq!(stream(&tokenizer, &tokens, skip), expected, "{tokens:?}");
            assert_eq!(tokenizer.decode(&tokens, skip), expected);
        }
    }
}

#[test]
fn byte_fallback_streams_are_what_hugging_face_decodes_if_it_is_utf8() {
    for json in [byte_fallback_tokenizer(), metaspace_tokenizer()] {
        let (tokenizer, reference) = load(&json);
        let mut random = Random(2);
        let mut compared = 0;
        for _ in 0..20_000 {
            let tokens = random_tokens(&mut random, 40);
            for skip in [true, false] {
                let text = stream(&tokenizer, &tokens, skip);
                assert_eq!(tokenizer.decode(&tokens, skip), text);
                // Hugging Face gives up whole runs of bytes where we give up the broken ones.
                if !text.contains(char::REPLACEMENT_CHARACTER) {
                    compared += 1;
                    assert_eq!(text, reference.decode(&tokens, skip).unwrap(), "{tokens:?}");
                }
            }
        }
        assert!(compared > 5_000, "only {compared} were UTF-8");
    }
}

#[test]
fn broken_bytes_become_replacement_characters_in_byte_fallback() {
    let (tokenizer, _) = load(&byte_fallback_tokenizer());
    let id = |token: &str| tokenizer.token_id(token).unwrap();
    let tokens = [id("<0xC3>"), id("<0xA9>"), id("<0xFF>"), id("b"), id("<0xF0>"), id("<0x9F>")];
    assert_eq!(stream(&tokenizer, &tokens, true), "é\u{fffd}b\u{fffd}");
}

#[test]
fn a_character_comes_out_when_it_is_complete_and_not_before() {
    let (tokenizer, _) = load(&byte_fallback_tokenizer());
    let mut detokenizer = Detokenizer::new(true);
    let mut pieces = Vec::new();
    for byte in "😀".bytes() {
        let mut piece = String::new();
        let token = tokenizer.token_id(&format!("<0x{byte:02X}>")).unwrap();
        detokenizer.push(tokenizer.token_bytes(), token, &mut piece);
        pieces.push(piece);
    }
    assert_eq!(pieces, ["", "", "", "😀"]);
}

#[test]
fn only_the_space_before_the_first_word_is_taken_off() {
    let (tokenizer, reference) = load(&byte_fallback_tokenizer());
    let id = |token: &str| tokenizer.token_id(token).unwrap();
    for (tokens, expected) in [
        (vec![id("▁a"), id("▁the")], "a the"),
        (vec![id("<s>"), id("▁a")], "a"),
        (vec![id("▁"), id("▁a")], " a"),
        (vec![id("▁▁"), id("b")], " b"),
        (vec![id("b"), id("<s>"), id("▁a")], "b a"),
    ] {
        assert_eq!(stream(&tokenizer, &tokens, true), expected);
        assert_eq!(reference.decode(&tokens, true).unwrap(), expected);
    }
}

#[test]
fn text_comes_back() {
    let texts = ["", "abc the", "  a  b ", "é € 😀 中\n\"quoted\" \\ <|x|>", "a\u{0}b\u{7f}\u{ad}"];
    for json in [byte_level_tokenizer(), byte_fallback_tokenizer()] {
        let (tokenizer, _) = load(&json);
        for text in texts {
            let tokens = tokenizer.encode(text, AddSpecial::Yes).unwrap();
            assert_eq!(tokenizer.decode(&tokens, true), text);
            assert!(text.len() <= tokenizer.max_text_bytes(tokens.len()));
        }
    }
}

#[test]
fn special_tokens_are_added_only_if_asked_for() {
    let (tokenizer, _) = load(&byte_fallback_tokenizer());
    let encode = |special| tokenizer.encode("a", special).unwrap();
    let bos = tokenizer.token_id("<s>").unwrap();
    assert_eq!(encode(AddSpecial::Yes)[0], bos);
    assert!(!encode(AddSpecial::No).contains(&bos));
}

#[test]
fn unknown_decoders_are_refused_with_a_reason() {
    for (decoder, reason) in [
        (serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), "WordPiece"),
        (serde_json::json!(null), "no decoder"),
        (serde_json::json!({"type": "Strip", "content": " ", "start": 1, "stop": 1}), "strips"),
    ] {
        let mut json = byte_level_tokenizer();
        json["decoder"] = decoder;
        let error = Tokenizer::from_json(json.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer.json: ") && error.contains(reason), "{error}");
    }
    assert!(Tokenizer::from_json(b"{}").is_err());
}

/// Text, log-probabilities and stop strings together: however the deltas are cut, they add up.
#[test]
fn scored_tokens_come_with_the_text_they_reach_into() {
    use minisgl_sched::TokenLogprobs;
    use minisgl_server::stop::StopStrings;

    let (tokenizer, _) = load(&byte_level_tokenizer());
    let vocabulary = tokenizer.token_bytes();
    let mut random = Random(3);
    for _ in 0..5_000 {
        let tokens = random_tokens(&mut random, 50);
        let options = OutputOptions {
            stop: std::sync::Arc::new(StopStrings::new(["ab", "é a", "STOP"])),
            skip_special_tokens: random.below(2) == 0,
            ..OutputOptions::default()
        };
        let mut output = Output::new(&options);
        let (mut text, mut scored, mut stopped) = (String::new(), Vec::new(), false);
        for (step, token) in tokens.iter().enumerate() {
            let logprobs = TokenLogprobs { chosen: -(step as f32), top: Vec::new() };
            let mut delta = Delta::default();
            stopped = output.push(vocabulary, *token, Some(logprobs), &mut delta);
            text.push_str(&delta.text);
            let length = text.chars().count();
            assert!(delta.tokens.iter().all(|token| token.text_offset < length), "ahead of text");
            scored.extend(delta.tokens);
            if stopped {
                break;
            }
        }
        if !stopped {
            let mut delta = Delta::default();
            stopped = output.finish(&mut delta);
            text.push_str(&delta.text);
            scored.extend(delta.tokens);
        }
        let all = tokenizer.decode(&tokens, options.skip_special_tokens);
        assert!(all.starts_with(&text));
        assert!(stopped || all == text);
        // In order, none left out up to the last, and all of them if nothing stopped.
        let steps: Vec<f32> = scored.iter().map(|token| -token.logprobs.chosen).collect();
        let expected: Vec<f32> = (0..scored.len()).map(|step| step as f32).collect();
        assert_eq!(steps, expected);
        assert!(stopped || scored.len() == tokens.len());
    }
}
