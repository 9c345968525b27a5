//! Settings in tables: rows come and go by key, and are put back as they were, with every column.

use std::collections::BTreeMap;
use std::sync::Arc;

use handover_engine::changeover::{RowValue, SettingsRows};
use handover_engine::failure::Class;
use handover_engine::ports::Result;
use handover_engine::ports::settings_table::{At, Ending, HeldRow, RowChange, SettingsTable, refused};

use super::{all_chunks, load, migration};
use crate::database::Place;

/// Two databases of one engine, both empty.
pub trait Tabled: Send + Sync {
    /// The `url` of the first or the second.
    fn url(&self, second: bool) -> String;

    /// Runs statements in the first or the second; what the last one prints.
    fn sql(&self, second: bool, statements: &str) -> String;

    /// The definition of a table `options` with a numbered primary key `id`, `tenant`, `name`, `value` (at most 20 characters), `note`,
    /// `amount` (7 by default), `stamp` (bytes) and a computed `size`.
    fn options(&self) -> &'static str;

    /// A literal of the bytes 0, 255.
    fn bytes(&self) -> &'static str;
}

const OTHERS: &str = "CREATE TABLE keyless (name VARCHAR(20), value VARCHAR(20))";

fn fill(subject: &impl Tabled, second: bool, host: &str) {
    subject.sql(second, subject.options());
    subject.sql(second, OTHERS);
    subject.sql(
        second,
        &format!(
            "INSERT INTO options (tenant, name, value, note, amount, stamp) VALUES ('main', 'host', '{host}', 'n', 3, {}); \
             INSERT INTO options (tenant, name, value) VALUES ('main', 'port', '25'), ('main', 'none', NULL), \
             ('main', 'odd', 'it''s é😀'), ('other', 'host', 'o')",
            subject.bytes()
        ),
    );
}

fn dump(subject: &impl Tabled, second: bool) -> String {
    subject.sql(second, "SELECT * FROM options ORDER BY id")
}

fn rows() -> SettingsRows {
    SettingsRows {
        dataset: match "shop".parse() {
            Ok(name) => name,
            Err(error) => panic!("{error}"),
        },
        table: "options".to_owned(),
        key_column: "name".to_owned(),
        value_column: "value".to_owned(),
        scope: BTreeMap::from([("tenant".to_owned(), "main".to_owned())]),
    }
}

fn place(subject: &impl Tabled, second: bool) -> Place {
    match Place::parse(&subject.url(second)) {
        Ok(place) => place,
        Err(problem) => panic!("{problem}"),
    }
}

fn table(subject: &impl Tabled, rows: SettingsRows) -> Arc<dyn SettingsTable> {
    place(subject, false).settings_table(rows, At::Place)
}

fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn text(text: &str) -> RowValue {
    RowValue::Text(text.to_owned())
}

fn change(name: &str, value: RowValue) -> (String, RowChange) {
    (name.to_owned(), RowChange::Value(value))
}

fn values(held: &BTreeMap<String, HeldRow>) -> Vec<(&str, RowValue)> {
    held.iter().map(|(key, row)| (key.as_str(), row.value.clone())).collect()
}

/// Checks everything that is promised of tables of settings.
pub async fn settings_table_contract<S: Tabled>(make: impl Fn() -> S) -> Result<()> {
    rows_are_read_by_key(&make()).await?;
    rows_are_put_back_as_they_were(&make()).await?;
    what_does_not_fit_changes_nothing(&make()).await?;
    what_cannot_be_told_apart_is_refused(&make()).await?;
    what_is_built_can_be_changed(&make()).await
}

async fn rows_are_read_by_key(subject: &impl Tabled) -> Result<()> {
    let table = table(subject, rows());
    assert!(table.read(&[]).await?.is_none(), "there is no such table yet");
    fill(subject, false, "a");
    let Some(held) = table.read(&keys(&["host", "none", "missing"])).await? else {
        panic!("the table is there")
    };
    assert_eq!(values(&held), [("host", text("a")), ("none", RowValue::Null)]);
    let Some(held) = table.read(&[]).await? else { panic!("the table is there") };
    assert_eq!(held.keys().collect::<Vec<_>>(), ["host", "none", "odd", "port"], "all rows of the scope");
    assert_eq!(held["odd"].value, text("it's é😀"));
    Ok(())
}

