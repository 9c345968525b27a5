//! Grants on the database itself: it has another name while it is built, and may keep another one.

use crate::sql::{quote, skip_token, statements};

const ON: &str = "ON DATABASE ";
/// What stands for its name as long as the grant travels.
const OWN: &str = "\"the database that is moved\"";

/// The statement up to the name of the database that it is about, that name, and the rest.
fn parts(statement: &str) -> Option<(&str, &str, &str)> {
    let bytes = statement.as_bytes();
    let after = |at| (at < bytes.len()).then(|| skip_token(bytes, at)).filter(|end| *end < bytes.len());
    // Names in quotes may be anything: the first word of its own that is ON tells.
    let mut at = 0;
    while !statement[at..].starts_with("ON ") {
        at = after(at)?;
    }
    let from = statement[at..].starts_with(ON).then_some(at + ON.len())?;
    let mut until = after(from)?;
    // A quote within a name is written twice.
    while statement[from..].starts_with('"') && statement[until..].starts_with('"') {
        until = after(until)?;
    }
    Some((&statement[..from], &statement[from..until], &statement[until..]))
}

/// Grants on a database, without its name.
pub fn without_name(grants: &str) -> String {
    let nameless = |statement: &str| match parts(statement) {
        Some((before, _, after)) => format!("{before}{OWN}{after};"),
        None => format!("{statement};"),
    };
    statements(grants).into_iter().map(nameless).collect::<Vec<_>>().join("\n")
}

/// A grant as it is given in the database of this name; none where it is about another one.
pub fn with_name(grant: &str, name: &str) -> Option<String> {
    match parts(grant) {
        Some((before, OWN, after)) => Some(format!("{before}{}{after}", quote(name))),
        Some(_) => None,
        None => Some(grant.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_about_whatever_the_database_is_called() {
        let told = "REVOKE ALL ON DATABASE \"my \"\"shop\" FROM PUBLIC;\nGRANT CONNECT,TEMPORARY ON DATABASE shop_2 TO \"a b\" WITH GRANT OPTION;\n";
        let kept = without_name(told);
        let given: Vec<_> = statements(&kept).into_iter().map(|grant| with_name(grant, "it")).collect();
        let given: Vec<_> = given.iter().flatten().map(String::as_str).collect();
        assert_eq!(
            given,
            [
                "REVOKE ALL ON DATABASE \"it\" FROM PUBLIC",
                "GRANT CONNECT,TEMPORARY ON DATABASE \"it\" TO \"a b\" WITH GRANT OPTION"
            ]
        );
        // One that names another database is not followed; others are what they are.
        assert_eq!(with_name("GRANT ALL ON DATABASE postgres TO PUBLIC", "it"), None);
        for other in [
            "GRANT SELECT ON TABLE t TO r",
            "GRANT SELECT(\"a ON DATABASE b\") ON TABLE \"c ON DATABASE d\" TO r",
            "ALTER TABLE t OWNER TO r",
            "GRANT ON DATABASE ",
            "",
        ] {
            assert_eq!(with_name(other, "it").as_deref(), Some(other));
        }
    }
}
