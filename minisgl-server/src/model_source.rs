//! From what `--model` says to files: a folder, a preset, or a model on a hub.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use minisgl_model::{Checkpoint, preset};
use minisgl_server::demo;
use minisgl_server::hub::{self, ModelId, Revision, Settings, Source, Wanted};

use crate::args::ModelSource;
use crate::config::ModelArg;
use crate::logging::DownloadProgress;

/// The files of the model, fetched if need be, and its name unless another is given. Without
/// `needs_weights` only its small files are, or a preset if there is one.
///
/// # Errors
/// If there is no such model, or it cannot be had, with advice.
pub(crate) fn resolve_model(model: &ModelArg, needs_weights: bool) -> Result<(Checkpoint, String)> {
    resolve(model, needs_weights, &|name| std::env::var(name).ok())
}

fn resolve(
    model: &ModelArg,
    needs_weights: bool,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(Checkpoint, String)> {
    let Some(name) = &model.name else { return Ok((demo::checkpoint(), demo::NAME.to_owned())) };
    let folder = expand_home(name);
    let id: Option<ModelId> = name.parse().ok();
    // Whatever there is at a path was meant, and the checkpoint says what is wrong with it.
    let Some(id) = id.filter(|_| !folder.exists()) else {
        let checkpoint = Checkpoint::folder(folder)?;
        ensure!(
            model.revision.is_none(),
            "--revision is for models on a hub, and --model {name} is a folder here"
        );
        return Ok((checkpoint, name.clone()));
    };
    let revision: Option<Revision> = model.revision.as_deref().map(str::parse).transpose()?;
    let source = match model.source {
        ModelSource::Huggingface => Source::HuggingFace,
        ModelSource::Modelscope => Source::ModelScope,
    };
    let wanted = Wanted { id, revision, weights: needs_weights };
    let settings = Settings::from_variables(source, variable);
    if !needs_weights && wanted.revision.is_none() {
        // With a tokenizer, if it happens to be here; without one rather than over the network.
        let cached =
            settings.as_ref().ok().and_then(|settings| hub::find_cached(settings, &wanted));
        if let Some(checkpoint) = preset(name).filter(|_| cached.is_none()) {
            tracing::info!(
                "{name}: the shape is built in, and there is no tokenizer: prompts must be token ids"
            );
            return Ok((checkpoint, name.clone()));
        }
    }
    let settings = settings?;
    match settings.offline {
        true => tracing::info!("Looking for {name} in {}", settings.cache.display()),
        false => tracing::info!("Looking for {name} on {}", settings.endpoint),
    }
    let folder = hub::fetch(&settings, &wanted, &DownloadProgress::default())?;
    tracing::info!("{name} is in {}", folder.display());
    Ok((Checkpoint::folder(folder)?, name.clone()))
}

/// `~` and `~/...` are in the home directory, also where no shell has seen to it.
fn expand_home(name: &str) -> PathBuf {
    let rest = match name.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => return name.into(),
    };
    std::env::home_dir().map_or_else(|| name.into(), |home| home.join(rest))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn model(name: Option<&str>) -> ModelArg {
        let name = name.map(str::to_owned);
        ModelArg { name, source: ModelSource::Huggingface, revision: None }
    }

    /// Without a network, and with a cache in `home`.
    fn offline(
        model: &ModelArg,
        weights: bool,
        home: &Path,
    ) -> Result<(Checkpoint, String), String> {
        let variable = |name: &str| match name {
            "HOME" => Some(home.display().to_string()),
            "HF_HUB_OFFLINE" => Some("1".to_owned()),
            _ => None,
        };
        resolve(model, weights, &variable).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_demo_model_needs_nothing() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(offline(&model(None), true, home.path()).unwrap().1, "demo");
    }

    #[test]
    fn names_are_looked_for_in_the_cache() {
        let home = tempfile::tempdir().unwrap();
        let named = model(Some("Qwen/Qwen3-0.6B"));
        let error = offline(&named, true, home.path()).unwrap_err();
        assert!(error.starts_with("Qwen/Qwen3-0.6B (main) is not in "), "{error}");
        // A preset is as good where no weights are needed, but its files are better.
        let (checkpoint, name) = offline(&named, false, home.path()).unwrap();
        assert!(matches!(checkpoint, Checkpoint::Config(_)) && name == "Qwen/Qwen3-0.6B");
        let repository = home.path().join(".cache/huggingface/hub/models--Qwen--Qwen3-0.6B");
        let snapshot = repository.join("snapshots/abcdef");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), "abcdef").unwrap();
        for file in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::write(snapshot.join(file), "{}").unwrap();
        }
        for weights in [true, false] {
            let (checkpoint, _) = offline(&named, weights, home.path()).unwrap();
            assert!(matches!(checkpoint, Checkpoint::Folder(folder) if folder == snapshot));
        }
        let other = ModelArg { revision: Some("v2".to_owned()), ..named };
        let error = offline(&other, false, home.path()).unwrap_err();
        assert!(error.contains("Qwen/Qwen3-0.6B (v2) is not in "), "{error}");
        let wrong = ModelArg { revision: Some("../x".to_owned()), ..other };
        assert!(offline(&wrong, true, home.path()).unwrap_err().contains("is not a revision"));
    }

    #[test]
    fn paths_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let error = offline(&model(Some("./no/such/folder")), true, folder.path()).unwrap_err();
        assert!(error.contains("./no/such/folder is not a model folder"), "{error}");
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(offline(&model(Some(path)), true, folder.path()).unwrap().1, path);
        let revision = Some("main".to_owned());
        let named = ModelArg { revision, ..model(Some(path)) };
        let error = offline(&named, true, folder.path()).unwrap_err();
        assert!(error.starts_with("--revision is for models on a hub"), "{error}");
        assert_eq!(expand_home("~x/y"), PathBuf::from("~x/y"));
        assert!(expand_home("~/y").ends_with("y") && expand_home("~/y").is_absolute());
    }
}
