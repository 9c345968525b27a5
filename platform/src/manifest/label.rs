//! `[label]`: what tells users that the target is on trial.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::FilesSection;

/// What stands for the label's text in a template.
const PLACE: &str = "{label}";
/// What would end a quoted text, or mean something else, in the files that labels are written into.
const REFUSED: [char; 10] = ['"', '\'', '\\', '`', '$', '<', '>', '&', '{', '}'];
/// A label is read at a glance.
const LONGEST: usize = 200;

/// `[label]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSection {
    /// What it says.
    #[serde(default = "default_text")]
    pub text: String,
    /// The file that it is written into, absolute. None: hooks alone show it.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// What is written, with `{label}` in it.
    #[serde(default = "default_template")]
    pub template: String,
    /// The file's permissions.
    #[serde(default = "default_mode", deserialize_with = "mode")]
    pub mode: u32,
    /// Units that read the file anew.
    #[serde(default)]
    pub reload: Vec<String>,
}

impl Default for LabelSection {
    fn default() -> Self {
        let (text, template) = (default_text(), default_template());
        Self { text, file: None, template, mode: default_mode(), reload: Vec::new() }
    }
}

fn default_text() -> String {
    "Warning: Migration Environment.".to_owned()
}

fn default_template() -> String {
    PLACE.to_owned()
}

fn default_mode() -> u32 {
    0o644
}

fn mode<'de, D: Deserializer<'de>>(value: D) -> Result<u32, D::Error> {
    let text = String::deserialize(value)?;
    let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777 && text.len() >= 3);
    mode.ok_or_else(|| serde::de::Error::custom(format!("`{text}`: write permissions like \"0644\"")))
}

impl LabelSection {
    /// What is written into its file.
    pub fn contents(&self) -> String {
        let mut text = self.template.replace(PLACE, &self.text);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }

    /// What makes no sense, by key. The file must not travel with a tree, nor be taken for something that does not belong there.
    pub(super) fn check(&self, trees: &[FilesSection]) -> Result<(), (&'static str, String)> {
        let length = self.text.chars().count();
        if self.text.trim().is_empty() || length > LONGEST {
            return Err(("text", format!("write 1 to {LONGEST} characters")));
        }
        if let Some(bad) = self.text.chars().find(|c| c.is_control() || REFUSED.contains(c)) {
            let refused: String = REFUSED.iter().collect();
            return Err((
                "text",
                format!("{bad:?} could mean something in a template: write one line without {refused}"),
            ));
        }
        if !self.template.contains(PLACE) {
            return Err(("template", format!("write {PLACE} where the label's text is to stand")));
        }
        if let Some(unit) = self.reload.iter().find(|unit| unit.trim().is_empty()) {
            return Err(("reload", format!("{unit:?}: write names of units, like nginx.service")));
        }
        let Some(file) = &self.file else {
            let is_idle = self.template == PLACE && self.reload.is_empty();
            return match is_idle {
                true => Ok(()),
                false => {
                    Err(("file", "write the absolute path of the file that the template is for".to_owned()))
                }
            };
        };
        if !file.is_absolute() || file.file_name().is_none() {
            return Err(("file", "write an absolute path".to_owned()));
        }
        for tree in trees {
            if let Some(below) = tree.holds(file) {
                let problem = format!(
                    "it would be taken for a part of `{}`: write {below:?} into that section's `exclude`",
                    tree.name
                );
                return Err(("file", problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LabelSection, String> {
        let section: LabelSection = toml::from_str(text).map_err(|error| error.to_string())?;
        let tree = "name = 'www'\nroot = '/srv/www'\nexclude = ['banner.html']";
        section
            .check(&[toml::from_str(tree).unwrap()])
            .map_err(|(key, problem)| format!("`{key}`: {problem}"))?;
        Ok(section)
    }

    #[test]
    fn the_label_is_filled_in() {
        assert_eq!(read("").unwrap(), LabelSection::default());
        assert_eq!(LabelSection::default().contents(), "Warning: Migration Environment.\n");
        let header = read(
            "file = '/etc/nginx/label.conf'\ntemplate = 'add_header X-Migration-Environment \"{label}\" always;'\n\
             mode = '0640'\ntext = 'Achtung: Umzug läuft!'\nreload = ['nginx']",
        );
        let header = header.unwrap();
        assert_eq!(
            header.contents(),
            "add_header X-Migration-Environment \"Achtung: Umzug läuft!\" always;\n"
        );
        assert_eq!(header.mode, 0o640);
        assert!(read("file = '/srv/www/banner.html'").is_ok());
    }

    #[test]
    fn bad_ones_are_refused_by_key() {
        for (text, part) in [
            ("text = ''", "`text`: write 1 to 200"),
            ("text = \"a\\nb\"", "`text`: '\\n' could mean"),
            ("text = 'say \"x\"'", "`text`: '\"' could mean"),
            ("text = '<b>'", "`text`: '<'"),
            ("file = 'label'", "`file`: write an absolute path"),
            ("file = '/etc/x'\ntemplate = 'x'", "`template`: write {label}"),
            ("template = 'x {label}'", "`file`: write the absolute path"),
            ("reload = ['nginx']", "`file`: write the absolute path"),
            ("file = '/etc/x'\nreload = ['']", "`reload`"),
            (
                "file = '/srv/www/label.html'",
                "`file`: it would be taken for a part of `www`: write \"label.html\"",
            ),
            ("mode = '999'", "write permissions like"),
            ("mode = 420", "string"),
            ("colour = 'red'", "colour"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
