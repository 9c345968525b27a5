-- Every column type of PostgreSQL with the values at its edges.
SET client_encoding = 'UTF8';
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE EXTENSION IF NOT EXISTS citext;
CREATE SCHEMA "Odd Schema";
CREATE TYPE mood AS ENUM ('sad', 'it''s, ok', '😀');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE numbers (id int PRIMARY KEY, s smallint, i int, b bigint, n numeric, nn numeric(1000, 500), n2 numeric(5, -2), r real, d double precision, m money, o oid, x xid8, pos positive);
INSERT INTO numbers VALUES
  (1, -32768, -2147483648, -9223372036854775808, 'NaN', 1e-500, 99900, '-Infinity', '-Infinity', '-92233720368547758.08', 0, '0', 1),
  (2, 32767, 2147483647, 9223372036854775807, 'Infinity', 1e499, -12300, 'NaN', 'NaN', '92233720368547758.07', 4294967295, '18446744073709551615', 2147483647),
  (3, NULL, NULL, NULL, '-Infinity', NULL, NULL, 3.4028235e38, 1.7976931348623157e308, NULL, NULL, NULL, NULL),
  (4, 0, 0, 0, 0.00000000000000000001, 0, 0, 1e-45, 4.9e-324, 0, 1, '1', 5), (5, 0, 0, 0, 1e1000, 0, 0, '-0', '-0', 0, 1, '1', 5), (6, 0, 0, 0, 0.10, 0.1, 0, 0.1, 0.1, 0, 1, '1', 5);
