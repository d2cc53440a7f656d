//! What nodes say to each other before their ranks start, over the loopback.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use minisgl_comm::SingleRank;
use minisgl_comm::nodes::{NodeConfig, Secret};

use super::*;

/// Runs `body` on each of `num_nodes` nodes with its links, and returns what comes out, by node.
fn on_nodes<R: Send>(
    num_nodes: usize,
    body: impl Fn(usize, &mut Links, &AbortHandle) -> R + Sync,
) -> Vec<R> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (body, address) = (&body, &address);
    let run = move |node| {
        let config = NodeConfig {
            num_nodes,
            node,
            address: address.clone(),
            secret: Secret::new("the tests' own".to_owned()),
            join_timeout: Duration::from_secs(60),
            timeout: Duration::from_secs(60),
        };
        let group = SingleRank::new();
        let abort = group.abort_handle();
        let mut links = Node::join(config, &[]).unwrap().into_links(&abort);
        body(node, &mut links, &abort)
    };
    thread::scope(|scope| {
        let nodes: Vec<_> = (0..num_nodes).map(|node| scope.spawn(move || run(node))).collect();
        nodes.into_iter().map(|node| node.join().unwrap()).collect()
    })
}

#[test]
fn all_nodes_have_the_pages_of_the_smallest_and_the_id_of_node_0() {
    let ids = [7, 8, 9].map(|byte| [byte; NcclId::BYTES]);
    let agreed = on_nodes(3, |node, links, _| {
        let pages = least_pages(node, links, [300, 100, 200][node]).unwrap();
        (pages, common_id(node, links, || Ok(ids[node])).unwrap())
    });
    assert_eq!(agreed, [(100, ids[0]); 3]);
}

#[test]
fn without_an_id_the_other_nodes_hear_why() {
    let errors = on_nodes(3, |node, links, abort| {
        let failed = || Err(nonsense(5));
        let error = common_id(node, links, failed).unwrap_err().to_string();
        if node == 0 {
            abort.abort(&error);
        }
        error
    });
    assert!(errors.iter().all(|error| error.contains("node 5: it sent a message")), "{errors:?}");
}

#[test]
fn another_message_in_the_place_of_an_id_is_refused() {
    let errors = on_nodes(2, |node, links, _| match node {
        0 => {
            send_all(links, &Message::Start { num_pages: 1 }).unwrap();
            // Node 1 ends first, so it has read the message.
            links[0].1.receive().unwrap().is_none()
        }
        _ => {
            let error = common_id(1, links, || unreachable!()).unwrap_err();
            error.to_string().contains("node 0: it sent a message that makes no sense here")
        }
    });
    assert_eq!(errors, [true, true]);
}
