//! Models from Hugging Face, played by a hub and a CDN on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use minisgl_server::hub::{self, HubError, Observer, Patience, Settings, Source, Wanted};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::mock_hub::{Answer, Asked, Break, Server};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// Waits as short as they can be where a test is sure to wait, else longer than any machine takes.
pub(crate) const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(30),
    stall: Duration::from_secs(30),
    tries: 3,
    first_wait: Duration::from_millis(1),
    longest_wait: Duration::from_millis(5),
    lock: Duration::from_millis(300),
};

pub(crate) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that differ from place to place.
pub(crate) fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mix = |index: usize| (index * 31 + index / 251) as u8;
    (0..len).map(|index| mix(index).wrapping_add(seed)).collect()
}

/// Writes down what it is told.
#[derive(Default)]
pub(crate) struct Notes {
    lines: Mutex<Vec<String>>,
    progress: Mutex<Vec<(u64, u64)>>,
}

impl Notes {
    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    fn last_progress(&self) -> Option<(u64, u64)> {
        self.progress.lock().unwrap().last().copied()
    }
}

impl Observer for Notes {
    fn progress(&self, done: u64, total: u64) {
        self.progress.lock().unwrap().push((done, total));
    }

    fn note(&self, message: &str) {
        self.lines.lock().unwrap().push(message.to_owned());
    }
}

/// What the hub has: contents by name; safetensors are on the CDN.
type Files = BTreeMap<String, Vec<u8>>;

fn files() -> Files {
    let mut files = Files::new();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
    {
        files.insert(name.to_owned(), format!("{{\"file\": {name:?}}}").into_bytes());
    }
    files.insert("chat_template.jinja".to_owned(), b"{{ messages }}".to_vec());
    files.insert("model.safetensors".to_owned(), noise(1, 100_000));
    files
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn blob_id(content: &[u8]) -> String {
    sha256(content)[..40].to_owned()
}

fn listing(files: &Files) -> Value {
    let siblings = files.iter().map(|(name, content)| {
        let (size, blob) = (content.len(), blob_id(content));
        match is_large(name) {
            true => json!({"rfilename": name, "size": size, "blobId": blob,
                "lfs": {"sha256": sha256(content), "size": size, "pointerSize": 135}}),
            false => json!({"rfilename": name, "size": size, "blobId": blob}),
        }
    });
    json!({"id": "o/n", "sha": COMMIT, "siblings": siblings.collect::<Vec<_>>()})
}

/// A hub and its CDN, each with a way to misbehave.
struct Hub {
    hub: Server,
    cdn: Server,
    folder: TempDir,
}

/// What is answered instead, if anything.
type Instead = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;

impl Hub {
    fn new(files: Files) -> Self {
        Self::with(files, |_| None, |_| None)
    }

    fn with(
        files: Files,
        hub_instead: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
        cdn_instead: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let by_hash: BTreeMap<String, Vec<u8>> =
            files.values().map(|content| (sha256(content), content.clone())).collect();
        let cdn_instead: Box<Instead> = Box::new(cdn_instead);
        let cdn = Server::start(move |asked| {
            let hash = asked.target.trim_start_matches('/').split('?').next().unwrap();
            cdn_instead(asked).unwrap_or_else(|| Answer::content(asked, &by_hash[hash]))
        });
        let cdn_url = cdn.url.clone();
        let hub_instead: Box<Instead> = Box::new(hub_instead);
        let hub = Server::start(move |asked| {
            hub_instead(asked).unwrap_or_else(|| answer(asked, &files, &cdn_url))
        });
        Self { hub, cdn, folder: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> Settings {
        settings(&self.hub.url, self.folder.path())
    }

    fn fetch(&self) -> Result<PathBuf, HubError> {
        self.fetch_noting(&Notes::default())
    }

    fn fetch_noting(&self, notes: &Notes) -> Result<PathBuf, HubError> {
        hub::fetch(&self.settings(), &wanted(None), notes)
    }

    fn error(&self) -> String {
        self.fetch().unwrap_err().to_string()
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("cache/models--o--n")
    }

    fn blob(&self, content: &[u8]) -> PathBuf {
        self.root().join("blobs").join(sha256(content))
    }
}

/// What a well-behaved hub answers.
fn answer(asked: &Asked, files: &Files, cdn: &str) -> Answer {
    if asked.target.starts_with("/api/models/o/n/revision/") {
        return Answer::new(200, listing(files).to_string());
    }
    let prefix = format!("/o/n/resolve/{COMMIT}/");
    let Some(name) = asked.target.strip_prefix(&prefix) else {
        return Answer::new(404, "{\"error\": \"nothing here\"}");
    };
    let content = &files[name];
    if is_large(name) {
        let hash = sha256(content);
        return Answer::new(302, "")
            .with("X-Repo-Commit", COMMIT)
            .with("X-Linked-Etag", format!("\"{hash}\""))
            .with("X-Linked-Size", content.len())
            .with("Location", format!("{cdn}/{hash}?signature=s3cret"));
    }
    Answer::new(200, content.as_slice())
        .with("X-Repo-Commit", COMMIT)
        .with("ETag", format!("\"{}\"", blob_id(content)))
}

pub(crate) fn settings(url: &str, folder: &Path) -> Settings {
    let cache = folder.join("cache").display().to_string();
    let variables = |name: &str| match name {
        "HF_ENDPOINT" => Some(url.to_owned()),
        "HF_HUB_CACHE" => Some(cache.clone()),
        "HF_TOKEN" => Some(TOKEN.to_owned()),
        "HOME" => Some("/no/such/home".to_owned()),
        _ => None,
    };
    let settings = Settings::from_variables(Source::HuggingFace, &variables).unwrap();
    Settings { patience: PATIENCE, ..settings }
}

pub(crate) fn wanted(revision: Option<&str>) -> Wanted {
    let revision = revision.map(|revision| revision.parse().unwrap());
    Wanted { id: "o/n".parse().unwrap(), revision, weights: true }
}

/// The names of all files below `folder`, sorted.
pub(crate) fn tree(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => names.push(path.strip_prefix(folder).unwrap().display().to_string()),
            }
        }
    }
    names.sort();
    names
}

