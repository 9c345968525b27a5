//! Statements in the log: what they change, and what cannot be followed.

use handover_engine::change::Change;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::TableName;

use super::{Follower, Step, WHAT};
use crate::catalog::OWN;
use crate::live::event::Query;
use crate::live::part::Part;
use crate::live::statement::{Meaning, Name, meaning};
use crate::sql;

impl Follower {
    pub(super) fn statement(&mut self, query: &Query<'_>, when: u32, part: &mut Part) -> Result<Step> {
        let statement = String::from_utf8_lossy(&query.statement);
        if statement.ends_with(sql::OURS) {
            return Ok(Step::Done);
        }
        let is_here = |(database, _): &&Name| *database.as_ref().unwrap_or(&query.database) == self.database;
        let ours = |(_, table): &&Name| !table.starts_with(OWN) && !self.exclude.contains(table);
        match meaning(&statement) {
            Meaning::Nothing => {}
            Meaning::End => self.end_group(part),
            Meaning::Clears(name) => {
                let table = self.tables.get(&name.1).filter(|table| is_here(&&name) && table.is_followed());
                if table.is_some() {
                    let table = part.table(&TableName::plain(&name.1));
                    // Others wait for its end before they can read.
                    part.push(Change::Cleared { table });
                }
            }
            Meaning::Defines(names) => {
                if let Some((_, table)) = names.iter().filter(is_here).find(ours) {
                    return Err(self.defined(table));
                }
            }
            Meaning::Ensures(name) => {
                if is_here(&&name) && ours(&&name) {
                    return Ok(Step::IsNew(name.1, when));
                }
            }
            Meaning::Database(name) if name == self.database => {
                return Err(Failure::operator(
                    self.item.clone(),
                    "the database itself was altered or dropped",
                )
                .begin_anew("abort this migration and start again"));
            }
            Meaning::Database(_) => {}
            Meaning::Writes(name) => {
                let is_followed = |(_, table): &Name| {
                    let is_known = self.catalog.schema.table(&TableName::plain(table)).is_some();
                    !is_known || self.tables.get(table).is_some()
                };
                let is_written = match &name {
                    Some(name) => is_here(&name) && ours(&name) && is_followed(name),
                    None => query.database == self.database || statement.contains(&self.database),
                };
                if is_written {
                    return Err(self.written(name.map(|(_, table)| table)));
                }
            }
        }
        Ok(Step::Done)
    }

    fn written(&self, table: Option<String>) -> Failure {
        let table = table.map_or(String::new(), |table| format!(", table {table}"));
        Failure::operator(
            format!("{}{table}", self.item),
            "a session with binlog_format = STATEMENT or MIXED has written to it: the binary log does not tell which rows",
        )
        .begin_anew("let no session set binlog_format, then abort this migration and start again")
    }

    fn defined(&self, table: &str) -> Failure {
        Failure::operator(
            format!("{}, table {table}", self.item),
            "its definition was changed (CREATE, ALTER, RENAME or DROP) while its changes are followed",
        )
        .begin_anew("abort this migration and start again: a new copy has the new definition")
    }

    /// A statement has made a table unless it was there: it was, if it is older.
    pub(super) async fn check_new(&mut self, table: String, when: u32) -> Result<()> {
        let query = format!(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = {} AND table_name = {} \
             AND UNIX_TIMESTAMP(create_time) < {when}",
            sql::text(&self.database),
            sql::text(&table)
        );
        if self.watch.records(WHAT, &query).await?.is_empty() { Err(self.defined(&table)) } else { Ok(()) }
    }
}
