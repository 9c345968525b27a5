//! Owners of large objects, and who else may use them. The rows of their table bring neither: roles have other numbers elsewhere.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::Schema;

use super::finish::with_prefix;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::{literal, quote};

/// Gives large objects to those of their owners that exist here, and grants what those that exist here were granted.
/// Idempotent.
pub async fn owners(item: &str, conn: &Conn, schema: &Schema) -> Result<()> {
    let refused = |e| failed(item, "owners of large objects cannot be set", &e);
    let roles = conn.rows("SELECT rolname FROM pg_catalog.pg_roles").await.map_err(refused)?;
    let roles: Vec<String> = roles.into_iter().flatten().flatten().collect();
    let is_here = |role: &str| roles.iter().any(|known| known == role);
    let malformed = || Failure::permanent(item, "the owners of large objects are malformed");
    for (numbers, role) in with_prefix(schema, "large_object/") {
        if is_here(role) {
            let sql = each(numbers, &format!("ALTER LARGE OBJECT %s OWNER TO {}", quote(role)));
            conn.batch_execute(&sql.ok_or_else(malformed)?).await.map_err(refused)?;
        }
    }
    for (key, grant) in with_prefix(schema, "large_object_grant/") {
        let mut words = grant.splitn(3, ' ');
        let (Some(privilege @ ("SELECT" | "UPDATE")), Some(passed_on), Some(role)) =
            (words.next(), words.next(), words.next())
        else {
            return Err(malformed());
        };
        if !role.is_empty() && !is_here(role) {
            continue;
        }
        let to = if role.is_empty() { "PUBLIC".to_owned() } else { quote(role) };
        let option = if passed_on == "t" { " WITH GRANT OPTION" } else { "" };
        let numbers = key.split('/').next().unwrap_or_default();
        let sql = each(numbers, &format!("GRANT {privilege} ON LARGE OBJECT %s TO {to}{option}"));
        conn.batch_execute(&sql.ok_or_else(malformed)?).await.map_err(refused)?;
    }
    Ok(())
}

/// A statement for each large object with a number from `first-last`; `%s` stands for it. In many transactions: each takes
/// a lock for every object.
fn each(numbers: &str, statement: &str) -> Option<String> {
    let (first, last) = numbers.split_once('-')?;
    let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
    let (before, after) = statement.split_once("%s")?;
    let body = format!(
        "DECLARE o pg_catalog.oid; n integer := 0; BEGIN \
         FOR o IN SELECT oid FROM pg_catalog.pg_largeobject_metadata WHERE oid BETWEEN {first} AND {last} LOOP \
         EXECUTE {} OPERATOR(pg_catalog.||) o::pg_catalog.text OPERATOR(pg_catalog.||) {}; \
         n := n + 1; IF n % 1000 = 0 THEN COMMIT; END IF; END LOOP; END",
        literal(before),
        literal(after)
    );
    Some(format!("DO {}", literal(&body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers() {
        assert!(each("1-4294967295", "ALTER LARGE OBJECT %s OWNER TO a").is_some());
        for bad in ["", "1", "1-x", "-1-2", "1-4294967296"] {
            assert_eq!(each(bad, "GRANT %s"), None, "{bad}");
        }
    }
}
