//! The command line: what is ours and what is passed on.

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use super::{Cli, Passed, Task, is_of_server, kernels};

fn parse(line: &str) -> Result<Task, ErrorKind> {
    let args = ["cargo xtask"].into_iter().chain(line.split_whitespace());
    Cli::try_parse_from(args).map(|cli| cli.task).map_err(|error| error.kind())
}

fn passed(line: &str) -> Passed {
    Passed { args: line.split_whitespace().map(Into::into).collect() }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn serve_passes_every_flag_on() {
    for flags in ["", "--tp 4 --port 8000", "--help", "-h", "--version", "--model x -- y", "doctor"]
    {
        assert_eq!(parse(&format!("serve {flags}")), Ok(Task::Serve(passed(flags))));
        assert_eq!(parse(&format!("serve -- {flags}")), Ok(Task::Serve(passed(flags))));
        assert_eq!(parse(&format!("doctor {flags}")), Ok(Task::Doctor(passed(flags))));
    }
}

#[test]
fn test_and_bench_take_filters_and_flags() {
    assert_eq!(parse("test radix --nocapture"), Ok(Task::Test(passed("radix --nocapture"))));
    assert_eq!(parse("test -- --nocapture"), Ok(Task::Test(passed("--nocapture"))));
    assert_eq!(parse("bench"), Ok(Task::Bench(passed(""))));
    assert_eq!(
        parse("bench radix --save-baseline a"),
        Ok(Task::Bench(passed("radix --save-baseline a")))
    );
}

#[test]
fn some_benches_are_the_servers() {
    for (line, expected) in [
        ("offline --tp 2", true),
        ("comm", true),
        ("kernels --attn fi", true),
        ("radix offline", false),
        ("", false),
    ] {
        assert_eq!(is_of_server(&passed(line).args), expected, "{line}");
    }
}

#[test]
fn build_takes_debug_only() {
    assert_eq!(parse("build"), Ok(Task::Build { debug: false }));
    assert_eq!(parse("build --debug"), Ok(Task::Build { debug: true }));
    assert_eq!(parse("build --release"), Err(ErrorKind::UnknownArgument));
}

#[test]
fn no_command_shows_the_help_and_an_unknown_one_is_refused() {
    assert_eq!(parse(""), Err(ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand));
    assert_eq!(parse("frobnicate"), Err(ErrorKind::InvalidSubcommand));
    assert_eq!(parse("tidy now"), Err(ErrorKind::UnknownArgument));
}

#[test]
fn kernels_takes_known_architectures() {
    assert_eq!(parse("kernels"), Ok(Task::Kernels(kernels::Options::default())));
    assert!(parse("kernels --arch 80,90a --jobs 2").is_ok());
    assert_eq!(parse("dist"), Ok(Task::Dist(kernels::Options::default())));
    assert_eq!(parse("kernels --arch 75"), Err(ErrorKind::ValueValidation));
    assert_eq!(parse("kernels --jobs 0"), Err(ErrorKind::ValueValidation));
}
