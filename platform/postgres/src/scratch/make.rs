//! Making a scratch database, and finding out what one that is there was made for.

use std::pin::pin;

use futures::{FutureExt, SinkExt, StreamExt};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::ports::scratch::{ForeignKey, Made, OnServer, Wanted, WantedTable, made_for, only_in};
use handover_engine::rows::{Schema, TableName, TableSpec};

use super::{ROW, full};
use crate::catalog::Reader;
use crate::connect::Conn;
use crate::error::failed;
use crate::sql::{literal, quote};
use crate::target::build::{Builder, guard};
use crate::target::place::Place;

const WHAT: &str = "its scratch database cannot be made";
/// The table that says what the database was made for, and which foreign keys it lacks.
const MARK: &str = "handover_state.rehearsal";
/// What holds rows to what they must be. Foreign keys are made to be looked at, and dropped again.
const KINDS: [&str; 5] = ["index", "index attach", "constraint", "check constraint", "fk constraint"];

/// Where a scratch database is made.
struct Maker<'a> {
    place: &'a Place,
    item: String,
}

impl Maker<'_> {
    async fn rows(&self, conn: &Conn, sql: &str) -> Result<Vec<Vec<String>>> {
        let rows = conn.rows(sql).await.map_err(|e| failed(&self.item, "its catalog cannot be read", &e))?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect())
    }

    async fn run(&self, conn: &Conn, sql: &str) -> Result<()> {
        conn.batch_execute(sql).await.map_err(|e| failed(&self.item, WHAT, &e))
    }
}

/// As the port's `make`; also a connection to it.
pub async fn make(place: &Place, source: &Schema, fresh: &str) -> Result<(Conn, Made)> {
    let maker = Maker { place, item: format!("{}, {}", place.dataset, place.settings.location()) };
    let own = maker.own_schema().await?;
    let schema = own.as_ref().unwrap_or(source);
    let made_for = made_for(source, schema);
    let (conn, token, foreign_keys) = match maker.there(&made_for).await? {
        Some(there) => there,
        None => maker.anew(source, schema, own.is_some(), (&made_for, fresh)).await?,
    };
    let mut wanted = maker.look(&conn, source, schema).await?;
    wanted.own = own.is_some();
    wanted.foreign_keys = foreign_keys;
    let settings = &place.settings;
    wanted.environment = OnServer {
        engine: "postgres",
        database: &place.partial,
        user: &settings.user,
        socket: settings.socket.as_deref(),
        host: &settings.host,
        port: Some(settings.port),
        password_file: settings.password_file(),
    }
    .environment();
    Ok((conn, Made { wanted, token }))
}

type There = (Conn, String, Vec<ForeignKey>);

