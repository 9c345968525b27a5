//! What following a database needs at its source, with the statement that gives it.

use handover_engine::check::{Finding, Severity};
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;

use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::fenced;
use crate::sql::quote;

/// MiB of its log that a server should keep for a slot: the agent gives up before the server does.
const ENOUGH: i64 = 16 * 1024;

/// What stands in the way of following the settings' database while it is in use; empty when nothing does.
pub async fn following_privileges(dataset: &DatasetName, settings: &Settings) -> Result<Vec<Finding>> {
    let conn = Conn::open(dataset, settings).await?;
    let asker = Asker { item: format!("{dataset}, {}", settings.location()), settings, conn: &conn };
    let mut found = Vec::new();
    asker.server("the copy begins anew", &mut found).await?;
    asker.role(&mut found).await?;
    asker.tables(&mut found).await?;
    Ok(found)
}

/// What stands in the way of following the settings' database once it has taken over (`target`), or of bringing back to it what is
/// written there meanwhile; empty when nothing does.
pub async fn returning_privileges(
    dataset: &DatasetName,
    settings: &Settings,
    target: bool,
) -> Result<Vec<Finding>> {
    let database = if target { settings.with_database(&settings.maintenance) } else { settings.clone() };
    let conn = Conn::open(dataset, &database).await?;
    let asker = Asker { item: format!("{dataset}, {}", settings.location()), settings, conn: &conn };
    let mut found = Vec::new();
    if target {
        asker.server("what is written there is not brought back", &mut found).await?;
        asker.slots(&mut found).await?;
        for finding in found.iter_mut().filter(|finding| finding.severity == Severity::Error) {
            finding.hint += "; or plan with --one-way: the source does not follow it then";
        }
    } else {
        asker.writing(&mut found).await?;
    }
    Ok(found)
}

struct Asker<'a> {
    item: String,
    settings: &'a Settings,
    conn: &'a Conn,
}

