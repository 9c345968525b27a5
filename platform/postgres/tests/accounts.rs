//! Roles that move with a database.

mod support;

use handover_engine::failure::{Class, Failure};
use handover_engine::ports::{Database, DatabaseTarget};
use handover_postgres::{PostgresDatabase, PostgresTarget, Settings};
use support::{Server, all_chunks, migration};

const ROLES: &str = "CREATE ROLE staff; COMMENT ON ROLE staff IS 'people';
  CREATE ROLE other; CREATE ROLE \"app ö\" LOGIN NOINHERIT CONNECTION LIMIT 7 PASSWORD 'old pass' VALID UNTIL '2030-01-02 03:04:05+00';
  GRANT staff TO \"app ö\" WITH ADMIN OPTION; GRANT other, pg_monitor TO \"app ö\";
  ALTER ROLE \"app ö\" SET search_path = app, \"odd, name\"; ALTER ROLE \"app ö\" SET statement_timeout = '7s'";
const TABLES: &str = "CREATE SCHEMA app AUTHORIZATION \"app ö\"; CREATE TABLE app.t (id int PRIMARY KEY); ALTER TABLE app.t OWNER TO \"app ö\";
  INSERT INTO app.t VALUES (1); GRANT SELECT ON app.t TO staff";

/// What the two servers tell of the roles.
fn told(server: &Server) -> String {
    server.sql(
        "postgres",
        "SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolconnlimit, rolpassword, nullif(rolvaliduntil, 'infinity'),
           split_part(shobj_description(oid, 'pg_authid'), E'\\n', 1),
           (SELECT setconfig FROM pg_db_role_setting WHERE setrole = a.oid AND setdatabase = 0),
           (SELECT array_agg((roleid::regrole, admin_option) ORDER BY roleid::regrole::text) FROM pg_auth_members
            WHERE member = a.oid AND roleid::regrole::text <> 'other')
         FROM pg_authid a WHERE rolname IN ('staff', 'app ö') ORDER BY 1",
    )
}

fn source(server: &Server, role: &str, database: &str, accounts: &str) -> PostgresDatabase {
    let url = format!("{}&accounts={accounts}", server.url(role, database));
    PostgresDatabase::new("shop".parse().unwrap(), &Settings::parse(&url).unwrap(), Vec::new())
}

fn target(server: &Server, role: &str, database: &str) -> PostgresTarget {
    target_naming(server, role, database, "staff,app%20%C3%B6")
}

fn target_naming(server: &Server, role: &str, database: &str, accounts: &str) -> PostgresTarget {
    let url = format!("{}&accounts={accounts}", server.url(role, database));
    let settings = Settings::parse(&url).unwrap();
    PostgresTarget::new("shop".parse().unwrap(), &settings, &migration())
}

async fn pass(source: &PostgresDatabase, target: &PostgresTarget) -> Result<(), Failure> {
    let view = source.snapshot().await?;
    target.prepare(view.schema()).await?;
    target.apply(&all_chunks(&*view, 1 << 20).await).await?;
    target.finish(view.schema()).await?;
    assert_eq!(target.reread_schema().await?.structure(), view.schema().structure());
    target.publish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_arrive_with_what_they_are_and_go_with_an_undo() {
    let [from, to] = [Server::start(""), Server::start("")];
    let db = from.create("shop", "");
    from.sql(&db, &format!("{ROLES}; {TABLES}"));
    let source = source(&from, "postgres", &db, "staff,app%20%C3%B6");
    let notes = source.facts().await.unwrap().notes.join("\n");
    assert!(notes.contains("the roles staff, app ö move") && notes.contains("member of other"), "{notes}");
    let target = target(&to, "postgres", "landed");
    pass(&source, &target).await.unwrap();
    assert_eq!(told(&to), told(&from));
    let owner = "SELECT tableowner FROM pg_tables WHERE schemaname = 'app'";
    assert_eq!(to.sql("landed", owner), "app ö");
    // What was changed at the source comes with the next pass.
    from.sql(
        "postgres",
        "ALTER ROLE \"app ö\" PASSWORD 'new' CONNECTION LIMIT 8 VALID UNTIL 'infinity'; ALTER ROLE \"app ö\" RESET statement_timeout;
         REVOKE pg_monitor FROM \"app ö\"",
    );
    pass(&source, &target).await.unwrap();
    assert_eq!(told(&to), told(&from));
    target.undo().await.unwrap();
    assert_eq!(told(&to), "");
    // Kept by a finalize, with the comment of its own.
    pass(&source, &target).await.unwrap();
    target.forget().await.unwrap();
    assert_eq!(told(&to), told(&from));
    let comments = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname IN ('staff', 'app ö') ORDER BY rolname";
    assert_eq!(to.sql("postgres", comments), from.sql("postgres", comments));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_there_is_left_alone() {
    let [from, to] = [Server::start(""), Server::start("")];
    let db = from.create("shop", "");
    from.sql(&db, &format!("{ROLES}; {TABLES}"));
    to.sql("postgres", "CREATE ROLE \"app ö\" LOGIN PASSWORD 'of the target'");
    let before = told(&to);
    let target = target(&to, "postgres", "landed");
    pass(&source(&from, "postgres", &db, "app%20%C3%B6"), &target).await.unwrap();
    assert_eq!(told(&to), before);
    target.undo().await.unwrap();
    assert_eq!(told(&to), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_read_or_made_is_named() {
    let [from, to] = [Server::start(""), Server::start("")];
    let db = from.create("shop", "");
    from.sql(&db, &format!("{ROLES}; {TABLES}; CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA app TO reader; GRANT SELECT ON app.t TO reader"));
    let named = |failure: &Failure, words: &[&str]| {
        let text = format!("{failure} {}", failure.hint);
        assert_eq!(failure.class, Class::NeedsOperator, "{text}");
        words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in: {text}"));
    };
    let missing = source(&from, "postgres", &db, "nobody").facts().await.unwrap_err();
    named(&missing, &["nobody", "`accounts`"]);
    named(&source(&from, "reader", &db, "staff").facts().await.unwrap_err(), &["staff", "pg_read_all_data"]);
    // A source makes no roles at a target that does not want them.
    let unwilling = target_naming(&to, "postgres", "landed", "staff");
    let view = source(&from, "postgres", &db, "staff,app%20%C3%B6").snapshot().await.unwrap();
    named(
        &unwilling.prepare(view.schema()).await.unwrap_err(),
        &["app ö", "`accounts` in the target's `url`"],
    );
    assert_eq!(told(&to), "");
    unwilling.undo().await.unwrap();
    to.sql("postgres", "CREATE ROLE loader LOGIN CREATEDB");
    let source = source(&from, "postgres", &db, "staff,app%20%C3%B6");
    let target = target(&to, "loader", "landed");
    named(&pass(&source, &target).await.unwrap_err(), &["the role", "CREATEROLE"]);
    // With the privilege it goes on, and without a sight of password verifiers.
    to.sql("postgres", "ALTER ROLE loader CREATEROLE; GRANT pg_signal_backend TO loader; GRANT pg_monitor TO loader WITH ADMIN OPTION");
    let view = source.snapshot().await.unwrap();
    target.prepare(view.schema()).await.unwrap();
    assert_eq!(told(&to), told(&from));
    target.undo().await.unwrap();
    assert_eq!(told(&to), "");
}