#[test]
fn a_model_comes_into_the_cache_that_pythons_tools_share() {
    let mut all = files();
    for name in [
        "README.md",
        "pytorch_model.bin",
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "original/consolidated.00.pth",
        "onnx/model.safetensors",
        ".gitattributes",
        "tokenizer.model",
    ] {
        all.insert(name.to_owned(), noise(9, 10));
    }
    let hub = Hub::new(all);
    let notes = Notes::default();
    let folder = hub.fetch_noting(&notes).unwrap();
    assert_eq!(folder, hub.root().join("snapshots").join(COMMIT));
    assert_eq!(notes.text(), "");

    let expected = files();
    assert_eq!(tree(&folder), expected.keys().cloned().collect::<Vec<_>>());
    for (name, content) in &expected {
        let blob = if is_large(name) { sha256(content) } else { blob_id(content) };
        let link = fs::read_link(folder.join(name)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(&blob));
        assert_eq!(fs::read(folder.join(name)).unwrap(), *content);
    }
    assert_eq!(fs::read_to_string(hub.root().join("refs/main")).unwrap(), COMMIT);
    assert!(tree(&hub.root()).iter().all(|name| !name.ends_with(".incomplete")));
    let (done, total) = notes.last_progress().unwrap();
    assert_eq!((done, total), (100_000, 100_000));

    // The hub knows who asks, the CDN does not.
    let bearer = format!("Bearer {TOKEN}");
    assert!(hub.hub.asked().iter().all(|asked| asked.header("authorization") == Some(&bearer)));
    let [asked] = &hub.cdn.asked()[..] else { panic!("{:?}", hub.cdn.asked()) };
    assert_eq!((asked.header("authorization"), asked.header("cookie")), (None, None));
    assert!(asked.target.ends_with("?signature=s3cret"));

    // The next time only the list is asked for.
    let before = hub.hub.asked().len();
    assert_eq!(hub.fetch().unwrap(), folder);
    assert_eq!((hub.hub.asked().len(), hub.cdn.asked().len()), (before + 1, 1));
    assert_eq!(hub::find_cached(&hub.settings(), &wanted(None)), Some(folder.clone()));
    assert_eq!(hub::find_cached(&hub.settings(), &wanted(Some(COMMIT))), Some(folder));
    assert_eq!(hub::find_cached(&hub.settings(), &wanted(Some("v2"))), None);
}