impl Maker<'_> {
    /// The schema of the target's own database; none where it has no table.
    async fn own_schema(&self) -> Result<Option<Schema>> {
        if !self.place.stands().await? {
            return Ok(None);
        }
        let conn = Conn::open(&self.place.dataset, &self.place.settings).await?;
        let (dataset, settings) = (&self.place.dataset, &self.place.settings);
        let schema = Reader { dataset, settings, conn: &conn, exclude: &[] }.schema(None).await?;
        Ok(Some(schema).filter(|schema| schema.tables.iter().any(is_tried)))
    }

    /// The scratch database that was made for this.
    async fn there(&self, made_for: &str) -> Result<Option<There>> {
        let Some(settings) = self.place.unfinished().await? else { return Ok(None) };
        let conn = Conn::open(&self.place.dataset, &settings).await?;
        let known = format!("SELECT 1 WHERE pg_catalog.to_regclass({}) IS NOT NULL", literal(MARK));
        if self.rows(&conn, &known).await?.is_empty() {
            return Ok(None);
        }
        let sql = format!("SELECT token, keys FROM {MARK} WHERE made_for = {}", literal(made_for));
        let Some(row) = self.rows(&conn, &sql).await?.into_iter().next() else { return Ok(None) };
        let keys = serde_json::from_str(&row[1]).ok();
        Ok(keys.map(|keys| (conn, row[0].clone(), keys)))
    }

    async fn anew(
        &self,
        source: &Schema,
        schema: &Schema,
        own: bool,
        (made_for, token): (&str, &str),
    ) -> Result<There> {
        if !own {
            guard(&self.item, schema)?;
        }
        self.place.drop_ours().await?;
        let settings = self.place.begin(schema).await?;
        let conn = Conn::open(&self.place.dataset, &settings).await?;
        let open = || Conn::open(&self.place.dataset, &settings).boxed();
        let builder = Builder { item: self.item.clone(), conn: &conn, open: &open };
        builder.first_half(schema).await?;
        builder.those_of(schema, &KINDS).await?;
        let keys = self.take_foreign_keys(&conn).await?;
        self.number_rows(&conn, schema).await?;
        if own {
            self.seed(&conn, source, schema).await?;
        }
        let json = serde_json::to_string(&keys)
            .map_err(|error| Failure::permanent(&self.item, WHAT).because(error))?;
        let mark = format!(
            "CREATE TABLE {MARK} (made_for text, token text, keys text); INSERT INTO {MARK} VALUES ({}, {}, {})",
            literal(made_for),
            literal(token),
            literal(&json)
        );
        self.run(&conn, &mark).await?;
        Ok((conn, token.to_owned(), keys))
    }

    /// The foreign keys of ordinary tables, which are dropped. Of one to a partitioned table the server has further ones to each partition.
    async fn take_foreign_keys(&self, conn: &Conn) -> Result<Vec<ForeignKey>> {
        let columns = |relation: &str, numbers: &str| {
            format!(
                "(SELECT pg_catalog.json_agg(a.attname ORDER BY u.place) FROM unnest({numbers}) WITH ORDINALITY u(number, place) \
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = {relation} AND a.attnum = u.number)"
            )
        };
        let sql = format!(
            "SELECT k.conname, n.nspname, c.relname, {}, pn.nspname, p.relname, {} FROM pg_catalog.pg_constraint k \
             JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
             WHERE k.contype = 'f' AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint o \
             WHERE o.oid = k.conparentid AND o.conrelid = k.conrelid) ORDER BY 2, 3, 1",
            columns("k.conrelid", "k.conkey"),
            columns("k.confrelid", "k.confkey"),
        );
        let mut keys = Vec::new();
        for row in self.rows(conn, &sql).await? {
            let names = |json: &str| serde_json::from_str::<Vec<String>>(json).unwrap_or_default();
            keys.push(ForeignKey {
                name: row[0].clone(),
                table: TableName { schema: row[1].clone(), name: row[2].clone() },
                columns: names(&row[3]),
                parent: TableName { schema: row[4].clone(), name: row[5].clone() },
                parent_columns: names(&row[6]),
            });
        }
        let drops = "SELECT 'ALTER TABLE ' || conrelid::pg_catalog.regclass || ' DROP CONSTRAINT ' || pg_catalog.quote_ident(conname) \
                     FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conparentid = 0";
        for row in self.rows(conn, drops).await? {
            self.run(conn, &row[0]).await?;
        }
        Ok(keys)
    }

    /// The column of numbers: partitions and heirs have it from the tables above them.
    async fn number_rows(&self, conn: &Conn, schema: &Schema) -> Result<()> {
        let sql = format!(
            "SELECT 'ALTER TABLE ' || c.oid::pg_catalog.regclass || ' ADD COLUMN IF NOT EXISTS {ROW} bigint' FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition \
             AND c.oid > 16383 AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('handover_state', 'information_schema') \
             AND c.reloftype = 0 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e' \
             AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid) \
             ORDER BY EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid), c.oid"
        );
        for row in self.rows(conn, &sql).await? {
            self.run(conn, &row[0]).await?;
        }
        for table in schema.tables.iter().filter(|table| is_tried(table)) {
            self.run(conn, &format!("CREATE INDEX ON ONLY {} ({ROW})", full(&table.name))).await?;
        }
        Ok(())
    }

    /// Rows of tables that production does not have: the new system has filled them itself.
    async fn seed(&self, into: &Conn, source: &Schema, schema: &Schema) -> Result<()> {
        let from = Conn::open(&self.place.dataset, &self.place.settings).await?;
        for table in only_in(schema, source).filter(|table| is_tried(table)) {
            let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
            let (name, columns) = (full(&table.name), columns.join(", "));
            let copy = async {
                let mut rows = pin!(
                    from.copy_out(&format!("COPY (SELECT {columns} FROM ONLY {name}) TO STDOUT")).await?
                );
                let mut sink = pin!(into.copy_in(&format!("COPY {name} ({columns}) FROM STDIN")).await?);
                while let Some(piece) = rows.next().await.transpose()? {
                    sink.send(piece).await?;
                }
                sink.finish().await
            };
            let what = "what the new system has filled itself cannot be copied";
            copy.await.map_err(|e| failed(format!("{}, table {}", self.item, table.name), what, &e))?;
        }
        Ok(())
    }

    /// What rows are tried against.
    async fn look(&self, conn: &Conn, source: &Schema, schema: &Schema) -> Result<Wanted> {
        let sql = "SELECT n.nspname, c.relname, a.attname FROM pg_catalog.pg_attribute a \
                   JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE a.attnum > 0 AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND c.oid > 16383";
        let needed = self.rows(conn, sql).await?;
        let table = |table: &TableSpec| {
            let TableName { schema, name } = &table.name;
            WantedTable::of(table, |spec| {
                needed.iter().any(|row| row[..] == [schema.as_str(), name, &spec.name])
            })
        };
        let untried = source.tables.iter().chain(&schema.tables).filter(|table| !is_tried(table));
        Ok(Wanted {
            tables: schema.tables.iter().filter(|table| is_tried(table)).map(table).collect(),
            untried: untried.map(|table| table.name.clone()).collect(),
            ..Wanted::default()
        })
    }
}

/// Large objects are no table that a column could be added to.
fn is_tried(table: &TableSpec) -> bool {
    table.name.schema != "pg_catalog"
}
