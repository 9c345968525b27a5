//! Views, routines, triggers and events: what is made after the tables, in sessions set up as they were made in.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::Ddl;

use super::create::without_definer;
use super::{Catalog, OWN, WHAT, foreign, trigger};
use crate::session::{Record, Session};
use crate::sql::{self, quote};

/// An object's statement, and the session it is made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// `sql_mode`.
    pub sql_mode: String,
    /// `character_set_client`.
    pub charset: String,
    /// `collation_connection`.
    pub collation: String,
    /// `time_zone` of an event.
    pub time_zone: Option<String>,
    /// The statement.
    pub statement: String,
}

const HEAD: &str = "-- in a session of ";

impl Late {
    /// As text of a schema: one line of settings, then the statement.
    fn print(&self) -> String {
        let zone = self.time_zone.as_deref().unwrap_or("-");
        format!("{HEAD}{} {} {zone} {}\n{}", self.charset, self.collation, self.sql_mode, self.statement)
    }
}

/// Reads what [`Late::print`] has written.
pub fn parse(text: &str) -> Option<Late> {
    let (head, statement) = text.strip_prefix(HEAD)?.split_once('\n')?;
    let mut words = head.splitn(4, ' ');
    let (charset, collation, zone, sql_mode) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let is_word = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_,:+-/".contains(&b));
    (is_word(charset) && is_word(collation) && is_word(zone) && is_word(sql_mode)).then(|| Late {
        sql_mode: sql_mode.to_owned(),
        charset: charset.to_owned(),
        collation: collation.to_owned(),
        time_zone: (zone != "-").then(|| zone.to_owned()),
        statement: statement.to_owned(),
    })
}

/// Where SHOW CREATE tells what.
struct Columns {
    statement: usize,
    sql_mode: Option<usize>,
    charset: usize,
    time_zone: Option<usize>,
}

async fn add(
    session: &mut Session,
    catalog: &mut Catalog,
    kind: &str,
    name: &str,
    at: &Columns,
) -> Result<()> {
    let (late, definer) = show(session, kind, name, at).await?;
    push(catalog, kind, name, &late, definer);
    Ok(())
}

/// Refuses the object that was added last if the server does not show all of it: a comment, and an event's name, it takes for
/// text in the character set of the client that made the object, which they are not.
fn check_shown(session: &Session, catalog: &Catalog, comment: &str) -> Result<()> {
    let Some((ddl, late)) = catalog.schema.after_load.last().and_then(|ddl| Some((ddl, parse(&ddl.sql)?)))
    else {
        return Ok(());
    };
    let is_plain = comment.is_ascii() && (ddl.kind != "event" || ddl.name.is_ascii());
    if is_plain || late.charset.starts_with("utf8") || late.charset == "binary" {
        return Ok(());
    }
    let item = format!("{}, {} {}", session.item(), ddl.kind, ddl.name);
    let what = format!("the server garbles its comment or name: a client that uses {} made it", late.charset);
    Err(Failure::operator(item, what).hint("make it again with a client that uses utf8mb4"))
}

/// What SHOW CREATE tells, and the definer.
async fn show(session: &mut Session, kind: &str, name: &str, at: &Columns) -> Result<(Late, Option<String>)> {
    let query = format!("SHOW CREATE {} {}", kind.to_ascii_uppercase(), quote(name));
    let row: Record = session.record(WHAT, &query).await?;
    let refused = |what: String| Failure::operator(format!("{}, {kind} {name}", session.item()), what);
    let Some(statement) = row.bytes(at.statement) else {
        return Err(
            refused("its text may not be read".to_owned()).hint("GRANT SELECT ON mysql.proc TO the account")
        );
    };
    let (charset, collation) = (row.text(at.charset), row.text(at.charset + 1));
    let Ok(statement) = std::str::from_utf8(statement) else {
        let what = format!("its text is not what its character set says (character_set_client {charset})");
        return Err(refused(what).hint("make it again with a client that uses utf8mb4, or drop it"));
    };
    let (statement, definer) = without_definer(statement);
    let sql_mode = at.sql_mode.map(|n| row.text(n)).unwrap_or_default();
    let time_zone = at.time_zone.map(|n| row.text(n));
    Ok((Late { sql_mode, charset, collation, time_zone, statement }, definer))
}

