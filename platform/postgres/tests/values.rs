//! Every type with its extremes arrives byte for byte, as the engine's own tools tell it, and as keys that are followed.

mod support;

use support::followed::Followed;
use support::{Server, migrate};

/// The two databases' rows and schema, by pg_dump.
async fn same(server: &Server, source: &str) -> String {
    let target = server.name("copy");
    migrate(server, source, &target).await;
    let (there, here) = (server.sorted_dump(source), server.sorted_dump(&target));
    if there != here {
        let differing = there.iter().zip(&here).find(|(a, b)| a != b);
        let shown = differing.map(|(a, b)| (a.escape_ascii().to_string(), b.escape_ascii().to_string()));
        panic!("the dumps differ: {shown:?}, {} and {} lines", there.len(), here.len());
    }
    target
}

const TYPES: &str = r#"
CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'happy');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TYPE pair AS (a integer, b text);
CREATE TYPE floats AS RANGE (subtype = float8);
CREATE TABLE numbers (id integer PRIMARY KEY, s smallint, i integer, b bigint, n numeric, f real, d double precision, m money, p positive);
INSERT INTO numbers VALUES
 (-2147483648, -32768, -2147483648, -9223372036854775808, 'NaN', 'NaN', 'NaN', '-92233720368547758.08', 1),
 (0, 0, 0, 0, '-Infinity', '-0', '-0', 0, 2147483647),
 (1, 32767, 2147483647, 9223372036854775807, 'Infinity', 'Infinity', '-Infinity', '92233720368547758.07', NULL),
 (2, 1, 1, 1, repeat('9', 1000)::numeric + ('0.' || repeat('1', 900))::numeric, 1.4e-45, 4.9e-324, '$1,234.56', 7),
 (2147483647, NULL, NULL, NULL, '0.0000', 3.4028235e38, 1.7976931348623157e308, NULL, NULL);
