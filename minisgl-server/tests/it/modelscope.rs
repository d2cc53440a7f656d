//! Models from ModelScope, played by a server on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use minisgl_server::hub::{self, HubError, Settings, Source};
use serde_json::json;
use tempfile::TempDir;

use crate::hub::{Notes, PATIENCE, noise, sha256, tree, wanted};
use crate::mock_hub::{Answer, Asked, Server};

type Files = BTreeMap<String, Vec<u8>>;

fn files() -> Files {
    let mut files = Files::new();
    for name in ["config.json", "tokenizer.json", "README.md", "pytorch_model.bin"] {
        files.insert(name.to_owned(), format!("{{\"file\": {name:?}}}").into_bytes());
    }
    files.insert("model.safetensors".to_owned(), noise(1, 50_000));
    files
}

fn answer(asked: &Asked, files: &Files) -> Answer {
    if let Some(query) = asked.target.strip_prefix("/api/v1/models/o/n/repo/files?") {
        assert!(query.starts_with("Revision=") && query.ends_with("&Recursive=true"), "{query}");
        let mut list: Vec<_> = files
            .iter()
            .map(|(name, content)| {
                json!({"Name": name, "Path": name, "Type": "blob", "Size": content.len(),
                    "Sha256": sha256(content)})
            })
            .collect();
        list.push(json!({"Name": "onnx", "Path": "onnx", "Type": "tree", "Size": 0}));
        list.push(json!({"Path": "onnx/model.safetensors", "Type": "blob", "Size": 1}));
        let list = json!({"Code": 200, "Success": true, "Data": {"Files": list}});
        return Answer::new(200, list.to_string());
    }
    let name = asked.target.strip_prefix("/api/v1/models/o/n/repo?Revision=");
    let name = name.and_then(|query| query.split_once("&FilePath=")).map(|(_, name)| name);
    match name.and_then(|name| files.get(name)) {
        Some(content) => Answer::content(asked, content),
        None => Answer::new(404, "{\"Code\": 404, \"Message\": \"not found\"}"),
    }
}

struct ModelScope {
    server: Server,
    files: Arc<Mutex<Files>>,
    folder: TempDir,
}

impl ModelScope {
    fn new() -> Self {
        let files = Arc::new(Mutex::new(files()));
        let served = Arc::clone(&files);
        let server = Server::start(move |asked| answer(asked, &served.lock().unwrap()));
        Self { server, files, folder: tempfile::tempdir().unwrap() }
    }

    fn fetch(&self) -> Result<PathBuf, HubError> {
        self.fetch_noting(&Notes::default())
    }

    fn fetch_noting(&self, notes: &Notes) -> Result<PathBuf, HubError> {
        hub::fetch(&settings(&self.server.url, self.folder.path()), &wanted(None), notes)
    }

    fn snapshot(&self) -> PathBuf {
        self.folder.path().join("models/o--n/snapshots/master")
    }
}

fn settings(url: &str, folder: &Path) -> Settings {
    let cache = folder.display().to_string();
    let variables = |name: &str| match name {
        "MODELSCOPE_ENDPOINT" => Some(url.to_owned()),
        "MODELSCOPE_CACHE" => Some(cache.clone()),
        "MODELSCOPE_API_TOKEN" => Some("ms-secret".to_owned()),
        _ => None,
    };
    let settings = Settings::from_variables(Source::ModelScope, &variables).unwrap();
    Settings { patience: PATIENCE, ..settings }
}

