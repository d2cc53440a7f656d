//! The manager under random use by several requests at once, its books checked after every call.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// Open with a prompt, compute all of it, publish it.
    Open(Vec<TokenId>),
    /// Append tokens to an open lease.
    Extend(usize, Vec<TokenId>),
    Publish(usize),
    Close(usize, bool),
    Flush,
}

fn op() -> impl Strategy<Value = Op> {
    let tokens = |max| prop::collection::vec(0..3u32, 1..max);
    prop_oneof![
        3 => tokens(20).prop_map(Op::Open),
        3 => (any::<usize>(), tokens(6)).prop_map(|(index, tokens)| Op::Extend(index, tokens)),
        2 => any::<usize>().prop_map(Op::Publish),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(index, keep)| Op::Close(index, keep)),
        1 => Just(Op::Flush),
    ]
}

struct Open {
    lease: Lease,
    tokens: Vec<TokenId>,
}

fn run(page_size: usize, cache: CacheKind, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let page_size = PageSize::new(page_size).unwrap();
    let config = KvConfig { num_pages: 40, page_size, num_rows: 4, max_pages_per_row: 30, cache };
    let mut kv = KvManager::new(config).unwrap();
    let mut open: Vec<Open> = Vec::new();
    let mut retired: Vec<PageId> = Vec::new();
    for op in ops {
        match op {
            Op::Open(tokens) => {
                if let Some(mut lease) = kv.open(&tokens) {
                    prop_assert!(lease.shared_pages() * page_size.get() < tokens.len());
                    if kv.grow(&lease, tokens.len()).is_ok() {
                        retired.extend(kv.publish(&mut lease, &tokens));
                        open.push(Open { lease, tokens });
                    } else {
                        kv.close(lease, &[]);
                    }
                } else {
                    prop_assert_eq!(open.len(), 4);
                }
            }
            Op::Extend(index, tokens) if !open.is_empty() => {
                let index = index % open.len();
                let request = &mut open[index];
                let length = request.tokens.len() + tokens.len();
                let before = kv.usage();
                match kv.grow(&request.lease, length) {
                    Ok(()) => request.tokens.extend(tokens),
                    Err(_) => prop_assert_eq!(kv.usage(), before),
                }
            }
            Op::Publish(index) if !open.is_empty() => {
                let index = index % open.len();
                let Open { lease, tokens } = &mut open[index];
                retired.extend(kv.publish(lease, tokens));
                if cache == CacheKind::Radix {
                    prop_assert_eq!(lease.shared_pages(), page_size.full_pages(tokens.len()));
                }
            }
            Op::Close(index, keep) if !open.is_empty() => {
                let Open { lease, tokens } = open.swap_remove(index % open.len());
                kv.close(lease, if keep { &tokens } else { &[] });
                kv.free(std::mem::take(&mut retired));
            }
            Op::Flush => {
                kv.flush();
                prop_assert_eq!(kv.usage().evictable, 0);
            }
            Op::Extend(..) | Op::Publish(_) | Op::Close(..) => {}
        }
        prop_assert_eq!(kv.check(open.iter().map(|request| &request.lease), &retired), Ok(()));
        for request in &open {
            let covered = kv.pages(&request.lease).len() * page_size.get();
            prop_assert!(covered >= request.tokens.len());
        }
    }
    for request in open {
        kv.close(request.lease, &request.tokens);
    }
    kv.free(retired);
    kv.flush();
    prop_assert_eq!(kv.usage().free, 40, "nothing is lost");
    prop_assert_eq!(kv.num_free_rows(), 4);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn books_balance(
        page_size in prop::sample::select(vec![1usize, 3, 4]),
        cache in prop::sample::select(vec![CacheKind::Radix, CacheKind::Naive]),
        ops in prop::collection::vec(op(), 1..50),
    ) {
        run(page_size, cache, ops)?;
    }
}

fn manager(cache: CacheKind) -> KvManager {
    let page_size = PageSize::new(2).unwrap();
    let config = KvConfig { num_pages: 12, page_size, num_rows: 3, max_pages_per_row: 6, cache };
    KvManager::new(config).unwrap()
}

#[test]
fn two_equal_prompts_at_once_share_after_publishing() {
    let mut kv = manager(CacheKind::Radix);
    let prompt = [1, 2, 3, 4, 5];
    let [mut first, mut second] = [(); 2].map(|()| {
        let lease = kv.open(&prompt).unwrap();
        kv.grow(&lease, prompt.len()).unwrap();
        lease
    });
    let own = kv.pages(&second).to_vec();
    assert!(kv.publish(&mut first, &prompt).is_empty());
    kv.take_table_updates();
    let duplicates = kv.publish(&mut second, &prompt);
    assert_eq!(duplicates, own[..2]);
    assert_eq!(kv.pages(&second)[..2], kv.pages(&first)[..2]);
    assert_eq!(kv.pages(&second)[2], own[2], "the page not full yet stays its own");
    let updates = kv.take_table_updates();
    assert_eq!(updates.len(), 1);
    assert_eq!((updates[0].row, updates[0].first_page), (second.row(), 0));
    kv.check([&first, &second], &duplicates).unwrap();
    kv.free(duplicates);
    kv.close(first, &prompt);
    kv.close(second, &prompt);
    assert_eq!(kv.usage().cached(), 2);
}

#[test]
fn the_last_token_is_never_taken_from_the_cache() {
    let mut kv = manager(CacheKind::Radix);
    for prompt in [&[7, 8, 9, 10][..], &[7, 8, 9, 10], &[7, 8, 9, 10, 11]] {
        let lease = kv.open(prompt).unwrap();
        kv.grow(&lease, prompt.len()).unwrap();
        assert!(lease.shared_pages() * 2 < prompt.len());
        kv.close(lease, prompt);
    }
    assert_eq!(kv.usage().cached(), 2);
}

#[test]
fn too_much_is_refused_and_changes_nothing() {
    let mut kv = manager(CacheKind::Naive);
    let lease = kv.open(&[1]).unwrap();
    assert!(matches!(kv.grow(&lease, 13), Err(CacheError::RowFull { wanted: 7, max: 6 })));
    kv.grow(&lease, 12).unwrap();
    let other = kv.open(&[1]).unwrap();
    kv.grow(&other, 10).unwrap();
    let third = kv.open(&[1]).unwrap();
    let error = kv.grow(&third, 4).unwrap_err();
    assert!(matches!(error, CacheError::OutOfPages { wanted: 2, available: 1 }), "{error}");
    assert!(kv.open(&[1]).is_none());
    kv.check([&lease, &other, &third], []).unwrap();
    for lease in [lease, other, third] {
        kv.close(lease, &[]);
    }
    assert_eq!(kv.usage().free, 12);
}

#[test]
fn limits_are_checked() {
    let page_size = PageSize::new(1).unwrap();
    let good = KvConfig {
        num_pages: 1,
        page_size,
        num_rows: 1,
        max_pages_per_row: 1,
        cache: CacheKind::Radix,
    };
    assert!(KvManager::new(good).is_ok());
    for bad in [
        KvConfig { num_pages: 0, ..good },
        KvConfig { num_pages: 1 << 31, ..good },
        KvConfig { num_rows: 0, ..good },
        KvConfig { max_pages_per_row: 0, ..good },
    ] {
        assert!(matches!(KvManager::new(bad), Err(CacheError::Limit { .. })));
    }
}
