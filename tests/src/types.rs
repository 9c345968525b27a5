//! Databases with every type of their engine, and every kind of object.

use anyhow::{Context, Result};

use crate::server::{Engine, Server};

/// What makes such a database.
pub fn script(engine: Engine) -> &'static str {
    match engine {
        Engine::Mariadb => include_str!("../data/types-mariadb.sql"),
        Engine::Postgres => include_str!("../data/types-postgres.sql"),
    }
}

/// Makes one.
pub fn make(server: &Server, database: &str) -> Result<()> {
    server.create(database)?;
    server.run(database, script(server.engine()))?;
    Ok(())
}

/// How many columns and values it has.
pub fn size(server: &Server, database: &str) -> Result<(u64, u64)> {
    let schema = match server.engine() {
        Engine::Mariadb => format!("c.table_schema = '{database}'"),
        Engine::Postgres => "c.table_schema NOT IN ('pg_catalog', 'information_schema')".to_owned(),
    };
    let tables = server.run(
        database,
        &format!(
            "SELECT c.table_schema, c.table_name, COUNT(*) FROM information_schema.columns c \
             JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name \
             WHERE {schema} AND t.table_type = 'BASE TABLE' GROUP BY c.table_schema, c.table_name"
        ),
    )?;
    let quote = |name: &str| match server.engine() {
        Engine::Mariadb => format!("`{}`", name.replace('`', "``")),
        Engine::Postgres => format!("\"{}\"", name.replace('"', "\"\"")),
    };
    let (mut columns, mut values) = (0, 0);
    for line in tables.lines() {
        let parts: Vec<&str> = line.split(['\t', '|']).collect();
        let [schema, table, count] = parts[..] else { anyhow::bail!("{line:?} is no table") };
        let count: u64 = count.trim().parse()?;
        let only = if server.engine() == Engine::Postgres { "ONLY " } else { "" };
        let rows = server
            .run(database, &format!("SELECT COUNT(*) FROM {only}{}.{}", quote(schema), quote(table)))?;
        columns += count;
        values += count * rows.trim().parse::<u64>().with_context(|| format!("rows of {table}: {rows:?}"))?;
    }
    Ok((columns, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Side, servers};

    #[test]
    fn the_scripts_make_the_same_twice() {
        for engine in [Engine::Mariadb, Engine::Postgres] {
            let server = Server::start(engine, &[]).unwrap();
            make(&server, "one").unwrap();
            make(&server, "two").unwrap();
            let (columns, values) = size(&server, "one").unwrap();
            assert!(columns > 80 && values > 250, "{columns} columns, {values} values");
            let side = |database| Side { server: &server, database };
            let found = servers(side("one"), side("two")).unwrap();
            assert_eq!(found.found, 0, "{}", found.describe());
        }
    }
}
