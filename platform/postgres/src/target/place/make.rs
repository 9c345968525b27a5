//! The unfinished database is made.

use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::rows::Schema;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::Place;
use super::marks::MARK;
use crate::Settings;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::{literal, quote};
use crate::trust::assignment;

impl Place {
    /// Makes the unfinished database: empty, or from what was published.
    pub async fn begin(&self, schema: &Schema) -> Result<Settings> {
        let admin = self.writer().await?;
        self.drop(&admin, &self.old).await?;
        if !self.is_ready(&admin).await? {
            self.drop(&admin, &self.partial).await?;
            self.create(&admin, schema).await?;
            self.comment_as(&admin, schema).await?;
            self.mark(&admin, &self.partial, "migration", &self.migration.to_string()).await?;
            self.set(&admin, schema).await?;
            self.mark(&admin, &self.partial, "ready", "yes").await?;
        }
        Ok(self.settings.with_database(&self.partial))
    }

    async fn create(&self, admin: &Conn, schema: &Schema) -> Result<()> {
        let place = &self.settings.database;
        let published = self.marks(admin, place).await?.unwrap_or_default();
        let ours = published.get("migration") == Some(&self.migration.to_string());
        if ours && published.get("continues").is_none_or(|value| value != "no") {
            let sql = format!("CREATE DATABASE {} TEMPLATE {}", quote(&self.partial), quote(place));
            return self.alone(admin, &[place], &sql, "cannot be copied").await;
        }
        let setting = |name: &str| schema.settings.get(name).map(String::as_str).unwrap_or_default();
        let mut sql = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            quote(&self.partial),
            literal(setting("encoding")),
            literal(setting("collate")),
            literal(setting("ctype"))
        );
        if setting("provider") == "i" {
            sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(setting("icu_locale")));
        }
        admin.batch_execute(&sql).await.map_err(|error| self.not_made(&error, setting("collate")))
    }

    fn not_made(&self, error: &Error, locale: &str) -> Failure {
        let failure = failed(self.item(), "the unfinished database cannot be made", error);
        let is = |codes: &[SqlState]| error.code().is_some_and(|code| codes.contains(code));
        if is(&[SqlState::WRONG_OBJECT_TYPE, SqlState::INVALID_PARAMETER_VALUE])
            || error.to_string().contains("locale")
        {
            failure.hint(format!(
                "the locale {locale} or encoding is unknown here: install it (dpkg-reconfigure locales), restart the server, then resume"
            ))
        } else if is(&[SqlState::INSUFFICIENT_PRIVILEGE]) {
            failure.hint(format!("ALTER ROLE {} CREATEDB", quote(&self.settings.user)))
        } else {
            failure
        }
    }

    /// Gives it the comment of the source's database.
    async fn comment_as(&self, admin: &Conn, schema: &Schema) -> Result<()> {
        let Some(comment) = schema.state.get("database/comment") else { return Ok(()) };
        let own = comment.split(MARK).next().unwrap_or_default();
        let sql = format!("COMMENT ON DATABASE {} IS {}", quote(&self.partial), literal(own));
        admin.batch_execute(&sql).await.map_err(self.failed("a database cannot be marked"))
    }

    /// Settings of the database itself, as at the source.
    async fn set(&self, admin: &Conn, schema: &Schema) -> Result<()> {
        for (name, value) in &schema.settings {
            let Some(name) = name.strip_prefix("set/") else { continue };
            let Some(setting) = assignment(name, value) else {
                let what = format!("the source's database sets {name}, which is not carried over");
                return Err(Failure::operator(self.item(), what)
                    .hint(format!("ALTER DATABASE … RESET {name} at the source, then resume")));
            };
            let sql = format!("ALTER DATABASE {} SET {setting}", quote(&self.partial));
            let done = admin.batch_execute(&sql).await;
            done.map_err(self.failed("a setting of the database cannot be made"))?;
        }
        Ok(())
    }
}
