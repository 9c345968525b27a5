//! A dataset's file: written once, hashed on the way, synced before anybody is told; read again piece by piece.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use handover_engine::backup::Kept;
use handover_engine::digest::Digest;
use handover_engine::failure::Failure;
use handover_engine::ports::Result;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::contents::Dataset;
use crate::pack::Packing;
use crate::work::{Work, blocking, io_failed};

/// What is read and passed on at once.
const PIECE: usize = 256 << 10;
/// Pieces that wait.
const AHEAD: usize = 8;
/// zstd's level: half of what its highest saves, at the speed of a disk.
const LEVEL: i32 = 3;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The file's bytes.
    pub bytes: u64,
    /// Bytes before they were packed.
    pub contents_bytes: u64,
    /// The file's digest.
    pub digest: Digest,
}

impl Written {
    /// As it stands in `backup.json`, where nothing else is to be told.
    pub fn kept(self, dataset: &Dataset, tool: String, file: String) -> Kept {
        Kept {
            dataset: dataset.name.clone(),
            engine: dataset.contents.engine().to_owned(),
            tool,
            file,
            bytes: self.bytes,
            contents_bytes: self.contents_bytes,
            digest: self.digest,
            entries: None,
            settings: BTreeMap::new(),
            notes: Vec::new(),
        }
    }
}

/// A file being written.
pub struct Archive {
    to: Option<mpsc::Sender<Bytes>>,
    end: Option<JoinHandle<Result<Written>>>,
    item: String,
}

impl Archive {
    /// Makes the file, for the agent alone.
    pub fn create(path: &Path, work: &Work) -> Self {
        let (to, from) = mpsc::channel(AHEAD);
        let (file, work) = (path.to_owned(), work.clone());
        let end = tokio::task::spawn_blocking(move || {
            write(&file, from, &work).map_err(io_failed(&file, "the backup cannot be written"))
        });
        Self { to: Some(to), end: Some(end), item: path.display().to_string() }
    }

    /// Writes all that comes.
    pub async fn pour(&mut self, mut from: impl AsyncRead + Unpin) -> Result<()> {
        loop {
            let mut piece = vec![0; PIECE];
            let read = from.read(&mut piece).await.map_err(|error| {
                Failure::operator(&self.item, "what its tool writes cannot be read").because(error)
            })?;
            if read == 0 {
                return Ok(());
            }
            piece.truncate(read);
            self.add(piece.into()).await?;
        }
    }

    /// Writes a piece.
    pub async fn add(&mut self, piece: Bytes) -> Result<()> {
        let sent = match &self.to {
            Some(to) => to.send(piece).await.is_ok(),
            None => false,
        };
        if sent {
            return Ok(());
        }
        // Whoever writes has given up, and knows why.
        let ended = self.ended().await;
        Err(ended.err().unwrap_or_else(|| Failure::permanent(&self.item, "nobody writes it any more")))
    }

    /// Everything was written: durable when it returns.
    pub async fn finish(mut self) -> Result<Written> {
        self.to = None;
        self.ended().await
    }

    async fn ended(&mut self) -> Result<Written> {
        let gone = || Failure::permanent(&self.item, "nobody writes it any more");
        let end = self.end.take().ok_or_else(gone)?;
        end.await.map_err(|error| gone().because(error))?
    }
}

/// Counts and hashes what goes into a file.
struct Hashed {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let written = self.file.write(piece)?;
        self.hasher.update(&piece[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn write(path: &Path, mut from: mpsc::Receiver<Bytes>, work: &Work) -> io::Result<Written> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = Hashed { file, hasher: blake3::Hasher::new(), bytes: 0 };
    let mut contents_bytes = 0;
    let mut pass_on = |out: &mut dyn Write| {
        while let Some(piece) = from.blocking_recv() {
            work.got_on(piece.len())?;
            out.write_all(&piece)?;
            contents_bytes += piece.len() as u64;
        }
        io::Result::Ok(())
    };
    match Packing::of(path) {
        Packing::AsItIs => pass_on(&mut out)?,
        Packing::Zstd => {
            let mut packer = zstd::Encoder::new(out, LEVEL)?;
            packer.include_checksum(true)?;
            pass_on(&mut packer)?;
            out = packer.finish()?;
        }
    }
    out.file.sync_all()?;
    Ok(Written { bytes: out.bytes, contents_bytes, digest: Digest(*out.hasher.finalize().as_bytes()) })
}

/// A file's contents, unpacked, piece by piece; ends after the first failure.
pub fn read(path: &Path, work: &Work) -> mpsc::Receiver<io::Result<Bytes>> {
    let (to, pieces) = mpsc::channel(AHEAD);
    let (path, work) = (path.to_owned(), work.clone());
    tokio::task::spawn_blocking(move || {
        let each = |piece: &[u8]| {
            work.got_on(piece.len())?;
            to.blocking_send(Ok(Bytes::copy_from_slice(piece))).map_err(io::Error::other)
        };
        if let Err(error) = unpacked(&path, each) {
            // Whoever has stopped listening need not hear of it.
            let _ = to.blocking_send(Err(error));
        }
    });
    pieces
}

/// Unpacks a file. Blocks.
pub fn unpacked(path: &Path, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let file = File::open(path)?;
    let mut from: Box<dyn Read> = match Packing::of(path) {
        Packing::AsItIs => Box::new(file),
        Packing::Zstd => Box::new(zstd::Decoder::new(file)?),
    };
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => each(&piece[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Size and digest of a file, as it lies there.
pub async fn digest(path: PathBuf, work: &Work) -> Result<(u64, Digest)> {
    let (item, work) = (path.display().to_string(), work.clone());
    blocking(&item, move || {
        let hash = || {
            let (mut file, mut hasher, mut bytes) = (File::open(&path)?, blake3::Hasher::new(), 0);
            let mut piece = vec![0; PIECE];
            loop {
                let read = file.read(&mut piece)?;
                if read == 0 {
                    return Ok((bytes, Digest(*hasher.finalize().as_bytes())));
                }
                work.got_on(read)?;
                hasher.update(&piece[..read]);
                bytes += read as u64;
            }
        };
        hash().map_err(io_failed(&path, "the backup cannot be read"))
    })
    .await
}
