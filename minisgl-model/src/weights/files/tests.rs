//! Checkpoints that are not what they should be: broken, truncated, hostile.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;

use super::*;

fn write(folder: &Path, file: &str, tensors: &[(&str, usize)]) {
    let data = vec![0u8; 4096];
    let views: HashMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|(name, len)| {
            (*name, TensorView::new(Dtype::F32, vec![*len], &data[..len * 4]).unwrap())
        })
        .collect();
    safetensors::serialize_to_file(views, None, &folder.join(file)).unwrap();
}

fn open(folder: &Path) -> Result<SafetensorsFiles, ModelError> {
    SafetensorsFiles::open(&Checkpoint::Folder(folder.to_owned()))
}

fn error(folder: &Path) -> String {
    open(folder).unwrap_err().to_string()
}

#[test]
fn one_file_or_several_with_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    assert_eq!(error(path), "the checkpoint has no model.safetensors");
    write(path, SINGLE, &[("a", 3), ("b", 5)]);
    let files = open(path).unwrap();
    assert_eq!(files.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((files.get("b").unwrap().shape, files.total_bytes()), (&[5][..], 32));
    assert!(files.get("c").is_none());

    let index = |map: &str| std::fs::write(path.join(INDEX), format!("{{\"weight_map\":{map}}}"));
    write(path, "x-1.safetensors", &[("a", 3)]);
    write(path, "x-2.safetensors", &[("b", 5)]);
    index(r#"{"a": "x-1.safetensors", "b": "x-2.safetensors"}"#).unwrap();
    assert_eq!(open(path).unwrap().names().count(), 2);
    index(r#"{"a": "x-1.safetensors", "b": "x-3.safetensors"}"#).unwrap();
    assert_eq!(
        open(path).unwrap().total_bytes(),
        32,
        "the index was left behind by another layout"
    );
    std::fs::remove_file(path.join(SINGLE)).unwrap();
    assert_eq!(error(path), "the checkpoint has no x-3.safetensors");
    index(r#"{"a": "x-1.safetensors", "c": "x-2.safetensors"}"#).unwrap();
    let missing = "c is not in x-2.safetensors, where model.safetensors.index.json says it is";
    assert_eq!(open(path).unwrap().problems(), [missing]);
    write(path, "x-2.safetensors", &[("a", 3), ("language_model.b", 3), ("b", 4)]);
    let files = open(path).unwrap();
    assert_eq!(files.problems().len(), 3, "{:?}", files.problems());
    assert_eq!(files.problems()[0], "a is given twice, in x-1.safetensors and in x-2.safetensors");
    assert!(files.problems()[1].contains("b is given twice, in x-2.safetensors and in x-2"));
    assert_eq!(files.problems()[2], missing);
    for outside in ["../x-1.safetensors", "/etc/passwd", "a\\\\b.safetensors", "model.bin"] {
        index(&format!(r#"{{"a": "{outside}"}}"#)).unwrap();
        assert!(error(path).contains("is not the name of a safetensors file"), "{outside}");
    }
}

#[test]
fn packed_integers_are_refused_by_the_name_of_their_format() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), SINGLE, &[("a", 3), ("model.layers.0.mlp.up_proj.qweight", 4)]);
    assert!(error(folder.path()).starts_with("quantization `AWQ or GPTQ` is not supported"));
}

#[test]
fn of_a_multimodal_checkpoint_only_the_language_model_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    for (norm, head, other) in [
        ("language_model.model.norm.weight", "language_model.lm_head.weight", "vision_tower.a"),
        ("model.language_model.norm.weight", "lm_head.weight", "model.multi_modal_projector.a"),
    ] {
        write(folder.path(), SINGLE, &[(norm, 3), (head, 4), (other, 5)]);
        let files = open(folder.path()).unwrap();
        assert_eq!(files.names().collect::<Vec<_>>(), ["lm_head.weight", "model.norm.weight"]);
        assert_eq!(files.get("model.norm.weight").unwrap().shape, [3]);
        assert_eq!(files.get("lm_head.weight").unwrap().shape, [4]);
    }
}

#[test]
fn truncated_and_hostile_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, SINGLE, &[("a", 100)]);
    let whole = std::fs::read(path.join(SINGLE)).unwrap();
    for length in [0, 4, 8, 20, whole.len() - 400, whole.len() - 1] {
        std::fs::write(path.join(SINGLE), &whole[..length]).unwrap();
        assert!(error(path).contains(SINGLE), "{length} bytes");
    }
    std::fs::write(path.join(SINGLE), [&whole[..], b"x"].concat()).unwrap();
    assert!(open(path).is_err(), "too long");

    let hostile = |header: &str, data: usize| {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.resize(file.len() + data, 0);
        std::fs::write(path.join(SINGLE), file).unwrap();
        error(path)
    };
    let tensor = |shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    for (header, data) in [
        ("not json".to_owned(), 0),
        (format!(r#"{{"a":{}}}"#, tensor("[4]", 0, 8)), 8),
        (format!(r#"{{"a":{}}}"#, tensor("[2]", 8, 0)), 8),
        (format!(r#"{{"a":{}}}"#, tensor("[2]", 0, u64::MAX)), 8),
        (format!(r#"{{"a":{},"b":{}}}"#, tensor("[2]", 0, 8), tensor("[2]", 4, 12)), 12),
        (format!(r#"{{"a":{}}}"#, tensor("[1099511627776,1099511627776]", 0, 8)), 8),
    ] {
        assert!(hostile(&header, data).contains("is not a valid safetensors file"), "{header}");
    }
    let mut endless = u64::MAX.to_le_bytes().to_vec();
    endless.extend(b"{}");
    std::fs::write(path.join(SINGLE), endless).unwrap();
    assert!(open(path).is_err());
}