#[test]
fn a_model_comes_into_the_cache_that_pythons_tools_share() {
    let hub = ModelScope::new();
    let folder = hub.fetch().unwrap();
    assert_eq!(folder, hub.snapshot());
    let expected = [".minisgl-checked", "config.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(tree(&folder), expected);
    for name in &expected[1..] {
        assert_eq!(fs::read(folder.join(name)).unwrap(), files()[*name]);
    }
    let cookie = Some("m_session_id=ms-secret");
    assert!(hub.server.asked().iter().all(|asked| asked.header("cookie") == cookie));
    assert!(hub.server.asked().iter().all(|asked| asked.header("authorization").is_none()));
    assert_eq!(hub.server.count("Revision=master"), 4);
    let notes = Notes::default();
    hub.fetch_noting(&notes).unwrap();
    assert_eq!((hub.server.asked().len(), notes.text()), (5, String::new()));
}

#[test]
fn a_download_goes_on_where_it_stopped() {
    let hub = ModelScope::new();
    fs::create_dir_all(hub.snapshot()).unwrap();
    let content = &files()["model.safetensors"];
    let incomplete = hub.snapshot().join("model.safetensors.incomplete");
    fs::write(incomplete, &content[..20_000]).unwrap();
    let folder = hub.fetch().unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), *content);
    let asked = hub.server.asked();
    let weights = asked.iter().find(|asked| asked.target.contains("model.safetensors")).unwrap();
    assert_eq!(weights.from(), Some(20_000));
}

#[test]
fn a_branch_that_moved_on_is_followed() {
    let hub = ModelScope::new();
    let folder = hub.fetch().unwrap();
    // The same size, so that the hash alone tells.
    let newer = noise(7, 50_000);
    hub.files.lock().unwrap().insert("model.safetensors".to_owned(), newer.clone());
    hub.fetch().unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), newer);
    // Written by somebody else: looked at once, and kept if it is right.
    fs::remove_file(folder.join(".minisgl-checked")).unwrap();
    let notes = Notes::default();
    let asked = hub.server.asked().len();
    hub.fetch_noting(&notes).unwrap();
    assert!(notes.text().contains("Checking model.safetensors in "), "{}", notes.text());
    assert_eq!(hub.server.asked().len(), asked + 1);
    fs::write(folder.join("config.json"), "{\"file\": \"CONFIG.json\"}").unwrap();
    hub.fetch().unwrap();
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), files()["config.json"]);
}

#[test]
fn what_came_is_checked() {
    let hub = ModelScope::new();
    let served = files();
    let server = Server::start(move |asked| match asked.target.contains("model.safetensors") {
        true => Answer::new(200, noise(5, 50_000)),
        false => answer(asked, &served),
    });
    let error =
        hub::fetch(&settings(&server.url, hub.folder.path()), &wanted(None), &Notes::default());
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("model.safetensors is broken: its SHA-256 is "), "{error}");
    assert!(!hub.snapshot().join("model.safetensors").exists());
}

#[test]
fn refusals_say_what_to_do() {
    for (answer, reason) in [
        (Answer::new(404, "{\"Message\": \"no\"}"), "/models/o/n does not exist"),
        (Answer::new(401, ""), "the hub refuses the token: check MODELSCOPE_API_TOKEN"),
        (Answer::new(403, "{\"Message\": \"apply\"}"), "/models/o/n: apply"),
        (Answer::new(200, "{\"Code\": 1, \"Message\": \"odd\"}"), "as a hub would: \"odd\""),
        (Answer::new(500, "{\"Message\": \"down\"}"), "answers 500: down"),
    ] {
        let server = Server::start(move |_| answer.clone());
        let folder = tempfile::tempdir().unwrap();
        let error =
            hub::fetch(&settings(&server.url, folder.path()), &wanted(None), &Notes::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn no_name_leads_out_of_the_cache() {
    for path in ["../evil.safetensors", "/evil.json", "a/../../evil.json"] {
        let list = json!({"Data": {"Files": [{"Path": path, "Type": "blob", "Size": 1}]}});
        let server = Server::start(move |_| Answer::new(200, list.to_string()));
        let folder = tempfile::tempdir().unwrap();
        let error =
            hub::fetch(&settings(&server.url, folder.path()), &wanted(None), &Notes::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("leads out of the model's folder"), "{error}");
        assert_eq!(tree(folder.path()), [""; 0]);
    }
}

#[test]
fn without_a_network_the_cache_serves() {
    let hub = ModelScope::new();
    let folder = hub.fetch().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = settings(&format!("http://{closed}"), hub.folder.path());
    let notes = Notes::default();
    assert_eq!(hub::fetch(&away, &wanted(None), &notes).unwrap(), folder);
    assert!(notes.text().contains("taking o/n (master) from the cache"), "{}", notes.text());
}
