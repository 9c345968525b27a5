//! Accounts that an appliance signs in with: how they sign in, and what they may do with its database.

use std::fmt;
use std::str::FromStr;

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::Ddl;

use crate::catalog::create::{scan, split};
use crate::session::Session;
use crate::sql::{immediate, quote};

/// The kind of the statements in a schema.
pub const KIND: &str = "account";
/// What a grant on all of the database is about, whatever the database's name.
const ALL: &str = "*";

/// An account by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    user: String,
    host: String,
}

impl FromStr for Account {
    type Err = ();

    /// `user@host`; without a host, any.
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (user, host) = text.rsplit_once('@').unwrap_or((text, "%"));
        if user.is_empty() || host.is_empty() {
            return Err(());
        }
        Ok(Self { user: user.to_owned(), host: host.to_owned() })
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

impl Account {
    fn quoted(&self) -> String {
        format!("{}@{}", quote(&self.user), quote(&self.host))
    }
}

/// What a server tells of an account.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// The statements that make it, in canonical form: grants name objects of the database without the database.
    pub statements: Vec<String>,
    /// What does not move.
    pub notes: Vec<String>,
}

/// Reads an account with what it may do in general and with one database; `None` when there is no such account.
pub async fn read(session: &mut Session, account: &Account, database: &str) -> Result<Option<Told>> {
    let quoted = account.quoted();
    let what = format!("the account {account} cannot be read");
    let made = match session.texts(&format!("SHOW CREATE USER {quoted}")).await {
        Ok(made) => made,
        // There is no such account.
        Err(error) if matches!(crate::error::code(&error), Some(1133 | 1141)) => return Ok(None),
        Err(error) => {
            let failure = session.failed(None, &what, error);
            return Err(if failure.is_transient() { failure } else { failure.hint(HINT) });
        }
    };
    let grants = session.texts(&format!("SHOW GRANTS FOR {quoted}")).await;
    let grants = grants.map_err(|error| session.failed(None, &what, error).hint(HINT))?;
    let mut told = Told { statements: made, notes: Vec::new() };
    for grant in grants {
        match canonical(&grant, &quoted, database) {
            Grant::Here(statement) => told.statements.push(statement),
            Grant::Nothing => {}
            Grant::Elsewhere(what) => told.notes.push(format!("account {account}: {what} does not move")),
        }
    }
    Ok(Some(told))
}

const HINT: &str = "GRANT SELECT ON mysql.* TO the agent's account, and CREATE USER at the target";

enum Grant {
    /// In canonical form.
    Here(String),
    Nothing,
    /// What it is about.
    Elsewhere(String),
}

/// A line of SHOW GRANTS. It also tells how the account signs in: that is left out.
fn canonical(grant: &str, account: &str, database: &str) -> Grant {
    let parts = grant.strip_prefix("GRANT ").and_then(|rest| {
        let (privileges, rest) = split_at_word(rest, " ON ")?;
        let (object, rest) = split_at_word(rest, " TO ")?;
        Some((privileges, object, rest.strip_prefix(account)?))
    });
    let Some((privileges, object, options)) = parts else {
        let role = grant.strip_prefix("GRANT ").and_then(|rest| split_at_word(rest, " TO "));
        return Grant::Elsewhere(match role {
            Some((role, _)) => format!("the role {role}"),
            None => "its default role".to_owned(),
        });
    };
    let may_grant = split_at_word(options, " WITH ").is_some_and(|(_, with)| with.contains("GRANT OPTION"));
    if privileges == "USAGE" && !may_grant {
        return Grant::Nothing;
    }
    let (kind, name) = match object.find('`') {
        Some(at) => object.split_at(at),
        None => ("", object),
    };
    let mut here = None;
    for written in [database.to_owned(), escaped(database)] {
        here = here.or_else(|| name.strip_prefix(&quote(&written))?.strip_prefix('.'));
    }
    let object = match here {
        Some(here) => format!("{kind}{here}"),
        None if object == "*.*" && privileges != "PROXY" => object.to_owned(),
        None => return Grant::Elsewhere(format!("what it may do with {object}")),
    };
    let option = if may_grant { " WITH GRANT OPTION" } else { "" };
    Grant::Here(format!("GRANT {privileges} ON {object} TO {account}{option}"))
}

/// A database's name where a pattern is meant.
fn escaped(database: &str) -> String {
    database.replace('_', "\\_").replace('%', "\\%")
}

