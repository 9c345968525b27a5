//! Roles that an appliance signs in with. A role belongs to the whole server: those that a migration makes carry its mark in their
//! comment, by which an undo finds them.

use handover_engine::failure::Failure;
use handover_engine::name::MigrationId;
use handover_engine::ports::Result;
use handover_engine::rows::Schema;
use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;

use crate::connect::Conn;
use crate::error::failed;
use crate::sql::{literal, quote};
use crate::trust::assignment;

/// What the keys of roles in a schema's settings begin with.
const KEY: &str = "account/";
/// What stands between a role's own comment and the mark.
const MARK: &str = "\nhandover: migration=";
/// Attributes, and the columns that tell them.
const ATTRIBUTES: [(&str, &str); 7] = [
    ("SUPERUSER", "rolsuper"),
    ("INHERIT", "rolinherit"),
    ("CREATEROLE", "rolcreaterole"),
    ("CREATEDB", "rolcreatedb"),
    ("LOGIN", "rolcanlogin"),
    ("REPLICATION", "rolreplication"),
    ("BYPASSRLS", "rolbypassrls"),
];
/// The catalog that has password verifiers.
const VERIFIERS: &str = "pg_authid";
const READS: &str = "GRANT pg_read_all_data TO the role that reads: others are told no password verifiers; or make the roles at the target \
                     yourself and take `accounts` out of `url`";
const MAKES: &str = "GRANT CREATEROLE to the agent's role (a superuser is needed for SUPERUSER, REPLICATION and BYPASSRLS); or make the role \
                     yourself: one that is there already is left alone";

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Role {
    /// Which of [`ATTRIBUTES`] it has, in their order.
    attributes: [bool; ATTRIBUTES.len()],
    connection_limit: i32,
    password: Option<String>,
    valid_until: Option<String>,
    /// `name=value`, of the role itself.
    settings: Vec<String>,
    /// Roles that it is a member of, and whether it may make others members of them.
    member_of: Vec<(String, bool)>,
    comment: Option<String>,
}

/// A connection, and what its failures name.
pub struct Accounts<'a> {
    /// Dataset and server.
    pub item: String,
    /// A connection to any database of the server.
    pub conn: &'a Conn,
}

