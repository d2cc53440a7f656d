//! What the hubs have in common: a list of files with sizes and hashes, and a folder that they go to.
//! How a model is fetched from one: small files first, since they tell which others are needed, and
//! whether it can be served at all before gigabytes come.
//! Never knows: which hub it is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::http::{Http, answer};
use super::names::{is_file_name, is_sha256, stays_inside};
use super::retry::{Patience, with_retries};
use super::select::{self, INDEX};
use super::transfer::Item;
use super::{HubError, Observer, Settings, Wanted, batch};

/// The longest list of files: some hundred bytes each.
const MAX_LIST: u64 = 32 << 20;

/// The largest of the small files, as when models are loaded.
const MAX_SMALL: u64 = minisgl_model::Checkpoint::MAX_FILE_BYTES;

/// A file that a hub lists, its name checked.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) size: Option<u64>,
    /// Of its content, for the large files.
    pub(super) sha256: Option<String>,
    /// What the hub calls its content.
    pub(super) content: Option<String>,
}

/// One model on one hub.
pub(super) trait Repository<'a> {
    fn http(&self) -> &Http<'a>;

    fn settings(&self) -> &'a Settings {
        self.http().settings()
    }

    fn wanted(&self) -> &Wanted;

    /// Name and revision, for messages.
    fn label(&self) -> String;

    /// What the hub has, in one commit that the repository keeps in mind. Names as they come.
    fn list(
        &mut self,
        patience: &Patience,
        observer: &dyn Observer,
    ) -> Result<Vec<Listed>, HubError>;

    /// The folder with the files of the listed commit.
    fn folder(&self) -> PathBuf;

    /// Whether a file is in the folder, and is the one that is listed.
    fn is_here(&self, file: &Listed, observer: &dyn Observer) -> Result<bool, HubError>;

    /// Asks for what the list does not say of a file.
    fn complete(&self, file: &mut Listed, observer: &dyn Observer) -> Result<(), HubError>;

    /// What to fetch for a file, or nothing if its content is here.
    fn item(&self, file: &Listed) -> Result<Option<Item>, HubError>;

    /// The content of a file is here: puts it into the folder.
    fn publish(&self, file: &Listed) -> Result<(), HubError>;

    /// All files are in the folder.
    fn finish(&self) -> Result<(), HubError>;

    /// The folder of the revision as far as the cache knows, if it exists.
    fn cached(&self) -> Option<PathBuf>;
}

/// See [`super::find_cached`]; else what is missing.
pub(super) fn find_cached<'r, R: Repository<'r>>(repository: &R) -> Result<PathBuf, String> {
    let folder = repository.cached().ok_or("there is nothing of it")?;
    check_complete(&folder, repository.wanted().weights)?;
    Ok(folder)
}

/// See [`super::fetch`].
pub(super) fn fetch<'r, R: Repository<'r>>(
    mut repository: R,
    observer: &dyn Observer,
) -> Result<PathBuf, HubError> {
    let settings = repository.settings();
    let cached = find_cached(&repository);
    if settings.offline {
        return cached.map_err(|missing| HubError::Offline {
            model: repository.label(),
            cache: settings.cache.clone(),
            missing,
        });
    }
    if settings.token.is_some() && settings.token_to_send().is_none() {
        let (endpoint, variable) = (settings.endpoint.as_str(), settings.source.token_variable());
        observer.note(&format!("{variable} is not sent to {endpoint}: others could read it there"));
    }
    // With the files at hand a hub that is away is not waited for.
    let tries = if cached.is_ok() { 2 } else { settings.patience.tries };
    let patience = Patience { tries, ..settings.patience };
    let files = match (repository.list(&patience, observer), cached) {
        (Ok(files), _) => files,
        (Err(error), Ok(folder)) if error.is_away() => {
            let (problem, label) = (error.brief(), repository.label());
            observer.note(&format!("{problem}; taking {label} from the cache"));
            return Ok(folder);
        }
        (Err(error), _) => return Err(error),
    };
    let files = checked(files, &settings.endpoint)?;
    let with_weights = repository.wanted().weights;
    let small = |file: &&Listed| select::is_small(&file.name, with_weights);
    let small: Vec<&Listed> = files.iter().filter(small).collect();
    check_servable(&repository, &files)?;
    if let Some(file) = small.iter().find(|file| file.size.is_some_and(|size| size > MAX_SMALL)) {
        let problem = format!("{} has more than {MAX_SMALL} bytes", file.name);
        return Err(answer(&settings.endpoint, problem));
    }
    bring(&repository, &small, observer)?;
    if with_weights {
        let weights = select_weights(&repository, &files)?;
        bring(&repository, &weights, observer)?;
    }
    repository.finish()?;
    Ok(repository.folder())
}

