//! Two machines' worth of network on this one: two network namespaces, joined by a cable that can be pulled out. A
//! process on a machine has that machine's addresses and name, and sees the same folders as everybody, as it would on a
//! shared file system. Knows nothing of effigy.

#![allow(dead_code, reason = "each test executable uses a part of it")]

use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The addresses of the two machines. Nobody but them sees these.
pub const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// Two machines and the cable between them.
pub struct Machines {
    names: [String; 2],
}

static MADE: AtomicUsize = AtomicUsize::new(0);

/// Says loudly what was not tried: not by a macro, whose words are kept from whoever looks at tests that pass.
pub fn not_tried(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "not tried: {what}, because {why}");
}

impl Machines {
    /// `None`, and a loud line, where there can be none.
    pub fn new(test: &str) -> Option<Machines> {
        // SAFETY: it only asks.
        if unsafe { libc::geteuid() } != 0 {
            not_tried(test, "network namespaces are made by the super-user");
            return None;
        }
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let name = |i: usize| format!("eff{}-{n}-{i}", std::process::id());
        let machines = Machines { names: [name(0), name(1)] };
        match machines.connect() {
            Ok(()) => Some(machines),
            Err(why) => {
                not_tried(test, &why);
                None
            }
        }
    }

    fn connect(&self) -> Result<(), String> {
        let [one, two] = &self.names;
        for name in &self.names {
            ip(&["netns", "add", name])?;
        }
        ip(&["link", "add", "cable", "netns", one, "type", "veth", "peer", "name", "cable", "netns", two])?;
        for (name, address) in self.names.iter().zip(ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "cable"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", "cable", "up"])?;
        }
        Ok(())
    }

    /// The command, to be started on one of the machines.
    pub fn on(&self, machine: usize, command: &mut Command) {
        let space = std::fs::File::open(self.path(machine)).expect("the namespace is there");
        let name = CString::new(format!("machine-{machine}")).expect("no zero byte");
        // SAFETY: system calls between fork and exec that are async-signal-safe, on a descriptor and a text that the
        // closure owns.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) != 0
                    || libc::unshare(libc::CLONE_NEWUTS) != 0
                    || libc::sethostname(name.as_ptr(), name.as_bytes().len()) != 0
                {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
    }

    /// Does something in a thread on one of the machines.
    pub fn within<T: Send>(&self, machine: usize, work: impl FnOnce() -> T + Send) -> T {
        let space = std::fs::File::open(self.path(machine)).expect("the namespace is there");
        let there = || {
            // SAFETY: it concerns this thread alone, which ends with the closure.
            assert_eq!(unsafe { libc::setns(space.as_raw_fd(), libc::CLONE_NEWNET) }, 0, "the namespace takes us in");
            work()
        };
        std::thread::scope(|scope| scope.spawn(there).join().expect("it does not panic"))
    }

    /// What a process that runs there reads from `/proc/self/ns/net`.
    pub fn mark(&self, machine: usize) -> String {
        format!("net:[{}]", std::fs::metadata(self.path(machine)).expect("the namespace is there").ino())
    }

    fn path(&self, machine: usize) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.names[machine])
    }

    /// Pulls the cable out of the second machine: what is sent from now on is lost, and nobody is told.
    pub fn pull(&self) {
        ip(&["-n", &self.names[1], "link", "set", "cable", "down"]).expect("the cable is there");
    }

    /// Puts it back.
    pub fn plug(&self) {
        ip(&["-n", &self.names[1], "link", "set", "cable", "up"]).expect("the cable is there");
    }

    /// Bytes that went over the cable, both ways.
    pub fn carried(&self) -> u64 {
        let text = self.within(0, || std::fs::read_to_string("/proc/thread-self/net/dev").expect("the kernel tells"));
        let line = text.lines().find_map(|line| line.trim().strip_prefix("cable:")).expect("the cable");
        let fields: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        fields[0] + fields[8]
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
            // the cable goes with them
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("`ip` (iproute2) cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {}` says: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
