//! Groups over several nodes, each in threads of its own here, connected over the loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use minisgl_comm::nodes::{LinkEvent, Node, NodeConfig, NodeRank, Secret};
use minisgl_comm::{CommError, Communicator};
use minisgl_kernels::{DType, Device, Stream, Tensor};

use crate::support::{Random, abort_reason, bits, device_and_stream, sum, tensor};

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

fn config(num_nodes: usize, node: usize, address: &str) -> NodeConfig {
    NodeConfig {
        num_nodes,
        node,
        address: address.to_owned(),
        secret: Secret::new("the tests' own".to_owned()),
        join_timeout: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
    }
}

/// Runs `body` as every rank of every node, and returns the results in rank order. No rank or link
/// is dropped before all are done: a node may be out of a collective before another one is.
fn run_nodes<R: Send>(
    num_nodes: usize,
    ranks_per_node: usize,
    body: impl Fn(&NodeRank, &Device, &Stream) -> R + Sync,
) -> Vec<R> {
    let address = free_address();
    let (body, address) = (&body, &address);
    let run_node = move |node: usize| {
        let node = Node::join(config(num_nodes, node, address), &[]).unwrap();
        let (ranks, links) = node.into_ranks(ranks_per_node).unwrap();
        let mut senders = Vec::new();
        for (link, receiver) in links {
            receiver.spawn(ranks[0].abort_handle(), |_| {}).unwrap();
            senders.push(link);
        }
        let results = thread::scope(|scope| {
            let ranks: Vec<_> = ranks
                .into_iter()
                .map(|rank| {
                    scope.spawn(move || {
                        let (device, stream) = device_and_stream();
                        (body(&rank, &device, &stream), rank)
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>()
        });
        (results, senders)
    };
    thread::scope(|scope| {
        let nodes: Vec<_> =
            (0..num_nodes).map(|node| scope.spawn(move || run_node(node))).collect();
        let nodes: Vec<_> = nodes.into_iter().map(|node| node.join().unwrap()).collect();
        nodes.into_iter().flat_map(|(results, _)| results).map(|(result, _)| result).collect()
    })
}

const GROUPS: [(usize, usize); 4] = [(2, 1), (4, 1), (2, 2), (3, 2)];

#[test]
fn all_reduce_has_the_bits_of_a_group_in_one_process() {
    for (num_nodes, ranks_per_node) in GROUPS {
        let world_size = num_nodes * ranks_per_node;
        // The last one is cut into blocks.
        for len in [0, 1, 1021, 140_003] {
            if len > 1021 && ranks_per_node == 1 {
                continue;
            }
            let parts: Vec<Vec<f32>> =
                (0..world_size).map(|rank| Random::new(len as u64, rank).floats(len)).collect();
            for dtype in [DType::F32, DType::Bf16] {
                let expected = bits(&sum(dtype, &parts));
                run_nodes(num_nodes, ranks_per_node, |rank, device, stream| {
                    assert_eq!(rank.world_size(), world_size);
                    let mut data = tensor(device, dtype, [len], &parts[rank.rank()]);
                    rank.all_reduce(stream, data.view_mut()).unwrap();
                    rank.barrier().unwrap();
                    let result = bits(&data.to_f32_vec().unwrap());
                    assert!(result == expected, "{len} {dtype}, {num_nodes} x {ranks_per_node}");
                });
            }
        }
    }
}

#[test]
fn all_gather_and_broadcast_move_every_dtype_from_every_root() {
    for (num_nodes, ranks_per_node) in GROUPS {
        let world_size = num_nodes * ranks_per_node;
        run_nodes(num_nodes, ranks_per_node, |rank, device, stream| {
            let first = rank.rank() as i32 * 10;
            let input = Tensor::from_slice(device, [2], &[first, first + 1]).unwrap();
            let mut output = device.zeros(DType::I32, [world_size, 2]).unwrap();
            rank.all_gather(stream, input.view(), output.view_mut()).unwrap();
            let expected: Vec<i32> =
                (0..world_size as i32).flat_map(|rank| [rank * 10, rank * 10 + 1]).collect();
            assert_eq!(output.to_vec::<i32>().unwrap(), expected);

            // Rows that are cut into blocks, where that is not too slow.
            let (rows, columns) = (2, if world_size == 4 { 131_073 } else { 1_001 });
            let part = Random::new(5, rank.rank()).floats(rows * columns);
            let input = tensor(device, DType::F32, [rows, columns], &part);
            let mut output = device.zeros(DType::F32, [world_size, rows, columns]).unwrap();
            rank.all_gather(stream, input.view(), output.view_mut()).unwrap();
            let expected: Vec<f32> = (0..world_size)
                .flat_map(|rank| Random::new(5, rank).floats(rows * columns))
                .collect();
            assert!(bits(&output.to_vec().unwrap()) == bits(&expected));

            for root in 0..world_size {
                let own = u64::MAX - rank.rank() as u64;
                let mut seeds = Tensor::from_slice(device, [1], &[own]).unwrap();
                rank.broadcast(stream, seeds.view_mut(), root).unwrap();
                assert_eq!(seeds.to_vec::<u64>().unwrap(), [u64::MAX - root as u64]);
                let mut data = tensor(device, DType::Bf16, [2, 1], &[rank.rank() as f32; 2]);
                rank.broadcast(stream, data.view_mut(), root).unwrap();
                assert_eq!(data.to_f32_vec().unwrap(), [root as f32; 2]);
            }
            rank.barrier().unwrap();
        });
    }
}

#[test]
fn nodes_that_are_not_in_step_end_the_group_with_both_calls() {
    let reasons = run_nodes(2, 2, |rank, device, stream| {
        let mut data = tensor(device, DType::F32, [4], &[1.0; 4]);
        abort_reason(match rank.rank() / 2 {
            0 => rank.all_reduce(stream, data.view_mut()),
            _ => rank.broadcast(stream, data.view_mut(), 1),
        })
    });
    for reason in reasons {
        assert!(reason.contains("all_reduce(float32 [4])"), "{reason}");
        assert!(reason.contains("node 1 called broadcast(float32 [4], root 1)"), "{reason}");
    }
}

#[test]
fn an_abort_on_any_rank_reaches_all_nodes_with_its_reason() {
    for culprit in 0..4 {
        let reasons = run_nodes(2, 2, |rank, device, stream| {
            if rank.rank() == culprit {
                rank.abort("gave up");
                return abort_reason(rank.barrier());
            }
            let mut data = tensor(device, DType::F32, [4], &[1.0; 4]);
            abort_reason(loop {
                if let failed @ Err(_) = rank.all_reduce(stream, data.view_mut()) {
                    break failed;
                }
            })
        });
        assert_eq!(reasons, ["gave up"; 4], "rank {culprit}");
    }
}

#[test]
fn a_wrong_call_is_named_by_its_rank_on_every_node() {
    let reasons = run_nodes(2, 2, |rank, device, stream| {
        if rank.rank() == 3 {
            let mut data = device.zeros(DType::I32, [4]).unwrap();
            return rank.all_reduce(stream, data.view_mut()).unwrap_err().to_string();
        }
        let mut data = device.zeros(DType::F32, [4]).unwrap();
        abort_reason(rank.all_reduce(stream, data.view_mut()))
    });
    for reason in &reasons[..3] {
        assert!(reason.starts_with("rank 3: all_reduce: data has dtype int32"), "{reason}");
    }
}

#[test]
fn messages_on_the_links_go_both_ways_and_a_goodbye_ends_them() {
    let address = &free_address();
    thread::scope(|scope| {
        for node in 0..3 {
            scope.spawn(move || {
                let joined = Node::join(config(3, node, address), &[]).unwrap();
                let (ranks, links) = joined.into_ranks(1).unwrap();
                let mut peers = Vec::new();
                for (link, mut receiver) in links {
                    peers.push(link.peer());
                    link.send(format!("from {node}").as_bytes()).unwrap();
                    let message = receiver.receive().unwrap().unwrap();
                    assert_eq!(message, format!("from {}", link.peer()).as_bytes());
                    drop(link);
                    assert_eq!(receiver.receive().unwrap(), None);
                }
                assert_eq!(peers, if node == 0 { vec![1, 2] } else { vec![0] });
                drop(ranks);
            });
        }
    });
}

#[test]
fn a_node_that_drops_out_ends_the_others() {
    let address = &free_address();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (ranks, links) =
                Node::join(config(2, 1, address), &[]).unwrap().into_ranks(1).unwrap();
            // The rank ends before the link has said goodbye.
            drop(ranks);
            drop(links);
        });
        let (ranks, mut links) =
            Node::join(config(2, 0, address), &[]).unwrap().into_ranks(1).unwrap();
        let (_link, receiver) = links.pop().unwrap();
        let (told, events) = std::sync::mpsc::channel();
        receiver.spawn(ranks[0].abort_handle(), move |event| told.send(event).unwrap()).unwrap();
        assert!(abort_reason(ranks[0].barrier()).contains("rank 1 left the group"));
        assert!(matches!(events.recv().unwrap(), LinkEvent::Failed(CommError::Aborted { .. })));
    });
}

