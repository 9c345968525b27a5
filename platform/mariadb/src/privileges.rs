//! What an account must be allowed, and the statements that allow it.

use handover_engine::failure::Failure;
use handover_engine::name::DatasetName;
use handover_engine::ports::Result;

use crate::catalog;
use crate::live::replicated;
use crate::session::{Role, Session};
use crate::settings::Settings;
use crate::sql::quote;

/// Something that an account lacks, or that the server is not set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Nothing works without it; otherwise it goes on with a loss that `what` tells.
    pub required: bool,
    /// What is missing, and what that means.
    pub what: String,
    /// The statement that makes it right, to be run by an administrator of the server.
    pub fix: String,
}

/// The account's grants, one statement each, and its name.
pub async fn grants(session: &mut Session) -> Result<(Vec<String>, String)> {
    let what = "the account's grants cannot be read";
    let account = session.record(what, "SELECT CURRENT_USER()").await?.text(0);
    let (user, host) = account.rsplit_once('@').unwrap_or((account.as_str(), "%"));
    let account = format!("{}@{}", quote(user), quote(host));
    let rows = session.records(what, "SHOW GRANTS").await?;
    Ok((rows.iter().map(|row| row.text(0)).collect(), account))
}

/// A grant on this database, or on all of them, names the privilege.
pub fn has(grants: &[String], database: Option<&str>, privilege: &str) -> bool {
    grants.iter().any(|grant| {
        let Some((what, rest)) = grant.strip_prefix("GRANT ").and_then(|g| g.split_once(" ON ")) else {
            return false;
        };
        let is_here = rest.starts_with("*.* ")
            || database.is_some_and(|database| {
                let escaped = database.replace('_', "\\_").replace('%', "\\%");
                let on = |name: &str| rest.starts_with(&format!("{}.* ", quote(name)));
                on(database) || on(&escaped)
            });
        is_here && (what == "ALL PRIVILEGES" || what.split(", ").any(|p| p.eq_ignore_ascii_case(privilege)))
    })
}

/// Whether the account may make objects that run as another account.
pub async fn may_set_user(session: &mut Session) -> Result<bool> {
    let (grants, _) = grants(session).await?;
    Ok(has(&grants, None, "SET USER") || has(&grants, None, "SUPER"))
}

/// What an account lacks to follow a database that has taken over (`target`), or to take what is written there meanwhile.
pub async fn returning_privileges(
    dataset: &DatasetName,
    settings: &Settings,
    target: bool,
) -> Result<Vec<Finding>> {
    let mut session = Session::open(dataset, settings, Role::Reader).await?;
    let (grants, account) = grants(&mut session).await?;
    let database = settings.database.as_str();
    let mut out = Vec::new();
    let mut needs = |on: Option<&str>, privilege: &str, what: &str| {
        if !has(&grants, on, privilege) {
            let place = on.map_or("*.*".to_owned(), |on| format!("{}.*", quote(on)));
            let fix = format!("GRANT {privilege} ON {place} TO {account}, or plan with --one-way");
            out.push(Finding { required: true, what: format!("{privilege} is missing: {what}"), fix });
        }
    };
    if target {
        for privilege in ["BINLOG MONITOR", "REPLICATION SLAVE"] {
            needs(None, privilege, "the source cannot follow it once it has taken over");
        }
        if let Some((what, fix)) = catalog::unfollowable(&mut session).await? {
            let what = format!("the source cannot follow it once it has taken over: {what}");
            out.push(Finding { required: true, what, fix: format!("{fix}, or plan with --one-way") });
        }
        if let Some(found) = replicated::found(&mut session).await? {
            let what = format!("{found}, so that an abort cannot give the source back meanwhile");
            let fix = "STOP ALL SLAVES there, before an abort".to_owned();
            out.push(Finding { required: false, what, fix });
        }
    } else {
        for privilege in ["INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER"] {
            needs(
                Some(database),
                privilege,
                "what is written at the target after the cut-over cannot be brought back",
            );
        }
    }
    Ok(out)
}

const NO_TRIGGERS: &str = "triggers may not be made while the binary log is on";
const TRUST: &str = "SET GLOBAL log_bin_trust_function_creators = 1";

/// Whether the server lets the account make triggers: with its binary log on it may ask for more than the privilege.
async fn may_make_triggers(session: &mut Session, grants: &[String]) -> Result<bool> {
    let row =
        session.record("cannot be asked", "SELECT @@log_bin, @@log_bin_trust_function_creators").await?;
    Ok(row.text(0) != "1" || row.text(1) == "1" || has(grants, None, "SUPER"))
}

/// Refuses where it is known that no fence can be put up, or that one would not stop everything.
pub async fn may_fence(session: &mut Session, database: &str) -> Result<()> {
    replicated::refuse(session).await?;
    let refused = |session: &Session, what: &str| {
        Failure::operator(session.item().to_owned(), format!("no fence can be put up: {what}"))
    };
    let (grants, account) = grants(session).await?;
    for privilege in ["TRIGGER", "LOCK TABLES"] {
        if !has(&grants, Some(database), privilege) {
            let fix = format!("GRANT {privilege} ON {}.* TO {account}", quote(database));
            return Err(refused(session, &format!("{privilege} is missing")).hint(fix));
        }
    }
    if !may_make_triggers(session, &grants).await? {
        return Err(refused(session, NO_TRIGGERS).hint(TRUST));
    }
    Ok(())
}

