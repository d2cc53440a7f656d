//! Who is let in, and what the others are told.

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::*;

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn fact(name: &str, value: &str) -> Fact {
    (name.to_owned(), value.to_owned())
}

const CALLER: Caller = Caller { node: 1, num_nodes: 3, channel: Channel::Link };

/// Both sides of a handshake; node 0 has three nodes, the secret `s` and `facts`.
fn shake(
    caller: Caller,
    callers_secret: &str,
    callers_facts: &[Fact],
    facts: &[Fact],
) -> (Result<(), Failure>, Result<Caller, Failure>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    thread::scope(|scope| {
        let calling =
            scope.spawn(move || call(&near, caller, &secret(callers_secret), callers_facts));
        let answered = answer(&far, 3, &secret("s"), facts);
        if answered.is_ok() {
            welcome(&far).unwrap();
        }
        drop(far);
        (calling.join().unwrap(), answered)
    })
}

#[test]
fn who_knows_the_secret_and_has_the_same_facts_is_let_in() {
    let facts = [fact("dtype", "float32"), fact("ranks", "4")];
    let (called, answered) = shake(CALLER, "s", &facts, &facts);
    called.unwrap();
    assert_eq!(answered.unwrap(), CALLER);
}

#[test]
fn another_secret_is_noticed_by_the_caller_which_then_tells_nothing() {
    let (called, answered) = shake(CALLER, "t", &[fact("dtype", "float32")], &[]);
    assert!(matches!(called, Err(Failure::Secret)), "{called:?}");
    assert!(matches!(answered, Err(Failure::Io(_))), "{answered:?}");
}

#[test]
fn facts_that_differ_are_named_with_both_values() {
    let ours = [fact("dtype", "float32"), fact("page size", "16"), fact("same", "1")];
    let theirs = [fact("dtype", "bfloat16"), fact("same", "1"), fact("extra", "x")];
    let (called, answered) = shake(CALLER, "s", &theirs, &ours);
    let Err(Failure::Refused(told)) = called else { panic!("{called:?}") };
    let Err(Failure::Mismatch(kept)) = answered else { panic!("{answered:?}") };
    assert_eq!(told, kept);
    assert_eq!(
        told,
        "node 1 differs from node 0: dtype is bfloat16 there and float32 on node 0; page size is \
         not set there and 16 on node 0; extra is x there and not set on node 0"
    );
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    for (node, num_nodes, expected) in [
        (0, 3, "0 is not a number for a node that comes"),
        (3, 3, "3 is not a number for a node that comes"),
        (1, 2, "node 1 was told of 2 nodes, but node 0 of 3"),
    ] {
        let (called, _) = shake(Caller { node, num_nodes, ..CALLER }, "s", &[], &[]);
        let Err(Failure::Refused(told)) = called else { panic!("{called:?}") };
        assert!(told.contains(expected), "{told}");
    }
}

/// What node 0 makes of these bytes, after which the stranger listens for an answer.
fn send_raw(bytes: &[u8]) -> (Result<Caller, Failure>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    near.write_all(bytes).unwrap();
    near.shutdown(std::net::Shutdown::Write).unwrap();
    let answered = answer(&far, 3, &secret("s"), &[]);
    drop(far);
    let mut told = Vec::new();
    let _ = near.read_to_end(&mut told);
    (answered, told)
}

fn hello(protocol: u32) -> Vec<u8> {
    let mut body = MAGIC.to_vec();
    for number in [protocol, 1, 3] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.push(0);
    body.extend_from_slice(&[0; PROOF_BYTES]);
    body
}

fn framed(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    FrameBuffer::of(kind, body).write(&mut bytes).unwrap();
    bytes
}

#[test]
fn strangers_get_nothing_out_of_node_0() {
    let long = framed(Kind::Hello, &[0; MAX_STRANGER_BYTES + 1]);
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![], long, framed(Kind::Hello, &MAGIC)] {
        let (answered, told) = send_raw(&bytes);
        assert!(matches!(answered, Err(Failure::Io(_))), "{answered:?}");
        assert_eq!(told, []);
    }
}

#[test]
fn a_guessed_or_reflected_proof_is_no_proof() {
    let mut bytes = framed(Kind::Hello, &hello(PROTOCOL));
    bytes.extend_from_slice(&framed(Kind::Proof, &[7; PROOF_BYTES]));
    let (answered, _) = send_raw(&bytes);
    assert!(matches!(answered, Err(Failure::Secret)), "{answered:?}");

    // Node 0's own proof, sent back to it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    thread::scope(|scope| {
        let answering = scope.spawn(move || answer(&far, 3, &secret("s"), &[]));
        near.write_all(&framed(Kind::Hello, &hello(PROTOCOL))).unwrap();
        let mut challenge = Vec::new();
        assert_eq!(frame::read(&near, 1024, &mut challenge).unwrap(), Kind::Challenge);
        near.write_all(&framed(Kind::Proof, &challenge[PROOF_BYTES..])).unwrap();
        let answered = answering.join().unwrap();
        assert!(matches!(answered, Err(Failure::Secret)), "{answered:?}");
    });
}

#[test]
fn another_protocol_is_refused_by_name() {
    let (answered, told) = send_raw(&framed(Kind::Hello, &hello(PROTOCOL + 1)));
    let Err(Failure::Refused(reason)) = answered else { panic!("{answered:?}") };
    assert_eq!(reason, "it speaks protocol 2, node 0 speaks 1");
    assert!(told.ends_with(reason.as_bytes()));
}
