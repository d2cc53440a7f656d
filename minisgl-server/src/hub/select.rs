//! Which of a repository's files serving needs.
//! Never knows: where they come from.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::names::is_file_name;

/// What says which shards there are.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// All weights in one file.
const SINGLE: &str = "model.safetensors";

/// Files that are small beside the weights.
const SMALL: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    INDEX,
];

/// Whether it is one of the small files; the index is one of the weights.
pub(super) fn is_small(name: &str, with_weights: bool) -> bool {
    SMALL.contains(&name) && (with_weights || name != INDEX)
}

/// Whether it has weights in a form that is never read, since reading it can run any program.
pub(super) fn is_pickled(name: &str) -> bool {
    [".bin", ".pt", ".pth"].iter().any(|ending| name.ends_with(ending))
}

/// The files with weights among `names`: those of the `index` if there is one, else the one file, else
/// all of safetensors but `consolidated*`, which are the same weights in another layout. If the index
/// lists what is not there, the one file comes before it.
///
/// # Errors
/// A sentence about an index that is none, or that lists what is not there while there is no one file.
pub(super) fn weights(
    names: &BTreeSet<&str>,
    index: Option<&[u8]>,
) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }

    if let Some(index) = index {
        let index: Index = serde_json::from_slice(index).map_err(|error| error.to_string())?;
        let shards: BTreeSet<String> = index.weight_map.into_values().collect();
        if let Some(shard) = shards.iter().find(|shard| !is_shard(shard)) {
            return Err(format!("{shard:?} is not the name of a safetensors file"));
        }
        return match shards.iter().find(|shard| !names.contains(shard.as_str())) {
            Some(_) if names.contains(SINGLE) => Ok(BTreeSet::from([SINGLE.to_owned()])),
            Some(missing) => Err(format!("{missing} is not there")),
            None => Ok(shards),
        };
    }
    if names.contains(SINGLE) {
        return Ok(BTreeSet::from([SINGLE.to_owned()]));
    }
    let all = names.iter().filter(|name| is_shard(name) && !name.starts_with("consolidated"));
    Ok(all.map(|name| (*name).to_owned()).collect())
}

fn is_shard(name: &str) -> bool {
    is_file_name(name) && name.ends_with(".safetensors")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(names: &[&str], index: Option<&str>) -> Result<Vec<String>, String> {
        let names = names.iter().copied().collect();
        let selected = weights(&names, index.map(str::as_bytes));
        selected.map(|names| names.into_iter().collect())
    }

    #[test]
    fn weights_come_once() {
        let both = ["model.safetensors", "model.fp16.safetensors", "consolidated.safetensors"];
        assert_eq!(select(&both, None).unwrap(), ["model.safetensors"]);
        let parts = ["b.safetensors", "a.safetensors", "consolidated.00.safetensors", "c.bin"];
        assert_eq!(select(&parts, None).unwrap(), ["a.safetensors", "b.safetensors"]);
        let index = r#"{"weight_map": {"x": "b.safetensors", "y": "b.safetensors"}}"#;
        assert_eq!(select(&parts, Some(index)).unwrap(), ["b.safetensors"]);
        assert_eq!(select(&["c.bin", "d.gguf"], None).unwrap(), [""; 0]);
    }

    #[test]
    fn an_index_names_files_that_are_there() {
        let index = |file: &str| format!(r#"{{"weight_map": {{"x": {file:?}}}}}"#);
        let error = select(&["a.safetensors"], Some(&index("b.safetensors"))).unwrap_err();
        assert_eq!(error, "b.safetensors is not there");
        let left_behind = select(&["a.safetensors", SINGLE], Some(&index("b.safetensors")));
        assert_eq!(left_behind.unwrap(), [SINGLE]);
        for file in ["../a.safetensors", "/a.safetensors", "a.bin", ""] {
            let error = select(&["a.safetensors"], Some(&index(file))).unwrap_err();
            assert!(error.ends_with("is not the name of a safetensors file"), "{error}");
        }
        assert!(select(&[], Some("[]")).is_err());
    }

    #[test]
    fn the_index_is_for_weights() {
        assert!(is_small("config.json", false) && is_small(INDEX, true) && !is_small(INDEX, false));
        assert!(!is_small("README.md", true) && !is_small("tokenizer.model", true));
        assert!(is_pickled("pytorch_model.bin") && !is_pickled("model.safetensors"));
    }
}