/// Splits at the first such text outside of quotes.
fn split_at_word<'t>(text: &'t str, word: &str) -> Option<(&'t str, &'t str)> {
    let mut found = None;
    scan(text, |at, _, rest| {
        if rest.starts_with(word) {
            found = Some(at);
        }
        found.is_none()
    });
    found.map(|at| (&text[..at], &text[at + word.len()..]))
}

/// The accounts of a schema's statements, each with its own.
pub fn of(statements: &[Ddl]) -> Vec<(Account, Vec<&str>)> {
    let mut out: Vec<(Account, Vec<&str>)> = Vec::new();
    for ddl in statements.iter().filter(|ddl| ddl.kind == KIND) {
        let Ok(account) = ddl.name.parse::<Account>() else { continue };
        match out.last_mut() {
            Some((last, own)) if *last == account => own.push(&ddl.sql),
            _ => out.push((account, vec![&ddl.sql])),
        }
    }
    out
}

/// The statements of an account as parts of a schema.
pub fn ddl(account: &Account, statements: Vec<String>) -> impl Iterator<Item = Ddl> {
    let name = account.to_string();
    statements.into_iter().map(move |sql| Ddl { kind: KIND.to_owned(), name: name.clone(), sql })
}

/// Refuses a schema with an account that is not allowed.
pub fn check(item: &str, statements: &[Ddl], allowed: &[Account]) -> Result<()> {
    let is_allowed = |ddl: &&Ddl| ddl.name.parse().is_ok_and(|account| allowed.contains(&account));
    let Some(other) = statements.iter().find(|ddl| ddl.kind == KIND && !is_allowed(ddl)) else {
        return Ok(());
    };
    let what = format!("the source sends the account {}, which `accounts` does not name here", other.name);
    let option = other.name.replace('%', "%25").replace(' ', "%20");
    let hint = format!(
        "add `accounts={option}` to the target's `url` in its appliance.toml, or take it out of the source's"
    );
    Err(Failure::operator(item, what).hint(hint))
}

/// A statement is about this account and no other: nothing may follow it unseen.
fn is_about(statement: &str, quoted: &str) -> bool {
    if hides_something(statement) {
        return false;
    }
    let own = |head: &str| statement.strip_prefix(head)?.strip_prefix(quoted);
    if let Some(rest) = own("CREATE USER ").or_else(|| own("ALTER USER ")) {
        return (rest.is_empty() || rest.starts_with(' ')) && split(rest, ',').len() == 1;
    }
    let options = grant(statement).and_then(|(_, _, to)| to.strip_prefix(quoted));
    options.is_some_and(|options| ["", " WITH GRANT OPTION"].contains(&options))
}

/// A grant's privileges, object, and the account with what follows it.
fn grant(statement: &str) -> Option<(&str, &str, &str)> {
    let (privileges, rest) = split_at_word(statement.strip_prefix("GRANT ")?, " ON ")?;
    let (object, to) = split_at_word(rest, " TO ")?;
    Some((privileges, object, to))
}

/// Outside of quotes there is a comment, which might hold quotes.
fn hides_something(statement: &str) -> bool {
    let mut found = false;
    scan(statement, |_, _, rest| {
        found |= ["/*", "--", "#", ";"].iter().any(|sign| rest.starts_with(sign));
        !found
    });
    found
}

/// Makes an account that is not there. The session must be in the database.
pub async fn make(
    session: &mut Session,
    account: &Account,
    statements: &[&str],
    database: &str,
) -> Result<()> {
    let what = format!("the account {account} cannot be made");
    let quoted = account.quoted();
    for statement in statements {
        if !is_about(statement, &quoted) {
            let what = format!("{what}: the source's definition of it is about something else");
            return Err(Failure::permanent(session.item().to_owned(), what));
        }
        let statement = match grant(statement) {
            // In a grant, `_` in a database's name stands for any character.
            Some((privileges, ALL, to)) => {
                format!("GRANT {privileges} ON {}.* TO {to}", quote(&escaped(database)))
            }
            _ => (*statement).to_owned(),
        };
        session
            .run(&what, &immediate(&statement))
            .await
            .map_err(|failure| if failure.is_transient() { failure } else { failure.hint(MAKES) })?;
    }
    Ok(())
}

/// How an account can be made that the agent's own may not make.
const MAKES: &str = "GRANT CREATE USER ON *.* TO the agent's account, and what it is to give to others WITH GRANT OPTION; or make the \
                     account yourself: one that is there already is left alone";

