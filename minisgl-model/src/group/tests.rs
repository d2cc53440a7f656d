//! Ranks that panic, fail or hang, while they start, load, prefill and decode: whoever waits for them
//! learns it, and all that can end does.
//!
//! The faults are those of a communicator, which stands between a rank and its group anyway.

use std::sync::{Condvar, Mutex};
use std::thread;

use minisgl_comm::{CommError, Communicator, thread_group};
use minisgl_kernels::{Stream, View, ViewMut};
use minisgl_sched::{Driver, Event, FinishReason, Request, RequestId, SamplingParams, Scheduler};

use super::launch::Launch;
use super::members::Member;
use super::*;
use crate::{Checkpoint, DTypeChoice, DeviceChoice, EngineOptions};

/// A step time-out for ranks that hang: long for such a small model, even on a busy machine.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// One that is never reached.
const NEVER: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Panic,
    Error,
    Hang,
}

const FAULTS: [Fault; 3] = [Fault::Panic, Fault::Error, Fault::Hang];

/// Does what its rank is to suffer, once it is told to.
#[derive(Default)]
struct Trigger {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_armed: bool,
    is_over: bool,
    /// Whether somebody hangs.
    hangs: bool,
}

impl Trigger {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn arm(&self) {
        self.change(|state| state.is_armed = true);
    }

    fn pull(&self, fault: Fault) -> Result<(), CommError> {
        if !self.state.lock().unwrap().is_armed {
            return Ok(());
        }
        match fault {
            Fault::Panic => panic!("as the test wants"),
            Fault::Error => Err(CommError::Root { root: 77, world_size: 2 }),
            Fault::Hang => {
                self.change(|state| state.hangs = true);
                let state = self.state.lock().unwrap();
                drop(self.changed.wait_while(state, |state| !state.is_over).unwrap());
                Ok(())
            }
        }
    }

    fn wait_for(&self, condition: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| !condition(state)).unwrap());
    }
}

/// Lets go of who hangs, also when a test fails.
struct Release(Arc<Trigger>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.change(|state| state.is_over = true);
    }
}

/// What happens before a rank asks whether its group is whole.
type BeforeCheck = Box<dyn Fn(&dyn Communicator) + Send>;

/// A communicator with something that happens first.
struct Interposed {
    inner: Box<dyn Communicator>,
    before_sum: Box<dyn Fn() -> Result<(), CommError> + Send>,
    before_check: BeforeCheck,
}

impl Interposed {
    /// Of a rank that breaks in a sum.
    fn faulty(inner: Box<dyn Communicator>, fault: Fault, trigger: Arc<Trigger>) -> Self {
        Self {
            inner,
            before_sum: Box::new(move || trigger.pull(fault)),
            before_check: Box::new(|_| ()),
        }
    }
}

impl Communicator for Interposed {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world_size(&self) -> usize {
        self.inner.world_size()
    }

    fn all_reduce(&self, stream: &Stream, data: ViewMut<'_>) -> Result<(), CommError> {
        (self.before_sum)()?;
        self.inner.all_reduce(stream, data)
    }

    fn all_reduce_add_rms_norm(
        &self,
        stream: &Stream,
        x: ViewMut<'_>,
        residual: ViewMut<'_>,
        weight: View<'_>,
        eps: f32,
    ) -> Result<(), CommError> {
        (self.before_sum)()?;
        self.inner.all_reduce_add_rms_norm(stream, x, residual, weight, eps)
    }

    fn measure(&mut self, stream: &Stream) -> Result<Option<String>, CommError> {
        self.inner.measure(stream)
    }

    fn all_gather(
        &self,
        stream: &Stream,
        input: View<'_>,
        output: ViewMut<'_>,
    ) -> Result<(), CommError> {
        self.inner.all_gather(stream, input, output)
    }

    fn broadcast(&self, stream: &Stream, data: ViewMut<'_>, root: usize) -> Result<(), CommError> {
        self.inner.broadcast(stream, data, root)
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.inner.barrier()
    }

    fn check(&self) -> Result<(), CommError> {
        (self.before_check)(&*self.inner);
        self.inner.check()
    }