#[test]
fn a_revision_has_its_own_reference() {
    let hub = Hub::new(files());
    hub::fetch(&hub.settings(), &wanted(Some("refs/pr/3")), &Notes::default()).unwrap();
    assert_eq!(hub.hub.count("/revision/refs%2Fpr%2F3?"), 1);
    assert_eq!(fs::read_to_string(hub.root().join("refs/refs/pr/3")).unwrap(), COMMIT);
    // A commit needs none.
    hub::fetch(&hub.settings(), &wanted(Some(COMMIT)), &Notes::default()).unwrap();
    assert_eq!(tree(&hub.root().join("refs")), ["refs/pr/3"]);
}

#[test]
fn without_weights_only_small_files_come() {
    let mut all = files();
    all.insert("model.safetensors.index.json".to_owned(), b"{}".to_vec());
    let hub = Hub::new(all);
    let wanted = Wanted { weights: false, ..wanted(None) };
    let folder = hub::fetch(&hub.settings(), &wanted, &Notes::default()).unwrap();
    let small: Vec<String> = files().into_keys().filter(|name| !is_large(name)).collect();
    assert_eq!(tree(&folder), small);
    assert_eq!(hub.cdn.asked().len(), 0);
    // Which is enough for one purpose and not for the other.
    assert!(hub::find_cached(&hub.settings(), &wanted).is_some());
    assert!(hub::find_cached(&hub.settings(), &self::wanted(None)).is_none());
}

/// A model in two shards, and files that look like shards.
fn sharded() -> Files {
    let mut files = files();
    files.remove("model.safetensors");
    for (seed, name) in [(2, "a.safetensors"), (3, "b.safetensors"), (4, "other.safetensors")] {
        files.insert(name.to_owned(), noise(seed, 50_000));
    }
    let index = json!({"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}});
    files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
    files
}

#[test]
fn the_shards_of_the_index_come_at_one_time() {
    // Nothing is answered until both are asked for.
    let (waiting, both) = (Mutex::new(0), Condvar::new());
    let hub = Hub::with(
        sharded(),
        |_| None,
        move |_| {
            let mut count = waiting.lock().unwrap();
            *count += 1;
            both.notify_all();
            let long = Duration::from_secs(20);
            let is_alone = both.wait_timeout_while(count, long, |count| *count < 2).unwrap().1;
            is_alone.timed_out().then(|| Answer::new(403, "one after the other"))
        },
    );
    let settings = hub.settings();
    let settings = Settings { patience: Patience { tries: 1, ..PATIENCE }, ..settings };
    let folder = hub::fetch(&settings, &wanted(None), &Notes::default()).unwrap();
    let names = tree(&folder);
    assert!(names.contains(&"a.safetensors".to_owned()), "{names:?}");
    assert!(!names.contains(&"other.safetensors".to_owned()), "{names:?}");
    assert_eq!(hub.cdn.asked().len(), 2);
}

#[test]
fn a_download_goes_on_where_it_stopped() {
    let hub = Hub::new(files());
    let content = &files()["model.safetensors"];
    let incomplete = hub.blob(content).with_extension("incomplete");
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    fs::write(&incomplete, &content[..60_000]).unwrap();
    let notes = Notes::default();
    let folder = hub.fetch_noting(&notes).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), *content);
    assert_eq!(hub.cdn.asked()[0].from(), Some(60_000));
    assert_eq!(notes.last_progress(), Some((100_000, 100_000)));
    assert!(!incomplete.exists());
    // All of it was there, but for its name.
    fs::remove_file(hub.blob(content)).unwrap();
    fs::write(&incomplete, content).unwrap();
    hub.fetch().unwrap();
    assert_eq!(hub.cdn.asked().len(), 1);
}