/// Drops an account, if it is there.
pub async fn remove(session: &mut Session, account: &Account) -> Result<()> {
    let what = format!("the account {account} cannot be dropped");
    session.run(&what, &format!("DROP USER IF EXISTS {}", account.quoted())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(grant: &str) -> String {
        match canonical(grant, "`app`@`%`", "my_db") {
            Grant::Here(statement) => statement,
            Grant::Nothing => "nothing".to_owned(),
            Grant::Elsewhere(what) => format!("elsewhere: {what}"),
        }
    }

    #[test]
    fn grants_lose_the_database_and_how_to_sign_in() {
        for (grant, expected) in [
            ("GRANT USAGE ON *.* TO `app`@`%` IDENTIFIED BY PASSWORD '*AB'", "nothing"),
            (
                "GRANT PROCESS ON *.* TO `app`@`%` IDENTIFIED BY PASSWORD '*AB' WITH GRANT OPTION MAX_USER_CONNECTIONS 3",
                "GRANT PROCESS ON *.* TO `app`@`%` WITH GRANT OPTION",
            ),
            ("GRANT ALL PRIVILEGES ON `my\\_db`.* TO `app`@`%`", "GRANT ALL PRIVILEGES ON * TO `app`@`%`"),
            ("GRANT SELECT ON `my_db`.* TO `app`@`%`", "GRANT SELECT ON * TO `app`@`%`"),
            (
                "GRANT SELECT (`a ON b`), INSERT ON `my_db`.`t TO x` TO `app`@`%`",
                "GRANT SELECT (`a ON b`), INSERT ON `t TO x` TO `app`@`%`",
            ),
            (
                "GRANT EXECUTE ON PROCEDURE `my_db`.`p` TO `app`@`%`",
                "GRANT EXECUTE ON PROCEDURE `p` TO `app`@`%`",
            ),
            ("GRANT SELECT ON `other`.* TO `app`@`%`", "elsewhere: what it may do with `other`.*"),
            ("GRANT `r` TO `app`@`%`", "elsewhere: the role `r`"),
            ("SET DEFAULT ROLE `r` FOR `app`@`%`", "elsewhere: its default role"),
        ] {
            assert_eq!(here(grant), expected, "{grant}");
        }
    }

    #[test]
    fn reads_names() {
        let account: Account = "a@b@localhost".parse().unwrap();
        assert_eq!(
            (account.quoted().as_str(), account.to_string().as_str()),
            ("`a@b`@`localhost`", "a@b@localhost")
        );
        assert_eq!("app".parse::<Account>().unwrap().to_string(), "app@%");
        assert!("@h".parse::<Account>().is_err() && "u@".parse::<Account>().is_err());
    }

    #[test]
    fn statements_make_no_other_account() {
        for (statement, expected) in [
            ("CREATE USER `a`@`h` IDENTIFIED BY PASSWORD '*AB,' WITH MAX_USER_CONNECTIONS 7", true),
            ("CREATE USER `a`@`h`", true),
            ("ALTER USER `a`@`h` ACCOUNT LOCK", true),
            ("GRANT SELECT (`a TO b`), INSERT ON `t` TO `a`@`h` WITH GRANT OPTION", true),
            ("CREATE USER `a`@`h`, `evil`@`%`", false),
            ("CREATE USER `a`@`h` /* ' */, `evil`@`%` -- '", false),
            ("GRANT ALL ON *.* TO `a`@`h`, `evil`@`%`", false),
            ("GRANT ALL ON *.* TO `a`@`h` IDENTIFIED BY 'x'", false),
            ("GRANT ALL /*'*/ ON *.* TO `evil`@`%` -- ' ON * TO `a`@`h`", false),
            ("GRANT `r` TO `a`@`h`", false),
            ("DROP USER `a`@`h`", false),
        ] {
            assert_eq!(is_about(statement, "`a`@`h`"), expected, "{statement}");
        }
    }

    #[test]
    fn statements_are_sorted_by_their_account() {
        let [a, b]: [Account; 2] = ["a@h", "b@h"].map(|name| name.parse().unwrap());
        let all: Vec<Ddl> = ddl(&a, vec!["1".into(), "2".into()]).chain(ddl(&b, vec!["3".into()])).collect();
        assert_eq!(of(&all), [(a, vec!["1", "2"]), (b, vec!["3"])]);
    }
}