impl Accounts<'_> {
    async fn rows(&self, sql: &str, what: &str, hint: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.conn.rows(sql).await.map_err(|error| {
            let failure = failed(&self.item, what, &error);
            let is_denied = error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
            if is_denied { failure.hint(hint) } else { failure }
        })
    }

    async fn run(&self, sql: &str, name: &str) -> Result<()> {
        let what = format!("the role {name} cannot be made");
        let sql = format!("BEGIN; {sql}; COMMIT");
        let done = self.rows(&sql, &what, MAKES).await;
        if done.is_err() {
            let _ = self.conn.batch_execute("ROLLBACK").await;
        }
        done.map(drop)
    }

    /// A role as `table` tells of it, and the mark in its comment; `None` when there is no such role.
    async fn read(&self, name: &str, table: &str) -> Result<Option<(Role, Option<String>)>> {
        let columns: Vec<&str> = ATTRIBUTES.iter().map(|(_, column)| *column).collect();
        let sql = format!(
            "SELECT {}, rolconnlimit, rolpassword, rolvaliduntil, pg_catalog.shobj_description(oid, 'pg_authid') \
             FROM pg_catalog.{table} WHERE rolname = {}",
            columns.join(", "),
            literal(name)
        );
        let what = format!("the role {name} cannot be read");
        let Some(row) = self.rows(&sql, &what, READS).await?.pop() else { return Ok(None) };
        let field = |at: usize| row.get(ATTRIBUTES.len() + at).cloned().flatten();
        let comment = field(3);
        let (own, mark) = match comment.as_deref().and_then(|comment| comment.split_once(MARK)) {
            Some((own, mark)) => (Some(own.to_owned()).filter(|own| !own.is_empty()), Some(mark.to_owned())),
            None => (comment, None),
        };
        let of = format!("(SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {})", literal(name));
        let sql = format!(
            "SELECT unnest(setconfig) FROM pg_catalog.pg_db_role_setting WHERE setdatabase = 0 AND setrole = {of} ORDER BY 1"
        );
        let settings = self.rows(&sql, &what, READS).await?.into_iter().flatten().flatten().collect();
        let sql = format!(
            "SELECT r.rolname, bool_or(m.admin_option) FROM pg_catalog.pg_auth_members m \
             JOIN pg_catalog.pg_roles r ON r.oid = m.roleid WHERE m.member = {of} GROUP BY 1 ORDER BY 1"
        );
        let member_of = self.rows(&sql, &what, READS).await?.into_iter().map(|row| {
            let field = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
            (field(0), field(1) == "t")
        });
        let role = Role {
            attributes: std::array::from_fn(|at| row[at].as_deref() == Some("t")),
            connection_limit: field(0).and_then(|limit| limit.parse().ok()).unwrap_or(-1),
            password: field(1),
            valid_until: field(2).filter(|until| until != "infinity"),
            settings,
            member_of: member_of.collect(),
            comment: own,
        };
        Ok(Some((role, mark)))
    }

    /// Adds roles to a source's schema; what of them does not move.
    pub async fn add(&self, names: &[String], schema: &mut Schema) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for name in names {
            let Some((mut role, _)) = self.read(name, VERIFIERS).await? else {
                let what = format!("`accounts` names the role {name}, which is not there");
                return Err(Failure::operator(&self.item, what).hint("correct `accounts` in `url`"));
            };
            role.member_of.retain(|(of, _)| {
                let moves = names.contains(of) || of.starts_with("pg_");
                if !moves {
                    notes.push(format!(
                        "role {name}: that it is a member of {of} does not move, since `accounts` does not name that role"
                    ));
                }
                moves
            });
            role.settings.retain(|setting| {
                let moves = moved(setting).is_some();
                if !moves {
                    let setting = setting.split('=').next().unwrap_or_default();
                    notes.push(format!("role {name}: its setting {setting} does not move"));
                }
                moves
            });
            schema.settings.insert(format!("{KEY}{name}"), written(&role, &self.item)?);
        }
        Ok(notes)
    }

    /// Makes the schema's roles that are not there, and makes those of this migration what they are at the source by now. Others are
    /// left alone: what signs in with them here goes on.
    pub async fn make(&self, schema: &Schema, migration: &MigrationId) -> Result<()> {
        let mut ours = Vec::new();
        for (name, role) in roles(schema, &self.item)? {
            let quoted = quote(name);
            let (verb, known) = match self.read_here(name, &role).await? {
                None => ("CREATE", None),
                Some((known, mark)) if mark.as_deref() == Some(migration.as_str()) => ("ALTER", Some(known)),
                Some(_) => {
                    tracing::warn!(role = name, "the role is there already: it stays as it is");
                    continue;
                }
            };
            let comment = format!("{}{MARK}{migration}", role.comment.clone().unwrap_or_default());
            let mut sql = vec![
                format!("{verb} ROLE {quoted} WITH {}", role.options(known.as_ref())),
                format!("ALTER ROLE {quoted} RESET ALL"),
                format!("COMMENT ON ROLE {quoted} IS {}", literal(&comment)),
            ];
            let settings = role.settings.iter().filter_map(|setting| moved(setting));
            sql.extend(settings.map(|setting| format!("ALTER ROLE {quoted} SET {setting}")));
            sql.extend(
                known
                    .iter()
                    .flat_map(|known| &known.member_of)
                    .filter(|known| !role.member_of.contains(known))
                    .map(|(of, _)| format!("REVOKE {} FROM {quoted}", quote(of))),
            );
            self.run(&sql.join("; "), name).await?;
            ours.push((name, role));
        }
        for (name, role) in &ours {
            for (of, may_grant) in &role.member_of {
                let option = if *may_grant { " WITH ADMIN OPTION" } else { "" };
                self.run(&format!("GRANT {} TO {}{option}", quote(of), quote(name)), name).await?;
            }
        }
        Ok(())
    }

    /// A role of the target. Where password verifiers may not be read, it counts as having the intended one.
    async fn read_here(&self, name: &str, intended: &Role) -> Result<Option<(Role, Option<String>)>> {
        let sql = format!("SELECT pg_catalog.has_table_privilege('pg_catalog.{VERIFIERS}', 'SELECT')");
        let may = self.rows(&sql, "the server cannot be asked", "").await?;
        if may.into_iter().flatten().flatten().any(|may| may == "t") {
            return self.read(name, VERIFIERS).await;
        }
        let here = self.read(name, "pg_roles").await?;
        Ok(here.map(|(role, mark)| (Role { password: intended.password.clone(), ..role }, mark)))
    }

    /// The schema's roles as they are here; those that are left alone count as what they should be.
    pub async fn reread(&self, intended: &Schema, migration: &MigrationId, into: &mut Schema) -> Result<()> {
        for (name, role) in roles(intended, &self.item)? {
            let here = match self.read_here(name, &role).await? {
                Some((here, mark)) if mark.as_deref() == Some(migration.as_str()) => here,
                _ => role,
            };
            into.settings.insert(format!("{KEY}{name}"), written(&here, &self.item)?);
        }
        Ok(())
    }

    /// Names and comments of the roles that a migration has made.
    async fn made(&self, migration: &MigrationId) -> Result<Vec<(String, String)>> {
        let sql = "SELECT rolname, pg_catalog.shobj_description(oid, 'pg_authid') FROM pg_catalog.pg_roles ORDER BY 1";
        let rows = self.rows(sql, "the server's roles cannot be listed", "").await?;
        let made = rows.into_iter().filter_map(|row| {
            let [Some(name), Some(comment)] = <[Option<String>; 2]>::try_from(row).ok()? else { return None };
            let (own, mark) = comment.split_once(MARK)?;
            (mark == migration.as_str()).then(|| (name, own.to_owned()))
        });
        Ok(made.collect())
    }

    /// Drops the roles that a migration has made. One that owns something by now stays.
    pub async fn drop_all(&self, migration: &MigrationId) -> Result<()> {
        for (name, own) in self.made(migration).await? {
            match self.conn.batch_execute(&format!("DROP ROLE IF EXISTS {}", quote(&name))).await {
                Ok(()) => {}
                Err(error) if error.code() == Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) => {
                    tracing::warn!(
                        role = name,
                        "the role owns something that is not the migration's: it stays"
                    );
                    self.unmark(&name, &own).await?;
                }
                Err(error) => {
                    return Err(failed(&self.item, format!("the role {name} cannot be dropped"), &error));
                }
            }
        }
        Ok(())
    }

    /// Has the roles that a migration has made own nothing in the connection's database, which is kept without them: the connecting role does
    /// from then on. Where that may not be done, they stay.
    pub async fn dispossess(&self, migration: &MigrationId) -> Result<()> {
        for (name, _) in self.made(migration).await? {
            let role = quote(&name);
            let sql = format!("REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}");
            if let Err(error) = self.conn.batch_execute(&sql).await {
                tracing::warn!(role = name, %error, "the role goes on owning what it owns in what is kept");
            }
        }
        Ok(())
    }

    /// Takes the marks off: the roles stay.
    pub async fn keep_all(&self, migration: &MigrationId) -> Result<()> {
        for (name, own) in self.made(migration).await? {
            self.unmark(&name, &own).await?;
        }
        Ok(())
    }

    async fn unmark(&self, name: &str, own: &str) -> Result<()> {
        let comment = if own.is_empty() { "NULL".to_owned() } else { literal(own) };
        self.run(&format!("COMMENT ON ROLE {} IS {comment}", quote(name)), name).await
    }
}