/// A CDN whose answers break off after some bytes, the first `times` times.
fn breaking(how: Break, times: usize) -> Hub {
    let (content, count) = (files().remove("model.safetensors").unwrap(), AtomicUsize::new(0));
    Hub::with(
        files(),
        |_| None,
        move |asked| {
            let is_broken = count.fetch_add(1, Ordering::SeqCst) < times;
            is_broken.then(|| Answer::content(asked, &content).breaks(10_000, how))
        },
    )
}

#[test]
fn a_connection_that_breaks_is_tried_again_from_there() {
    let hub = breaking(Break::Close, 2);
    let folder = hub.fetch().unwrap();
    let content = &files()["model.safetensors"];
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), *content);
    let ranges: Vec<_> = hub.cdn.asked().iter().map(Asked::from).collect();
    assert_eq!(ranges, [None, Some(10_000), Some(20_000)]);
}

#[test]
fn a_link_that_stalls_is_given_up() {
    let hub = breaking(Break::Stall, 1);
    // A machine may be so slow that good links stall, too.
    let patience = Patience { stall: Duration::from_millis(500), tries: 100, ..PATIENCE };
    let settings = Settings { patience, ..hub.settings() };
    let notes = Notes::default();
    let folder = hub::fetch(&settings, &wanted(None), &notes).unwrap();
    let content = &files()["model.safetensors"];
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), *content);
    assert!(notes.text().contains("timeout"), "{}", notes.text());
    assert!(hub.cdn.asked().last().unwrap().from() >= Some(10_000));
}

#[test]
fn tries_come_to_an_end_and_leave_what_came() {
    let hub = breaking(Break::Close, 3);
    let error = hub.error();
    assert!(error.starts_with("model.safetensors did not come in 3 tries: "), "{error}");
    let content = &files()["model.safetensors"];
    assert!(!hub.blob(content).exists());
    assert_eq!(fs::read(hub.blob(content).with_extension("incomplete")).unwrap().len(), 30_000);
    // The next start goes on.
    hub.fetch().unwrap();
    assert_eq!(hub.cdn.asked().last().unwrap().from(), Some(30_000));
}

#[test]
fn busy_hubs_are_asked_again_and_not_for_ever() {
    for status in [429, 500, 502, 503, 504, 408] {
        let count = AtomicUsize::new(0);
        let busy = move |asked: &Asked| {
            let is_list = asked.target.contains("/revision/");
            let is_busy = is_list && count.fetch_add(1, Ordering::SeqCst) < 2;
            // An hour is not waited for.
            is_busy.then(|| Answer::new(status, "later").with("Retry-After", 3600))
        };
        let hub = Hub::with(files(), busy, |_| None);
        let notes = Notes::default();
        hub.fetch_noting(&notes).unwrap();
        assert_eq!(hub.hub.count("/revision/"), 3);
        assert!(notes.text().contains(&format!("answers {status}; another try in")), "{status}");
    }
    let hub = Hub::with(files(), |_| Some(Answer::new(503, "{\"error\": \"asleep\"}")), |_| None);
    let error = hub.error();
    assert!(error.ends_with("/revision/main answers 503: asleep"), "{error}");
    assert_eq!(hub.hub.asked().len(), 3);
    // A link that has expired is asked for anew; its signature is not shown.
    let hub = Hub::with(files(), |_| None, |_| Some(Answer::new(403, "expired")));
    let error = hub.error();
    assert!(error.contains("answers 403") && !error.contains("s3cret"), "{error}");
    assert_eq!(hub.hub.count("/resolve/0123456789abcdef0123456789abcdef01234567/model."), 3);
}

