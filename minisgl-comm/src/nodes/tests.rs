//! Links: messages, signs of life, and how they end.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use super::*;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn links(silence: Duration) -> [(Link, LinkReceiver); 2] {
    let (near, far) = pair();
    [Link::new(1, near, silence).unwrap(), Link::new(0, far, silence).unwrap()]
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn messages_arrive_whole_and_in_order_before_the_goodbye() {
    let [(near, _near_receiver), (_far, mut receiver)] = links(LONG);
    let messages = [vec![], vec![7], vec![1; 100_000]];
    for message in &messages {
        near.send(message).unwrap();
    }
    drop(near);
    for message in messages {
        assert_eq!(receiver.receive().unwrap(), Some(message));
    }
    assert_eq!(receiver.receive().unwrap(), None);
}

#[test]
fn heartbeats_keep_an_idle_link_alive() {
    let silence = Duration::from_millis(400);
    let [(near, _near_receiver), (_far, mut receiver)] = links(silence);
    std::thread::spawn(move || {
        // Several times as long as may be silent.
        std::thread::sleep(silence * 4);
        near.send(b"late").unwrap();
        near
    });
    assert_eq!(receiver.receive().unwrap().as_deref(), Some(&b"late"[..]));
}

#[test]
fn silence_is_noticed_and_ends_the_group() {
    let (near, far) = pair();
    let (link, receiver) = Link::new(3, near, Duration::from_millis(50)).unwrap();
    let group = crate::SingleRank::new();
    let (told, events) = std::sync::mpsc::channel();
    let thread = receiver.spawn(group.abort_handle(), move |event| told.send(event).unwrap());
    thread.unwrap().join().unwrap();
    match events.recv().unwrap() {
        LinkEvent::Failed(CommError::Node { node: 3, problem }) => {
            assert!(problem.starts_with("no sign of life for 0.1 s"), "{problem}");
        }
        other => panic!("{other:?}"),
    }
    assert!(group.abort_handle().reason().unwrap().contains("node 3: no sign of life"));
    drop((link, far));
}

#[test]
fn an_abort_takes_its_reason_to_the_other_end() {
    let [(near, mut near_receiver), (_far, mut receiver)] = links(LONG);
    near.abort("rank 5 has burnt down");
    near.abort("too late");
    match receiver.receive() {
        Err(CommError::Aborted { reason }) => assert_eq!(&*reason, "rank 5 has burnt down"),
        other => panic!("{other:?}"),
    }
    assert_eq!(near_receiver.receive().unwrap(), None);
    assert!(near.send(b"x").is_err());
}

#[test]
fn a_connection_that_breaks_is_no_goodbye() {
    let (near, far) = pair();
    let (_link, mut receiver) = Link::new(1, near, LONG).unwrap();
    drop(far);
    let error = receiver.receive().unwrap_err().to_string();
    assert!(error.starts_with("node 1: it is gone"), "{error}");
}

#[test]
fn a_frame_longer_than_allowed_is_refused_before_memory_is_taken() {
    let (near, mut far) = pair();
    let (_link, mut receiver) = Link::new(1, near, LONG).unwrap();
    far.write_all(&[0xff, 0xff, 0xff, 0xff, frame::Kind::Message as u8]).unwrap();
    let error = receiver.receive().unwrap_err().to_string();
    assert!(error.contains("a frame of 4294967295 bytes, at most"), "{error}");
}
