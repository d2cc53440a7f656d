//! A thread of another process that stands still while the others go on, as in a system call that
//! never returns. Linux only, by ptrace.

use std::sync::mpsc::channel;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Stops the thread `name` of process `process` while it sleeps, as one that waits for others does,
/// and so holds no lock. It stands still as long as the process lives.
///
/// # Errors
/// Why this machine does not let one process stop another's threads.
pub(crate) fn freeze(process: u32, name: &str) -> Result<(), Errno> {
    let thread = thread_of(process, name);
    let (tell, told) = channel();
    // Who stops a thread must wait for its end, or the process does not end; and only the thread that
    // has stopped it can.
    std::thread::spawn(move || {
        // Nobody listens after a failure.
        let _ = tell.send(stop_asleep(process, thread));
        while !matches!(
            waitpid(thread, Some(WaitPidFlag::__WALL)),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_)
        ) {}
    });
    told.recv().unwrap()
}

fn thread_of(process: u32, name: &str) -> Pid {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut paths = threads.map(|thread| thread.unwrap().path());
    let is_it = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|found| found.trim() == name)
    };
    let path = paths.find(is_it).unwrap_or_else(|| panic!("{process} has no thread {name}"));
    Pid::from_raw(path.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

fn stop_asleep(process: u32, thread: Pid) -> Result<(), Errno> {
    ptrace::seize(thread, Options::empty())?;
    loop {
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        if sleeps(process, thread) {
            return Ok(());
        }
        ptrace::cont(thread, None)?;
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Whether the thread that was stopped was waiting for a futex.
fn sleeps(process: u32, thread: Pid) -> bool {
    let path = format!("/proc/{process}/task/{thread}/syscall");
    let text = std::fs::read_to_string(path).unwrap();
    // Number, address, operation.
    let mut words = text.split_whitespace();
    let number = words.next().and_then(|number| number.parse().ok());
    let operation = words.nth(1).and_then(|hex| i32::from_str_radix(&hex[2..], 16).ok());
    let operation = operation.map(|operation| operation & libc::FUTEX_CMD_MASK);
    number == Some(libc::SYS_futex)
        && matches!(operation, Some(libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET))
}