#[test]
fn what_came_is_checked() {
    let content = files().remove("model.safetensors").unwrap();
    // It began with something else: once more from the start.
    let hub = Hub::new(files());
    let incomplete = hub.blob(&content).with_extension("incomplete");
    fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
    for rubbish in [vec![7; 60_000], vec![7; 100_000], vec![7; 200_000]] {
        fs::write(&incomplete, &rubbish).unwrap();
        let folder = hub.fetch().unwrap();
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), content);
        fs::remove_dir_all(hub.root().join("snapshots")).unwrap();
        fs::remove_file(hub.blob(&content)).unwrap();
    }
    // It is something else.
    let other = noise(8, 100_000);
    let hub = Hub::with(files(), |_| None, move |asked| Some(Answer::content(asked, &other)));
    let error = hub.error();
    let listed = sha256(&content);
    assert!(error.starts_with("model.safetensors is broken: its SHA-256 is "), "{error}");
    assert!(error.ends_with(&format!("the hub lists {listed}")), "{error}");
    assert_eq!(hub.cdn.asked().len(), 2);
    assert!(!hub.blob(&content).exists());
    assert_eq!(fs::read(hub.blob(&content).with_extension("incomplete")).unwrap(), b"");
}

#[test]
fn servers_that_know_no_ranges_are_coped_with() {
    let content = files().remove("model.safetensors").unwrap();
    let all = content.clone();
    let ignores = Hub::with(files(), |_| None, move |_| Some(Answer::new(200, all.as_slice())));
    let all = content.clone();
    let refuses = Hub::with(
        files(),
        |_| None,
        move |asked| match asked.from() {
            Some(_) => Some(Answer::new(416, "")),
            None => Some(Answer::new(200, all.as_slice())),
        },
    );
    for hub in [ignores, refuses] {
        let incomplete = hub.blob(&content).with_extension("incomplete");
        fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
        fs::write(&incomplete, &content[..10]).unwrap();
        let folder = hub.fetch().unwrap();
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), content);
    }
}

#[test]
fn answers_that_are_not_what_was_asked_for_are_refused() {
    let content = files().remove("model.safetensors").unwrap();
    let longer = [content.as_slice(), b"x"].concat();
    let range = |range: &str| Answer::new(206, &content[10..]).with("Content-Range", range);
    for (answer, reason) in [
        (Answer::new(200, longer.as_slice()), "100001 bytes where 100000 are wanted"),
        (Answer::new(200, longer.as_slice()).without_length(), "longer than its 100000 bytes"),
        (range("bytes 11-99999/100000"), "where bytes 10-99999/100000 is wanted"),
        (range("bytes 10-99999/100001"), "where bytes 10-99999/100000 is wanted"),
        (Answer::new(206, &content[10..]), "it sends nothing where"),
        (Answer::new(302, "").with("Location", "file:///etc/passwd"), "file:///etc/passwd"),
        (Answer::new(302, ""), "it redirects to \"\""),
        (Answer::new(302, "").with("Location", "/again"), "more than 5 redirects"),
    ] {
        let hub = Hub::with(files(), |_| None, move |_| Some(answer.clone()));
        let incomplete = hub.blob(&content).with_extension("incomplete");
        fs::create_dir_all(incomplete.parent().unwrap()).unwrap();
        fs::write(&incomplete, &content[..10]).unwrap();
        let error = hub.error();
        assert!(error.contains(reason), "{error}");
        assert!(hub.cdn.asked().len() <= 6, "{reason}");
    }
}