    fn abort(&self, reason: &str) {
        self.inner.abort(reason);
    }
}

struct Quiet;

impl LaunchObserver for Quiet {
    fn rank_ready(&self, _rank: usize, _world_size: usize) {}

    fn weights_loaded(&self, _bytes: u64, _total: u64) {}

    fn warn(&self, message: &str) {
        panic!("{message}");
    }
}

fn options(tp_size: usize) -> EngineOptions {
    EngineOptions {
        device: DeviceChoice::Cpu,
        tp_size: std::num::NonZeroUsize::new(tp_size).unwrap(),
        cpu_threads: Some(std::num::NonZeroUsize::MIN),
        dtype: DTypeChoice::Float32,
        num_pages: Some(512),
        max_running_requests: 8,
        max_prefill_tokens: 16,
        dummy_weights: true,
        init_timeout: NEVER,
        step_timeout: NEVER,
        ..Default::default()
    }
}

/// Decides on a model of two layers.
fn decide(options: &EngineOptions) -> Launch {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "vocab_size": 64, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "float32",
        "hidden_act": "silu", "eos_token_id": 0,
    });
    let checkpoint = Checkpoint::Config(config.to_string().into_bytes());
    Launch::decide(&checkpoint, options, &Quiet).unwrap().0
}

/// Launches a group of which `culprit` has `fault` once `trigger` is armed.
fn launch(
    options: &EngineOptions,
    culprit: usize,
    fault: Fault,
    trigger: &Arc<Trigger>,
) -> RankGroup {
    let launch = decide(options);
    let (members, _) = launch.members(None, options, &Quiet).unwrap();
    let wrap = |(rank, member): (usize, Member)| {
        let trigger = trigger.clone();
        let connect = move || -> Result<Box<dyn Communicator>, ModelError> {
            let inner = (member.connect)()?;
            let faulty = |inner| Box::new(Interposed::faulty(inner, fault, trigger));
            Ok(if rank == culprit { faulty(inner) } else { inner })
        };
        Member { connect: Box::new(connect), abort: member.abort }
    };
    let members = members.into_iter().enumerate().map(wrap).collect();
    launch.start(members, None, options, &Quiet).unwrap()
}

fn request(id: u64, num_tokens: u32) -> Request {
    Request {
        id: RequestId(id),
        prompt: (1..=num_tokens).collect(),
        max_tokens: 400,
        stop_token_ids: [].into(),
        sampling: SamplingParams::GREEDY,
        adjustments: None,
    }
}

/// How many steps go well before the fault: none of a prompt of several chunks but the first, or all
/// of it and some decodes.
const IN_PREFILL: usize = 1;
const IN_DECODE: usize = 12;

fn break_it(
    options: EngineOptions,
    culprit: usize,
    fault: Fault,
    good_steps: usize,
    overlap: bool,
) {
    let tp_size = options.tp_size.get();
    let what = format!("{fault:?} of rank {culprit} of {tp_size} after {good_steps} steps");
    let trigger = Arc::new(Trigger::default());
    let release = Release(trigger.clone());
    let step_timeout = match (fault, options.device) {
        (Fault::Hang, DeviceChoice::Cpu) => STEP_TIMEOUT,
        // The first steps load kernels.
        (Fault::Hang, _) => STEP_TIMEOUT * 5,
        _ => NEVER,
    };
    let options = EngineOptions { step_timeout, ..options };
    let group = launch(&options, culprit, fault, &trigger);
    let running = group.running_ranks();
    assert_eq!(running.ranks(), (0..tp_size).collect::<Vec<_>>());
    let scheduler = Scheduler::new(group.limits().scheduler).unwrap();
    let mut driver = Driver::new(scheduler, group, overlap);
    for id in 0..3 {
        driver.add(request(id, 60)).unwrap();
    }
    for _ in 0..good_steps {
        driver.step().unwrap();
    }
    trigger.arm();
    let error = loop {
        if let Err(error) = driver.step() {
            break error.to_string();
        }
    };
    let expected = match fault {
        Fault::Panic => format!("rank {culprit} failed: panicked: as the test wants"),
        Fault::Error => format!("rank {culprit} failed: broadcast: root is 77"),
        Fault::Hang => {
            let seconds = step_timeout.as_secs();
            format!("longer than --watchdog-timeout, {seconds} s: rank {culprit} does not answer")
        }
    };
    assert!(error.contains(&expected), "{what}: {error}");
    let ended = driver.fail_all(&error);
    let is_error = |event: &Event| match event {
        Event::Finished { reason: FinishReason::Error(reason), .. } => **reason == *error,
        _ => false,
    };
    assert!(ended.len() == 3 && ended.iter().all(is_error), "{what}: {ended:?}");
    assert!(driver.is_idle() && driver.check().is_err(), "{what}");
    drop(driver);
    // Nobody is left behind but who hangs; and that one ends once it can.
    let left = if fault == Fault::Hang { vec![culprit] } else { Vec::new() };
    assert_eq!(running.ranks(), left, "{what}");
    drop(release);
    assert!(running.wait(NEVER).is_empty(), "{what}");
}

