//! Accounts that move with a database.

mod support;

use handover_engine::failure::{Class, Failure};
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::KeyRange;
use handover_mariadb::{MariaDatabase, MariaTarget, Settings};
use support::Server;

const TABLES: &str = "CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 2); CREATE TABLE u (id INT PRIMARY KEY);
  CREATE PROCEDURE p() SELECT 1;";

/// A database with two accounts of it, and what they may do.
fn appliance(server: &Server, name: &str) -> String {
    let db = server.database(name, TABLES);
    server.sql(
        &db,
        &format!(
            "CREATE USER {name}_app@localhost IDENTIFIED BY 'old pass' WITH MAX_USER_CONNECTIONS 7;
             GRANT SELECT, INSERT ON `{db}`.* TO {name}_app@localhost; GRANT UPDATE (v) ON t TO {name}_app@localhost;
             GRANT EXECUTE ON PROCEDURE p TO {name}_app@localhost WITH GRANT OPTION; GRANT PROCESS ON *.* TO {name}_app@localhost;
             GRANT SELECT ON mysql.help_topic TO {name}_app@localhost;
             CREATE USER `{name} ö`@'10.%' IDENTIFIED BY 'x'; GRANT ALL ON `{db}`.* TO `{name} ö`@'10.%';"
        ),
    );
    db
}

fn settings(server: &Server, db: &str, accounts: &str) -> Settings {
    let url = server.url(db);
    let separator = if url.contains('?') { '&' } else { '?' };
    Settings::parse(&format!("{url}{separator}accounts={accounts}")).unwrap()
}

fn source(server: &Server, db: &str, accounts: &str) -> MariaDatabase {
    MariaDatabase::new("wiki".parse().unwrap(), settings(server, db, accounts), Vec::new())
}

fn target(server: &Server, db: &str, accounts: &str) -> MariaTarget {
    let migration: MigrationId = "accounts".parse().unwrap();
    MariaTarget::new("wiki".parse().unwrap(), settings(server, db, accounts), &migration)
}

/// One pass, to its end.
async fn pass(source: &MariaDatabase, target: &MariaTarget) -> Result<(), Failure> {
    let view = source.snapshot().await?;
    target.prepare(view.schema()).await?;
    for table in &view.schema().tables {
        let chunk = view.read(&table.name, &KeyRange::default(), u64::MAX).await?;
        target.apply(&[chunk]).await?;
    }
    target.finish(view.schema()).await?;
    assert_eq!(target.reread_schema().await?.structure(), view.schema().structure(), "before publishing");
    target.publish().await?;
    assert_eq!(target.reread_schema().await?.structure(), view.schema().structure(), "after publishing");
    Ok(())
}