/// Leaves out what lies in folders, which is never needed. A hub that lists what leads out of its own
/// folder is not asked further.
fn checked(files: Vec<Listed>, endpoint: &str) -> Result<Vec<Listed>, HubError> {
    if let Some(file) = files.iter().find(|file| !stays_inside(&file.name)) {
        let problem = format!("it lists {:?}, which leads out of the model's folder", file.name);
        return Err(answer(endpoint, problem));
    }
    let mut files = files;
    files.retain(|file| is_file_name(&file.name));
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.dedup_by(|a, b| a.name == b.name);
    for file in &mut files {
        // In small digits, as it is computed here.
        file.sha256 = file.sha256.take().map(|sum| sum.to_ascii_lowercase());
        if file.sha256.as_ref().is_some_and(|sum| !is_sha256(sum)) {
            let problem = format!("{} has a checksum that is no SHA-256", file.name);
            return Err(answer(endpoint, problem));
        }
    }
    Ok(files)
}

/// Refuses what could only fail after a long download.
fn check_servable<'r, R: Repository<'r>>(repository: &R, files: &[Listed]) -> Result<(), HubError> {
    let has = |name: &str| files.iter().any(|file| file.name == name);
    let missing = |file, reason| Err(HubError::NoFile { model: repository.label(), file, reason });
    if !has("config.json") {
        return missing("config.json", "it is not a model in the Hugging Face layout");
    }
    if !has("tokenizer.json") {
        let reason = "the tokenizer is not in the form that is needed; look for a converted copy";
        return missing("tokenizer.json", reason);
    }
    if repository.wanted().weights && !files.iter().any(|file| file.name.ends_with(".safetensors"))
    {
        let reason = match files.iter().any(|file| select::is_pickled(&file.name)) {
            true => {
                "its weights are pickled (.bin, .pt), which is never read, since it can run any \
                     program; look for a converted copy"
            }
            false => "there are no weights in a form that can be read here",
        };
        return missing("*.safetensors", reason);
    }
    Ok(())
}

fn select_weights<'a, 'r, R: Repository<'r>>(
    repository: &R,
    files: &'a [Listed],
) -> Result<Vec<&'a Listed>, HubError> {
    let index = repository.folder().join(INDEX);
    let has_index = files.iter().any(|file| file.name == INDEX);
    let index =
        has_index.then(|| std::fs::read(&index).map_err(HubError::io(&index))).transpose()?;
    let names = files.iter().map(|file| file.name.as_str()).collect();
    let selected = select::weights(&names, index.as_deref()).map_err(|problem| {
        let endpoint = &repository.settings().endpoint;
        answer(endpoint, format!("{INDEX} of {}: {problem}", repository.label()))
    })?;
    if selected.is_empty() {
        let reason = "there are weights, but in another layout";
        return Err(HubError::NoFile { model: repository.label(), file: "*.safetensors", reason });
    }
    Ok(files.iter().filter(|file| selected.contains(&file.name)).collect())
}

/// Fetches what is not here of `files`, and puts all of them into the folder.
fn bring<'r, R: Repository<'r>>(
    repository: &R,
    files: &[&Listed],
    observer: &dyn Observer,
) -> Result<(), HubError> {
    let mut missing = Vec::new();
    for &file in files {
        if !repository.is_here(file, observer)? {
            let mut file = file.clone();
            repository.complete(&mut file, observer)?;
            missing.push(file);
        }
    }
    let mut items: Vec<Item> = Vec::new();
    for file in &missing {
        let item = repository.item(file)?;
        // Two files may have one content.
        let is_new = |item: &Item| items.iter().all(|other| other.target != item.target);
        if let Some(item) = item.filter(is_new) {
            items.push(item);
        }
    }
    batch::fetch(repository.http(), &items, observer)?;
    missing.iter().try_for_each(|file| repository.publish(file))
}

/// Asks for `url` until there is an answer, and reads it.
pub(super) fn read_json<T: DeserializeOwned>(
    http: &Http<'_>,
    url: &str,
    patience: &Patience,
    observer: &dyn Observer,
) -> Result<T, HubError> {
    let bytes = with_retries(patience, observer, || http.read(url, MAX_LIST), |_, error| error)?;
    serde_json::from_slice(&bytes).map_err(|error| answer(url, error.to_string()))
}

/// Whether all files of a model are in `folder`; else what is not.
fn check_complete(folder: &Path, with_weights: bool) -> Result<(), String> {
    let is_there = |name: &str| folder.join(name).is_file();
    let missing = |name: &str| Err(format!("{name} is missing"));
    if let Some(name) = ["config.json", "tokenizer.json"].iter().find(|name| !is_there(name)) {
        return missing(name);
    }
    if !with_weights {
        return Ok(());
    }
    let index = match std::fs::read(folder.join(INDEX)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        index => Some(index.map_err(|error| error.to_string())?),
    };
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    // A link to what is not there is not there.
    let names: BTreeSet<&str> =
        names.iter().map(String::as_str).filter(|name| is_there(name)).collect();
    match select::weights(&names, index.as_deref())? {
        weights if weights.is_empty() => missing("*.safetensors"),
        _ => Ok(()),
    }
}
