//! Variables as Python's tools read them.

use super::*;

fn settings(source: Source, variables: &[(&str, &str)]) -> Result<Settings, String> {
    let get = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Settings::from_variables(source, &get).map_err(|error| error.to_string())
}

#[test]
fn hugging_face_is_found_as_by_its_own_tools() {
    let cache =
        |variables: &[(&str, &str)]| settings(Source::HuggingFace, variables).unwrap().cache;
    let home = ("HOME", "/home/x");
    assert_eq!(cache(&[home]), Path::new("/home/x/.cache/huggingface/hub"));
    assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/c")]), Path::new("/c/huggingface/hub"));
    assert_eq!(cache(&[home, ("HF_HOME", "~/hf")]), Path::new("/home/x/hf/hub"));
    assert_eq!(cache(&[home, ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/d")]), Path::new("/d"));
    assert_eq!(cache(&[home, ("HUGGINGFACE_HUB_CACHE", "/e")]), Path::new("/e"));

    let plain = settings(Source::HuggingFace, &[home]).unwrap();
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert!(plain.token.is_none() && !plain.offline);
    let mirror = [home, ("HF_ENDPOINT", "https://mirror.example/"), ("HF_HUB_OFFLINE", "ON")];
    let mirror = settings(Source::HuggingFace, &mirror).unwrap();
    assert_eq!((mirror.endpoint.as_str(), mirror.offline), ("https://mirror.example", true));
    assert!(!settings(Source::HuggingFace, &[home, ("HF_HUB_OFFLINE", "0")]).unwrap().offline);
}

#[test]
fn modelscope_is_found_as_by_its_own_tools() {
    let found = settings(Source::ModelScope, &[("HOME", "/home/x")]).unwrap();
    assert_eq!(found.endpoint, "https://modelscope.cn");
    assert_eq!(found.cache, Path::new("/home/x/.cache/modelscope/models"));
    let found = [("MODELSCOPE_CACHE", "/m"), ("MODELSCOPE_API_TOKEN", "t"), ("HF_TOKEN", "h")];
    let found = settings(Source::ModelScope, &found).unwrap();
    assert_eq!(found.cache, Path::new("/m/models"));
    assert_eq!(found.token.unwrap().secret(), "t");
}

#[test]
fn the_token_may_be_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "hf_file\n").unwrap();
    let home = ("HF_HOME", folder.path().to_str().unwrap());
    let found = settings(Source::HuggingFace, &[home]).unwrap();
    assert_eq!(found.token.unwrap().secret(), "hf_file");
    let found = settings(Source::HuggingFace, &[home, ("HF_TOKEN", "hf_var")]).unwrap();
    assert_eq!(format!("{:?}", found.token), "Some(Token(..))");
    assert_eq!(found.token.unwrap().secret(), "hf_var");
}

#[test]
fn a_token_is_not_sent_in_the_clear() {
    let sends = |endpoint| {
        let variables = [("HOME", "/x"), ("HF_TOKEN", "t"), ("HF_ENDPOINT", endpoint)];
        settings(Source::HuggingFace, &variables).unwrap().token_to_send().is_some()
    };
    assert!(sends("https://mirror.example") && sends("http://127.0.0.1:80"));
    assert!(!sends("http://mirror.example") && !sends("http://127.0.0.1.example"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (variable, value) in [
        ("HF_ENDPOINT", "huggingface.co"),
        ("HF_ENDPOINT", "ftp://huggingface.co"),
        ("HF_ENDPOINT", "https://user@huggingface.co"),
        ("HF_TOKEN", "a b"),
        ("HF_TOKEN", "a\r\nX-Y: z"),
    ] {
        let error = settings(Source::HuggingFace, &[("HOME", "/x"), (variable, value)]);
        assert!(error.unwrap_err().starts_with(variable), "{value:?}");
    }
    assert!(settings(Source::HuggingFace, &[]).unwrap_err().starts_with("HOME is not set"));
}
