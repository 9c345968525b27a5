//! What a capture has put into a database that is followed: not part of what moves.

use handover_engine::ports::Result;

use super::{Reader, field};
use crate::dump::{FENCE_SCHEMA, FENCE_TRIGGER, OWN_COMMENT};
use crate::sql::literal;
use crate::toc::Entry;

impl Reader<'_> {
    /// Publications that captures have made, by what their comments begin with.
    pub(super) async fn own_publications(&self) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT p.pubname FROM pg_catalog.pg_publication p \
             WHERE pg_catalog.starts_with(pg_catalog.obj_description(p.oid, 'pg_publication'), {})",
            literal(OWN_COMMENT)
        );
        Ok(self.rows(&sql).await?.iter().map(|row| field(row, 0)).collect())
    }
}

/// Whether an object belongs to one of these publications, or to the fence.
pub fn is_ours(entry: &Entry, publications: &[String]) -> bool {
    let tag = entry.tag.as_str();
    let about = |name: &String| match entry.kind.as_str() {
        "PUBLICATION" => tag == name,
        "PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA" => {
            tag.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(' '))
        }
        _ => tag.strip_prefix("PUBLICATION ").is_some_and(|rest| rest.trim_matches('"') == name),
    };
    let fence = entry.kind == "TRIGGER"
        && tag.ends_with(&format!(" {FENCE_TRIGGER}"))
        && entry.make.contains(&format!("{FENCE_SCHEMA}."));
    fence || publications.iter().any(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_captures_make_is_told_from_what_users_make() {
        let entry = |kind: &str, tag: &str, make: &str| Entry {
            kind: kind.to_owned(),
            tag: tag.to_owned(),
            make: make.to_owned(),
            ..Entry::default()
        };
        let ours = ["handover_a_1".to_owned()];
        let fence =
            "CREATE TRIGGER handover_fence BEFORE INSERT ON t EXECUTE FUNCTION handover_fence.refuse()";
        for (kind, tag, make, expected) in [
            ("PUBLICATION", "handover_a_1", "", true),
            ("PUBLICATION", "handover_a_12", "", false),
            ("PUBLICATION TABLE", "handover_a_1 t", "", true),
            ("PUBLICATION TABLE", "handover_a_12 t", "", false),
            ("COMMENT", "PUBLICATION handover_a_1", "", true),
            ("COMMENT", "TABLE t", "", false),
            ("TRIGGER", "t handover_fence", fence, true),
            (
                "TRIGGER",
                "t handover_fence",
                "CREATE TRIGGER handover_fence EXECUTE FUNCTION public.f()",
                false,
            ),
            ("TRIGGER", "t other", fence, false),
        ] {
            assert_eq!(is_ours(&entry(kind, tag, make), &ours), expected, "{kind} {tag}");
        }
    }
}
