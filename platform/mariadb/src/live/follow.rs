//! A connection that the server sends its log to.

mod statements;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use handover_engine::change::{Changes, LogPosition};
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use handover_engine::time::Timestamp;
use mysql_async::{BinlogStream, BinlogStreamRequest};
use tokio::time::{Instant, timeout_at};

use super::event::{Begin, Query, Rows, TableMap, has_rows, kind, rotated};
use super::part::Part;
use super::position::{Gtid, Gtids, Place, Spot};
use super::tables::Tables;
use super::{Live, moment};
use crate::catalog::Catalog;
use crate::session::Session;
use crate::sql;

const WHAT: &str = "the binary log cannot be followed";
/// How long the server may take for what is in its log already.
const STALL: Duration = Duration::from_secs(60);
/// Our numbers among the server's replicas: large ones, so that no replica of its own has the same.
const SERVERS: u32 = 0xf000_0000;

/// The log from some place on.
pub struct Follower {
    item: String,
    database: String,
    exclude: Vec<String>,
    stream: BinlogStream,
    /// Events end with checksums, of which the client knows only after the first.
    checksums: bool,
    /// Asks the server for the rest.
    watch: Session,
    tables: Tables,
    catalog: Arc<Catalog>,
    /// The tables of the current transaction, by the numbers that its events use.
    maps: HashMap<u64, TableMap>,
    /// All that was read to its end.
    state: Gtids,
    /// What is being read.
    group: Option<Group>,
    /// Row events of the next transaction that were told already.
    skip: u64,
    spot: Spot,
    /// When the last transaction was made, by its own event.
    latest: i64,
    /// XA transactions that wait for their end: what they change, and what was before them.
    prepared: BTreeMap<Vec<u8>, Prepared>,
    /// Counts what `prepared` has held, and the parts that were told meanwhile.
    turn: u64,
    /// The end of the last part that was told.
    pub told: LogPosition,
}

/// A transaction that is being read.
struct Group {
    gtid: Gtid,
    begin: Begin,
    before: Gtids,
    /// Row events so far.
    events: u64,
    /// What it changes, while it is not known whether it does.
    held: Part,
}

/// A prepared XA transaction.
struct Prepared {
    /// Which of them came first.
    turn: u64,
    before: Gtids,
    held: Part,
}

/// What to do about an event, beyond noting it.
enum Step {
    Done,
    /// It matters only if this table was not there already.
    IsNew(String, u32),
}

impl Follower {
    /// Follows from a position on.
    pub async fn open(live: &Live, catalog: Arc<Catalog>, after: &LogPosition) -> Result<Self> {
        let mut watch = live.session().await?;
        let item = watch.item().to_owned();
        let place: Place = after.0.parse().map_err(|()| {
            Failure::permanent(item.clone(), format!("the position {} is none of its log", after.0))
        })?;
        let tables = Tables::read(&mut watch, &live.settings.database, &catalog).await?;
        let (stream, checksums) = stream(live, &place.state).await?;
        let mut follower = Self {
            stream,
            checksums,
            database: live.settings.database.clone(),
            exclude: live.exclude.clone(),
            item,
            watch,
            tables,
            catalog,
            maps: HashMap::new(),
            state: place.state,
            group: None,
            skip: place.skip,
            spot: Spot::default(),
            latest: 0,
            prepared: BTreeMap::new(),
            turn: place.turn.unwrap_or(0),
            told: after.clone(),
        };
        // The first event names the file; a server that refuses says so instead of it.
        follower.next(&mut Part::default(), Instant::now() + STALL).await?;
        Ok(follower)
    }

    /// The session that asks the server for the rest.
    pub fn watch(&mut self) -> &mut Session {
        &mut self.watch
    }

