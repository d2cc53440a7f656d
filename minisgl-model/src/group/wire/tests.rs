//! What is written is read again, and what was not written is refused.

use super::*;

fn plan() -> StepPlan {
    let sampling = SamplingParams {
        temperature: 0.7,
        top_k: 40,
        top_p: 0.9,
        min_p: f32::MIN_POSITIVE,
        seed: u64::MAX,
        logprobs: Some(5),
    };
    let first = FirstAdjusting {
        adjustments: Arc::new(Adjustments {
            repetition_penalty: 1.25,
            frequency_penalty: -2.0,
            presence_penalty: 0.5,
            logit_bias: vec![(151_935, -100.0), (0, 1.5)],
            min_tokens: 3,
        }),
        prompt: TokenSet::of(&[5, 64]),
        held_back: [2, 151_645].into(),
    };
    StepPlan {
        step: StepId(1 << 40),
        table_updates: vec![
            TableUpdate { row: RowId(7), first_page: 3, pages: vec![PageId(u32::MAX), PageId(0)] },
            TableUpdate { row: RowId(0), first_page: 0, pages: vec![] },
        ],
        sequences: vec![
            SequencePlan {
                request: RequestId(u64::MAX),
                row: RowId(1),
                start: 12_345,
                input: InputTokens::Sampled,
                sampling: Some(sampling),
                adjusting: Some(Adjusting::Next),
            },
            SequencePlan {
                request: RequestId(2),
                row: RowId(2),
                start: 0,
                input: InputTokens::Host(vec![1, 2, 151_935]),
                sampling: None,
                adjusting: None,
            },
            SequencePlan {
                request: RequestId(3),
                row: RowId(3),
                start: 1,
                input: InputTokens::Host(vec![9]),
                sampling: Some(SamplingParams::GREEDY),
                adjusting: Some(Adjusting::First(Box::new(first))),
            },
        ],
    }
}

fn messages() -> Vec<Message> {
    let empty = StepPlan { step: StepId(1), table_updates: vec![], sequences: vec![] };
    vec![
        Message::Capacity { num_pages: 1 << 33 },
        Message::Start { num_pages: 0 },
        Message::Ready { rank: 63 },
        Message::Plan(empty),
        Message::Plan(plan()),
        Message::NcclId(std::array::from_fn(|i| i as u8)),
    ]
}

#[test]
fn messages_come_back_as_they_were() {
    for message in messages() {
        assert_eq!(Message::decode(&message.encode()), Some(message));
    }
}

#[test]
fn a_part_of_a_message_and_a_message_with_more_are_none() {
    for message in messages() {
        let mut bytes = message.encode();
        for length in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..length]), None, "{length} bytes of {message:?}");
        }
        bytes.push(0);
        assert_eq!(Message::decode(&bytes), None);
    }
}

#[test]
fn no_byte_out_of_place_makes_it_panic_or_take_more_memory_than_there_are_bytes() {
    let bytes = Message::Plan(plan()).encode();
    for place in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[place] ^= flip;
            // Whether it is a plan still depends on the place.
            if let Some(message) = Message::decode(&bytes) {
                assert_eq!(message.encode().len(), bytes.len());
            }
        }
    }
}

#[test]
fn more_than_a_rank_has_room_for_is_none() {
    let with = |num_biased: usize, num_held_back: usize| {
        let mut plan = plan();
        let logit_bias = (0..num_biased as u32).map(|id| (id, 1.0)).collect();
        let first = FirstAdjusting {
            adjustments: Arc::new(Adjustments { logit_bias, ..Adjustments::NONE }),
            prompt: TokenSet::default(),
            held_back: (0..num_held_back as u32).collect(),
        };
        plan.sequences[2].adjusting = Some(Adjusting::First(Box::new(first)));
        Message::decode(&Message::Plan(plan).encode())
    };
    assert!(with(MAX_LOGIT_BIAS, MAX_HELD_BACK).is_some());
    assert_eq!(with(MAX_LOGIT_BIAS + 1, 0), None);
    assert_eq!(with(0, MAX_HELD_BACK + 1), None);
}
