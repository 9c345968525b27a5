//! Every kind of object arrives, and equal schemas compare equal.

mod support;

use handover_engine::ports::{Database, DatabaseTarget};
use handover_postgres::PostgresDatabase;
use support::{Server, all_chunks, migrate, source, target};

const OBJECTS: &str = r#"
CREATE EXTENSION citext; CREATE EXTENSION btree_gist;
CREATE SCHEMA app; COMMENT ON SCHEMA app IS 'it''s; here';
CREATE TYPE app.mood AS ENUM ('sad', 'ok;ok'); CREATE TYPE app.pair AS (a integer, b text);
CREATE DOMAIN app.positive AS integer DEFAULT 1 CONSTRAINT above CHECK (VALUE > 0);
CREATE COLLATION app.german (provider = icu, locale = 'de-u-co-phonebk');
CREATE SEQUENCE app.counter AS smallint START 5 INCREMENT 5 MAXVALUE 500 CYCLE CACHE 3;
SELECT nextval('app.counter'), nextval('app.counter');
CREATE SEQUENCE untouched;
CREATE FUNCTION app.twice(a integer) RETURNS integer LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT CASE WHEN a > 0 THEN a * 2 ELSE 0 END; END;
CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.touched := ';'; RETURN NEW; END $f$;
CREATE PROCEDURE app.work() LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; END $$;
CREATE AGGREGATE app.total(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = 0);
CREATE OPERATOR app.#+# (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4pl);
CREATE CAST (app.mood AS integer) WITH FUNCTION app.as_number(app.mood) AS ASSIGNMENT;
CREATE TABLE app.main (id bigint GENERATED ALWAYS AS IDENTITY (START 100) PRIMARY KEY, name text NOT NULL DEFAULT 'x;y', m app.mood, p app.positive,
  twice integer GENERATED ALWAYS AS (app.twice(p)) STORED, touched text, during tstzrange, label citext COLLATE "C",
  CONSTRAINT fine CHECK (name <> ''), UNIQUE (name), EXCLUDE USING gist (during WITH &&));
