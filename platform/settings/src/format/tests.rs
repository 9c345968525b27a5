use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::*;

mod env;
mod ini;
mod json;
mod property;
mod toml;
mod yaml;

fn file(format: Format) -> PathBuf {
    PathBuf::from(match format {
        Format::Ini => "/etc/systemd/network/10.network",
        Format::Env => "/etc/default/app.env",
        Format::Toml => "/etc/app.toml",
        Format::Json => "/etc/app.json",
        Format::Yaml => "/etc/netplan/app.yaml",
        Format::Plain => "/etc/motd",
    })
}

fn read(format: Format, text: &str, key: &str) -> Result<Option<Value>, String> {
    let values =
        get(format, &file(format), text.as_bytes(), &[key.parse().unwrap()]).map_err(|e| e.to_string())?;
    Ok(values[key].clone())
}

fn change(format: Format, text: &str, key: &str, value: Option<Value>) -> Result<String, String> {
    let values = Values::from([(key.to_owned(), value)]);
    let bytes = set(format, &file(format), text.as_bytes(), &values).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(bytes).unwrap())
}

/// Text, key, value, text with it. Setting what is there, and setting it once more, changes nothing.
type Case<'a> = (&'a str, &'a str, Option<Value>, &'a str);

fn check(format: Format, cases: &[Case<'_>]) {
    for (text, key, value, expected) in cases {
        let now =
            change(format, text, key, value.clone()).unwrap_or_else(|e| panic!("{key} in {text:?}: {e}"));
        assert_eq!(&now, expected, "{key} in {text:?}");
        let expected = format.canonical(value.clone());
        assert_eq!(read(format, &now, key).unwrap(), expected, "{key} in {now:?}");
        assert_eq!(&change(format, &now, key, expected).unwrap(), &now);
        let was = read(format, text, key).unwrap();
        assert_eq!(&change(format, text, key, was).unwrap(), text);
    }
}

fn refuse(format: Format, cases: &[(&str, &str, Option<Value>, &str)]) {
    for (text, key, value, part) in cases {
        let told = change(format, text, key, value.clone()).unwrap_err();
        assert!(told.contains(part), "{key} in {text:?}: {told}");
    }
}

fn some(value: impl Into<Value>) -> Option<Value> {
    Some(value.into())
}

#[test]
fn plain_files_have_no_keys() {
    assert!(read(Format::Plain, "x", "a").is_err());
    assert!(change(Format::Plain, "x", "a", None).is_err());
}