fn push(catalog: &mut Catalog, kind: &str, name: &str, late: &Late, definer: Option<String>) {
    catalog.schema.after_load.push(Ddl { kind: kind.to_owned(), name: name.to_owned(), sql: late.print() });
    if let Some(definer) = definer {
        catalog.schema.state.insert(format!("definer/{kind}/{name}"), definer);
    }
}

async fn add_trigger(session: &mut Session, catalog: &mut Catalog, name: &str) -> Result<()> {
    let at = Columns { statement: 2, sql_mode: Some(1), charset: 3, time_zone: None };
    let (mut late, definer) = show(session, "trigger", name, &at).await?;
    let Some(read) = trigger::read(&late.statement) else {
        let item = format!("{}, trigger {name}", session.item());
        return Err(Failure::operator(item, "its definition is not understood")
            .hint("make it again in a plain way, or drop it, and report this"));
    };
    late.statement = read.statement;
    push(catalog, "trigger", name, &late, definer.or(read.definer));
    Ok(())
}

async fn names(session: &mut Session, query: &str) -> Result<Vec<Record>> {
    session.records(WHAT, query).await
}

/// Appends all of a database, in an order in which they can be made; what needs an excluded table is left out.
pub async fn read(
    session: &mut Session,
    database: &str,
    exclude: &[String],
    catalog: &mut Catalog,
) -> Result<()> {
    // Otherwise a text comes in the character set of the client that made the object.
    session.run(WHAT, "SET character_set_results = utf8mb4").await?;
    let done = read_all(session, database, exclude, catalog).await;
    let reset = session.run(WHAT, "SET character_set_results = NULL").await;
    done.and(reset)
}

async fn read_all(
    session: &mut Session,
    database: &str,
    exclude: &[String],
    catalog: &mut Catalog,
) -> Result<()> {
    let here = sql::text(database);
    // Functions first: views call them.
    let query = format!(
        "SELECT routine_name, routine_type, routine_comment FROM information_schema.routines WHERE routine_schema = {here} \
         ORDER BY routine_type <> 'PACKAGE', routine_type <> 'PACKAGE BODY', routine_type, routine_name"
    );
    for row in names(session, &query).await? {
        let at = Columns { statement: 2, sql_mode: Some(1), charset: 3, time_zone: None };
        add(session, catalog, &row.text(1).to_ascii_lowercase(), &row.text(0), &at).await?;
        check_shown(session, catalog, &row.text(2))?;
    }
    views(session, database, exclude, catalog).await?;
    let query = format!(
        "SELECT trigger_name, event_object_table FROM information_schema.triggers WHERE trigger_schema = {here} \
         ORDER BY event_object_table, event_manipulation, action_timing, action_order"
    );
    let is_theirs = |row: &&Record| !row.text(0).starts_with(OWN) && !exclude.contains(&row.text(1));
    for row in names(session, &query).await?.iter().filter(is_theirs) {
        add_trigger(session, catalog, &row.text(0)).await?;
    }
    let query = format!(
        "SELECT event_name, event_comment FROM information_schema.events WHERE event_schema = {here} ORDER BY event_name"
    );
    for row in names(session, &query).await? {
        let at = Columns { statement: 3, sql_mode: Some(1), charset: 4, time_zone: Some(2) };
        add(session, catalog, "event", &row.text(0), &at).await?;
        check_shown(session, catalog, &row.text(1))?;
    }
    Ok(())
}

