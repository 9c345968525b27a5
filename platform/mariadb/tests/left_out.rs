//! What stays at the source, and what that means for the rest.

mod support;

use handover_engine::failure::Class;
use handover_engine::name::MigrationId;
use handover_engine::ports::{Database, DatabaseTarget};
use handover_engine::rows::KeyRange;
use handover_mariadb::{MariaDatabase, MariaTarget};
use support::Server;

#[tokio::test]
async fn excluded_tables_stay_away_and_wrong_names_are_told() {
    let server = Server::shared();
    let from = server
        .database("excluded", "CREATE TABLE a (id INT PRIMARY KEY); CREATE TABLE b (id INT PRIMARY KEY)");
    let source = |exclude: &str| {
        MariaDatabase::new("db".parse().unwrap(), server.settings(&from), vec![exclude.to_owned()])
    };
    let facts = source("b").facts().await.unwrap();
    assert_eq!(facts.tables.len(), 1);
    let failure = source("c").facts().await.unwrap_err();
    assert!(failure.to_string().contains("the table c"), "{failure}");
}

#[tokio::test]
async fn what_needs_an_excluded_table_is_left_out_and_told() {
    let server = Server::shared();
    let from = server.database(
        "needs",
        "CREATE TABLE a (id INT PRIMARY KEY, b INT); CREATE TABLE b (id INT PRIMARY KEY);
         INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1);
         ALTER TABLE a ADD CONSTRAINT to_b FOREIGN KEY (b) REFERENCES b (id);
         CREATE VIEW of_both AS SELECT a.id, b.id AS b FROM a LEFT JOIN b ON b.id = a.b; CREATE VIEW above AS SELECT id FROM of_both;
         CREATE VIEW plain AS SELECT id, b FROM a; CREATE TRIGGER t BEFORE INSERT ON b FOR EACH ROW SET NEW.id = 3;",
    );
    let to = server.fresh("needs_to");
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&from), vec!["b".to_owned()]);
    let notes = source.facts().await.unwrap().notes.join("\n");
    for part in [
        "view of_both is left out: it reads the excluded table b",
        "view above is left out: it reads the view of_both",
        "foreign key a.to_b",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
    assert!(!notes.contains("plain"), "{notes}");
    let view = source.snapshot().await.unwrap();
    let target = MariaTarget::new(
        "db".parse().unwrap(),
        server.settings(&to),
        &"needs".parse::<MigrationId>().unwrap(),
    );
    target.prepare(view.schema()).await.unwrap();
    let chunk = view.read(&view.schema().tables[0].name, &KeyRange::default(), u64::MAX).await.unwrap();
    target.apply(&[chunk]).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
    target.publish().await.unwrap();
    assert_eq!(server.sql(&to, "SHOW TABLES"), "a\nplain\n");
    assert_eq!(server.sql(&to, "SELECT * FROM plain"), "1\t1\n");
}

#[tokio::test]
async fn views_that_read_another_database() {
    let server = Server::shared();
    let other = server.database("elsewhere", "CREATE TABLE u (id INT PRIMARY KEY); INSERT INTO u VALUES (1)");
    let from = server.database(
        "across",
        &format!(
            "CREATE TABLE a (id INT PRIMARY KEY); CREATE TABLE b (id INT PRIMARY KEY); INSERT INTO a VALUES (1), (2);
             CREATE VIEW both_of AS SELECT a.id, u.id AS u, '`across`.`a`' AS s FROM a JOIN {other}.u ON u.id = a.id;
             CREATE VIEW lacks AS SELECT u.id FROM b JOIN {other}.u ON u.id = b.id;
             CREATE VIEW above AS SELECT v.id FROM both_of v JOIN {other}.u ON u.id = v.id;"
        ),
    );
    let to = server.fresh("across_to");
    let source = MariaDatabase::new("db".parse().unwrap(), server.settings(&from), vec!["b".to_owned()]);
    let facts = source.facts().await.unwrap();
    let notes = facts.notes.join("\n");
    assert!(notes.contains("view lacks is left out: it reads the excluded table b"), "{notes}");
    let need = format!("database {other}");
    assert!(facts.needs.iter().any(|known| known.thing == need), "{:?}", facts.needs);
    let view = source.snapshot().await.unwrap();
    let target = MariaTarget::new(
        "db".parse().unwrap(),
        server.settings(&to),
        &"across".parse::<MigrationId>().unwrap(),
    );
    assert!(
        handover_mariadb::offers(&"db".parse().unwrap(), &server.settings(&to))
            .await
            .unwrap()
            .contains(&need)
    );
    target.prepare(view.schema()).await.unwrap();
    let chunk = view.read(&view.schema().tables[0].name, &KeyRange::default(), u64::MAX).await.unwrap();
    target.apply(&[chunk]).await.unwrap();
    target.finish(view.schema()).await.unwrap();
    assert_eq!(target.reread_schema().await.unwrap().differences(view.schema()), []);
    target.publish().await.unwrap();
    server.sql(&from, "DROP TABLE a");
    assert_eq!(server.sql(&to, "SELECT id, u FROM both_of"), "1\t1\n");
    assert_eq!(server.sql(&to, "SELECT * FROM above"), "1\n");
}

#[tokio::test]
async fn tables_without_rows_of_their_own_are_refused_unless_excluded() {
    let server = Server::shared();
    let from = server.database(
        "merged",
        "CREATE TABLE one (id INT) ENGINE=MyISAM; INSERT INTO one VALUES (1);
         CREATE TABLE all_of (id INT) ENGINE=MERGE UNION=(one) INSERT_METHOD=LAST;",
    );
    let source = |exclude| MariaDatabase::new("db".parse().unwrap(), server.settings(&from), exclude);
    let failure = source(Vec::new()).facts().await.unwrap_err();
    assert_eq!(failure.class, Class::NeedsOperator);
    let text = failure.to_string();
    assert!(["all_of", "MRG_MyISAM", "exclude"].iter().all(|part| text.contains(part)), "{text}");
    let facts = source(vec!["all_of".to_owned()]).facts().await.unwrap();
    assert_eq!(facts.tables.len(), 1);
}