#[test]
fn models_that_were_renamed_are_followed() {
    let moved = |asked: &Asked| {
        let new = asked.target.strip_prefix("/api/models/old/name/")?;
        let location = format!("/api/models/o/n/{new}");
        Some(Answer::new(307, "").with("Location", location))
    };
    let hub = Hub::with(files(), moved, |_| None);
    let files_moved = |id: &str| Wanted { id: id.parse().unwrap(), ..wanted(None) };
    // The list only: the mock has the files under the new name.
    let error = hub::fetch(&hub.settings(), &files_moved("old/name"), &Notes::default());
    assert!(error.unwrap_err().to_string().contains("old/name does not exist"));
    let bearer = format!("Bearer {TOKEN}");
    assert!(hub.hub.asked().len() > 2);
    assert!(hub.hub.asked().iter().all(|asked| asked.header("authorization") == Some(&bearer)));
}

#[test]
fn nothing_that_a_hub_says_leads_out_of_the_cache() {
    let list = |change: &dyn Fn(&mut Value)| {
        let mut listing = listing(&files());
        change(&mut listing);
        let answer = move |asked: &Asked| {
            let is_list = asked.target.contains("/revision/");
            is_list.then(|| Answer::new(200, listing.to_string()))
        };
        Hub::with(files(), answer, |_| None)
    };
    let add = |name: &'static str| {
        move |listing: &mut Value| {
            let file = json!({"rfilename": name, "size": 1, "blobId": "abcdef"});
            listing["siblings"].as_array_mut().unwrap().push(file);
        }
    };
    let escape = "../../../../evil";
    let hubs = [
        (list(&add("../../evil.safetensors")), "leads out of the model's folder"),
        (list(&add("/tmp/evil.safetensors")), "leads out of the model's folder"),
        (list(&add("a/../../evil.json")), "leads out of the model's folder"),
        (list(&|listing| listing["sha"] = escape.into()), "is not a commit"),
        (list(&|listing| listing["siblings"][1]["blobId"] = escape.into()), "has no hash"),
        (list(&|listing| listing["siblings"][3]["lfs"]["sha256"] = escape.into()), "no SHA-256"),
    ];
    for (hub, reason) in hubs {
        let error = hub.error();
        assert!(error.contains(reason), "{error}");
        assert!(tree(hub.folder.path()).iter().all(|name| !name.contains("evil")), "{reason}");
    }
    // Names in an index, and in a header.
    let mut files = sharded();
    let index = json!({"weight_map": {"x": "../a.safetensors"}}).to_string().into_bytes();
    files.insert("model.safetensors.index.json".to_owned(), index);
    let error = Hub::new(files).error();
    assert!(
        error.contains("\"../a.safetensors\" is not the name of a safetensors file"),
        "{error}"
    );
    let hub = names_only(self::files(), "\"../../../../evil\"");
    assert!(hub.error().contains("has no hash that names it"), "{}", hub.error());
}

/// A mirror whose list has names only; `etag` is that of all that is not on the CDN.
fn names_only(files: Files, etag: &'static str) -> Hub {
    let all = files.clone();
    let answer = move |asked: &Asked| {
        if asked.target.contains("/revision/") {
            let names = all.keys().map(|name| json!({"rfilename": name})).collect::<Vec<_>>();
            let list = json!({"sha": COMMIT, "siblings": names});
            return Some(Answer::new(200, list.to_string()));
        }
        let name = asked.target.rsplit('/').next()?;
        (asked.method == "HEAD" && !is_large(name))
            .then(|| Answer::new(200, all[name].as_slice()).with("ETag", etag))
    };
    Hub::with(files, answer, |_| None)
}