    /// The next part of the log.
    pub async fn part(&mut self, wait: Duration) -> Result<Changes> {
        let deadline = Instant::now() + wait;
        let what = "SELECT @@global.gtid_binlog_pos, FLOOR(UNIX_TIMESTAMP(NOW(3)) * 1000)";
        let now = self.watch.record(WHAT, what).await?;
        let end: Gtids = now.text(0).parse().map_err(|()| self.confused())?;
        let mut awaited = end.beyond(&self.state);
        let (mut part, mut is_end) = (Part::default(), false);
        while !part.is_full() {
            let is_between = self.group.is_none();
            is_end |= is_between && awaited.is_empty();
            if is_end && is_between && (!part.is_empty() || Instant::now() >= deadline) {
                break;
            }
            let until = if is_end && is_between { deadline } else { Instant::now() + STALL };
            let came = self.next(&mut part, until).await?;
            let may_be_quiet = is_end && is_between;
            if !came && !may_be_quiet {
                return Err(Failure::transient(self.item.clone(), "the server does not send its binary log")
                    .hint("check the server's load and the network"));
            }
            if !awaited.is_empty() {
                // An event ends one transaction at most, so none is missed.
                awaited = awaited.beyond(&self.state);
            }
        }
        let at = if is_end { now.number(1).cast_signed() } else { self.latest * 1000 };
        self.finish(part, is_end, Timestamp::from_millis(at)).await
    }

    /// Tells a part, once all of it can be seen.
    async fn finish(&mut self, mut part: Part, is_end: bool, at: Timestamp) -> Result<Changes> {
        if let Some(spot) = part.last.take() {
            moment::until_seen(&mut self.watch, &spot).await?;
        }
        moment::until_completed(&mut self.watch, &part.completed).await?;
        super::lookup::rekeyed(&mut self.watch, &self.database, &self.catalog, &mut part).await?;
        self.told = self.place(!part.changes.is_empty()).position();
        Ok(Changes { tables: part.tables, changes: part.changes, until: self.told.clone(), at, is_end })
    }

    /// Where the next part begins.
    fn place(&mut self, has_told: bool) -> Place {
        if let Some(first) = self.prepared.values().min_by_key(|prepared| prepared.turn) {
            let state = first.before.clone();
            self.turn += u64::from(has_told);
            return Place { state, skip: 0, turn: Some(self.turn) };
        }
        let skip = self.group.as_ref().map_or(self.skip, |group| group.events.max(self.skip));
        Place { state: self.state.clone(), skip, turn: None }
    }

    /// Reads one event; false when none came in time.
    async fn next(&mut self, part: &mut Part, until: Instant) -> Result<bool> {
        let event = match timeout_at(until, self.stream.next()).await {
            Err(_) => return Ok(false),
            Ok(Some(Ok(event))) => event,
            Ok(Some(Err(error))) => return Err(failed(&self.item, error)),
            Ok(None) => {
                return Err(Failure::transient(
                    self.item.clone(),
                    "the server has ended its binary log's stream",
                )
                .hint("check that the server runs and can be reached"));
            }
        };
        let header = event.header();
        let (kind, data) = (header.event_type_raw(), event.data());
        if header.log_pos() > 0 && kind != kind::ROTATE {
            self.advance(header.log_pos());
        }
        match self.event(kind, header.server_id(), header.timestamp(), data, part) {
            Some(Ok(Step::Done)) => Ok(true),
            Some(Ok(Step::IsNew(table, when))) => self.check_new(table, when).await.map(|()| true),
            Some(Err(failure)) => Err(failure),
            None => Err(self.confused()),
        }
    }

    /// The offset in the file; events tell the lower half of it.
    fn advance(&mut self, low: u32) {
        const LOW: u64 = 0xffff_ffff;
        let (old, low) = (self.spot.offset, u64::from(low));
        let high = (old & !LOW) + if low < old & LOW { LOW + 1 } else { 0 };
        self.spot.offset = high | low;
    }

