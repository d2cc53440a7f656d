//! Launches a checkpoint, runs requests to their end, and keeps what came back.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use minisgl_model::{
    Checkpoint, DTypeChoice, DeviceChoice, EngineOptions, LaunchObserver, LibrarySearch,
    ModelError, RankGroup,
};
use minisgl_sched::{
    Adjustments, Driver, Event, Executor, FinishReason, Request, RequestId, SamplingParams,
    Scheduler, TokenId, TokenLogprobs,
};

/// A folder of `tests/golden`.
pub(crate) fn checkpoint(case: &str) -> Checkpoint {
    Checkpoint::folder(golden().join(case)).unwrap()
}

/// The folder of all cases: what `MINISGL_GOLDEN` says, where these tests run away from their source.
pub(crate) fn golden() -> PathBuf {
    let folder = std::env::var_os("MINISGL_GOLDEN").filter(|folder| !folder.is_empty());
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.map_or_else(here, PathBuf::from)
}

/// How many GPUs the tests run on: what `MINISGL_TEST_CUDA` says. Then they must be there, with the
/// kernels library (which `MINISGL_KERNELS` may name), or the tests fail.
fn num_gpus() -> usize {
    let value = std::env::var("MINISGL_TEST_CUDA").unwrap_or_default();
    if value.is_empty() { 0 } else { value.parse().unwrap() }
}

/// Whether the tests run on GPUs.
pub(crate) fn on_gpu() -> bool {
    num_gpus() > 0
}

/// Numbers of ranks to try: as many as there are GPUs.
pub(crate) fn tp_sizes() -> &'static [usize] {
    const ALL: [usize; 4] = [1, 2, 4, 8];
    let count = if on_gpu() { ALL.iter().filter(|size| **size <= num_gpus()).count() } else { 4 };
    &ALL[..count]
}

fn libraries() -> LibrarySearch {
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path);
    LibrarySearch {
        python_prefixes: prefixes.chain(["/usr/local", "/usr"].map(PathBuf::from)).collect(),
        nccl: path("MINISGL_NCCL_SO"),
        kernels: path("MINISGL_KERNELS"),
    }
}

/// Small limits, one thread.
pub(crate) fn options(tp_size: usize, dtype: DTypeChoice) -> EngineOptions {
    EngineOptions {
        device: if on_gpu() { DeviceChoice::Cuda } else { DeviceChoice::Cpu },
        libraries: libraries(),
        tp_size: NonZeroUsize::new(tp_size).unwrap(),
        cpu_threads: Some(NonZeroUsize::MIN),
        dtype,
        num_pages: Some(2048),
        max_running_requests: 32,
        max_prefill_tokens: 64,
        ..Default::default()
    }
}

pub(crate) struct Quiet;

impl LaunchObserver for Quiet {
    fn rank_ready(&self, _rank: usize, _world_size: usize) {}

    fn weights_loaded(&self, _bytes: u64, _total: u64) {}

    fn warn(&self, message: &str) {
        panic!("{message}");
    }
}

pub(crate) fn launch(case: &str, options: &EngineOptions) -> Result<RankGroup, ModelError> {
    RankGroup::launch(&checkpoint(case), options, &Quiet)
}

/// A driver over a launched group.
pub(crate) fn driver(group: RankGroup, overlap: bool) -> Driver<RankGroup> {
    let scheduler = Scheduler::new(group.limits().scheduler).unwrap();
    Driver::new(scheduler, group, overlap)
}

pub(crate) fn request(
    id: u64,
    prompt: &[TokenId],
    max_tokens: usize,
    sampling: SamplingParams,
) -> Request {
    Request {
        id: RequestId(id),
        prompt: prompt.to_vec(),
        max_tokens,
        stop_token_ids: [].into(),
        sampling,
        adjustments: None,
    }
}

/// `request` with adjustments.
pub(crate) fn adjusted(request: Request, adjustments: Adjustments) -> Request {
    Request { adjustments: Some(Arc::new(adjustments)), ..request }
}

/// Penalties, a bias and held-back stop tokens, other ones for each `kind`: favourites that hardly
/// repeat. For prompts and outputs of some 300 ids.
pub(crate) fn adjustments(kind: u64) -> Adjustments {
    let favourite = |at: u64| ((kind * 37 + at * 11) as u32 % 300, 6.0);
    Adjustments {
        repetition_penalty: [1.0, 1.3, 0.8][(kind % 3) as usize],
        frequency_penalty: 1.5 + (kind / 2 % 3) as f32 * 0.75,
        presence_penalty: (kind / 4 % 3) as f32 * 0.75 - 0.5,
        logit_bias: (0..2 + kind % 3).map(favourite).collect(),
        min_tokens: (kind % 5) as usize,
    }
}

/// What came back of one request.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Output {
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) logprobs: Vec<TokenLogprobs>,
    pub(crate) cached_tokens: usize,
}

/// Runs `requests` together to their end, all of them by length.
pub(crate) fn run<E: Executor>(driver: &mut Driver<E>, requests: Vec<Request>) -> Vec<Output> {
    let ids: Vec<RequestId> = requests.iter().map(|request| request.id).collect();
    let mut outputs: BTreeMap<RequestId, Output> = BTreeMap::new();
    for request in requests {
        outputs.insert(request.id, Output::default());
        driver.add(request).unwrap();
    }
    while !driver.is_idle() {
        for event in driver.step().unwrap() {
            match event {
                Event::Token { id, token, logprobs } => {
                    let output = outputs.get_mut(&id).unwrap();
                    output.tokens.push(token);
                    output.logprobs.extend(logprobs);
                }
                Event::Finished { id, reason, cached_tokens } => {
                    assert_eq!(reason, FinishReason::Length);
                    outputs.get_mut(&id).unwrap().cached_tokens = cached_tokens;
                }
            }
        }
    }
    ids.iter().map(|id| outputs.remove(id).unwrap()).collect()
}
