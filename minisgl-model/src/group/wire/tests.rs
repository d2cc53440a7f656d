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
            },
            SequencePlan {
                request: RequestId(2),
                row: RowId(2),
                start: 0,
                input: InputTokens::Host(vec![1, 2, 151_935]),
                sampling: None,
            },
            SequencePlan {
                request: RequestId(3),
                row: RowId(3),
                start: 1,
                input: InputTokens::Host(vec![9]),
                sampling: Some(SamplingParams::GREEDY),
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