impl Role {
    /// What follows `WITH`, of a new role or to change a known one. Attributes that stay are not named: some only a superuser may name.
    fn options(&self, known: Option<&Self>) -> String {
        let mut out: Vec<String> = ATTRIBUTES
            .iter()
            .zip(self.attributes)
            .enumerate()
            .filter(|(at, (_, has))| known.is_none_or(|known| known.attributes[*at] != *has))
            .map(|(_, ((name, _), has))| format!("{}{name}", if has { "" } else { "NO" }))
            .collect();
        out.push(format!("CONNECTION LIMIT {}", self.connection_limit));
        // A verifier is stored as it is.
        out.push(format!("PASSWORD {}", self.password.as_deref().map_or("NULL".to_owned(), literal)));
        let had_an_end = known.is_some_and(|known| known.valid_until.is_some());
        if let Some(until) = self.valid_until.as_deref().or(had_an_end.then_some("infinity")) {
            out.push(format!("VALID UNTIL {}", literal(until)));
        }
        out.join(" ")
    }
}

/// A setting as `ALTER ROLE … SET` takes it, if it may move.
fn moved(setting: &str) -> Option<String> {
    let (name, value) = setting.split_once('=')?;
    assignment(name, value)
}

fn written(role: &Role, item: &str) -> Result<String> {
    serde_json::to_string(role).map_err(|e| Failure::permanent(item, "a role cannot be told").because(e))
}

/// The names of the roles of a schema.
pub fn names(schema: &Schema) -> Vec<&str> {
    schema.settings.keys().filter_map(|key| key.strip_prefix(KEY)).collect()
}

/// The roles of a schema.
fn roles<'s>(schema: &'s Schema, item: &str) -> Result<Vec<(&'s str, Role)>> {
    let all = schema.settings.iter().filter_map(|(key, text)| Some((key.strip_prefix(KEY)?, text)));
    all.map(|(name, text)| {
        let role = serde_json::from_str(text).map_err(|e| {
            Failure::permanent(item, format!("what the source tells of the role {name} is not understood"))
                .because(e)
        });
        Ok((name, role?))
    })
    .collect()
}
