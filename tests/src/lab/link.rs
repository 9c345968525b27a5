//! The link: a TAP device in each host's namespace, and a carrier each that takes frames to the others through Unix
//! sockets, with the delay, rate and loss that a file says. (The kernel's own emulation is not to be had everywhere.)

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tun_tap::{Iface, Mode};

use super::host::run;
use super::{label, leftovers};
use crate::locate::own_profile_dir;
use crate::poll;

const CARRIER: &str = "handover-lab-carrier";
/// What the link is called on every host.
pub const DEVICE: &str = "lan0";
const SHAPE: &str = "link.json";
/// How soon a change of the shape is seen.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
/// A queue before the link that is longer than this loses what comes, as a router's does.
const QUEUE: Duration = Duration::from_millis(250);
const LARGEST_FRAME: usize = 2048;

/// What the link does to frames, in each direction alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// How long a frame is on its way, in milliseconds.
    pub delay_ms: u64,
    /// Bits per second; 0 is without a limit.
    pub rate: u64,
    /// The share of frames that are lost, from 0 to 1.
    pub loss: f64,
    /// Nothing passes.
    pub cut: bool,
}

impl Shape {
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let partial = dir.join("link.partial");
        fs::write(&partial, serde_json::to_vec(self)?)?;
        fs::rename(partial, dir.join(SHAPE)).context("shaping the link")
    }

    fn read(dir: &Path) -> Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join(SHAPE))?)?)
    }
}

/// Starts every host's carrier.
pub fn connect(lab: &str, dir: &Path, hosts: &[&str]) -> Result<()> {
    let program = own_profile_dir()?.join(CARRIER);
    anyhow::ensure!(program.is_file(), "{} is missing: `cargo build --workspace --bins`", program.display());
    for host in hosts {
        let namespace = label(lab, host);
        let mut carrier = leftovers::within_group(&label(lab, "link"), "ip")?;
        carrier.args(["netns", "exec", &namespace]).arg(&program).arg(dir).arg(host);
        let log = fs::File::create(dir.join(format!("{host}.link.log")))?;
        let mut child = carrier.args(hosts).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        std::thread::spawn(move || child.wait());
    }
    for host in hosts {
        let log = dir.join(format!("{host}.link.log"));
        poll::until("the link", Duration::from_secs(20), || Ok(socket(dir, host).exists().then_some(())))
            .with_context(|| fs::read_to_string(log).unwrap_or_default())?;
        let namespace = label(lab, host);
        run("ip", &["-n", &namespace, "link", "set", DEVICE, "up"])?;
    }
    Ok(())
}

/// Carries frames between a host's device, made in the namespace this runs in, and the others' carriers. For ever.
pub fn carry(dir: &Path, host: &str, all: &[String]) -> Result<()> {
    let device = Arc::new(Iface::without_packet_info(DEVICE, Mode::Tap).context("making the TAP device")?);
    let ours = Arc::new(UnixDatagram::bind(socket(dir, host))?);
    let peers = all.iter().filter(|name| *name != host).map(|name| socket(dir, name)).collect();
    let shape = Arc::new(Mutex::new(Shape::default()));
    let (queue, waiting) = sync_channel(1 << 14);
    let (out, seen, from) = (ours.clone(), shape.clone(), device.clone());
    std::thread::spawn(move || send(&waiting, &out, &seen, peers));
    std::thread::spawn(move || receive(&ours, &device));
    let mut line = Line { free: Instant::now(), looked: None, shape, dir: dir.to_owned() };
    let mut frame = [0; LARGEST_FRAME];
    loop {
        let length = match from.recv(&mut frame) {
            Ok(length) => length,
            // The device is not up yet.
            Err(_) => {
                poll::pause(LOOKS_EVERY);
                continue;
            }
        };
        let Some(due) = line.take(length)? else { continue };
        if queue.send((due, frame[..length].to_vec())).is_err() {
            bail!("the sender has ended");
        }
    }
}

/// When the line has taken what was given to it.
struct Line {
    free: Instant,
    looked: Option<Instant>,
    shape: Arc<Mutex<Shape>>,
    dir: PathBuf,
}

impl Line {
    /// When a frame arrives; `None` if it does not.
    fn take(&mut self, length: usize) -> Result<Option<Instant>> {
        let now = Instant::now();
        if self.looked.is_none_or(|looked| now - looked > LOOKS_EVERY) {
            *self.shape.lock().unwrap_or_else(PoisonError::into_inner) = Shape::read(&self.dir)?;
            self.looked = Some(now);
        }
        let shape = *self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = shape.cut || (shape.loss > 0.0 && rand::rng().random::<f64>() < shape.loss);
        let begins = self.free.max(now);
        if lost || begins - now > QUEUE {
            return Ok(None);
        }
        let takes = if shape.rate == 0 { 0.0 } else { (length * 8) as f64 / shape.rate as f64 };
        self.free = begins + Duration::from_secs_f64(takes);
        Ok(Some(self.free + Duration::from_millis(shape.delay_ms)))
    }
}

fn send(
    waiting: &Receiver<(Instant, Vec<u8>)>,
    out: &UnixDatagram,
    shape: &Mutex<Shape>,
    peers: Vec<PathBuf>,
) {
    while let Ok((due, frame)) = waiting.recv() {
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            poll::pause(left);
        }
        // What was on its way when the link was cut is lost with it.
        if shape.lock().unwrap_or_else(PoisonError::into_inner).cut {
            continue;
        }
        for peer in &peers {
            // A peer that is not there yet gets nothing, as on any wire.
            let _ = out.send_to(&frame, peer);
        }
    }
}

fn receive(ours: &UnixDatagram, device: &Iface) {
    let mut frame = [0; LARGEST_FRAME];
    while let Ok(length) = ours.recv(&mut frame) {
        // A device that is down takes nothing.
        let _ = device.send(&frame[..length]);
    }
}

fn socket(dir: &Path, host: &str) -> PathBuf {
    dir.join(format!("{host}.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(shape: Shape, dir: &Path) -> Line {
        shape.write(dir).unwrap();
        Line { free: Instant::now(), looked: None, shape: Arc::default(), dir: dir.to_owned() }
    }

    #[test]
    fn a_frame_arrives_after_rate_and_delay() {
        let dir = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let mut line = line(Shape { delay_ms: 40, rate: 80_000, ..Shape::default() }, dir.path());
        let first = line.take(1000).unwrap().unwrap();
        assert!(first - begun >= Duration::from_millis(140));
        assert_eq!(line.take(1000).unwrap().unwrap() - first, Duration::from_millis(100));
    }

    #[test]
    fn a_link_loses_what_it_must() {
        let dir = tempfile::tempdir().unwrap();
        for shape in [Shape { cut: true, ..Shape::default() }, Shape { loss: 1.0, ..Shape::default() }] {
            assert_eq!(line(shape, dir.path()).take(1000).unwrap(), None);
        }
    }
}