#[test]
fn a_rank_that_breaks_in_a_step_ends_the_group() {
    thread::scope(|scope| {
        for fault in FAULTS {
            for (tp_size, culprit) in [(1, 0), (2, 0), (2, 1), (4, 2)] {
                for good_steps in [IN_PREFILL, IN_DECODE] {
                    let options = options(tp_size);
                    scope.spawn(move || break_it(options, culprit, fault, good_steps, true));
                }
            }
            scope.spawn(move || break_it(options(2), 1, fault, IN_DECODE, false));
        }
    });
}

/// Two ranks on these GPUs, if the tests are to use so many. Without graphs: what is to happen in a sum
/// happens when it is queued.
fn on_gpus(gpus: [usize; 2]) -> Option<EngineOptions> {
    let path = |name| std::env::var_os(name).map(std::path::PathBuf::from);
    let count = std::env::var("MINISGL_TEST_CUDA").ok().filter(|count| !count.is_empty())?;
    let count: usize = count.parse().unwrap();
    let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(path);
    let libraries = crate::LibrarySearch {
        python_prefixes: prefixes.chain(["/usr/local", "/usr"].map(Into::into)).collect(),
        kernels: path("MINISGL_KERNELS"),
        ..Default::default()
    };
    gpus.iter().all(|gpu| *gpu < count).then(|| EngineOptions {
        device: DeviceChoice::Cuda,
        gpus: Some(gpus.to_vec()),
        cuda_graph_max_bs: Some(0),
        libraries,
        ..options(2)
    })
}

fn break_it_on(gpus: [usize; 2]) {
    let Some(options) = on_gpus(gpus) else { return };
    for fault in FAULTS {
        for good_steps in [IN_PREFILL, IN_DECODE] {
            break_it(options.clone(), 1, fault, good_steps, true);
        }
    }
}

#[test]
fn a_rank_that_shares_a_gpu_and_breaks_ends_the_group() {
    break_it_on([0, 0]);
}

#[test]
fn a_rank_on_a_gpu_of_its_own_that_breaks_ends_the_group() {
    break_it_on([0, 1]);
}

/// Also if no step is ever late: kernels have less patience than that. (Ranks that share a GPU wait for
/// each other before their kernels do.)
#[test]
fn a_kernel_that_waits_in_vain_ends_the_group() {
    let Some(options) = on_gpus([0, 1]) else { return };
    let trigger = Arc::new(Trigger::default());
    let _release = Release(trigger.clone());
    let group = launch(&options, 1, Fault::Hang, &trigger);
    let scheduler = Scheduler::new(group.limits().scheduler).unwrap();
    let mut driver = Driver::new(scheduler, group, true);
    driver.add(request(0, 5)).unwrap();
    driver.step().unwrap();
    trigger.arm();
    let error = loop {
        if let Err(error) = driver.step() {
            break error.to_string();
        }
    };
    assert!(error.contains("rank 0: a GPU has waited in vain"), "{error}");
}