INSERT INTO numbers (id, n, f, d) VALUES (3, '1.10', 0.1, 0.1), (4, '1e130000', 1::real / 3, 1::float8 / 3);
CREATE TABLE texts (id integer PRIMARY KEY, t text, v varchar(10), c char(5), q "char", n name, ci citext, x xml);
INSERT INTO texts VALUES
 (1, '', '', '', '', '', '', ''), (2, E'\t\n\r\b\f\x0b\\\x01\x7f', E'\\N', E'a ', E'\x01', 'n', 'MiXed', '<a b="c">&amp;</a>'),
 (3, repeat('ü€😀', 5000), '😀', 'ü', '\377', 'naïve', 'É', 'text <only/>'), (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (5, E'\\.', E'\\.', E'\\.', '.', '\.', '\.', NULL), (6, E'line\nline\r\nline', ' ', '     ', ' ', ' ', ' ', NULL);
CREATE TABLE bytes (id integer PRIMARY KEY, b bytea, bi bit(9), vb bit varying, u uuid, j json, jb jsonb, jp jsonpath);
INSERT INTO bytes VALUES (1, '', B'000000001', B'', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '{"a" : 1, "a":2}', '{"b":[1,null,"\u00e9\\"]}', '$.a[*] ? (@ > 1)'),
 (2, (SELECT string_agg(decode(lpad(to_hex(n), 2, '0'), 'hex'), '') FROM generate_series(0, 255) n), B'101010101', repeat('10', 500)::bit varying, NULL, 'null', 'null', NULL);
CREATE TABLE times (id integer PRIMARY KEY, d date, t time, tz time with time zone, ts timestamp, tstz timestamptz, i interval, t0 timestamptz(0));
INSERT INTO times VALUES
 (1, 'infinity', '24:00', '23:59:59.999999-15:59', 'infinity', '-infinity', '178000000 years', now()),
 (2, '-infinity', '00:00', '00:00+15:59', '-infinity', 'infinity', '-178000000 years -1 mon +1 day -00:00:00.000001', NULL),
 (3, '4714-11-24 BC', '12:34:56.123456', '12:00:00.1-03:30', '4714-11-24 00:00:00 BC', '4714-11-24 00:00:00+00 BC', '1 year -1 mon +2 days -3:04:05.6', NULL),
 (4, '5874897-12-31', NULL, NULL, '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '0', NULL),
 (5, '0001-01-01 BC', NULL, NULL, '1582-10-10', '2020-03-29 02:30:00 Europe/Berlin', '999999:59:59.999999', NULL);
CREATE TABLE nets (id integer PRIMARY KEY, i inet, c cidr, m macaddr, m8 macaddr8, v tsvector, q tsquery, l ltree);
INSERT INTO nets VALUES (1, '::ffff:1.2.3.4/96', '::/0', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', $$'it''s':1A,2B a\b:3 'sp ace'$$, $$'a b' & !c:*AB | (d <-> e)$$, 'a.b.c'),
 (2, '0.0.0.0', '10.0.0.0/8', NULL, NULL, '', '', '');
CREATE TABLE shapes (id integer PRIMARY KEY, p point, l line, s lseg, b box, pa path, po polygon, c circle);
INSERT INTO shapes VALUES (1, '(NaN,-Infinity)', '{0.1,-2,3e300}', '((0.1,0.2),(1e-300,3))', '((1,2),(3,4))', '[(1,2),(3,4)]', '((1,2),(3,4),(0.30000000000000004,6))', '<(1,2),3>'),
 (2, '(1e308,-0)', NULL, NULL, NULL, '((1,2),(3,4))', NULL, NULL);
CREATE TABLE many (id integer PRIMARY KEY, ia integer[], ta text[], na numeric[][], r int4range, tr tstzrange, mr int8multirange, fr floats, pr pair, par pair[], mo mood, moa mood[], h hstore, pd positive[]);
INSERT INTO many VALUES
 (1, '{}', '{NULL,"NULL","",",","{","\"","\\",x,"a b"}', '{{1,NaN},{Infinity,NULL}}', 'empty', '(,infinity]', '{}', '[-Infinity,NaN]', ROW(1, 'a,"b\'), ARRAY[ROW(NULL, ''), NULL]::pair[], 'it''s "ok"', '{happy,NULL}', '"a b"=>"c\"d\\", e=>NULL', '{1}'),
 (2, '[-2:0]={1,NULL,3}', NULL, NULL, '[1,5)', '["2020-01-01 00:00:00+00",)', '{[1,2],[5,7)}', NULL, ROW(NULL, NULL), NULL, 'sad', '{}', '', NULL);
CREATE TABLE ids (id oid PRIMARY KEY, c regclass, t regtype, p regproc, x xid, s pg_lsn, v int2vector, o oidvector, ti tid);
INSERT INTO ids VALUES (4294967295, 'numbers', 'mood', 'now', '4294967295', 'FFFFFFFF/FFFFFFFF', '1 2 -3', '1 2', '(4294967295,65535)');
"#;

#[tokio::test]
async fn all_types_with_extremes() {
    let server = Server::shared();
    let source = server.create("types", "");
    server.sql(&source, TYPES);
    same(&server, &source).await;
}

#[tokio::test]
async fn whatever_the_defaults_of_sessions_are() {
    let server = Server::shared();
    let source = server.create("defaults", "");
    server.sql(&source, TYPES);
    for setting in [
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'iso_8601'",
        "extra_float_digits = -15",
        "TimeZone = 'Asia/Kathmandu'",
        "bytea_output = 'escape'",
        "client_encoding = 'LATIN1'",
        "search_path = public, pg_catalog",
        "statement_timeout = '1ms'",
        "xmloption = document",
        "array_nulls = off",
        "default_transaction_isolation = serializable",
        "standard_conforming_strings = off",
        "lock_timeout = '1ms'",
    ] {
        if !setting.starts_with("statement_timeout") {
            server.sql(&source, &format!("ALTER DATABASE {source} SET {setting}"));
        }
    }
    let target = server.name("copy");
    let (view, made) = migrate(&server, &source, &target).await;
    for table in ["numbers", "bytes", "times", "many", "shapes", "texts"] {
        let sql = format!(
            "SET extra_float_digits = 1; SET bytea_output = hex; SET TimeZone = 'UTC'; SET client_encoding = 'UTF8'; \
             SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM {table} t"
        );
        assert_eq!(server.sql(&source, &sql), server.sql(&target, &sql), "{table}");
    }
    use handover_engine::ports::DatabaseTarget;
    assert_eq!(made.reread_schema().await.unwrap().structure(), view.schema().structure());
}

#[tokio::test]
async fn other_encodings_and_bytes_as_they_are() {
    let server = Server::shared();
    for (encoding, values) in [
        ("LATIN1", r"E'\xe9', E'\xff\xa0'"),
        ("EUC_JP", r"E'\xa4\xa2', E'\xc6\xfc\xcb\xdc'"),
        ("SQL_ASCII", r"E'\xff\xfe\x80', E'caf\xe9'"),
        ("WIN1251", r"E'\xcf\xf0', E'\xb9'"),
    ] {
        let options = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'");
        let source = server.create("encoded", &options);
        let sql = format!(
            "SET client_encoding = '{encoding}'; CREATE TABLE t (k text PRIMARY KEY, v text); \
             INSERT INTO t VALUES ({values}); CREATE TABLE many (k text PRIMARY KEY); \
             INSERT INTO many SELECT k || n FROM t, generate_series(1, 50000) n"
        );
        server.sql(&source, &sql);
        let target = same(&server, &source).await;
        let hex = "SELECT encode(k::bytea, 'hex') || encode(v::bytea, 'hex') FROM t";
        if encoding == "SQL_ASCII" {
            let hex = hex.replace("k::bytea", "textsend(k)").replace("v::bytea", "textsend(v)");
            assert_eq!(server.sql(&source, &hex), server.sql(&target, &hex));
        }
    }
}

#[tokio::test]
async fn large_objects_and_odd_tables() {
    let server = Server::shared();
    let source = server.create("odd", "");
    server.sql(
        &source,
        "SELECT lo_from_bytea(4711, decode(repeat('00ff', 5000), 'hex')); SELECT lo_create(4712); \
         SELECT lo_create(n) FROM generate_series(10001, 13000) n; CREATE ROLE \"lo's\"; CREATE ROLE lo_reader; \
         ALTER LARGE OBJECT 4712 OWNER TO \"lo's\"; ALTER LARGE OBJECT 10002 OWNER TO \"lo's\"; \
         GRANT SELECT ON LARGE OBJECT 4712 TO lo_reader WITH GRANT OPTION; GRANT UPDATE ON LARGE OBJECT 10002 TO PUBLIC; \
         CREATE TABLE empty_of_columns (); INSERT INTO empty_of_columns DEFAULT VALUES; INSERT INTO empty_of_columns DEFAULT VALUES; \
         CREATE TABLE always (id integer GENERATED ALWAYS AS IDENTITY, v text); INSERT INTO always (v) SELECT 'x' FROM generate_series(1, 9); \
         CREATE TABLE dropped (a integer, b integer, c text); ALTER TABLE dropped DROP COLUMN b; INSERT INTO dropped VALUES (1, 'c'); \
         CREATE UNLOGGED TABLE unlogged (a integer PRIMARY KEY); INSERT INTO unlogged VALUES (1); \
         CREATE TABLE generated (a integer, b integer GENERATED ALWAYS AS (a + 1) STORED PRIMARY KEY); INSERT INTO generated VALUES (1), (2)",
    );
    let target = same(&server, &source).await;
    let sizes = "SELECT oid, length(lo_get(oid)), md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY 1";
    assert_eq!(server.sql(&source, sizes), server.sql(&target, sizes));
    assert!(server.sql(&target, sizes).contains("4712|0"));
    let owners = "SELECT oid, lomowner, lomacl FROM pg_largeobject_metadata ORDER BY 1";
    assert_eq!(server.sql(&source, owners), server.sql(&target, owners));
}

#[tokio::test]
async fn keys_of_every_order() {
    let server = Server::shared();
    let source = server.create("keys", "");
    let kinds = [
        ("text", "md5(n::text) || chr(n % 200 + 33)"),
        ("timestamptz", "'2020-01-01'::timestamptz + n * interval '1 s'"),
        ("numeric", "n / 3.0"),
        ("uuid", "md5(n::text)::uuid"),
        ("bytea", "decode(md5(n::text), 'hex')"),
        ("char(40)", "md5(n::text)"),
        ("float8", "sqrt(n)"),
        ("inet", "'10.0.0.0'::inet + n"),
        ("interval", "n * interval '1 s'"),
        ("integer[]", "ARRAY[n % 7, n]"),
        ("jsonb", "to_jsonb(n)"),
        ("varchar(40) COLLATE \"C.utf8\"", "md5(n::text)"),
    ];
    for (at, (kind, value)) in kinds.iter().enumerate() {
        server.sql(&source, &format!(
            "CREATE TABLE k{at} (v integer, k {kind} PRIMARY KEY); INSERT INTO k{at} SELECT n, {value} FROM generate_series(1, 2000) n"
        ));
    }
    use handover_engine::ports::{Database, DatabaseTarget};
    let view = support::source(&server, &source).snapshot().await.unwrap();
    let target = support::target(&server, &server.name("copy"));
    target.prepare(view.schema()).await.unwrap();
    let mut chunks = support::all_chunks(&*view, 5_000).await;
    chunks.reverse();
    for _ in 0..2 {
        for batch in chunks.chunks(9) {
            target.apply(batch).await.unwrap();
        }
    }
    target.finish(view.schema()).await.unwrap();
    for chunk in &chunks {
        let again = target.reread(&chunk.header.table, &chunk.header.range).await.unwrap();
        assert!(again.header == chunk.header, "{:?}", chunk.header);
    }
}

#[tokio::test]
async fn text_keys_in_the_order_of_collations_and_of_bytes() {
    use handover_engine::ports::{Database, DatabaseTarget};
    let server = Server::shared();
    let source = server.create("collated", "");
    server.sql(
        &source,
        "CREATE TABLE t (k text COLLATE \"de-x-icu\" PRIMARY KEY, v integer); \
         INSERT INTO t SELECT (ARRAY['a', 'B', 'ä', 'Z', 'é', '-'])[n % 6 + 1] || n / 6, n FROM generate_series(1, 3000) n",
    );
    let mut digests = Vec::new();
    for order in ["collation", "bytes"] {
        let url = format!("{}&key_order={order}", server.url("postgres", &source));
        let settings = handover_postgres::Settings::parse(&url).unwrap();
        let database =
            handover_postgres::PostgresDatabase::new("shop".parse().unwrap(), &settings, Vec::new());
        let view = database.snapshot().await.unwrap();
        let chunks = support::all_chunks(&*view, 2_000).await;
        let target = support::target(&server, &server.name("copy"));
        target.prepare(view.schema()).await.unwrap();
        for chunk in chunks.iter().rev().chain(&chunks) {
            target.apply(std::slice::from_ref(chunk)).await.unwrap();
        }
        target.finish(view.schema()).await.unwrap();
        for chunk in &chunks {
            let again = target.reread(&chunk.header.table, &chunk.header.range).await.unwrap();
            assert!(again.header == chunk.header, "{order}: {:?}", chunk.header);
        }
        assert_eq!(target.reread_schema().await.unwrap().structure(), view.schema().structure());
        digests.push(
            view.read(&chunks[0].header.table, &Default::default(), u64::MAX).await.unwrap().header.digest,
        );
    }
    assert_ne!(digests[0], digests[1], "both orders are the same");
}

/// Types of keys, values that they have at first, and values that are added, or put in the first ones' places.
const KEYS: [(&str, &str, &str); 22] = [
    ("smallint", "'-32768', '0', '7'", "'32767'"),
    ("bigint", "'-9223372036854775808', '0', '1'", "'9223372036854775807'"),
    ("numeric", "'NaN', '1.50', '-Infinity', '0.000', '1e30'", "'1.5000'"),
    ("numeric(10,2)", "'1.50', '2', '-3.1'", "'99999999.99'"),
    ("double precision", "'NaN', '-Infinity', '0.1', '1e300'", "'1e-300'"),
    (
        "text",
        r#"'', ' ', E'a\tb', E'c\nd\re', E'\\', E'\\N', 'it''s', 'x"y', '{a,b}', 'NULL', E'\x01\x7f', 'ü€😀'"#,
        r"E'z\\\t'",
    ),
    ("text COLLATE \"C\"", "'a', 'B', 'é', 'ß'", "'ssss'"),
    ("varchar(9)", "'a', 'a ', ' a'", "'b  '"),
    ("char(5)", "'a', 'ab', ''", "'abcde'"),
    ("\"char\"", "'a', 'b', E'\\\\'", "'c'"),
    ("name", "'a', 'B c'", "'d'"),
    ("bytea", r"'\x', '\x00', '\x5c095c0a22', 'abc'", r"'\xff'"),
    ("boolean", "'t'", "'f'"),
    (
        "uuid",
        "'00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002'",
        "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
    ),
    (
        "timestamptz",
        "'infinity', '-infinity', '2024-02-29 12:00:00.123456+02', '0044-03-15 BC'",
        "'294276-01-01'",
    ),
    ("date", "'infinity', '0001-01-01 BC', '2024-02-29'", "'5874897-12-31'"),
    ("interval", "'1 day', '36 hours', '-1 mon 3 days'", "'00:00:00.000001'"),
    ("inet", "'10.0.0.1', '10.0.0.0/8', '::1'", "'2001:db8::/32'"),
    ("mood", "'sad', 'so\"so', 'hap\\py'", "'a,b'"),
    ("text[]", r#"'{}', '{a,NULL}', '{"a,b","c\"d"}', '{{a},{b}}'"#, "'{NULL}'"),
    ("int4range", "'empty', '[1,5)', '(,3)'", "'[7,)'"),
    ("jsonb", r#"'{"a": [1,"x\ty"]}', 'null', '[]'"#, r#"'"\\"'"#),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_type_are_followed() {
    let mut schema = "CREATE TYPE mood AS ENUM ('sad', 'so\"so', 'hap\\py', 'a,b');".to_owned();
    let mut change = String::new();
    for (at, (kind, values, more)) in KEYS.iter().enumerate() {
        let rows: Vec<String> = values.split(", ").map(|value| format!("({value}, 1, 'x')")).collect();
        // A comma inside a value does not cut the list, since it is followed by no space.
        schema += &format!(
            "CREATE TABLE t{at} (k {kind}, n integer, v text, PRIMARY KEY (n, k)); INSERT INTO t{at} VALUES {};
             CREATE TABLE s{at} (v text, k {kind} PRIMARY KEY); INSERT INTO s{at} SELECT 'x', k FROM t{at};",
            rows.join(", ")
        );
        change += &format!(
            "UPDATE t{at} SET v = 'y'; UPDATE s{at} SET v = 'y'; UPDATE t{at} SET n = 2;
             INSERT INTO t{at} VALUES ({more}, 3, 'z');
             UPDATE s{at} SET k = {more} WHERE k = (SELECT k FROM s{at} ORDER BY k = {more} DESC, k LIMIT 1); DELETE FROM t{at} WHERE k = {more} OR n = 3;
             DELETE FROM s{at} WHERE k = (SELECT k FROM s{at} ORDER BY k DESC LIMIT 1);"
        );
    }
    let mut followed = Followed::new(&schema).await;
    followed.assert_same("after the copy").await;
    followed.sql(&change);
    followed.follow().await.unwrap();
    followed.assert_same("after the change").await;
    followed.done().await;
}