CREATE TABLE texts (id int PRIMARY KEY, t text, v varchar(10), c char(10), ch "char", n name, ci citext, x xml, b bytea, bi bit(5), vb bit varying(70), u uuid);
INSERT INTO texts VALUES
  (1, '', '', '', '', '', '', '', '', B'00000', B'', '00000000-0000-0000-0000-000000000000'),
  (2, E'tab\tnl\ncr\rbs\\b\bf\fv\v\\N\\.', E'\\.', ' a ', 'x', 'Name', 'CiText', '<a b="c">&amp;é</a>', '\x00ff5c090a0d', B'10101', B'1111111111111111111111111111111111111111111111111111111111111111111111', 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, repeat('😀', 500000), 'ünï😀', '😀', E'\\200', repeat('n', 63), 'ß', '<x/>', decode(repeat('00ff', 1000000), 'hex'), B'11111', B'1', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11');
CREATE TABLE times (id int PRIMARY KEY, d date, t time, tz timetz, ts timestamp, tstz timestamptz, iv interval);
INSERT INTO times VALUES
  (1, '-infinity', '00:00:00', '00:00:00+1559', '-infinity', '-infinity', '-178000000 years'),
  (2, 'infinity', '24:00:00', '24:00:00-1559', 'infinity', 'infinity', '178000000 years'),
  (3, '4713-01-01 BC', '23:59:59.999999', '12:00:00.000001+05:30', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC', '1 mon -1 day +00:00:00.000001'),
  (4, '5874897-12-31', NULL, NULL, '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '-1 year -2 mons +3 days -04:05:06.789'), (5, NULL, NULL, NULL, '2024-03-31 02:30:00', '2024-03-31 02:30:00+01', '0');
CREATE TABLE nets (id int PRIMARY KEY, i inet, c cidr, m macaddr, m8 macaddr8);
INSERT INTO nets VALUES (1, '::/0', '::/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00'), (2, '255.255.255.255/1', '10.0.0.0/8', 'ff:ff:ff:ff:ff:ff', 'ff:ff:ff:ff:ff:ff:ff:ff'), (3, NULL, NULL, NULL, NULL);
CREATE TABLE shapes (id int PRIMARY KEY, p point, l line, s lseg, b box, pa path, po polygon, c circle);
INSERT INTO shapes VALUES (1, '(1e300,-0.1)', '{1,2,3}', '[(0,0),(1,1)]', '(2,2),(0,0)', '[(0,0),(1,1),(2,0)]', '((0,0),(1,1),(2,0))', '<(0,0),1e-10>'), (2, '(NaN,Infinity)', NULL, NULL, NULL, '((0,0),(1,1))', NULL, NULL);
CREATE TABLE documents (id int PRIMARY KEY, j json, jb jsonb, jp jsonpath, h hstore, v tsvector, q tsquery);
INSERT INTO documents VALUES
  (1, '{"a":1,  "a":2, "b":[1.50,null,"\u00e9"]}', '{"a": 1e400, "b": {"c": "tab\t\\"}}', '$.a[*] ? (@ > 1)', '"a b"=>"c\"d", n=>NULL', 'a:1A fat:2B,4C cat:5', '''fat'' & (''rat'' | !''cat'':AB)'),
  (2, '[]', 'null', '$', '', '', ''), (3, NULL, NULL, NULL, NULL, NULL, NULL), (4, '"x"', to_jsonb(repeat('y', 300000)), NULL, NULL, NULL, NULL);
CREATE TABLE many (id int PRIMARY KEY, ia int[], ta text[], ma mood[], aa int[][], pa pair[], ra int4range, nr numrange, tr tstzrange, dr daterange, mr int4multirange, lo bigint[]);
INSERT INTO many VALUES
  (1, '{}', '{}', '{}', '{}', '{}', 'empty', '(,)', '(,)', '(,)', '{}', NULL),
  (2, '{1,NULL,-3}', ARRAY['', 'NULL', NULL, 'a,b', '"q"', E'b\\s', '{}', E'\t\n'], '{sad,"it''s, ok",😀}', '{{1,2},{3,4}}', ARRAY[ROW(1, 'x,"y)')::pair, NULL, ROW(NULL, NULL)::pair], '[1,5)', '(1.5,Infinity]', '[2024-01-01 00:00+00,infinity)', '[-infinity,2024-01-01)', '{[1,3),[5,9)}', '[0:1]={9223372036854775807,NULL}'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '[-2:-1]={1,2}');
CREATE TABLE made (id int PRIMARY KEY, m mood, p pair, g int GENERATED ALWAYS AS (id * 2) STORED, rc regclass, rp regproc, rt regtype, lsn pg_lsn, iv int2vector, ov oidvector);
INSERT INTO made (id, m, p, rc, rp, rt, lsn, iv, ov) VALUES (1, 'sad', '(1,"a ""b"" \\ c")', 'pg_class', 'now', 'int', 'FFFFFFFF/FFFFFFFF', '1 2 3', '4 5'), (2, '😀', '(,)', NULL, NULL, NULL, '0/0', '', ''), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE "Odd Schema"."a ""table"" named select" ("Col umn" int GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 5), "ünï.😀" text COLLATE "C", "select" int DEFAULT 7, PRIMARY KEY ("ünï.😀", "Col umn"));
INSERT INTO "Odd Schema"."a ""table"" named select" ("ünï.😀") VALUES ('a'), ('B'), (''), (E'tab\t');
CREATE TABLE keyless (a int, b text);
INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (NULL, NULL), (2, E'y\\');
CREATE TABLE by_unique (a numeric NOT NULL UNIQUE, b timestamptz NOT NULL, c text);
INSERT INTO by_unique VALUES (1.10, 'infinity', 'x'), (-5, '2024-01-01', NULL), ('NaN', '2024-01-01', 'y');
CREATE TABLE parent (id int PRIMARY KEY, name text);
CREATE UNIQUE INDEX by_name ON parent (lower(name)) WHERE name IS NOT NULL;
CREATE INDEX words ON parent USING gin (to_tsvector('simple', name));
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, CONSTRAINT apart EXCLUDE USING gist (int4range(id, id, '[]') WITH &&), CHECK (id > 0));
INSERT INTO parent VALUES (1, 'One'), (2, 'two'), (3, NULL);
INSERT INTO child (parent) VALUES (1), (2), (NULL);
SELECT setval('child_id_seq', 4711, false);
CREATE TABLE parted (id int, y int, v text, PRIMARY KEY (id, y)) PARTITION BY RANGE (y);
CREATE TABLE parted_old PARTITION OF parted FOR VALUES FROM (MINVALUE) TO (2000);
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
INSERT INTO parted VALUES (1, 1999, 'o'), (2, 2000, 'n'), (3, 2024, NULL);
CREATE TABLE animal (id int PRIMARY KEY, name text);
CREATE TABLE dog (tail int, PRIMARY KEY (id)) INHERITS (animal);
INSERT INTO animal VALUES (1, 'cat');
INSERT INTO dog VALUES (2, 'rex', 3);
CREATE SEQUENCE counter AS bigint START 100 INCREMENT 7 MAXVALUE 100000 CYCLE;
SELECT nextval('counter');
CREATE VIEW both_of AS SELECT child.id, parent.name FROM child LEFT JOIN parent ON parent.id = child.parent;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM child;
CREATE UNIQUE INDEX ON counted (n);
CREATE TABLE log (at serial PRIMARY KEY, what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (what) VALUES (NEW.name); RETURN NEW; END $$;
CREATE TRIGGER noted AFTER INSERT ON parent FOR EACH ROW EXECUTE FUNCTION note();
CREATE PROCEDURE nothing() LANGUAGE sql AS $$ SELECT 1 $$;
CREATE RULE quiet AS ON DELETE TO log DO INSTEAD NOTHING;
ALTER TABLE log ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON log USING (what IS NOT NULL);
COMMENT ON TABLE log IS 'it''s a log';
CREATE STATISTICS related ON parent, id FROM child;