#[test]
fn headers_say_what_a_list_does_not() {
    let hub = names_only(files(), "W/\"aaaabbbb\"");
    let folder = hub.fetch().unwrap();
    let content = &files()["model.safetensors"];
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), *content);
    // Called by its hash, which was checked; the others by what the hub calls them.
    assert!(hub.blob(content).is_file());
    let link = fs::read_link(folder.join("config.json")).unwrap();
    assert_eq!(link, Path::new("../../blobs/aaaabbbb"));
    // The CDN is not asked for headers.
    assert!(hub.cdn.asked().iter().all(|asked| asked.method == "GET"));
    // Of another commit than the list.
    let other = |asked: &Asked| {
        let is_head = asked.method == "HEAD";
        is_head.then(|| Answer::new(200, "x").with("X-Repo-Commit", "ffff"))
    };
    let list = json!({"sha": COMMIT, "siblings": [{"rfilename": "config.json"},
        {"rfilename": "tokenizer.json"}, {"rfilename": "model.safetensors"}]});
    let answer = move |asked: &Asked| match asked.target.contains("/revision/") {
        true => Some(Answer::new(200, list.to_string())),
        false => other(asked),
    };
    let error = Hub::with(files(), answer, |_| None).error();
    assert!(error.contains("it is of commit \"ffff\""), "{error}");
}

#[test]
fn refusals_say_what_to_do() {
    let gated = |status| Answer::new(status, "").with("X-Error-Code", "GatedRepo");
    let code = |status, code: &str| Answer::new(status, "").with("X-Error-Code", code);
    // With a token, and without.
    for (answer, with, without) in [
        (
            gated(403),
            "is gated: the account of this token has no access",
            "set HF_TOKEN to a token",
        ),
        (gated(401), "is gated: the account of this token has no access", "accept the terms"),
        (Answer::new(403, ""), "is gated", "is gated"),
        (Answer::new(403, "{\"error\": \"disabled\"}"), "refuses", "o/n: disabled"),
        (Answer::new(401, ""), "the hub refuses the token: check HF_TOKEN", "or is private"),
        (code(401, "RepoNotFound"), "does not exist", "or is private: check the name"),
        (code(404, "RepoNotFound"), "o/n does not exist, or the token", "set HF_TOKEN"),
        (code(404, "RevisionNotFound"), "has no revision main", "has no revision main"),
        (Answer::new(404, ""), "o/n does not exist", "o/n does not exist, or is private"),
        (Answer::new(400, "{\"error\": \"odd\"}"), "answers 400: odd", "answers 400: odd"),
        (Answer::new(200, "<html>"), "is not answered as a hub would", "is not answered as"),
    ] {
        let hub = Hub::with(files(), move |_| Some(answer.clone()), |_| None);
        for (token, reason) in [(hub.settings().token, with), (None, without)] {
            let settings = Settings { token, ..hub.settings() };
            let error = hub::fetch(&settings, &wanted(None), &Notes::default()).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(reason), "{reason}: {error}");
            assert!(!error.contains(TOKEN) && error.contains("h"), "{error}");
        }
        // None of them is worth another try.
        assert_eq!(hub.hub.asked().len(), 2);
    }
    // A list for everybody, files for some: as gated models are.
    let files_gated = move |asked: &Asked| asked.target.contains("/resolve/").then(|| gated(403));
    let hub = Hub::with(files(), files_gated, |_| None);
    let page = format!("{}/o/n is gated", hub.hub.url);
    assert!(hub.error().starts_with(&page), "{}", hub.error());
}

#[test]
fn what_cannot_be_served_is_refused_before_it_comes() {
    for (without, with, reason) in [
        ("config.json", None, "no config.json: it is not a model"),
        ("tokenizer.json", Some("tokenizer.model"), "no tokenizer.json"),
        ("model.safetensors", Some("pytorch_model.bin"), "weights are pickled"),
        ("model.safetensors", Some("model.gguf"), "no weights in a form"),
        ("model.safetensors", Some("consolidated.safetensors"), "in another layout"),
    ] {
        let mut files = files();
        files.remove(without);
        files.extend(with.map(|name| (name.to_owned(), noise(1, 10))));
        let hub = Hub::new(files);
        assert!(hub.error().contains(reason), "{}", hub.error());
        assert_eq!(hub.cdn.asked().len(), 0, "{reason}");
    }
}