fn grants(server: &Server, account: &str) -> String {
    server.sql("", &format!("SHOW CREATE USER {account}; SHOW GRANTS FOR {account}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_arrive_with_their_grants_and_go_with_an_undo() {
    let [from, to] = [(), ()].map(|()| Server::start(&["--local-infile=1"]));
    let db = appliance(&from, "shop");
    let both = "shop_app@localhost,shop%20%C3%B6@10.%25";
    let source = source(&from, &db, both);
    let notes = source.facts().await.unwrap().notes.join("\n");
    assert!(notes.contains("shop_app@localhost") && notes.contains("help_topic"), "{notes}");
    let landed = to.database("my_shop", "");
    let target = target(&to, &landed, both);
    pass(&source, &target).await.unwrap();
    for account in ["shop_app@localhost", "`shop ö`@'10.%'"] {
        let escaped = landed.replace('_', "\\\\_");
        let here = grants(&to, account).replace(&escaped, &landed).replace(&landed, &db);
        let there = grants(&from, account);
        let there: Vec<&str> = there.lines().filter(|line| !line.contains("help_topic")).collect();
        assert_eq!(here.lines().collect::<Vec<_>>(), there);
    }
    // A password that was changed comes with the next pass.
    from.sql("", "SET PASSWORD FOR shop_app@localhost = PASSWORD('new pass')");
    pass(&source, &target).await.unwrap();
    let shown = |server: &Server| server.sql("", "SHOW CREATE USER shop_app@localhost");
    assert_eq!(shown(&to), shown(&from));
    target.undo().await.unwrap();
    assert_eq!(to.sql("", "SELECT COUNT(*) FROM mysql.global_priv WHERE user LIKE 'shop%'").trim(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_there_is_left_alone() {
    let [from, to] = [(), ()].map(|()| Server::start(&["--local-infile=1"]));
    let db = appliance(&from, "shop");
    to.sql("", "CREATE USER shop_app@localhost IDENTIFIED BY 'of the target'");
    let before = grants(&to, "shop_app@localhost");
    let landed = to.database("shop_to", "");
    let target = target(&to, &landed, "shop_app@localhost");
    pass(&source(&from, &db, "shop_app@localhost"), &target).await.unwrap();
    assert_eq!(grants(&to, "shop_app@localhost"), before);
    target.undo().await.unwrap();
    assert_eq!(grants(&to, "shop_app@localhost"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_made_is_named() {
    let [from, to] = [(), ()].map(|()| Server::start(&["--local-infile=1"]));
    let db = appliance(&from, "shop");
    let missing = source(&from, &db, "nobody@localhost").facts().await.unwrap_err();
    assert!(
        missing.class == Class::NeedsOperator && missing.to_string().contains("nobody@localhost"),
        "{missing}"
    );
    from.sql(
        "",
        &format!("CREATE USER reader@localhost IDENTIFIED BY ''; GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES ON `{db}`.* TO reader@localhost"),
    );
    let url = from.url(&db).replace("root@", "reader@");
    let separator = if url.contains('?') { '&' } else { '?' };
    let poor = Settings::parse(&format!("{url}{separator}accounts=shop_app@localhost")).unwrap();
    let refused = MariaDatabase::new("wiki".parse().unwrap(), poor, Vec::new()).facts().await.unwrap_err();
    assert!(
        refused.hint.contains("mysql.*") && refused.to_string().contains("shop_app@localhost"),
        "{refused:?}"
    );

    let landed = to.database("shop_to", "");
    to.sql(
        "",
        &format!(
            "CREATE USER loader@localhost; GRANT ALL ON `{landed}`.* TO loader@localhost; GRANT SELECT ON mysql.* TO loader@localhost;
             GRANT ALL ON `{landed}\\_\\_handover\\_%`.* TO loader@localhost"
        ),
    );
    let url = to.url(&landed).replace("root@", "loader@") + "&accounts=shop_app@localhost";
    let migration: MigrationId = "accounts".parse().unwrap();
    let target = MariaTarget::new("wiki".parse().unwrap(), Settings::parse(&url).unwrap(), &migration);
    let source = source(&from, &db, "shop_app@localhost");
    let refused = pass(&source, &target).await.unwrap_err();
    assert!(
        refused.hint.contains("CREATE USER") && refused.to_string().contains("shop_app@localhost"),
        "{refused:?}"
    );
    // With the privilege it goes on where it stopped.
    to.sql("", &format!("GRANT CREATE USER, PROCESS ON *.* TO loader@localhost WITH GRANT OPTION; GRANT ALL ON `{landed}`.* TO loader@localhost WITH GRANT OPTION"));
    target.publish().await.unwrap();
    assert!(grants(&to, "shop_app@localhost").contains("PROCEDURE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_target_does_not_name_is_refused() {
    let [from, to] = [(), ()].map(|()| Server::start(&["--local-infile=1"]));
    let db = appliance(&from, "shop");
    let both = source(&from, &db, "shop_app@localhost,shop%20%C3%B6@10.%25");
    let landed = to.fresh("shop_to");
    let target = target(&to, &landed, "shop_app@localhost");
    let schema = both.snapshot().await.unwrap().schema().clone();
    for refused in [target.prepare(&schema).await.unwrap_err(), pass(&both, &target).await.unwrap_err()] {
        assert!(refused.class == Class::NeedsOperator && refused.what.contains("shop ö@10.%"), "{refused:?}");
        assert!(refused.hint.contains("accounts=shop%20ö@10.%25") && refused.hint.contains("appliance.toml"));
    }
    let left = format!("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE '{landed}%'");
    assert_eq!(to.sql("", &left).trim(), "0", "something was made nevertheless");
    // One that comes with the last schema only, or was taken from the URL since, is not made either.
    let one = source(&from, &db, "shop_app@localhost").snapshot().await.unwrap();
    target.prepare(one.schema()).await.unwrap();
    assert!(target.finish(&schema).await.is_err());
    target.finish(one.schema()).await.unwrap();
    let none = MariaTarget::new("wiki".parse().unwrap(), to.settings(&landed), &"accounts".parse().unwrap());
    assert!(none.publish().await.unwrap_err().what.contains("shop_app@localhost"));
    target.publish().await.unwrap();
    assert_eq!(to.sql("", "SELECT user FROM mysql.global_priv WHERE user LIKE 'shop%'"), "shop_app\n");
}
