//! The program itself when it cannot start: one line that names what is wrong, and a failure. And
//! when nobody reads what it says.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::client::request;
use crate::server::JSON;

/// What the program says when it is started like this, after the log.
fn refusal(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_minisgl"))
        .args(args)
        .env_remove("MINISGL_LOG")
        .env_remove("MINISGL_API_KEY")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with('[')).collect();
    assert_eq!(lines.len(), 1, "{args:?}: {said}");
    lines[0].strip_prefix("minisgl: ").unwrap().to_owned()
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = refusal(&["--port", &address.port().to_string()]);
    assert_eq!(
        said,
        format!("cannot listen on {address}: Address already in use (os error 98)"),
        "the cause is said once"
    );
    // No name at all, so that nobody is asked for it.
    let said = refusal(&["--host", "a..b"]);
    assert!(said.starts_with("cannot listen on a..b: "), "{said}");
}

#[test]
fn options_that_the_model_or_the_machine_refuses_are_named_with_their_value() {
    for (args, expected) in [
        (["--dtype", "float16"], "--dtype float16 is not allowed: "),
        (["--devices", "0,1"], "--devices 0,1 is not allowed: "),
        (["--cpu-threads", "20000"], "--cpu-threads 20000 is not allowed: use 1 to 1024"),
        (["--log-level", "inof"], "--log-level inof is not allowed: use error, warn, info, "),
        (["--log-level", "a=b=c"], "--log-level a=b=c is not allowed: use error, warn, info, "),
        (["--served-model-name", ""], "--served-model-name must not be empty"),
    ] {
        let said = refusal(&[&args[..], &["--device", "cpu", "--port", "0"]].concat());
        assert!(said.starts_with(expected), "{args:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_any_more_stops_nothing() {
    struct KillOnDrop(Child);

    impl Drop for KillOnDrop {
        fn drop(&mut self) {
            // It has ended, if all is well.
            let _ = self.0.kill();
        }
    }

    let child = Command::new(env!("CARGO_BIN_EXE_minisgl"))
        .args(["--port", "0", "--cpu-threads", "1", "--num-pages", "1024", "--log-level", "debug"])
        .env_remove("MINISGL_API_KEY")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = KillOnDrop(child);
    let mut log = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let address = loop {
        let line = log.next().unwrap().unwrap();
        if let Some((_, address)) = line.split_once("ready to serve on ") {
            break address.parse().unwrap();
        }
    };
    drop(log);
    let body = json!({"prompt": "Once", "max_tokens": 2, "unknown": 1}).to_string();
    let response = request(address, "POST", "/v1/completions", &[JSON], body.as_bytes()).await;
    assert_eq!(response.status(), 200);
    let stop = format!("kill -TERM {}", child.0.id());
    assert!(Command::new("sh").args(["-c", &stop]).status().unwrap().success());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
}
