//! What a `[[settings]]` of a table may say.

use std::collections::HashSet;
use std::path::Path;

use super::SettingsSection;

impl SettingsSection {
    /// Says something of a table.
    pub(super) fn has_words_of_a_table(&self) -> bool {
        let words = [&self.table, &self.key_column, &self.value_column];
        words.iter().any(|word| !word.is_empty()) || !self.scope.is_empty()
    }

    pub(super) fn problem_of_table(&self) -> Option<String> {
        let problem = |text: &str| Some(text.to_owned());
        if self.database.is_none() {
            return problem("`database`: write which [[database]] the table is in");
        }
        if self.file != Path::new("") {
            return problem("`file`: it is of a file or of a table, not of both");
        }
        if self.format.is_some() {
            return problem("`format`: a table has none");
        }
        if self.group.0 == "network" {
            return problem(
                "`group`: rows of a database cannot be `network`: a host that is cut off puts its own settings back at boot, before \
                 a database server can be asked; choose another group",
            );
        }
        for (key, value) in
            [("table", &self.table), ("key_column", &self.key_column), ("value_column", &self.value_column)]
        {
            if value.is_empty() || value.chars().any(char::is_control) {
                return Some(format!("`{key}`: write its name"));
            }
        }
        if self.key_column == self.value_column {
            return problem("`value_column`: keys and values are in columns of their own");
        }
        if let Some(column) =
            self.scope.keys().find(|column| **column == self.key_column || **column == self.value_column)
        {
            return Some(format!("`scope`: {column} holds keys or values"));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.keys.iter().find(|key| !seen.insert(*key)) {
            return Some(format!("`keys`: `{twice}` is named twice"));
        }
        None
    }
}

/// Whether a section names rows that one of the others names, too.
pub(super) fn check_against(section: &SettingsSection, others: &[SettingsSection]) -> Result<(), String> {
    let rows = section.rows();
    for other in others.iter().filter(|other| other.database.is_some() && other.rows() == rows) {
        let name = &other.name;
        if section.keys.is_empty() || other.keys.is_empty() {
            return Err(format!("`keys`: all of these rows travel once already, with `{name}`"));
        }
        if let Some(twice) = section.keys.iter().find(|key| other.keys.contains(*key)) {
            return Err(format!("`keys`: `{twice}` travels already, with `{name}`"));
        }
    }
    Ok(())
}
