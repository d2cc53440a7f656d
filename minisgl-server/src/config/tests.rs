//! From a command line to what it means.

use clap::{CommandFactory as _, Parser as _};
use minisgl_model::{AttentionChoice, DTypeChoice, DeviceChoice, KvCacheDType, QuantizationChoice};
use minisgl_sched::CacheKind;

use super::*;
use crate::args::Cli;

fn parse(line: &str) -> Result<Config, String> {
    let words = ["minisgl"].into_iter().chain(line.split_whitespace());
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    Config::from_args(cli.serve).map_err(|error| error.to_string())
}

fn serve(line: &str) -> ServeConfig {
    match parse(line).unwrap().mode {
        Mode::Serve(serve) => serve,
        other => panic!("{line} is {other:?}"),
    }
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_those_of_mini_sglang() {
    let config = parse("").unwrap();
    let engine = &config.engine;
    assert_eq!((config.model.name, config.served_model_name), (None, None));
    assert_eq!(config.model.revision, None);
    assert_eq!((engine.tp_size.get(), engine.max_running_requests), (1, 256));
    assert_eq!((engine.max_prefill_tokens, engine.page_size.get()), (8192, 1));
    assert_eq!((engine.dtype, engine.device), (DTypeChoice::Auto, DeviceChoice::Auto));
    assert_eq!((engine.attention, engine.cache), (AttentionChoice::AUTO, CacheKind::Radix));
    assert_eq!(engine.quantization, QuantizationChoice::None);
    assert_eq!(engine.kv_cache_dtype, KvCacheDType::Auto);
    let serve = serve("");
    assert_eq!((serve.host.as_str(), serve.port), ("127.0.0.1", 1919));
    assert_eq!((serve.num_tokenizers, serve.max_queued_requests), (1, 1024));
    assert!(config.overlap);
}

#[test]
fn every_spelling_of_mini_sglang_is_understood() {
    for line in [
        "--model-path m --tensor-parallel-size 4 --max-extend-length 100 --cache-type naive \
         --attention-backend fa --cuda-graph-max-bs 8 --tokenizer-count 2",
        "--model m --tp-size 4 --max-prefill-length 100 --cache naive --attn fa --graph 8 \
         --num-tokenizer 2",
        // By their beginnings.
        "--model-p m --tp 4 --max-pre 100 --cache-t naive --atte fa --cuda 8 --num-t 2",
    ] {
        let config = parse(line).unwrap();
        assert_eq!(config.model.name.as_deref(), Some("m"), "{line}");
        let engine = config.engine;
        assert_eq!((engine.tp_size.get(), engine.max_prefill_tokens), (4, 100));
        assert_eq!((engine.cache, engine.cuda_graph_max_bs), (CacheKind::Naive, Some(8)));
        assert_eq!(engine.attention.to_string(), "fa");
        assert_eq!(serve(line).num_tokenizers, 2);
    }
    for kv in ["fp8", "fp8_e4m3"] {
        let config = parse(&format!("--quantization fp8 --kv-cache-dtype {kv}")).unwrap();
        assert_eq!(config.engine.quantization, QuantizationChoice::Fp8);
        assert_eq!(config.engine.kv_cache_dtype, KvCacheDType::Fp8);
    }
    for line in ["--shell", "--shell-mode"] {
        let config = parse(line).unwrap();
        assert!(matches!(config.mode, Mode::Shell(_)) && config.engine.max_running_requests == 1);
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    for (line, reason) in [
        ("--quantization awq", "`awq`: use none or fp8"),
        ("--kv-cache-dtype fp8_e5m2", "`fp8_e5m2`: use auto, fp8 or fp8_e4m3"),
        ("--disable-pynccl", "no PyNCCL"),
        ("--moe-backend fused", "nothing to choose"),
        ("--revision main", "which model's"),
        ("--tp 0", "0"),
        ("--page-size 0", "page"),
        ("--cache lru", "radix"),
        ("--dtype int8", "bfloat16"),
        ("--attn trtllm", "fa"),
        ("--device tpu", "cuda"),
        ("--port 70000", "70000"),
        ("--max-body-bytes 0", "every request"),
        ("--num-tokenizer 1000", "64"),
        ("--shell --dummy-weight", "nothing to talk to"),
        ("--shell --shell-max-tokens 0", "no room"),
        ("--shell --shell-temperature -1", "--shell-temperature -1 is not allowed: use 0 to 100"),
        ("--shell --shell-temperature nan", "--shell-temperature NaN is not allowed"),
        ("--shell --shell-top-p 2", "--shell-top-p 2 is not allowed: use more than 0, at most 1"),
        ("--shell --shell-top-p 0", "--shell-top-p 0 is not allowed"),
        ("--shell --shell-top-k -2", "--shell-top-k -2 is not allowed: use -1"),
        ("--model-source github", "modelscope"),
        ("--no-such-flag", "unexpected"),
        ("--m x", "--m"),
        ("doctor --port 1", "unexpected"),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains(reason), "{line}: {error}");
    }
}

const SECRET: &str = "--dist-secret 0123456789abcdef";

#[test]
fn nodes_are_checked_and_only_node_0_serves() {
    assert!(parse("").unwrap().engine.nodes.is_none());
    let line = format!("--tp 4 --nnodes 2 --dist-init-addr 10.0.0.1:20000 {SECRET}");
    let config = parse(&line).unwrap();
    let nodes = config.engine.nodes.unwrap();
    assert_eq!((nodes.num_nodes, nodes.node), (2, 0));
    assert_eq!((nodes.join_timeout.as_secs(), nodes.timeout.as_secs()), (600, 5));
    assert!(!format!("{nodes:?}").contains("0123456789abcdef"));
    assert!(matches!(config.mode, Mode::Serve(_)));
    let other = parse(&format!("{line} --node-rank 1 --restart-on-failure")).unwrap();
    assert!(matches!(other.mode, Mode::Follow(FollowConfig { restart_on_failure: true, .. })));
}

#[test]
fn nodes_that_make_no_sense_are_refused() {
    let address = "--dist-init-addr h:1";
    for (line, expected) in [
        ("--nnodes 0".to_owned(), "--nnodes 0 is not allowed: use 1 to 64"),
        ("--node-rank 1".to_owned(), "--node-rank 1 is not allowed with --nnodes 1: use 0 to 0"),
        (format!("--nnodes 2 {SECRET}"), "--nnodes 2 needs --dist-init-addr HOST:PORT"),
        (address.to_owned(), "--dist-init-addr is for several nodes"),
        (format!("--nnodes 2 {address}"), "needs a secret that all nodes know"),
        (format!("--nnodes 2 {address} --dist-secret short"), "MINISGL_DIST_SECRET is too short"),
        (format!("--nnodes 2 --dist-init-addr h {SECRET}"), "h is not HOST:PORT"),
        (format!("--nnodes 2 --dist-init-addr h:0 {SECRET}"), "h:0 is not HOST:PORT"),
        ("--dist-timeout 0.1".to_owned(), "--dist-timeout 0.1 is not allowed: use 0.5 to 3600"),
        (
            "--watchdog-timeout 0".to_owned(),
            "--watchdog-timeout 0 is not allowed: use 0.5 to 86400",
        ),
        ("--dist-init-timeout nan".to_owned(), "--dist-init-timeout NaN is not allowed"),
        (format!("--nnodes 2 --node-rank 1 {address} {SECRET} --shell"), "talk to node 0"),
        ("--shell --restart-on-failure".to_owned(), "--restart-on-failure is for the server"),
    ] {
        let error = parse(&line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}
