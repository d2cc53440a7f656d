//! A communicator of NCCL that two threads may use: its rank's, and the watchdog's, which may end it.
//!
//! Never knows: collectives.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::NcclGroup;
use super::sys::{
    Comm, Config, Functions, IN_PROGRESS, NcclId, NcclLibrary, REMOTE_ERROR, SUCCESS, Status,
};
use crate::CommError;
use crate::rendezvous::Rendezvous;

/// How often NCCL is asked whether it is done with what it does in the background.
const POLL: Duration = Duration::from_micros(50);
/// For how long it is asked again and again before that.
const SPIN: Duration = Duration::from_millis(1);
/// That a rank of another process is gone is often the echo of an abort there, whose reason is on its
/// way on a link.
const WAIT_FOR_REASON: Duration = Duration::from_millis(500);

pub(super) struct Handle {
    library: Arc<NcclLibrary>,
    /// `None` once it was aborted.
    comm: Mutex<Option<Raw>>,
    rendezvous: Arc<Rendezvous>,
}

#[derive(Clone, Copy)]
struct Raw(Comm);

// SAFETY: NCCL's communicators are not bound to a thread; the lock keeps calls apart.
unsafe impl Send for Raw {}

impl Handle {
    /// Comes together with the other ranks; the device must be current.
    pub(super) fn connect(
        group: &NcclGroup,
        id: NcclId,
        rank: usize,
    ) -> Result<Arc<Self>, CommError> {
        const CALL: &str = "ncclCommInitRankConfig";
        let NcclGroup { library, rendezvous, .. } = group;
        rendezvous.check()?;
        let mut comm: Comm = std::ptr::null_mut();
        let mut config = Config::non_blocking();
        let (world_size, rank) = (group.world_size as i32, rank as i32);
        let init = library.functions.comm_init_rank_config;
        // SAFETY: both pointers are to live values of the types in the header, read and written
        // during the call alone.
        let status = unsafe { init(&mut comm, world_size, id.0, rank, &mut config) };
        // SAFETY: null, or the communicator that was just made.
        unsafe { library.check(CALL, status, comm) }?;
        let (library, rendezvous) = (library.clone(), rendezvous.clone());
        let handle = Arc::new(Self { library, comm: Mutex::new(Some(Raw(comm))), rendezvous });
        handle.settle(CALL, status, group.timeouts.init)?;
        Ok(handle)
    }

    /// Makes one call on the communicator, and waits until NCCL has taken it in.
    ///
    /// `call` returns the status of a function of NCCL on the communicator that it is given.
    pub(super) fn call(
        &self,
        name: &'static str,
        timeout: Duration,
        call: impl FnOnce(&Functions, Comm) -> Status,
    ) -> Result<(), CommError> {
        self.rendezvous.check()?;
        let checked = {
            let comm = self.lock();
            let Some(Raw(comm)) = *comm else { return self.aborted() };
            let status = call(&self.library.functions, comm);
            // SAFETY: it has not been destroyed: that takes the lock.
            (status, unsafe { self.library.check(name, status, comm) })
        };
        let status = self.or_reason(checked)?;
        self.settle(name, status, timeout)
    }

    /// Waits while NCCL works in the background.
    fn settle(
        &self,
        name: &'static str,
        mut status: Status,
        timeout: Duration,
    ) -> Result<(), CommError> {
        let begun = Instant::now();
        while status == IN_PROGRESS {
            self.rendezvous.check()?;
            if begun.elapsed() > timeout {
                let message = format!("not done within {} s", timeout.as_secs_f64());
                return Err(CommError::Nccl { call: name, message });
            }
            // A sum is taken in within some tens of microseconds; sleeping takes longer.
            if begun.elapsed() < SPIN {
                thread::yield_now();
            } else {
                thread::sleep(POLL);
            }
            status = self.async_error(name)?;
        }
        Ok(())
    }

    /// What has come of the calls so far: done, in progress, or an error.
    pub(super) fn async_error(&self, name: &'static str) -> Result<Status, CommError> {
        let checked = {
            let comm = self.lock();
            let Some(Raw(comm)) = *comm else { return self.aborted() };
            let mut later = SUCCESS;
            // SAFETY: the communicator has not been destroyed, and one status is written.
            let status = unsafe { (self.library.functions.comm_get_async_error)(comm, &mut later) };
            let worst = if status == SUCCESS { later } else { status };
            // SAFETY: as above.
            (worst, unsafe { self.library.check(name, worst, comm) })
        };
        self.or_reason(checked)
    }

    /// The status, or the error that it is; rather than that a rank elsewhere is gone, why.
    fn or_reason(
        &self,
        (status, checked): (Status, Result<(), CommError>),
    ) -> Result<Status, CommError> {
        if status == REMOTE_ERROR
            && let Some(reason) = self.rendezvous.abort_reason_within(WAIT_FOR_REASON)
        {
            return Err(CommError::Aborted { reason });
        }
        checked.map(|()| status)
    }

    fn aborted<T>(&self) -> Result<T, CommError> {
        let reason = self.rendezvous.abort_reason().unwrap_or_else(|| "it has ended".into());
        Err(CommError::Aborted { reason })
    }

    /// Ends the communicator, and kernels that wait in it. Also its ordinary end: unlike
    /// `ncclCommDestroy` it waits for nobody, and the rank's work is done by then.
    pub(super) fn abort(&self) {
        if let Some(Raw(comm)) = self.lock().take() {
            // SAFETY: it has not been destroyed, and nobody can get at it any more. What it returns
            // tells of errors that nobody waits for.
            unsafe { (self.library.functions.comm_abort)(comm) };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Raw>> {
        self.comm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.abort();
    }
}
