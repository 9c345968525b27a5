//! One host: its files, its boot, what runs on it, its crash.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::link::DEVICE;
use super::{hosts_dir, label, leftovers};
use crate::bed::Output;
use crate::poll;
use crate::process::tail;

/// How long a host may take to boot, on a busy machine.
const BOOTS_WITHIN: Duration = Duration::from_secs(60);
/// How long nspawn may take to notice that its host is gone.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// What the kernel does for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// All that this machine's does.
    Whole,
    /// It takes no BPF programs: nothing keeps a service from the network.
    WithoutBpf,
}

/// A host of a lab.
#[derive(Debug)]
pub struct Host {
    name: String,
    label: String,
    dir: PathBuf,
}

impl Host {
    /// The host's files over the base tree, and its namespace; nothing runs yet.
    pub(super) fn prepare(
        lab: &str,
        dir: &Path,
        name: &str,
        index: usize,
        base: &Path,
        all: &[&str],
    ) -> Result<Self> {
        let host = Self::open(lab, dir, name);
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(host.dir.join(part))?;
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            base.display(),
            host.dir.join("upper").display(),
            host.dir.join("work").display()
        );
        run("mount", &["-t", "overlay", "overlay", "-o", &layers, &host.root().display().to_string()])?;
        let etc = host.root().join("etc");
        // The base tree's name would win over what nspawn is told.
        fs::write(etc.join("hostname"), format!("{name}\n"))?;
        fs::write(etc.join("machine-id"), "")?;
        let names = all.iter().enumerate().map(|(at, name)| format!("{} {name}\n", address(at)));
        fs::write(etc.join("hosts"), format!("127.0.0.1 localhost\n{}", names.collect::<String>()))?;
        // As on any host, its address is a matter of its own configuration.
        let network = format!("[Match]\nName={DEVICE}\n\n[Network]\nAddress={}/24\n", address(index));
        fs::write(etc.join("systemd/network/10-lan.network"), network)?;
        let systemctl = |act, unit| {
            run("systemctl", &["--quiet", &format!("--root={}", host.root().display()), act, unit])
        };
        systemctl("enable", "systemd-networkd.service")?;
        // It waits two minutes for a device of this kind, whatever state that is in.
        systemctl("mask", "systemd-networkd-wait-online.service")?;
        run("ip", &["netns", "add", &host.label])?;
        run("ip", &["-n", &host.label, "link", "set", "lo", "up"])?;
        Ok(host)
    }

    pub(super) fn open(lab: &str, dir: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), label: label(lab, name), dir: hosts_dir(dir).join(name) }
    }

    /// Its name, which the other hosts know it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its root directory, seen from outside.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Boots it, and waits until all its services are up. Its files and its place on the link are what they were.
    pub fn boot(&self) -> Result<()> {
        self.boot_on(Kernel::Whole)
    }

    /// The same, as on another kind of kernel.
    pub fn boot_on(&self, kernel: Kernel) -> Result<()> {
        self.wire("up")?;
        self.begin(kernel)?;
        self.wait_until_running()
    }

    pub(super) fn begin(&self, kernel: Kernel) -> Result<()> {
        leftovers::make_room_for_nspawn()?;
        let console = File::options().create(true).append(true).open(self.console())?;
        let root = format!("--directory={}", self.root().display());
        let machine = format!("--machine={}", self.label);
        let network = format!("--network-namespace-path=/run/netns/{}", self.label);
        // One that reboots is booted again: nspawn ends with a status of its own for that.
        // Its kernel's state is the namespace's, which outlives it: what it had configured is forgotten, as by any boot.
        let forget = format!("ip -n {} address flush dev {DEVICE}", self.label);
        let again = format!("while :; do {forget}; systemd-nspawn \"$@\"; test $? = 133 || exit; done");
        let mut nspawn = leftovers::within_group(&self.label, "sh")?;
        nspawn.args([
            "-c",
            &again,
            "boot",
            "--quiet",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--console=pipe",
            "--resolv-conf=off",
            // For the host to configure its own network.
            "--capability=CAP_NET_ADMIN",
        ]);
        if kernel == Kernel::Whole {
            // For its systemd to keep services from the network (IPAddressDeny=): nspawn would refuse both.
            nspawn.args(["--capability=CAP_BPF", "--system-call-filter=bpf"]);
        }
        nspawn.args([root, machine, network]).stdin(Stdio::null());
        let mut child = nspawn.stdout(console.try_clone()?).stderr(console).spawn()?;
        fs::write(self.dir.join("pid"), child.id().to_string())?;
        // Nobody waits for it but this thread: it is gone with the lab, by its control group.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    pub(super) fn wait_until_running(&self) -> Result<()> {
        let booted = poll::until(&format!("{} to boot", self.name), BOOTS_WITHIN, || {
            let Ok(output) = self.inside(&["systemctl", "is-system-running"]) else { return Ok(None) };
            // `degraded` is an end of the boot too: who needs a service asks for it.
            Ok(["running", "degraded"].contains(&output.stdout.trim()).then_some(()))
        });
        booted.with_context(|| format!("{}\n{}", tail(&self.console()), self.what_boots()))
    }

    /// What it is at, where it does not come up: its state, and the jobs that its systemd still has.
    fn what_boots(&self) -> String {
        let asked = [&["systemctl", "is-system-running"][..], &["systemctl", "list-jobs", "--no-pager"]];
        let answers = asked.map(|asks| match self.inside(asks) {
            Ok(output) => format!("{}: {}", asks.join(" "), output.text()),
            Err(error) => format!("{}: {error:#}", asks.join(" ")),
        });
        answers.join("\n")
    }

    /// Runs a command on it to its end, as a service of its own: with the rights and the control group it would have there.
    pub fn exec<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Output> {
        Output::of(self.command()?.args(args).stdin(Stdio::null()))
    }

    /// Runs lines of shell on it, which must succeed; what they printed.
    pub fn sh(&self, lines: &str) -> Result<String> {
        Ok(self.exec(&["sh", "-ec", lines])?.success()?.stdout)
    }

    /// What runs a command on it, ready to be given the command.
    pub fn command(&self) -> Result<Command> {
        let mut command = self.enter()?;
        command.args(["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--"]);
        Ok(command)
    }

    /// Runs a program of this machine, in the host's network alone: nothing on the host waits for it when that goes down.
    pub fn beside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.label)).arg("--").arg(program);
        command
    }

    /// A crash, as by a power failure: every process on it is gone at once. (Its page cache is not: what was written is
    /// there, synchronized or not.)
    pub fn crash(&self) -> Result<()> {
        let leader = self.leader().with_context(|| format!("{} does not run", self.name))?;
        // First of all it falls silent: its namespace outlives it, and would tell its peers that their connections are gone.
        self.wire("down")?;
        kill_process(leader, Signal::KILL).with_context(|| format!("crashing {}", self.name))?;
        poll::until(&format!("{} to be gone", self.name), ENDS_WITHIN, || {
            Ok((!leftovers::is_inhabited(&self.label)).then_some(()))
        })
    }

    fn wire(&self, state: &str) -> Result<()> {
        run("ip", &["-n", &self.label, "link", "set", DEVICE, state])
    }

    fn inside(&self, args: &[&str]) -> Result<Output> {
        Output::of(self.enter()?.args(args).stdin(Stdio::null()))
    }

    fn enter(&self) -> Result<Command> {
        let leader = self.leader().with_context(|| format!("{} does not run", self.name))?;
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target"]).arg(leader.as_raw_nonzero().to_string()).arg("--");
        Ok(command)
    }

    /// Its init: the first child of nspawn, which is the first child of what boots it again.
    fn leader(&self) -> Option<Pid> {
        let booter = fs::read_to_string(self.dir.join("pid")).ok()?;
        let nspawn = first_child(&booter)?;
        let name = fs::read_to_string(format!("/proc/{nspawn}/comm")).ok()?;
        if name.trim() == "systemd-nspawn" {
            Pid::from_raw(first_child(&nspawn)?.parse().ok()?)
        } else {
            None
        }
    }

    fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }
}

fn first_child(pid: &str) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

/// Addresses mean something within the lab alone: nothing routes there.
pub(super) fn address(index: usize) -> String {
    format!("10.77.0.{}", index + 1)
}

pub(super) fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Output::of(Command::new(program).args(args))?;
    ensure!(output.code == Some(0), "{} failed: {}", output.command, output.text());
    Ok(())
}