#[test]
fn a_full_disk_is_noticed_before() {
    let answer = |asked: &Asked| {
        let mut listing = listing(&files());
        listing["siblings"][3]["lfs"]["size"] = json!(1_u64 << 60);
        asked.target.contains("/revision/").then(|| Answer::new(200, listing.to_string()))
    };
    let hub = Hub::with(files(), answer, |_| None);
    let error = hub.error();
    assert!(error.contains("1152921504.61 GB are still to come"), "{error}");
    assert!(error.ends_with("make room, or set HF_HUB_CACHE"), "{error}");
    assert_eq!(hub.cdn.asked().len(), 0);
}

#[test]
fn without_a_network_the_cache_serves() {
    let hub = Hub::new(files());
    let offline = Settings { offline: true, ..hub.settings() };
    let fetch = |settings: &Settings, notes: &Notes| hub::fetch(settings, &wanted(None), notes);
    let error = fetch(&offline, &Notes::default()).unwrap_err().to_string();
    assert!(error.starts_with("o/n (main) is not in ") && error.contains("HF_HUB_OFFLINE"));
    assert_eq!(hub.hub.asked().len(), 0);

    // Nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = Settings { endpoint: format!("http://{closed}"), ..hub.settings() };
    let error = fetch(&away, &Notes::default()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot reach http://{closed} (")), "{error}");
    assert!(error.contains("set HF_ENDPOINT to a mirror, or give --model a folder"), "{error}");

    let folder = hub.fetch().unwrap();
    let asked = hub.hub.asked().len();
    assert_eq!(fetch(&offline, &Notes::default()).unwrap(), folder);
    let notes = Notes::default();
    assert_eq!(fetch(&away, &notes).unwrap(), folder);
    assert!(notes.text().contains("taking o/n (main) from the cache"), "{}", notes.text());
    assert_eq!(hub.hub.asked().len(), asked);

    // A shard is gone: what is left is no model.
    fs::remove_file(hub.blob(&files()["model.safetensors"])).unwrap();
    let error = fetch(&offline, &Notes::default()).unwrap_err().to_string();
    assert!(error.contains("(*.safetensors is missing)"), "{error}");
}

#[test]
fn two_that_want_one_model_fetch_it_once() {
    let hub = Hub::new(files());
    std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| hub.fetch().unwrap()));
        for one in both {
            one.join().unwrap();
        }
    });
    assert_eq!(hub.cdn.asked().len(), 1);
}

#[test]
fn a_lock_that_nothing_comes_of_is_not_waited_for_for_ever() {
    let hub = Hub::new(files());
    let hash = sha256(&files()["model.safetensors"]);
    let lock = hub.folder.path().join(format!("cache/.locks/models--o--n/{hash}.lock"));
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let held = fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let error = hub.error();
    assert!(error.starts_with("another process holds ") && error.contains(&hash), "{error}");
    assert_eq!(hub.cdn.asked().len(), 0);
    held.unlock().unwrap();
    hub.fetch().unwrap();
}

#[test]
fn a_token_stays_at_home() {
    // Another host by name is another origin, even if it is the same machine.
    let files = files();
    let content = files["model.safetensors"].clone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by = Arc::clone(&seen);
    let other = Server::start(move |asked| {
        seen_by.lock().unwrap().push(asked.header("authorization").map(str::to_owned));
        Answer::content(asked, &content)
    });
    let port = other.url.rsplit(':').next().unwrap().to_owned();
    let elsewhere = move |asked: &Asked| {
        let is_weights = asked.target.contains("/model.safetensors");
        let location = format!("http://localhost:{port}/x");
        is_weights.then(|| Answer::new(302, "").with("Location", location))
    };
    Hub::with(files, elsewhere, |_| None).fetch().unwrap();
    assert_eq!(*seen.lock().unwrap(), [None]);
}
