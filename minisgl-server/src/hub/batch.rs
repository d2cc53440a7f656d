//! Many files, several at one time, if there is room for them.
//! Never knows: which hub it is.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::http::Http;
use super::settings::existing_ancestor;
use super::transfer::{Item, Shared};
use super::{HubError, Observer};

/// Files that come at one time: more connections than this bring nothing, and hubs count them.
const MAX_PARALLEL: usize = 8;

/// Fetches `items`, all or an error; what has come stays for the next try.
pub(super) fn fetch(
    http: &Http<'_>,
    items: &[Item],
    observer: &dyn Observer,
) -> Result<(), HubError> {
    let here: Vec<u64> = items.iter().map(Item::here).collect();
    let total = items.iter().map(|item| item.size).fold(0, u64::saturating_add);
    let done = here.iter().fold(0, |sum: u64, here| sum.saturating_add(*here));
    check_space(http, items, total - done)?;

    // The largest first, so that none of them is left alone at the end.
    let mut order: Vec<(&Item, u64)> = items.iter().zip(here).collect();
    order.sort_by_key(|(item, _)| std::cmp::Reverse(item.size));
    let (stop, done, next) = (AtomicBool::new(false), AtomicU64::new(done), AtomicUsize::new(0));
    let first_error = Mutex::new(None);
    let shared = Shared { http, observer, stop: &stop, done: &done, total };
    let work = || {
        while let Some((item, here)) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = item.fetch(&shared, *here) {
                stop.store(true, Ordering::Relaxed);
                // Those that were only told to stop come later.
                if let Ok(mut first) = first_error.lock() {
                    first.get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..order.len().min(MAX_PARALLEL) {
            scope.spawn(work);
        }
    });
    match first_error.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(error)) => Err(error),
        // Only a panic poisons it, and the scope has passed that on.
        Err(_) => Err(HubError::Stopped),
    }
}

fn check_space(http: &Http<'_>, items: &[Item], needed: u64) -> Result<(), HubError> {
    let Some(first) = items.first() else { return Ok(()) };
    let folder = existing_ancestor(&first.target);
    // A file system that does not say is asked by writing.
    let Ok(space) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if needed <= free {
        return Ok(());
    }
    let cache_variable = http.settings().source.cache_variable();
    Err(HubError::DiskFull { folder: folder.to_owned(), free, needed, cache_variable })
}