/// The views that can be made without the excluded tables; the others are told of.
fn without_excluded(views: Vec<Ddl>, exclude: &[String], catalog: &mut Catalog) -> Vec<Ddl> {
    let mut missing: Vec<(&str, String)> =
        exclude.iter().map(|name| ("excluded table", name.clone())).collect();
    let mut left = views;
    loop {
        let lacks = |view: &Ddl| missing.iter().position(|(_, name)| reads(&view.sql, name));
        let Some((at, of)) = left.iter().enumerate().find_map(|(at, view)| Some((at, lacks(view)?))) else {
            return left;
        };
        let view = left.remove(at);
        let (kind, name) = &missing[of];
        catalog.notes.push(format!("view {} is left out: it reads the {kind} {name}", view.name));
        catalog.schema.state.remove(&format!("definer/view/{}", view.name));
        missing.push(("view", view.name));
    }
}

/// A view's statement, as the server prints it, takes rows from this table or view.
fn reads(statement: &str, name: &str) -> bool {
    let (quoted, mut found) = (quote(name), false);
    let mut before = 0;
    // Names in backticks: what stands before one tells whether it is a table's.
    while let Some(at) = statement[before..].find(&quoted).map(|at| before + at) {
        let (head, rest) = (&statement[..at], &statement[at + quoted.len()..]);
        let head = head.trim_end_matches('(').to_ascii_lowercase();
        found |= [" from ", " join ", ","].iter().any(|word| head.ends_with(word)) && !rest.starts_with('.');
        before = at + quoted.len();
    }
    found
}

/// Views, each behind those that it names.
async fn views(
    session: &mut Session,
    database: &str,
    exclude: &[String],
    catalog: &mut Catalog,
) -> Result<()> {
    let query = format!(
        "SELECT table_name FROM information_schema.views WHERE table_schema = {} ORDER BY table_name",
        sql::text(database)
    );
    let names: Vec<String> = names(session, &query).await?.iter().map(|row| row.text(0)).collect();
    let from = catalog.schema.after_load.len();
    for name in &names {
        let at = Columns { statement: 1, sql_mode: None, charset: 2, time_zone: None };
        let (mut late, definer) = show(session, "view", name, &at).await?;
        late.statement = foreign::without(&late.statement, database);
        push(catalog, "view", name, &late, definer);
    }
    let read = catalog.schema.after_load.split_off(from);
    let mut waiting = without_excluded(read, exclude, catalog);
    while !waiting.is_empty() {
        let left: Vec<String> = waiting.iter().map(|view| quote(&view.name)).collect();
        let is_ready = |view: &Ddl| {
            let own = quote(&view.name);
            !left.iter().any(|other| *other != own && view.sql.contains(other.as_str()))
        };
        let (mut ready, rest): (Vec<Ddl>, Vec<Ddl>) = waiting.iter().cloned().partition(is_ready);
        if ready.is_empty() {
            // Names that only look like views, in a circle: in any order, and `finish` tries again.
            ready = rest.clone();
            waiting = Vec::new();
        } else {
            waiting = rest;
        }
        catalog.schema.after_load.extend(ready);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_known_by_what_they_read() {
        let table = [
            ("CREATE VIEW `v` AS select `t`.`a` AS `a` from `t`", true),
            ("CREATE VIEW `v` AS select 1 AS `t` from `u`", false),
            ("CREATE VIEW `v` AS select `u`.`t` AS `t` from `u`", false),
            (
                "CREATE VIEW `v` AS select `x`.`a` AS `a` from ((`u` `x` left join `t` `y` on(1 = 1)) join `w`)",
                true,
            ),
            ("CREATE VIEW `v` AS select `x`.`a` AS `a` from ((`t` join `u`))", true),
            ("CREATE VIEW `v` AS select exists(select 1 from `t` limit 1) AS `e`", true),
        ];
        for (statement, expected) in table {
            assert_eq!(reads(statement, "t"), expected, "{statement}");
        }
    }
}