    /// Notes an event. `None` where it is malformed.
    fn event(
        &mut self,
        kind: u8,
        server: u32,
        when: u32,
        data: &[u8],
        part: &mut Part,
    ) -> Option<Result<Step>> {
        match kind {
            kind::ROTATE => {
                let (offset, file) = rotated(data, std::mem::take(&mut self.checksums))?;
                self.spot = Spot { file, offset };
            }
            kind::GTID => {
                let begin = Begin::read(data)?;
                self.end_group(part);
                let gtid = Gtid { domain: begin.domain, server, sequence: begin.sequence };
                self.maps.clear();
                let (before, held) = (self.state.clone(), Part::default());
                self.group = Some(Group { gtid, begin, before, events: 0, held });
                self.latest = i64::from(when);
            }
            kind::TABLE_MAP => {
                let map = TableMap::read(data)?;
                if map.database == self.database && self.tables.get(&map.table).is_some() {
                    self.maps.insert(map.id, map);
                } else {
                    self.maps.remove(&map.id);
                }
            }
            kind::XID | kind::XA_PREPARE => self.end_group(part),
            kind::QUERY | kind::QUERY_COMPRESSED | kind::EXECUTE_LOAD => {
                let query = Query::read(kind, data)?;
                let step = self.statement(&query, when, part);
                let is_alone = self.group.as_ref().is_some_and(|group| group.begin.is_alone());
                if is_alone && kind != kind::EXECUTE_LOAD {
                    self.end_group(part);
                }
                return Some(step);
            }
            kind::BEGIN_LOAD => {}
            kind::INCIDENT => {
                return Some(Err(Failure::operator(
                    self.item.clone(),
                    "the binary log says that it lacks something",
                )
                .begin_anew("abort this migration and start again")));
            }
            kind if has_rows(kind) => return self.rows(&Rows::read(kind, data)?, part),
            _ => {}
        }
        Some(Ok(Step::Done))
    }

    fn rows(&mut self, rows: &Rows<'_>, part: &mut Part) -> Option<Result<Step>> {
        let group = self.group.as_mut()?;
        group.events += 1;
        if group.events <= self.skip {
            return Some(Ok(Step::Done));
        }
        let found = self.maps.get(&rows.table);
        let Some((map, table)) = found.and_then(|map| Some((map, self.tables.get(&map.table)?))) else {
            return Some(Ok(Step::Done));
        };
        if group.begin.is_prepared() {
            if group.held.is_too_much() {
                let what = "an XA transaction changes more rows than can be kept until it ends";
                return Some(Err(Failure::operator(self.item.clone(), what)
                    .begin_anew("abort this migration and start again when it has ended")));
            }
            return Some(table.tell(map, rows, &mut group.held).map(|()| Step::Done));
        }
        part.last = Some(self.spot.clone());
        Some(table.tell(map, rows, part).map(|()| Step::Done))
    }

    /// The transaction, if one is being read, has come to its end.
    fn end_group(&mut self, part: &mut Part) {
        let Some(group) = self.group.take() else { return };
        self.state.advance(group.gtid);
        self.skip = 0;
        let Some(xid) = group.begin.xid.clone() else { return };
        if group.begin.completes() {
            if let Some(prepared) = self.prepared.remove(&xid) {
                part.append(prepared.held);
                part.completed.push(xid);
            }
        } else if group.begin.is_prepared() && !group.held.is_empty() {
            self.turn += 1;
            self.prepared.insert(xid, Prepared { turn: self.turn, before: group.before, held: group.held });
        }
    }

    fn confused(&self) -> Failure {
        Failure::operator(self.item.clone(), "the binary log is not understood")
            .hint("report this, with the server's version")
    }
}

/// Asks the server for its log from behind these transactions on; whether events end with checksums.
async fn stream(live: &Live, state: &Gtids) -> Result<(BinlogStream, bool)> {
    let mut session = live.session().await?;
    let item = session.item().to_owned();
    // 4: knows events of MariaDB's own. A heartbeat lets the server notice when nobody listens any more.
    let setting = format!(
        "SET @mariadb_slave_capability = 4, @slave_connect_state = {}, @slave_gtid_strict_mode = 0, \
         @slave_gtid_ignore_duplicates = 0, @master_heartbeat_period = 10000000000",
        sql::text(&state.to_string())
    );
    session.run(WHAT, &setting).await?;
    let checksums = session.record(WHAT, "SELECT @@global.binlog_checksum").await?.text(0) != "NONE";
    let conn = session.into_conn();
    let number = SERVERS | (conn.id() & !SERVERS);
    let stream = conn.get_binlog_stream(BinlogStreamRequest::new(number).with_pos(4)).await;
    Ok((stream.map_err(|error| failed(&item, error))?, checksums))
}

fn failed(item: &str, error: mysql_async::Error) -> Failure {
    let is_gone = crate::error::code(&error) == Some(1236);
    let failure = crate::error::failed(item, WHAT, error);
    if !is_gone {
        return failure;
    }
    failure.begin_anew(
        "the server's binary log does not reach back to where this migration stands: keep it longer \
         (binlog_expire_logs_seconds), then abort this migration and start again",
    )
}
