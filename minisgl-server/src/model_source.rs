//! From what `--model` says to files. The one place that will know about downloading.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use minisgl_model::Checkpoint;
use minisgl_server::demo;

use crate::args::ModelSource;
use crate::config::ModelArg;

/// The files of the model, and its name unless another is given.
///
/// # Errors
/// If there is no such folder, with advice how to get it.
pub(crate) fn resolve_model(model: &ModelArg) -> Result<(Checkpoint, String)> {
    let Some(name) = &model.name else { return Ok((demo::checkpoint(), demo::NAME.to_owned())) };
    let folder = expand_home(name);
    // Whatever there is at a path was meant, and the checkpoint says what is wrong with it.
    if folder.exists() || !looks_like_a_name(name) {
        return Ok((Checkpoint::folder(folder)?, name.clone()));
    }
    let target = Path::new(name).file_name().unwrap_or_default().display();
    let command = match model.source {
        ModelSource::Huggingface => {
            format!("huggingface-cli download {name} --local-dir {target}")
        }
        ModelSource::Modelscope => {
            format!("modelscope download --model {name} --local_dir {target}")
        }
    };
    bail!(
        "--model {name}: there is no such folder, and this version does not download models. \
         Download it yourself, then start it from its folder:\n  {command}\n  minisgl --model \
         ./{target}\nThe folder must have config.json, *.safetensors and tokenizer.json."
    );
}

/// `~` and `~/...` are in the home directory, also where no shell has seen to it.
fn expand_home(name: &str) -> PathBuf {
    let rest = match name.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => return name.into(),
    };
    std::env::home_dir().map_or_else(|| name.into(), |home| home.join(rest))
}

/// Whether it could be a repository on a hub: `owner/name`.
fn looks_like_a_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(is_allowed)
    };
    name.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(name: Option<&str>, source: ModelSource) -> Result<String, String> {
        let model = ModelArg { name: name.map(str::to_owned), source };
        resolve_model(&model).map(|(_, name)| name).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_demo_model_needs_nothing() {
        assert_eq!(resolve(None, ModelSource::Huggingface).unwrap(), "demo");
    }

    #[test]
    fn names_of_hubs_come_with_advice() {
        let error = resolve(Some("Qwen/Qwen3-0.6B"), ModelSource::Huggingface).unwrap_err();
        assert!(error.contains("huggingface-cli download Qwen/Qwen3-0.6B --local-dir Qwen3-0.6B"));
        let error = resolve(Some("Qwen/Qwen3-0.6B"), ModelSource::Modelscope).unwrap_err();
        assert!(error.contains("modelscope download --model Qwen/Qwen3-0.6B"), "{error}");
    }

    #[test]
    fn paths_are_looked_at() {
        let error = resolve(Some("./no/such/folder"), ModelSource::Huggingface).unwrap_err();
        assert!(error.contains("./no/such/folder is not a model folder"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(resolve(Some(path), ModelSource::Huggingface).unwrap(), path);
        assert_eq!(expand_home("~x/y"), PathBuf::from("~x/y"));
        assert!(expand_home("~/y").ends_with("y") && expand_home("~/y").is_absolute());
    }
}
