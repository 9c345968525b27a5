//! Settings of the database itself, and what changes with its rows.

use std::collections::{BTreeMap, BTreeSet};

use handover_engine::ports::Result;

use super::{Reader, field, grants};
use crate::dump::OWN_SCHEMA;
use crate::sql::{literal, quote};
use crate::toc::Entry;

/// Sequences that are read with one statement.
const TOGETHER: usize = 200;

impl Reader<'_> {
    /// Encoding and locale, and settings that `ALTER DATABASE … SET` made.
    pub async fn database_settings(&self, version: u32) -> Result<BTreeMap<String, String>> {
        let mut out = BTreeMap::new();
        let locale = if version >= 150_000 { "d.datlocprovider, d.daticulocale" } else { "'c', NULL" };
        let sql = format!(
            "SELECT pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, {locale}, \
             EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public') \
             FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
        );
        for row in self.rows(&sql).await? {
            for (at, name) in ["encoding", "collate", "ctype", "provider", "icu_locale"].iter().enumerate() {
                if let Some(Some(value)) = row.get(at) {
                    out.insert((*name).to_owned(), value.clone());
                }
            }
            if field(&row, 5) == "f" {
                out.insert("public".to_owned(), "dropped".to_owned());
            }
        }
        let sql = "SELECT unnest(s.setconfig) FROM pg_catalog.pg_db_role_setting s \
                   JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
                   WHERE s.setrole = 0 AND d.datname = pg_catalog.current_database()";
        for row in self.rows(sql).await? {
            let setting = field(&row, 0);
            if let Some((name, value)) = setting.split_once('=') {
                out.insert(format!("set/{name}"), value.to_owned());
            }
        }
        Ok(out)
    }

    /// Positions of sequences, which materialized views are filled, owners and grants.
    pub async fn add_state(&self, entries: &[Entry], state: &mut BTreeMap<String, String>) -> Result<()> {
        self.sequences(entries, state).await?;
        let sql = "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) \
                   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.relkind = 'm' AND c.relispopulated";
        let filled: Vec<String> = self.rows(sql).await?.iter().map(|row| field(row, 0)).collect();
        let views = entries.iter().filter(|entry| entry.kind == "MATERIALIZED VIEW");
        for (at, view) in views.enumerate() {
            let name = view.drop.trim().trim_start_matches("DROP MATERIALIZED VIEW ").trim_end_matches(';');
            if filled.iter().any(|f| f == name) {
                state.insert(format!("refresh/{at:05}"), name.to_owned());
            }
        }
        for (at, entry) in entries.iter().enumerate() {
            if entry.kind.ends_with("ACL") {
                let grant = entry.make.trim();
                let is_own = entry.tag.starts_with("DATABASE ");
                let grant = if is_own { grants::without_name(grant) } else { grant.to_owned() };
                state.insert(format!("grant/{at:06}"), grant);
            } else if let Some(what) = owned(entry) {
                state.insert(format!("owner/{what}"), entry.owner.clone());
            }
        }
        self.large_object_state(state).await?;
        let sql = "SELECT pg_catalog.pg_get_userbyid(datdba), pg_catalog.shobj_description(oid, 'pg_database') \
                   FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()";
        for row in self.rows(sql).await? {
            state.insert("database/owner".to_owned(), field(&row, 0));
            if let Some(Some(comment)) = row.get(1) {
                state.insert("database/comment".to_owned(), comment.clone());
            }
        }
        Ok(())
    }

    /// Whose large objects are, and who else may use them: for each run of numbers between which nobody else's lie. A value
    /// is a role, or a privilege, whether it may be passed on, and a role (none for everybody).
    async fn large_object_state(&self, state: &mut BTreeMap<String, String>) -> Result<()> {
        let runs = "SELECT min(oid) AS first, max(oid) AS last, lomowner, lomacl FROM \
                    (SELECT *, row_number() OVER (ORDER BY oid) \
                    - row_number() OVER (PARTITION BY lomowner, lomacl::pg_catalog.text ORDER BY oid) AS run \
                    FROM pg_catalog.pg_largeobject_metadata) m GROUP BY lomowner, lomacl, run";
        let sql = format!("SELECT first, last, pg_catalog.pg_get_userbyid(lomowner) FROM ({runs}) r");
        for row in self.rows(&sql).await? {
            state.insert(format!("large_object/{}-{}", field(&row, 0), field(&row, 1)), field(&row, 2));
        }
        let sql = format!(
            "SELECT first, last, a.privilege_type, a.is_grantable, \
             CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee) ELSE '' END \
             FROM ({runs}) r CROSS JOIN LATERAL pg_catalog.aclexplode(lomacl) a WHERE a.grantee <> lomowner"
        );
        for (at, row) in self.rows(&sql).await?.iter().enumerate() {
            let (key, place) = (format!("{}-{}", field(row, 0), field(row, 1)), format!("{at:06}"));
            let value = format!("{} {} {}", field(row, 2), field(row, 3), field(row, 4));
            state.insert(format!("large_object_grant/{key}/{place}"), value);
        }
        Ok(())
    }

    /// Positions of the sequences that move: those of excluded tables do not.
    async fn sequences(&self, entries: &[Entry], state: &mut BTreeMap<String, String>) -> Result<()> {
        let sql = format!(
            "SELECT n.nspname, c.relname, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) \
             FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> {} ORDER BY 1, 2",
            literal(OWN_SCHEMA)
        );
        let moving: BTreeSet<(&str, &str)> = entries
            .iter()
            .filter(|entry| entry.kind == "SEQUENCE")
            .map(|entry| (entry.namespace.as_str(), entry.tag.as_str()))
            .collect();
        let mut listed = self.rows(&sql).await?;
        listed.retain(|row| moving.contains(&(field(row, 0).as_str(), field(row, 1).as_str())));
        for batch in listed.chunks(TOGETHER) {
            let parts: Vec<String> = batch
                .iter()
                .map(|row| {
                    let name = format!("{}.{}", quote(&field(row, 0)), quote(&field(row, 1)));
                    let known = literal(&field(row, 2));
                    format!("SELECT {known}, last_value, is_called FROM {name}")
                })
                .collect();
            for row in self.rows(&parts.join(" UNION ALL ")).await? {
                let position = format!("{} {}", field(&row, 1), field(&row, 2));
                state.insert(format!("sequence/{}", field(&row, 0)), position);
            }
        }
        Ok(())
    }
}

/// Kinds of objects whose owner can be changed.
const OWNED: [&str; 25] = [
    "AGGREGATE",
    "COLLATION",
    "CONVERSION",
    "DOMAIN",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "FUNCTION",
    "MATERIALIZED VIEW",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "PUBLICATION",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
    "VIEW",
    "ROUTINE",
];

/// An object as `ALTER … OWNER TO` names it: as its DROP statement does.
fn owned(entry: &Entry) -> Option<String> {
    // `public` is never dropped by a dump, since every database has it.
    let name = match entry.kind.as_str() {
        "SCHEMA" => format!("SCHEMA {}", quote(&entry.tag)),
        _ => entry.drop.trim().strip_prefix("DROP ")?.trim_end_matches(';').to_owned(),
    };
    (OWNED.contains(&entry.kind.as_str()) && !entry.owner.is_empty() && !name.contains(';')).then_some(name)
}
