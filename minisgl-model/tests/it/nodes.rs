//! Groups over several nodes, here in threads of one process: the same tokens as in one, and what
//! happens when they do not fit or fall apart.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use minisgl_model::{
    DTypeChoice, EngineOptions, KvCacheDType, ModelError, NodeConfig, QuantizationChoice,
    RankGroup, Secret,
};
use minisgl_sched::{Executor as _, SamplingParams};

use crate::harness::{
    Quiet, adjusted, adjustments, checkpoint, driver, launch, options, request, run,
};

/// Options of node `node` of `num_nodes`.
fn node_options(
    base: &EngineOptions,
    num_nodes: usize,
    node: usize,
    address: &str,
) -> EngineOptions {
    let nodes = NodeConfig {
        num_nodes,
        node,
        address: address.to_owned(),
        secret: Secret::new("the tests' own".to_owned()),
        join_timeout: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
    };
    EngineOptions { nodes: Some(nodes), ..base.clone() }
}

/// An address that nobody listens on now, nor will: of the loopback's many, one that no other test
/// uses, and from which nobody calls.
fn free_address() -> String {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let host = match cfg!(target_os = "linux") {
        true => [127, 1 + (process >> 8) as u8 % 250, process as u8, count],
        false => [127, 0, 0, 1],
    };
    TcpListener::bind((Ipv4Addr::from(host), 0)).unwrap().local_addr().unwrap().to_string()
}

/// Runs `body` with the group of node 0, and returns how the other nodes ended.
fn with_nodes(
    case: &str,
    base: &EngineOptions,
    num_nodes: usize,
    body: impl FnOnce(RankGroup),
) -> Vec<Result<(), ModelError>> {
    let address = &free_address();
    thread::scope(|scope| {
        let others: Vec<_> = (1..num_nodes)
            .map(|node| {
                scope.spawn(move || {
                    let options = node_options(base, num_nodes, node, address);
                    RankGroup::serve_node(&checkpoint(case), &options, &Quiet, |_| {})
                })
            })
            .collect();
        body(launch(case, &node_options(base, num_nodes, 0, address)).unwrap());
        others.into_iter().map(|other| other.join().unwrap()).collect()
    })
}

#[test]
fn nodes_sample_what_ranks_of_one_process_sample() {
    let sampled = SamplingParams {
        temperature: 0.8,
        top_k: 30,
        top_p: 0.9,
        min_p: 0.01,
        seed: 3,
        logprobs: Some(3),
    };
    for (case, dtype, tp_size, num_nodes) in [
        ("llama", DTypeChoice::Float32, 2, 2),
        ("qwen3", DTypeChoice::Bfloat16, 4, 2),
        ("qwen3", DTypeChoice::Float32, 4, 4),
    ] {
        // Prompts longer than a step takes, so that plans of all kinds travel.
        let requests = || {
            let prompt: Vec<u32> = (3..103).collect();
            vec![
                request(1, &prompt, 12, SamplingParams::GREEDY),
                adjusted(request(2, &[5, 6, 7], 20, sampled), adjustments(7)),
                request(3, &prompt[..90], 7, sampled),
            ]
        };
        let base = options(tp_size, dtype);
        let alone = run(&mut driver(launch(case, &base).unwrap(), true), requests());
        let ended = with_nodes(case, &base, num_nodes, |group| {
            assert_eq!(group.limits().tp_size, tp_size);
            let together = run(&mut driver(group, true), requests());
            assert!(together == alone, "{case} with {tp_size} ranks on {num_nodes} nodes");
        });
        // Node 0 left in good order.
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    }
}

#[test]
fn the_smallest_node_says_how_many_pages_there_are() {
    let base = options(2, DTypeChoice::Float32);
    let address = &free_address();
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            let mut options = node_options(&base_of(2), 2, 1, address);
            options.num_pages = Some(100);
            RankGroup::serve_node(&checkpoint("llama"), &options, &Quiet, |group| {
                assert_eq!(group.limits().scheduler.num_pages, 100);
            })
        });
        let group = launch("llama", &node_options(&base, 2, 0, address)).unwrap();
        assert_eq!(group.limits().scheduler.num_pages, 100);
        drop(group);
        other.join().unwrap().unwrap();
    });
}

fn base_of(tp_size: usize) -> EngineOptions {
    options(tp_size, DTypeChoice::Float32)
}

#[test]
fn nodes_with_another_model_or_option_are_named_with_the_difference() {
    let address = &free_address();
    let base = base_of(2);
    let other = |case: &'static str, change: fn(&mut EngineOptions), expected: &[&str]| {
        thread::scope(|scope| {
            let base = &base;
            let other = scope.spawn(move || {
                let mut options = node_options(base, 2, 1, address);
                change(&mut options);
                RankGroup::serve_node(&checkpoint(case), &options, &Quiet, |_| {})
            });
            let here = launch("llama", &node_options(base, 2, 0, address)).unwrap_err();
            let there = other.join().unwrap().unwrap_err();
            for error in [here.to_string(), there.to_string()] {
                for part in expected {
                    assert!(error.contains(part), "{part} is not in: {error}");
                }
            }
        });
    };
    other("qwen3", |_| {}, &["node 1 differs from node 0: model is "]);
    other(
        "llama",
        |options| options.dtype = DTypeChoice::Bfloat16,
        &["--dtype is bfloat16 there and float32 on node 0"],
    );
    other(
        "llama",
        |options| {
            options.quantization = QuantizationChoice::Fp8;
            options.kv_cache_dtype = KvCacheDType::Fp8;
        },
        &[
            "--quantization is fp8 there and none on node 0",
            "--kv-cache-dtype is fp8_e4m3 there and auto on node 0",
        ],
    );
    other(
        "llama",
        |options| {
            options.tp_size = std::num::NonZeroUsize::new(4).unwrap();
            options.max_prefill_tokens = 32;
        },
        &["--tp is 4 there and 2 on node 0", "--max-prefill-length is 32 there and 64 on node 0"],
    );
}

#[test]
fn ranks_that_cannot_be_shared_out_and_nodes_in_the_wrong_place_are_refused() {
    let error = launch("llama", &node_options(&base_of(4), 3, 0, "nowhere:1")).unwrap_err();
    assert!(error.to_string().contains("--nnodes 3 is not allowed with --tp 4"), "{error}");
    let error = launch("llama", &node_options(&base_of(2), 2, 1, "nowhere:1")).unwrap_err();
    assert!(error.to_string().contains("--node-rank 1 follows node 0"), "{error}");
    let options = node_options(&base_of(2), 2, 0, "nowhere:1");
    let error = RankGroup::serve_node(&checkpoint("llama"), &options, &Quiet, |_| {}).unwrap_err();
    assert!(error.to_string().contains("--node-rank 0 is the node"), "{error}");
}

#[test]
fn an_idle_group_learns_that_a_node_has_failed() {
    let base = base_of(2);
    let ended = with_nodes("llama", &base, 2, |mut group| {
        let (notify, notified) = channel();
        group.check().unwrap();
        group.on_failure(Box::new(move || notify.send(()).unwrap()));
        group.abort_handle().abort("the test has had enough");
        notified.recv().unwrap();
        let error = group.check().unwrap_err().to_string();
        assert!(error.contains("the test has had enough"), "{error}");
        assert!(group.check().is_err());
    });
    let error = ended[0].as_ref().unwrap_err().to_string();
    assert!(error.contains("the test has had enough"), "{error}");
}