#[test]
fn links_without_ranks_carry_an_abort_of_any_group() {
    let address = &free_address();
    thread::scope(|scope| {
        for node in 0..2 {
            scope.spawn(move || {
                let group = minisgl_comm::SingleRank::new();
                let abort = group.abort_handle();
                let joined = Node::join(config(2, node, address), &[]).unwrap();
                let (link, receiver) = joined.into_links(&abort).pop().unwrap();
                let (told, ended) = std::sync::mpsc::channel();
                abort.on_abort(move |_| told.send(()).unwrap());
                receiver.spawn(abort.clone(), |_| {}).unwrap();
                if node == 1 {
                    group.abort("a GPU fell off the bus");
                }
                ended.recv().unwrap();
                assert_eq!(abort.reason().as_deref(), Some("a GPU fell off the bus"));
                drop(link);
            });
        }
    });
}

#[test]
fn who_does_not_come_is_named() {
    let address = &free_address();
    let short = |node, secret: &str| NodeConfig {
        join_timeout: Duration::from_millis(1500),
        secret: Secret::new(secret.to_owned()),
        ..config(4, node, address)
    };
    thread::scope(|scope| {
        // Node 2 comes, node 3 has another secret, node 1 does not come.
        let second = scope.spawn(move || {
            let node = Node::join(short(2, "s"), &[]).unwrap();
            let (ranks, mut links) = node.into_ranks(1).unwrap();
            (links[0].1.receive().unwrap_err().to_string(), ranks.len())
        });
        let third = scope.spawn(move || Node::join(short(3, "t"), &[]).unwrap_err().to_string());
        let error = Node::join(short(0, "s"), &[]).unwrap_err().to_string();
        let expected =
            format!("node 1, node 3 (of 4 nodes) did not come to {address} within 1.5 s");
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains("another secret"), "{error}");
        assert!(third.join().unwrap().contains("does not know this node's secret"));
        assert!(second.join().unwrap().0.contains("node 1, node 3"));
    });
    let error = Node::join(short(1, "s"), &[]).unwrap_err();
    assert!(matches!(error, CommError::Unreachable { .. }), "{error}");
}

#[test]
fn a_node_that_was_started_differently_is_told_and_so_is_node_0() {
    let address = &free_address();
    let fact = |value: &str| vec![("dtype".to_owned(), value.to_owned())];
    thread::scope(|scope| {
        let other = scope.spawn(move || Node::join(config(2, 1, address), &fact("bfloat16")));
        let here = Node::join(config(2, 0, address), &fact("float32")).unwrap_err().to_string();
        let there = other.join().unwrap().unwrap_err().to_string();
        assert_eq!(
            here,
            "node 1 differs from node 0: dtype is bfloat16 there and float32 on node 0"
        );
        assert!(there.ends_with(&here), "{there}");
    });
}

#[test]
fn numbers_that_make_no_sense_are_refused_before_anything_is_tried() {
    for (num_nodes, node) in [(0, 0), (1, 0), (2, 2), (65, 0)] {
        let error = Node::join(config(num_nodes, node, "nowhere:1"), &[]).unwrap_err();
        assert!(matches!(error, CommError::Nodes { .. }), "{error}");
    }
    let error = Node::join(config(2, 0, "no-such-host.invalid:1"), &[]).unwrap_err();
    assert!(matches!(error, CommError::Listen { .. }), "{error}");
}
