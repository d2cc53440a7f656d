//! A cable between two processes that can be cut: bytes go through this process.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// See the [module](self). Its threads end with their connections, and the listening one with the
/// test's process.
pub(crate) struct Proxy {
    pub(crate) address: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: Mutex<Vec<TcpStream>>,
    is_silent: AtomicBool,
    is_cut: AtomicBool,
}

impl Proxy {
    /// Connects all who come with `target`.
    pub(crate) fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // Who comes is turned away while nobody listens there.
                if !for_thread.is_cut.load(Ordering::SeqCst)
                    && let Ok(server) = TcpStream::connect(&target)
                {
                    join(client, server, &for_thread);
                }
            }
        });
        Self { address, shared }
    }

    /// Ends all connections, and turns new ones away.
    pub(crate) fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            // It may have ended.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// After a cut: lets new ones come.
    pub(crate) fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }

    /// From now on nothing gets through, in either direction, and nobody is told.
    pub(crate) fn fall_silent(&self) {
        self.shared.is_silent.store(true, Ordering::SeqCst);
    }
}

fn join(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.set_nodelay(true).unwrap();
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        shared.connections.lock().unwrap().push(from.try_clone().unwrap());
        let shared = shared.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let is_silent = shared.is_silent.load(Ordering::SeqCst);
                if !is_silent && to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            if !shared.is_silent.load(Ordering::SeqCst) {
                let _ = to.shutdown(Shutdown::Both);
            }
        });
    }
}
