//! What a database needs of the server that is to hold it, and what a server offers: storage engines, collations, names.

use std::collections::BTreeSet;

use handover_engine::check::{Finding, Severity};
use handover_engine::inventory::Need;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::rows::Schema;

use crate::catalog::foreign;
use crate::session::{Role, Session};
use crate::settings::Settings;
use crate::sql;

/// Names that differ in their capitals alone are different tables (`lower_case_table_names = 0`).
const CAPITALS: &str = "names with capitals";
/// Other accounts may be made.
const ACCOUNTS: &str = "making accounts";

/// What the settings' database needs. The session must be in it.
pub async fn needs(session: &mut Session, settings: &Settings, schema: &Schema) -> Result<Vec<Need>> {
    let item = session.item().to_owned();
    let need = |thing: String, what: String, hint: &str| Need {
        thing,
        finding: Finding::new(Severity::Error, &item, what, hint),
    };
    let database = sql::text(&settings.database);
    let mut out = Vec::new();
    for (kind, query, hint) in [
        (
            "storage engine",
            format!(
                "SELECT DISTINCT engine FROM information_schema.tables WHERE table_schema = {database} AND engine IS NOT NULL"
            ),
            "install its plugin there (INSTALL SONAME), or ALTER TABLE … ENGINE = InnoDB at the source",
        ),
        (
            "collation",
            format!(
                "SELECT collation_name FROM information_schema.columns WHERE table_schema = {database} AND collation_name IS NOT NULL \
                 UNION SELECT table_collation FROM information_schema.tables WHERE table_schema = {database} AND table_collation IS NOT NULL \
                 UNION SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = {database}"
            ),
            "install a release there that knows it, or convert what uses it at the source (ALTER TABLE … CONVERT TO CHARACTER SET)",
        ),
    ] {
        for row in session.records("what it needs cannot be looked up", &query).await? {
            let name = row.text(0);
            let what = format!("the target's server does not know the {kind} {name}");
            out.push(need(format!("{kind} {name}"), what, hint));
        }
    }
    for view in schema.after_load.iter().filter(|ddl| ddl.kind == "view") {
        for other in foreign::databases(&view.sql) {
            let what = format!(
                "the view {} reads the database {other}, which the target's server does not have",
                view.name
            );
            let hint = "move that database first, or drop the view at the source";
            out.push(need(format!("database {other}"), what, hint));
        }
    }
    let has_capitals = |name: &&str| name.chars().any(char::is_uppercase);
    if let Some(name) = schema.tables.iter().map(|table| table.name.name.as_str()).find(has_capitals) {
        let what = format!(
            "the target's server has lower_case_table_names set, and would call {name} something else"
        );
        let hint = "a server whose data directory was made with lower_case_table_names = 0";
        out.push(need(CAPITALS.to_owned(), what, hint));
    }
    if !settings.accounts.is_empty() {
        let what = "accounts move, and the target's account may not make any".to_owned();
        let hint =
            "GRANT CREATE USER, GRANT OPTION ON *.* at the target, or leave `accounts` out of its `url`";
        out.push(need(ACCOUNTS.to_owned(), what, hint));
    }
    Ok(out)
}

/// What the settings' server, and the account there, offer.
pub async fn offers(dataset: &DatasetName, settings: &Settings) -> Result<BTreeSet<String>> {
    let mut session = Session::open(dataset, settings, Role::Loader).await?;
    let mut out = BTreeSet::new();
    let grants = session.records("the account's grants cannot be read", "SHOW GRANTS").await?;
    let may = |grant: String| {
        let (what, place) = grant.split_once(" ON ").unwrap_or_default();
        place.starts_with("*.* ") && (what == "GRANT ALL PRIVILEGES" || what.contains("CREATE USER"))
    };
    if settings.accounts.is_empty() || grants.into_iter().any(|row| may(row.text(0))) {
        out.insert(ACCOUNTS.to_owned());
    }
    for query in [
        "SELECT CONCAT('database ', schema_name) FROM information_schema.schemata",
        "SELECT CONCAT('storage engine ', engine) FROM information_schema.engines WHERE support IN ('YES', 'DEFAULT')",
        // Collations of every character set are told without it.
        "SELECT CONCAT('collation ', full_collation_name) FROM information_schema.collation_character_set_applicability",
    ] {
        let rows = session.records("it cannot be asked what it offers", query).await?;
        out.extend(rows.into_iter().map(|row| row.text(0)));
    }
    let capitals =
        session.record("it cannot be asked what it offers", "SELECT @@lower_case_table_names").await?;
    if capitals.text(0) == "0" {
        out.insert(CAPITALS.to_owned());
    }
    Ok(out)
}