ALTER TABLE app.main ALTER name SET STATISTICS 500, ALTER touched SET STORAGE EXTERNAL, SET (fillfactor = 80), REPLICA IDENTITY FULL;
COMMENT ON COLUMN app.main.name IS 'named'; COMMENT ON CONSTRAINT fine ON app.main IS 'is fine';
INSERT INTO app.main (name, p) SELECT 'n' || n, n FROM generate_series(1, 200) n;
CREATE TABLE app.child (id integer, main_id bigint REFERENCES app.main ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, note text);
INSERT INTO app.child SELECT n, 100 + n FROM generate_series(1, 50) n;
ALTER TABLE app.child ADD CONSTRAINT later CHECK (id > 10) NOT VALID;
CREATE INDEX ON app.main (lower(name)) WHERE p > 5; CREATE INDEX hashed ON app.main USING hash (name); CREATE INDEX ON app.main USING gin (to_tsvector('english', name));
CREATE INDEX ON app.main USING brin (id); CREATE INDEX wide ON app.main (p DESC NULLS LAST, name text_pattern_ops) INCLUDE (m); CREATE UNIQUE INDEX ON app.child (id, note) NULLS NOT DISTINCT;
ALTER TABLE app.main REPLICA IDENTITY DEFAULT; ALTER TABLE app.main CLUSTER ON main_pkey; COMMENT ON INDEX app.wide IS 'wide';
CREATE STATISTICS app.stats (ndistinct, mcv) ON name, p FROM app.main;
CREATE VIEW app.plain WITH (security_barrier) AS SELECT id, name FROM app.main WHERE p > 3 WITH CHECK OPTION;
CREATE VIEW app.grouped AS SELECT m.*, count(c.id) FROM app.main m LEFT JOIN app.child c ON c.main_id = m.id GROUP BY m.id;
CREATE RECURSIVE VIEW app.walk (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM walk WHERE n < 5;
CREATE MATERIALIZED VIEW app.zbase AS SELECT p, count(*) AS n FROM app.main GROUP BY p; CREATE UNIQUE INDEX ON app.zbase (p);
CREATE MATERIALIZED VIEW app.above AS SELECT sum(n) FROM app.zbase; CREATE MATERIALIZED VIEW app.unfilled AS SELECT 1 WITH NO DATA;
CREATE TRIGGER touches BEFORE INSERT OR UPDATE OF name ON app.main FOR EACH ROW WHEN (NEW.id > 0) EXECUTE FUNCTION app.touch();
CREATE TRIGGER off AFTER DELETE ON app.main FOR EACH STATEMENT EXECUTE FUNCTION app.touch(); ALTER TABLE app.main DISABLE TRIGGER off;
CREATE RULE keep AS ON DELETE TO app.child DO INSTEAD NOTHING; CREATE RULE through AS ON INSERT TO app.grouped DO INSTEAD NOTHING;
ALTER TABLE app.main ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON app.main FOR SELECT USING (name = current_user);
CREATE FUNCTION app.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN IF tg_tag = 'CREATE INDEX' THEN RAISE EXCEPTION 'no'; END IF; END $$;
CREATE EVENT TRIGGER watches ON ddl_command_start EXECUTE FUNCTION app.watch();
CREATE TABLE app.parts (id integer, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE app.parts_1 PARTITION OF app.parts FOR VALUES FROM (MINVALUE) TO ('2020-01-01') PARTITION BY HASH (id);
CREATE TABLE app.parts_1a PARTITION OF app.parts_1 FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE app.parts_1b PARTITION OF app.parts_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE app.parts_2 (v text, extra integer, at date NOT NULL, id integer NOT NULL); ALTER TABLE app.parts_2 DROP COLUMN extra; ALTER TABLE app.parts ATTACH PARTITION app.parts_2 DEFAULT;
INSERT INTO app.parts SELECT n, '2019-06-01'::date + n * 30, 'v' FROM generate_series(1, 40) n;
CREATE TABLE app.refers (id integer, at date, FOREIGN KEY (id, at) REFERENCES app.parts); INSERT INTO app.refers SELECT id, at FROM app.parts;
CREATE TABLE app.inherits (more text) INHERITS (app.child); INSERT INTO app.inherits (id) VALUES (99);
CREATE TEXT SEARCH CONFIGURATION app.words (COPY = english); CREATE PUBLICATION pub FOR TABLE app.main (id, name) WHERE (id > 5);
CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere OPTIONS (host 'h'); CREATE FOREIGN TABLE app.remote (a integer) SERVER far;
CREATE TABLE "we;ird ""q" ("co;l -- x" integer PRIMARY KEY, "select" text DEFAULT $$a;'b$$); COMMENT ON TABLE "we;ird ""q" IS $$; DROP TABLE app.main; --$$;
"#;

fn objects() -> String {
    OBJECTS.replace(
        "CREATE CAST",
        "CREATE FUNCTION app.as_number(app.mood) RETURNS integer LANGUAGE sql AS 'SELECT 1'; CREATE CAST",
    )
}

#[tokio::test]
async fn every_kind_of_object() {
    let server = Server::shared();
    let source = server.create("objects", "");
    server.sql(&source, &objects());
    server.sql("postgres", &format!("ALTER DATABASE {source} SET search_path = \"$user\", app, public"));
    server.sql("postgres", &format!("ALTER DATABASE {source} SET work_mem = '7MB'"));
    let copy = server.name("copy");
    let (view, made) = migrate(&server, &source, &copy).await;
    let again = made.reread_schema().await.unwrap();
    assert_eq!(again.settings, view.schema().settings);
    for (here, there) in
        [(&again.before_load, &view.schema().before_load), (&again.after_load, &view.schema().after_load)]
    {
        for (a, b) in here.iter().zip(there) {
            assert_eq!(a, b);
        }
    }
    assert_eq!(again.structure(), view.schema().structure());
    let text = |database: &str| String::from_utf8(server.dump(database, &[])).unwrap();
    let (there, here) = (text(&source), text(&copy));
    let differing: Vec<_> = there.lines().zip(here.lines()).filter(|(a, b)| a != b).take(3).collect();
    assert!(there == here, "{differing:?}");
    assert_eq!(
        server.sql(&copy, "SELECT nextval('app.counter')"),
        server.sql(&source, "SELECT nextval('app.counter')")
    );
    assert_eq!(server.sql(&copy, "SELECT nextval('app.main_id_seq')"), "300");
    assert_eq!(server.sql(&copy, "SELECT nextval('untouched')"), "1");
}

#[tokio::test]
async fn another_pass_over_every_kind_of_object() {
    let server = Server::shared();
    let from = server.create("objects", "");
    server.sql(&from, &objects());
    let copy = server.name("copy");
    migrate(&server, &from, &copy).await;
    // Unique values change places, and what references what is turned round.
    server.sql(&from, "UPDATE app.main SET name = name || '-' ; UPDATE app.main SET name = 'n' || (301 - id); DELETE FROM app.refers; INSERT INTO app.child VALUES (77, 199)");
    let view = source(&server, &from).snapshot().await.unwrap();
    let again = target(&server, &copy);
    again.prepare(view.schema()).await.unwrap();
    for chunk in all_chunks(&*view, 900).await {
        again.apply(&[chunk]).await.unwrap();
    }
    again.finish(view.schema()).await.unwrap();
    again.finish(view.schema()).await.unwrap();
    again.publish().await.unwrap();
    assert_eq!(again.reread_schema().await.unwrap().structure(), view.schema().structure());
    assert!(server.sorted_dump(&from) == server.sorted_dump(&copy));
}

#[tokio::test]
async fn excluded_tables_stay_behind() {
    let server = Server::shared();
    let from = server.create("excluded", "");
    server.sql(&from, "CREATE TABLE keep (id integer PRIMARY KEY); CREATE SCHEMA \"a.b\"; CREATE TABLE \"a.b\".\"log*\" (id integer PRIMARY KEY);
        CREATE TABLE refers (id integer REFERENCES \"a.b\".\"log*\"); INSERT INTO \"a.b\".\"log*\" VALUES (1); INSERT INTO refers VALUES (1)");
    let database = |exclude: &str| {
        PostgresDatabase::new("shop".parse().unwrap(), &server.settings(&from), vec![exclude.to_owned()])
    };
    let view = database("a.b.log*").snapshot().await.unwrap();
    let names: Vec<String> = view.schema().tables.iter().map(|t| t.name.to_string()).collect();
    assert_eq!(names, ["public.keep", "public.refers"]);
    let made = target(&server, &server.name("copy"));
    made.prepare(view.schema()).await.unwrap();
    made.finish(view.schema()).await.unwrap();
    assert_eq!(made.reread_schema().await.unwrap().structure(), view.schema().structure());
    let failure = database("absent").snapshot().await.err().unwrap();
    assert!(failure.to_string().contains("`exclude` names the table absent"), "{failure}");
}

#[tokio::test]
async fn owners_and_grants_where_the_roles_exist() {
    let server = Server::shared();
    server.sql("postgres", "CREATE ROLE keeper; CREATE ROLE reader");
    let from = server.create("owned", "");
    server.sql(&from, "CREATE TABLE t (id integer PRIMARY KEY); ALTER TABLE t OWNER TO keeper; GRANT SELECT ON t TO reader; CREATE SCHEMA s AUTHORIZATION keeper;
        CREATE FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION f() FROM PUBLIC; ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO reader");
    let copy = server.name("copy");
    migrate(&server, &from, &copy).await;
    assert_eq!(server.dump(&from, &[]), server.dump(&copy, &[]));
}

#[tokio::test]
async fn a_database_without_public_and_with_icu() {
    let server = Server::shared();
    let from = server.create("icu", "LOCALE_PROVIDER icu ICU_LOCALE 'de' LOCALE 'C'");
    server.sql(&from, "DROP SCHEMA public; CREATE SCHEMA s; CREATE TABLE s.t (k text PRIMARY KEY); INSERT INTO s.t VALUES ('ä'), ('b'), ('Z'), ('a')");
    let copy = server.name("copy");
    let (view, made) = migrate(&server, &from, &copy).await;
    assert_eq!(made.reread_schema().await.unwrap().settings, view.schema().settings);
    assert!(server.sorted_dump(&from) == server.sorted_dump(&copy));
}

#[tokio::test]
async fn partitions_by_the_hash_of_an_enum_are_refused_by_name() {
    let server = Server::shared();
    let from = server.create("hashed", "");
    server.sql(
        &from,
        "CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE DOMAIN moods AS mood;
         CREATE TABLE felt (m moods, v integer) PARTITION BY HASH (v, m);
         CREATE TABLE felt_0 PARTITION OF felt FOR VALUES WITH (MODULUS 1, REMAINDER 0);
         CREATE TABLE fine (m mood, v integer) PARTITION BY LIST (m); CREATE TABLE fine_0 PARTITION OF fine DEFAULT",
    );
    let source = |exclude| PostgresDatabase::new("shop".parse().unwrap(), &server.settings(&from), exclude);
    let text = source(Vec::new()).facts().await.unwrap_err().to_string();
    assert!(text.contains("public.felt") && text.contains("hash of an enum"), "{text}");
    source(vec!["felt_0".to_owned()]).facts().await.unwrap();
}
