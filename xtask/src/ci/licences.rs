//! Where dependencies come from and under which licences; `deny.toml` says the same to cargo-deny.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::shell::cargo;

/// Licences that go with Apache-2.0; the same as in `deny.toml`.
const ALLOWED: [&str; 15] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "0BSD",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "BSL-1.0",
    "CC0-1.0",
    "Unlicense",
    "Unicode-3.0",
    "OpenSSL",
    "CDLA-Permissive-2.0",
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Every dependency comes from the registry and has a licence we may use. Names those that come in several versions.
pub fn check() -> Result<()> {
    let output =
        cargo(&["metadata", "--format-version", "1", "--locked"]).output().context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let problems: Vec<_> = metadata.packages.iter().filter_map(problem).collect();
    ensure!(problems.is_empty(), "dependencies that may not be used:\n{}", problems.join("\n"));
    let several = duplicates(&metadata.packages);
    println!("{} packages are as they should be; in several versions: {several}", metadata.packages.len());
    Ok(())
}

fn problem(package: &Package) -> Option<String> {
    let Package { name, version, license, source } = package;
    let source = source.as_deref().unwrap_or("registry+ (our own)");
    if !source.starts_with("registry+") {
        return Some(format!("{name} {version} comes from {source}"));
    }
    let licence = license.as_deref().unwrap_or("no licence");
    let tokens = tokens(licence);
    let (allowed, rest) = either(&tokens);
    (!allowed || !rest.is_empty()).then(|| format!("{name} {version} is under {licence}"))
}

fn duplicates(packages: &[Package]) -> String {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    let several = versions.iter().filter(|(_, versions)| versions.len() > 1);
    several.map(|(name, versions)| format!("{name} {}", versions.join(" "))).collect::<Vec<_>>().join(", ")
}

/// The words of an SPDX expression; a slash is the old way to write OR.
fn tokens(expression: &str) -> Vec<String> {
    let spaced =
        expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "+WITH+");
    spaced.split_whitespace().map(|word| word.replace("+WITH+", " WITH ")).collect()
}

/// `a OR b`: whether it is allowed, and the words after it.
fn either(words: &[String]) -> (bool, &[String]) {
    let (mut allowed, mut rest) = both(words);
    while rest.first().is_some_and(|word| word == "OR") {
        let (other, after) = both(&rest[1..]);
        (allowed, rest) = (allowed || other, after);
    }
    (allowed, rest)
}

/// `a AND b`.
fn both(words: &[String]) -> (bool, &[String]) {
    let (mut allowed, mut rest) = one(words);
    while rest.first().is_some_and(|word| word == "AND") {
        let (other, after) = one(&rest[1..]);
        (allowed, rest) = (allowed && other, after);
    }
    (allowed, rest)
}

/// One licence, or an expression in brackets.
fn one(words: &[String]) -> (bool, &[String]) {
    match words.split_first() {
        Some((open, rest)) if open == "(" => {
            let (allowed, rest) = either(rest);
            (allowed, rest.get(1..).unwrap_or_default())
        }
        Some((licence, rest)) => (ALLOWED.contains(&licence.as_str()), rest),
        None => (false, words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_licence_expressions() {
        let table = [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("MIT/Apache-2.0", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("(GPL-2.0 OR GPL-3.0) AND MIT", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
            ("MIT MIT", false),
            ("", false),
        ];
        for (licence, allowed) in table {
            let package = |source: &str| Package {
                name: "p".to_owned(),
                version: "1".to_owned(),
                license: Some(licence.to_owned()),
                source: Some(source.to_owned()),
            };
            assert_eq!(problem(&package("registry+x")).is_none(), allowed, "{licence}");
            assert!(problem(&package("git+https://example.org")).is_some());
        }
    }
}