async fn rows_are_put_back_as_they_were(subject: &impl Tabled) -> Result<()> {
    fill(subject, false, "a");
    let table = table(subject, rows());
    let before = dump(subject, false);
    let Some(held) = table.read(&[]).await? else { panic!("the table is there") };
    let changes = BTreeMap::from([
        change("host", text("it's b")),
        change("none", text("5")),
        change("port", RowValue::Absent),
        change("odd", RowValue::Null),
        change("new", text("n")),
    ]);
    table.write(&changes, Ending::TakeBack).await?;
    assert_eq!(dump(subject, false), before, "it was only tried");
    table.write(&changes, Ending::Commit).await?;
    let after = dump(subject, false);
    table.write(&changes, Ending::Commit).await?;
    assert_eq!(dump(subject, false), after, "the same again changes nothing");
    let Some(now) = table.read(&[]).await? else { panic!("the table is there") };
    let expected =
        [("host", text("it's b")), ("new", text("n")), ("none", text("5")), ("odd", RowValue::Null)];
    assert_eq!(values(&now), expected);
    for column in ["id", "note", "amount", "stamp"] {
        assert_eq!(now["host"].whole[column], held["host"].whole[column], "{column} stays");
    }
    assert_eq!(subject.sql(false, "SELECT amount FROM options WHERE name = 'new'").trim(), "7");
    assert_eq!(subject.sql(false, "SELECT value FROM options WHERE tenant = 'other'").trim(), "o");

    let mut back: BTreeMap<String, RowChange> =
        held.into_iter().map(|(key, row)| (key, RowChange::Whole(row.whole))).collect();
    back.extend([change("new", RowValue::Absent)]);
    for _ in 0..2 {
        table.write(&back, Ending::Commit).await?;
        assert_eq!(dump(subject, false), before, "every column of every row is what it was");
    }
    Ok(())
}

async fn what_does_not_fit_changes_nothing(subject: &impl Tabled) -> Result<()> {
    fill(subject, false, "a");
    let before = dump(subject, false);
    let changes = BTreeMap::from([change("host", text("b")), change("port", text(&"x".repeat(21)))]);
    for ending in [Ending::TakeBack, Ending::Commit] {
        let Err(failure) = table(subject, rows()).write(&changes, ending).await else {
            panic!("a value that is too long was taken")
        };
        assert_eq!(
            (failure.class, failure.hint.as_str()),
            (Class::NeedsOperator, refused::UNFIT),
            "{failure}"
        );
        assert!(failure.item.contains("options") && !failure.to_string().contains("xxx"), "{failure}");
        assert_eq!(dump(subject, false), before);
    }
    Ok(())
}

async fn what_cannot_be_told_apart_is_refused(subject: &impl Tabled) -> Result<()> {
    fill(subject, false, "a");
    let other = |change: fn(&mut SettingsRows)| {
        let mut rows = rows();
        change(&mut rows);
        rows
    };
    for (rows, part) in [
        (other(|rows| rows.scope.clear()), "the key host comes more than once"),
        (other(|rows| rows.value_column = "worth".to_owned()), "no column worth"),
        (other(|rows| rows.value_column = "stamp".to_owned()), "the value of host is binary"),
        (
            other(|rows| {
                rows.scope.clear();
                rows.table = "keyless".to_owned();
            }),
            "no primary key",
        ),
    ] {
        let Err(failure) = table(subject, rows).read(&keys(&["host"])).await else {
            panic!("{part}: it was read")
        };
        assert!(failure.what.contains(part) && !failure.hint.is_empty(), "{part}: {failure}");
    }
    Ok(())
}

async fn what_is_built_can_be_changed(subject: &impl Tabled) -> Result<()> {
    fill(subject, false, "a");
    fill(subject, true, "b");
    let (from, to) = (place(subject, false), place(subject, true));
    let name = rows().dataset;
    let scratch = std::env::temp_dir();
    let view = from.database(name.clone(), vec!["keyless".to_owned()], scratch).snapshot().await?;
    let target = to.target(name, &migration());
    let built = to.settings_table(rows(), At::Built(&migration()));
    assert!(built.read(&[]).await?.is_none(), "nothing is built yet");
    target.prepare(view.schema()).await?;
    load::apply(&*target, &all_chunks(&*view).await?).await?;
    let Some(came) = built.read(&[]).await? else { panic!("it is built") };
    assert_eq!(came["host"].value, text("a"));
    let Some(own) = to.settings_table(rows(), At::Place).read(&[]).await? else { panic!("it stands there") };
    assert_eq!(own["host"].value, text("b"));
    let changes = BTreeMap::from([change("host", text("b")), change("port", RowValue::Absent)]);
    built.write(&changes, Ending::Commit).await?;
    let back = |key: &str| (key.to_owned(), RowChange::Whole(came[key].whole.clone()));
    built.write(&BTreeMap::from([back("host"), back("port")]), Ending::Commit).await?;
    assert_eq!(built.read(&[]).await?, Some(came.clone()));
    built.write(&changes, Ending::Commit).await?;
    assert_eq!(
        subject.sql(true, "SELECT value FROM options WHERE name = 'port'").trim(),
        "25",
        "what stands there is not changed"
    );
    target.finish(view.schema()).await?;
    target.publish().await?;
    assert!(built.read(&[]).await?.is_none(), "nothing is built any more");
    let query = "SELECT name FROM options WHERE tenant = 'main' AND value = 'b'";
    assert_eq!(subject.sql(true, query).trim(), "host");
    target.undo().await
}