#[test]
fn an_idle_group_is_not_late_however_long_it_idles() {
    let trigger = Arc::new(Trigger::default());
    let options = EngineOptions { step_timeout: STEP_TIMEOUT, ..options(2) };
    let group = launch(&options, 0, Fault::Panic, &trigger);
    let scheduler = Scheduler::new(group.limits().scheduler).unwrap();
    let mut driver = Driver::new(scheduler, group, true);
    for id in 0..2 {
        driver.add(Request { max_tokens: 3, ..request(id, 5) }).unwrap();
        while !driver.is_idle() {
            driver.step().unwrap();
        }
        thread::sleep(STEP_TIMEOUT + STEP_TIMEOUT / 10);
        driver.check().unwrap();
    }
}

/// Launches with a rank that breaks when it is to reach the others, and returns the error.
fn break_at_start(fault: Fault, culprit: usize) -> String {
    let trigger = Arc::new(Trigger::default());
    let _release = Release(trigger.clone());
    trigger.arm();
    let timeout = if fault == Fault::Hang { STEP_TIMEOUT } else { NEVER };
    let options = EngineOptions { init_timeout: timeout, step_timeout: timeout, ..options(2) };
    let launch = decide(&options);
    let (members, _) = launch.members(None, &options, &Quiet).unwrap();
    let wrap = |(rank, member): (usize, Member)| {
        let trigger = trigger.clone();
        let connect = move || -> Result<Box<dyn Communicator>, ModelError> {
            if rank == culprit {
                trigger.pull(fault)?;
            }
            (member.connect)()
        };
        Member { connect: Box::new(connect), abort: member.abort }
    };
    let abort = members[0].abort.clone();
    let members = members.into_iter().enumerate().map(wrap).collect();
    let error = launch.start(members, None, &options, &Quiet).unwrap_err().to_string();
    assert!(abort.reason().is_some(), "other nodes would not learn of it");
    error
}

#[test]
fn a_rank_that_breaks_at_the_start_fails_the_launch() {
    thread::scope(|scope| {
        for culprit in [0, 1] {
            for (fault, expected) in [
                (Fault::Panic, format!("rank {culprit} failed: panicked: as the test wants")),
                (Fault::Error, "root is 77".to_owned()),
                (
                    Fault::Hang,
                    format!(
                        "not got on for --dist-init-timeout, 2 s: rank {culprit} does not answer"
                    ),
                ),
            ] {
                scope.spawn(move || {
                    let error = break_at_start(fault, culprit);
                    assert!(error.contains(&expected), "{error}");
                });
            }
        }
    });
}

#[test]
fn after_a_failed_launch_no_rank_goes_on_loading() {
    let options = options(2);
    let launch = decide(&options);
    let trigger = Arc::new(Trigger::default());
    let counted = Arc::new(Mutex::new(0));
    let mut ranks = thread_group(2).unwrap().into_iter();
    let first = ranks.next().unwrap();
    // Dropped last: nobody is to hear that it leaves.
    let _second = ranks.next().unwrap();
    let abort = first.abort_handle();
    let (counting, hanging) = (counted.clone(), trigger.clone());
    let counting = Interposed {
        inner: Box::new(first),
        before_sum: Box::new(|| Ok(())),
        // Counts how often the rank asks whether to go on, and lets it wait at the third time until
        // its group is aborted.
        before_check: Box::new(move |inner| {
            let count = {
                let mut count = counting.lock().unwrap();
                *count += 1;
                *count
            };
            if count == 3 {
                hanging.change(|state| state.hangs = true);
                while inner.check().is_ok() {
                    thread::yield_now();
                }
            }
        }),
    };
    let waiting = trigger.clone();
    let broken = move || -> Result<Box<dyn Communicator>, ModelError> {
        // The other rank has begun to load.
        waiting.wait_for(|state| state.hangs);
        Err(ModelError::NodeLeft { node: 5 })
    };
    let members = vec![
        Member::of(Box::new(counting), abort.clone()),
        Member { connect: Box::new(broken), abort },
    ];
    let error = launch.start(members, None, &options, &Quiet).unwrap_err();
    assert!(error.to_string().contains("node 5 has left"), "{error}");
    // Its threads have ended, and the third question was the last.
    assert_eq!(*counted.lock().unwrap(), 3);
}