/// What a source's account lacks.
pub async fn source_privileges(dataset: &DatasetName, settings: &Settings) -> Result<Vec<Finding>> {
    let mut session = Session::open(dataset, settings, Role::Reader).await?;
    let (grants, account) = grants(&mut session).await?;
    let mut out = Vec::new();
    let database = settings.database.as_str();
    for (privilege, loss) in [
        ("SELECT", "tables cannot be read"),
        ("SHOW VIEW", "views cannot be read"),
        ("TRIGGER", "triggers would be missing"),
        ("EVENT", "events would be missing"),
    ] {
        if !has(&grants, Some(database), privilege) {
            let fix = format!("GRANT {privilege} ON {}.* TO {account}", quote(database));
            out.push(Finding { required: true, what: format!("{privilege} is missing: {loss}"), fix });
        }
    }
    let has_routines = has(&grants, Some("mysql"), "SELECT")
        || session.try_record("SELECT 1 FROM mysql.proc LIMIT 1").await.is_ok();
    if !has_routines {
        let fix = format!("GRANT SELECT ON mysql.proc TO {account}");
        out.push(Finding { required: true, what: "routines of others cannot be read".to_owned(), fix });
    }
    if !has(&grants, None, "RELOAD") {
        let what =
            "RELOAD is missing: on a busy server without a binary log, one connection reads all".to_owned();
        out.push(Finding { required: false, what, fix: format!("GRANT RELOAD ON *.* TO {account}") });
    }
    for privilege in ["BINLOG MONITOR", "REPLICATION SLAVE"] {
        if !has(&grants, None, privilege) {
            let what = format!("{privilege} is missing: changes cannot be followed");
            let fix = format!("GRANT {privilege} ON *.* TO {account}");
            out.push(Finding { required: false, what, fix });
        }
    }
    if let Some((what, fix)) = catalog::unfollowable(&mut session).await? {
        let what = format!("changes cannot be followed: {what}");
        out.push(Finding { required: false, what, fix: fix.to_owned() });
    }
    if let Some(found) = replicated::found(&mut session).await? {
        let what = format!("{found}, so none is put up meanwhile");
        out.push(Finding { required: false, what, fix: replicated::FIX.to_owned() });
    }
    if !may_make_triggers(&mut session, &grants).await? {
        let what = format!("{NO_TRIGGERS}: no fence can be put up after following");
        out.push(Finding { required: false, what, fix: TRUST.to_owned() });
    }
    if !has(&grants, Some(database), "LOCK TABLES") {
        let what = "LOCK TABLES is missing: tables without transactions cannot be read, nor can a fence be put up after following"
            .to_owned();
        out.push(Finding {
            required: false,
            what,
            fix: format!("GRANT LOCK TABLES ON {}.* TO {account}", quote(database)),
        });
    }
    Ok(out)
}

/// What a target's account lacks, and what its server should be set to.
pub async fn target_privileges(dataset: &DatasetName, settings: &Settings) -> Result<Vec<Finding>> {
    let mut session = Session::open(dataset, settings, Role::Loader).await?;
    let (grants, account) = grants(&mut session).await?;
    let database = settings.database.as_str();
    let mut out = Vec::new();
    let escaped = database.replace('_', "\\_").replace('%', "\\%");
    let aside = format!("{escaped}\\_\\_handover\\_%");
    let on = |name: &str| {
        grants.iter().any(|grant| grant.starts_with(&format!("GRANT ALL PRIVILEGES ON {}.* ", quote(name))))
    };
    let everywhere = has(&grants, None, "CREATE") && has(&grants, None, "DROP");
    if !everywhere && !on(database) && !on(&escaped) {
        let what = "the final database may not be filled".to_owned();
        out.push(Finding {
            required: true,
            what,
            fix: format!("GRANT ALL ON {}.* TO {account}", quote(&escaped)),
        });
    }
    if !everywhere && !on(&aside) {
        let what = "databases beside the final one may not be made".to_owned();
        out.push(Finding {
            required: true,
            what,
            fix: format!("GRANT ALL ON {}.* TO {account}", quote(&aside)),
        });
    }
    if !has(&grants, None, "SET USER") && !has(&grants, None, "SUPER") {
        let what =
            "SET USER is missing: views, routines, triggers and events get this account as their definer"
                .to_owned();
        let fix =
            format!("GRANT SET USER ON *.* TO {account}; GRANT SELECT ON mysql.global_priv TO {account}");
        out.push(Finding { required: false, what, fix });
    } else if session.try_record("SELECT 1 FROM mysql.global_priv LIMIT 1").await.is_err() {
        let what = "mysql.global_priv cannot be read, so no definer is known here: views, routines, triggers and events get this account"
            .to_owned();
        let fix = format!("GRANT SELECT ON mysql.global_priv TO {account}");
        out.push(Finding { required: false, what, fix });
    }
    let what = "the server cannot be asked";
    let row = session
        .record(what, "SELECT @@local_infile, @@innodb_flush_log_at_trx_commit, @@read_only, @@log_bin, @@log_bin_trust_function_creators")
        .await?;
    let mut set = |is_bad: bool, required: bool, what: &str, fix: &str| {
        if is_bad {
            out.push(Finding { required, what: what.to_owned(), fix: fix.to_owned() });
        }
    };
    set(
        row.text(0) != "1",
        false,
        "local_infile is off: loading takes about twice as long",
        "SET GLOBAL local_infile = 1",
    );
    set(
        row.text(1) != "1",
        false,
        "commits are not written through: a power failure at the target may lose rows that count as copied",
        "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
    );
    set(row.text(2) != "0", true, "the server is read-only", "SET GLOBAL read_only = 0");
    let is_trusted = row.text(4) == "1" || has(&grants, None, "SUPER");
    set(
        row.text(3) == "1" && !is_trusted,
        false,
        "functions and triggers may not be made while the binary log is on",
        "SET GLOBAL log_bin_trust_function_creators = 1",
    );
    Ok(out)
}