impl Asker<'_> {
    async fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let rows = self.conn.rows(sql).await;
        let rows = rows.map_err(|e| failed(&self.item, "what it offers cannot be looked at", &e))?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    fn finding(&self, severity: Severity, what: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::new(severity, &self.item, what, hint)
    }

    /// What its server lacks; and what becomes of who follows it, should a slot be lost.
    async fn server(&self, lost: &str, found: &mut Vec<Finding>) -> Result<()> {
        let sql = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('wal_level'), \
                   pg_catalog.current_setting('max_replication_slots'), \
                   (SELECT count(*) FROM pg_catalog.pg_replication_slots), \
                   (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size')";
        let rows = self.rows(sql).await?;
        let Some([standby, level, slots, used, keep]) = rows.first().map(Vec::as_slice) else {
            return Ok(());
        };
        if standby == "t" {
            let what = "a standby cannot be followed: it takes no publication";
            found.push(self.finding(Severity::Error, what, "name the primary in `url`"));
        }
        if level != "logical" {
            let what = format!("wal_level is {level}: the log does not tell which rows change");
            let hint = "ALTER SYSTEM SET wal_level = 'logical'; then restart the server";
            found.push(self.finding(Severity::Error, what, hint));
        }
        let (slots, used) =
            (slots.parse::<u32>().unwrap_or_default(), used.parse::<u32>().unwrap_or_default());
        if used >= slots {
            let hint =
                format!("ALTER SYSTEM SET max_replication_slots = {}; then restart the server", slots + 4);
            found.push(self.finding(Severity::Error, "all of its replication slots are in use", hint));
        }
        found.extend(self.kept(keep, lost));
        Ok(())
    }

    /// How much of its log the server keeps for a slot, in MiB; versions before 13 have no limit, and know of none.
    fn kept(&self, setting: &str, lost: &str) -> Option<Finding> {
        let keep: i64 = setting.parse().ok()?;
        let hint = format!(
            "ALTER SYSTEM SET max_slot_wal_keep_size = '{ENOUGH}MB'; SELECT pg_reload_conf(): more than the agent's `capture_bytes` \
             (10 GiB unless set), and less than the disk has room for"
        );
        if keep < 0 {
            let what = "a slot keeps the server's log without limit: the agent lets go what is too much or too old, but the disk fills \
                        while it is down";
            return Some(self.finding(Severity::Info, what, hint));
        }
        let what = format!(
            "the server keeps {keep} MB of its log for a slot: once more waits, the slot is lost and {lost}"
        );
        (keep < ENOUGH).then(|| self.finding(Severity::Warning, what, hint))
    }

    async fn slots(&self, found: &mut Vec<Finding>) -> Result<()> {
        let sql = "SELECT rolsuper OR rolreplication FROM pg_catalog.pg_roles WHERE rolname = current_user";
        if self.rows(sql).await?.first().and_then(|row| row.first()).is_none_or(|value| value != "t") {
            let hint = format!("ALTER ROLE {} REPLICATION", quote(&self.settings.user));
            found.push(self.finding(Severity::Error, "it may not make replication slots", hint));
        }
        Ok(())
    }

    /// Whether rows can be written behind the fence, as replicas write them.
    async fn writing(&self, found: &mut Vec<Finding>) -> Result<()> {
        // A parameter's privilege is known to servers from version 15 on.
        let sql = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";
        let is_super =
            self.rows(sql).await?.first().and_then(|row| row.first()).is_some_and(|value| value == "t");
        let sql = "SELECT pg_catalog.has_parameter_privilege('session_replication_role', 'SET')";
        let may_set = self.conn.text(sql).await.ok().flatten().is_some_and(|may| may == "t");
        if !is_super && !may_set {
            let what = "it may not write rows as a replica does: what is written at the target after the cut-over cannot be brought back";
            found.push(self.finding(Severity::Error, what, fenced::hint(&self.settings.user)));
        }
        let always = fenced::always(self.conn).await;
        if let Some(what) =
            always.map_err(|e| failed(&self.item, "what it offers cannot be looked at", &e))?
        {
            let hint = "ALTER TABLE … ENABLE TRIGGER … makes it an ordinary one; or plan with --one-way";
            let what = format!("{what}: it would act a second time on rows that are brought back");
            found.push(self.finding(Severity::Error, what, hint));
        }
        Ok(())
    }

    async fn role(&self, found: &mut Vec<Finding>) -> Result<()> {
        let sql = "SELECT rolsuper OR rolreplication, pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') \
                   FROM pg_catalog.pg_roles WHERE rolname = current_user";
        let rows = self.rows(sql).await?;
        let has = |at: usize| rows.first().and_then(|row| row.get(at)).is_some_and(|value| value == "t");
        let user = quote(&self.settings.user);
        if !has(0) {
            let hint = format!("ALTER ROLE {user} REPLICATION");
            found.push(self.finding(Severity::Error, "it may not make replication slots", hint));
        }
        if !has(1) {
            let hint = format!("GRANT CREATE ON DATABASE {} TO {user}", quote(&self.settings.database));
            let what = "it may not make a publication, nor a fence against writes, in the database";
            found.push(self.finding(Severity::Error, what, hint));
        }
        Ok(())
    }

    async fn tables(&self, found: &mut Vec<Finding>) -> Result<()> {
        let sql = "SELECT pg_catalog.pg_get_userbyid(c.relowner), count(*) FROM pg_catalog.pg_class c \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' \
                   AND n.nspname <> 'information_schema' AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE') \
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                   AND d.objid = c.oid AND d.deptype = 'e') GROUP BY 1 ORDER BY 1";
        for row in self.rows(sql).await? {
            let [owner, count] = &row[..] else { continue };
            let what =
                format!("{count} tables belong to {owner}: only their owner publishes and fences them");
            let hint = format!("GRANT {} TO {}", quote(owner), quote(&self.settings.user));
            found.push(self.finding(Severity::Error, what, hint));
        }
        let sql = "SELECT count(*) FROM pg_catalog.pg_stat_subscription s \
                   JOIN pg_catalog.pg_subscription u ON u.oid = s.subid WHERE u.subdbid = \
                   (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
        // Only who may look at subscriptions is told.
        let subscribed = self.conn.text(sql).await.ok().flatten().is_some_and(|count| count != "0");
        if subscribed {
            let what = "it has subscriptions of its own, whose rows no fence stops";
            let hint = "ALTER SUBSCRIPTION … DISABLE before the change-over";
            found.push(self.finding(Severity::Warning, what, hint));
        }
        Ok(())
    }
}
