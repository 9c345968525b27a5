//! What a database needs of the server that is to hold it, and what a server offers: extensions, roles, a superuser's rights.

use std::collections::BTreeSet;

use handover_engine::check::{Finding, Severity};
use handover_engine::inventory::Need;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;
use handover_engine::rows::Schema;

use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::{quote, statements, words};

/// Majors that an offered server is newer than or equal to are counted from here, the oldest that it can take a schema from.
const OLDEST: u32 = 9;
/// What only a superuser, or a role with this attribute, may do.
const BYPASS: &str = "bypassing row security";
const SUPERUSER: &str = "a superuser";

fn release(major: u32) -> String {
    format!("release {major}")
}

fn major(version: &str) -> u32 {
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}

/// What a schema needs. `item` is what findings are about; `owners` whether objects keep their owners.
pub fn needs(item: &str, schema: &Schema, owners: bool) -> Vec<Need> {
    let need = |thing: String, severity, what: String, hint: String| Need {
        thing,
        finding: Finding::new(severity, item, what, hint),
    };
    let mut out = Vec::new();
    let source = major(&schema.version);
    out.push(need(
        release(source),
        Severity::Warning,
        format!("the target's server is older than the source's {}", schema.version),
        format!("install PostgreSQL {source} at the target: an older one may refuse parts of the schema"),
    ));
    for extension in schema.before_load.iter().filter(|ddl| ddl.kind == "extension").map(|ddl| &ddl.name) {
        out.push(need(
            format!("extension {extension}"),
            Severity::Error,
            format!("the extension {extension} is not installed at the target"),
            "install its package there, of the same major version as the server".to_owned(),
        ));
        out.push(need(
            making(extension),
            Severity::Error,
            format!("the role of the target's `url` may not make the extension {extension}"),
            "only a superuser may: name one there, or mark it `trusted = true` in its control file"
                .to_owned(),
        ));
    }
    let all = || schema.before_load.iter().chain(&schema.after_load);
    if let Some(trigger) = all().find(|ddl| ddl.kind == "event trigger") {
        out.push(need(
            SUPERUSER.to_owned(),
            Severity::Error,
            format!("only a superuser may make event triggers ({})", trigger.name),
            "drop it at the source, or name a superuser in the target's `url`".to_owned(),
        ));
    }
    let forces = |sql: &&str| words(sql, 16).join(" ").ends_with(" force row level security");
    if let Some(table) = all().find(|ddl| statements(&ddl.sql).iter().any(&forces)) {
        out.push(need(
            BYPASS.to_owned(),
            Severity::Error,
            format!("row security is forced on {}: its copy could not be read again", table.name),
            "ALTER ROLE … BYPASSRLS for the role of the target's `url`".to_owned(),
        ));
    }
    if owners {
        let owns = |key: &str| {
            key.starts_with("owner/") || key.starts_with("large_object/") || key == "database/owner"
        };
        let roles = schema.state.iter().filter(|(key, _)| owns(key)).map(|(_, role)| role);
        for role in roles.collect::<BTreeSet<_>>() {
            out.push(need(
                acting_as(role),
                Severity::Warning,
                format!("what belongs to the role {role} at the source will belong to the role of the target's `url`"),
                format!("at the target: CREATE ROLE {0}, where it is missing, and GRANT {0} to the role of `url`", quote(role)),
            ));
        }
    }
    out
}

fn making(extension: &str) -> String {
    format!("making extension {extension}")
}

fn acting_as(role: &str) -> String {
    format!("acting as {role}")
}

/// What the settings' server, and its role there, offer.
pub async fn offers(dataset: &DatasetName, settings: &Settings) -> Result<BTreeSet<String>> {
    let conn = Conn::open(dataset, &settings.with_database(&settings.maintenance)).await?;
    let item = || format!("{dataset}, {}", settings.location());
    let mut out = BTreeSet::new();
    for sql in [
        "SELECT 'extension ' || name FROM pg_catalog.pg_available_extensions",
        "SELECT 'making extension ' || v.name FROM pg_catalog.pg_available_extension_versions v, pg_catalog.pg_roles r \
         WHERE r.rolname = current_user AND (r.rolsuper OR v.trusted)",
        "SELECT 'acting as ' || rolname FROM pg_catalog.pg_roles WHERE pg_catalog.pg_has_role(oid, 'MEMBER')",
        "SELECT unnest(ARRAY['a superuser', 'bypassing row security']) FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper",
        "SELECT 'bypassing row security' FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolbypassrls",
        "SELECT pg_catalog.current_setting('server_version')",
    ] {
        let rows = conn.rows(sql).await;
        let rows = rows.map_err(|e| failed(item(), "it cannot be asked what it offers", &e))?;
        out.extend(rows.into_iter().flatten().flatten());
    }
    let newest = out.iter().filter(|thing| !thing.contains("extension ")).map(|thing| major(thing)).max();
    out.extend((OLDEST..=newest.unwrap_or_default()).map(release));
    Ok(out)
}
