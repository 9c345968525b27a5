//! The database's schema: everything SQLite knows that a copy could get wrong.

/// Tables, indexes, views and triggers. The triggers are there before the rows, so that `audit` and the full-text
/// index are filled by them: a load that fires them again shows.
pub const SCHEMA: &str = r#"
PRAGMA user_version = 41;
PRAGMA application_id = 1212698180;

CREATE TABLE customer (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  email TEXT COLLATE NOCASE UNIQUE,
  balance REAL NOT NULL DEFAULT 0.0,
  created TEXT NOT NULL DEFAULT '2020-01-01', -- a comment that is part of the schema
  note
);
CREATE TABLE invoice (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER NOT NULL REFERENCES customer (id) ON DELETE CASCADE,
  cents INTEGER NOT NULL CHECK (cents >= 0),
  issued TEXT,
  gross REAL GENERATED ALWAYS AS (cents / 100.0) VIRTUAL,
  label TEXT GENERATED ALWAYS AS ('INV-' || id || '/' || cents) STORED
);
CREATE INDEX invoice_by_customer ON invoice (customer_id, issued DESC);
CREATE INDEX invoice_by_label ON invoice (label);
CREATE INDEX invoice_large ON invoice (cents) WHERE cents > 900000;
CREATE INDEX invoice_by_year ON invoice (substr(issued, 1, 4));
CREATE TABLE invoice_line (
  invoice_id INTEGER NOT NULL,
  position INTEGER NOT NULL,
  article TEXT NOT NULL,
  quantity NUMERIC,
  PRIMARY KEY (invoice_id, position DESC)
) WITHOUT ROWID;
CREATE TABLE reading (
  id INTEGER PRIMARY KEY,
  meter TEXT NOT NULL,
  value REAL,
  raw BLOB,
  extra ANY
) STRICT;
CREATE TABLE anything (v, w);
CREATE TABLE word (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE place (region TEXT, number INTEGER, data, PRIMARY KEY (region, number));
CREATE TABLE object (digest BLOB PRIMARY KEY, size INTEGER NOT NULL, kind TEXT) WITHOUT ROWID;
CREATE TABLE event (at INTEGER, level VARCHAR(10), message TEXT);
CREATE INDEX event_by_time ON event (at DESC, level COLLATE NOCASE);
CREATE TABLE "odd table; -- 'x'" ("select" INTEGER, "two words" TEXT, "a ""quote""" TEXT, "ünïcode" BLOB);
CREATE UNIQUE INDEX "odd index" ON "odd table; -- 'x'" ("select", "two words");
CREATE TABLE attachment (id INTEGER PRIMARY KEY, name TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE setting (key TEXT COLLATE NOCASE PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE mostly_null (a, b INTEGER, c TEXT DEFAULT 'c', d REAL, UNIQUE (a, b));
CREATE TABLE names_rowid (rowid TEXT, value INTEGER);
CREATE TABLE empty_table (id INTEGER PRIMARY KEY AUTOINCREMENT, remark TEXT);
CREATE TABLE audit (at INTEGER, what TEXT, who);
CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT NOT NULL, body TEXT);
CREATE VIRTUAL TABLE ticket_fts USING fts5 (subject, body, content = 'ticket', content_rowid = 'id');
CREATE VIRTUAL TABLE memo USING fts5 (title, content, tokenize = 'porter unicode61');

CREATE VIEW customer_total AS
  SELECT c.id, c.name, count(i.id) AS invoices, sum(i.gross) AS gross
  FROM customer c LEFT JOIN invoice i ON i.customer_id = c.id GROUP BY c.id;
CREATE VIEW total_of_totals AS SELECT sum(gross) AS gross FROM customer_total;

CREATE TRIGGER invoice_logged AFTER INSERT ON invoice WHEN NEW.cents > 990000 BEGIN
  INSERT INTO audit VALUES (NEW.id, 'large invoice', NEW.customer_id);
END;
CREATE TRIGGER customer_kept BEFORE DELETE ON customer WHEN OLD.balance > 0 BEGIN
  SELECT RAISE(ABORT, 'the customer has a balance');
END;
CREATE TRIGGER total_entered INSTEAD OF INSERT ON customer_total BEGIN
  INSERT INTO customer (name) VALUES (NEW.name);
END;
CREATE TRIGGER ticket_added AFTER INSERT ON ticket BEGIN
  INSERT INTO ticket_fts (rowid, subject, body) VALUES (NEW.id, NEW.subject, NEW.body);
END;
CREATE TRIGGER ticket_gone AFTER DELETE ON ticket BEGIN
  INSERT INTO ticket_fts (ticket_fts, rowid, subject, body) VALUES ('delete', OLD.id, OLD.subject, OLD.body);
END;
"#;
