//! A Slurm of our own for tests: munge, slurmctld and three nodes on this machine, with their configuration, logs and
//! state in a temporary folder, either all on this machine's own network or on two machines' worth of it. Nothing in
//! the system's folders is changed but munge's socket. Knows nothing of effigy.

use crate::accounting::Accounting;
use crate::network::{ADDRESSES, Machines, not_tried};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// How many nodes there are.
pub const NODES: usize = 3;

/// A cluster that is up.
pub struct Cluster {
    dir: PathBuf,
    daemons: Mutex<Vec<(String, Child)>>,
    /// Starts what dies with us: a child that dies with its parent's thread needs one that lives as long as we do.
    keeper: Mutex<Sender<(Command, Sender<std::io::Result<Child>>)>>,
    _accounting: Option<Accounting>,
    /// The controller is on the first, and so is the first node; the others are on the second.
    machines: Option<Machines>,
}

static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();

/// The cluster of this process, for one test at a time; `None` where there can be none, which is said loudly.
pub fn cluster() -> Option<(&'static Cluster, MutexGuard<'static, ()>)> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|failed| failed.into_inner());
    match CLUSTER.get_or_init(|| up(None, None)) {
        Ok(cluster) => Some((cluster, turn)),
        Err(why) => {
            not_tried("Slurm", why);
            None
        }
    }
}

/// A cluster of its own on two machines; `None` where there can be none, which is said loudly.
pub fn spread(test: &str) -> Option<Cluster> {
    or_not_tried(test, up(Some(Machines::new(test)?), None))
}

/// A cluster of its own whose controller forgets jobs soon, and whose accounting does not; `None` where there can be
/// none, which is said loudly.
pub fn accounted(test: &str) -> Option<Cluster> {
    or_not_tried(test, Accounting::new().and_then(|accounting| up(None, Some(accounting))))
}

fn or_not_tried(test: &str, cluster: Result<Cluster, String>) -> Option<Cluster> {
    cluster.inspect_err(|why| not_tried(&format!("{test}, Slurm"), why)).ok()
}

/// At the end of the process.
extern "C" fn clean_up() {
    if let Some(Ok(cluster)) = CLUSTER.get() {
        cluster.end();
    }
}

pub fn have(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
}

fn up(machines: Option<Machines>, accounting: Option<Accounting>) -> Result<Cluster, String> {
    for program in ["slurmctld", "slurmd", "munged", "munge", "unmunge", "sbatch"] {
        if !have(program) {
            return Err(format!("{program} is not installed (apt-get install slurm-wlm munge)"));
        }
    }
    // SAFETY: it only asks.
    if unsafe { libc::geteuid() } != 0 {
        return Err("slurmd has to be started by the super-user".into());
    }
    munge()?;
    let is_shared = machines.is_none() && accounting.is_none();
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?.keep();
    let root = dir.display().to_string();
    for name in ["ctld", "log"] {
        std::fs::create_dir(dir.join(name)).map_err(|error| error.to_string())?;
    }
    let ports: Vec<u16> = (0..=NODES).map(|_| free_port()).collect::<Option<_>>().ok_or("there is no free port")?;
    let address = |machine: usize| machines.as_ref().map_or("127.0.0.1", |_| ADDRESSES[machine]);
    let mut nodes = String::new();
    for (i, port) in ports[1..].iter().enumerate() {
        let at = address(machine_of(i));
        nodes += &format!(
            "NodeName=n{i} NodeHostname=localhost NodeAddr={at} Port={port} CPUs=2 RealMemory=2000 State=UNKNOWN\n"
        );
    }
    let last = NODES - 1;
    let conf = format!(
        "ClusterName=tests
SlurmctldHost=localhost({})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmctldPort={}
StateSaveLocation={root}/ctld
SlurmdSpoolDir={root}/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,defer_batch
ReturnToService=2
JobRequeue=1
MaxArraySize=101
KillWait=2
SlurmdTimeout=8
InactiveLimit=0
DefMemPerCPU=200
{}
JobCompType=jobcomp/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}PartitionName=main Nodes=n[0-{last}] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=2
PartitionName=spare Nodes=n[0-{last}] MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=n[0-{last}] MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=9 PreemptMode=OFF
",
        address(0),
        ports[0],
        accounting
            .as_ref()
            .map_or("MinJobAge=300\nAccountingStorageType=accounting_storage/none".into(), Accounting::conf),
    );
    std::fs::write(dir.join("slurm.conf"), conf).map_err(|error| error.to_string())?;
    let (keeper, starting) = channel::<(Command, Sender<std::io::Result<Child>>)>();
    std::thread::spawn(move || {
        for (mut command, answer) in starting {
            let _ = answer.send(command.spawn());
        }
    });
    let cluster =
        Cluster { dir, daemons: Mutex::default(), keeper: Mutex::new(keeper), _accounting: accounting, machines };
    if is_shared {
        // SAFETY: it only registers a function.
        unsafe { libc::atexit(clean_up) };
    }
    cluster.start(0, "slurmctld", &["-D", "-c"])?;
    (0..NODES).try_for_each(|i| cluster.start_node(i))?;
    let since = Instant::now();
    loop {
        let idle = cluster.say(&["sinfo", "--noheader", "--Node", "--partition=main", "--format=%T"]);
        if idle.lines().filter(|line| *line == "idle").count() == NODES {
            return Ok(cluster);
        }
        if since.elapsed() > Duration::from_secs(40) {
            let log = std::fs::read_to_string(cluster.path("log/slurmctld.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            cluster.end();
            return Err(format!("its nodes did not come up: {idle:?}; {}", tail.join("; ")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Starts munge's daemon, unless one is there; it is shared and stays.
fn munge() -> Result<(), String> {
    let works = || {
        let line = "munge -n < /dev/null | unmunge > /dev/null";
        Command::new("sh").args(["-c", line]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if works() {
        return Ok(());
    }
    let line = "install -d -o munge -g munge -m 0755 /run/munge && runuser -u munge -- munged";
    let said = Command::new("sh").args(["-c", line]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output();
    let said = said.map_err(|error| error.to_string())?;
    let since = Instant::now();
    while !works() {
        if since.elapsed() > Duration::from_secs(10) {
            return Err(format!("munged does not start: {}", String::from_utf8_lossy(&said.stderr).trim()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

pub fn free_port() -> Option<u16> {
    Some(std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port())
}

/// The machine that a node is on, where there are two.
fn machine_of(node: usize) -> usize {
    node.min(1)
}

impl Cluster {
    /// Its machines, if it has more than this one.
    pub fn machines(&self) -> &Machines {
        self.machines.as_ref().expect("it was made with them")
    }

    /// A command, to be started on a machine of its.
    fn place(&self, machine: usize, command: &mut Command) {
        if let Some(machines) = &self.machines {
            machines.on(machine, command);
        }
    }

    /// Ends all of it. Idle daemons have nothing to finish.
    fn end(&self) {
        self.kill(|_| true);
        let _ = std::fs::remove_dir_all(&self.dir);
    }

    /// A file of its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Its configuration, which every program of Slurm's finds by `SLURM_CONF`.
    pub fn conf(&self) -> String {
        self.path("slurm.conf").display().to_string()
    }

    fn start(&self, machine: usize, name: &str, args: &[&str]) -> Result<(), String> {
        let mut command = Command::new(name);
        command.args(args).env("SLURM_CONF", self.conf()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.place(machine, &mut command);
        // SAFETY: one async-signal-safe system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        let (send, receive) = channel();
        self.keeper.lock().expect("nobody panics with it").send((command, send)).map_err(|error| error.to_string())?;
        let child = receive.recv().map_err(|error| error.to_string())?.map_err(|error| format!("{name}: {error}"))?;
        let label = [name, args.last().copied().unwrap_or_default()].concat();
        self.daemons.lock().expect("nobody panics with it").push((label, child));
        Ok(())
    }

    /// Starts a node.
    pub fn start_node(&self, i: usize) -> Result<(), String> {
        self.start(machine_of(i), "slurmd", &["-D", "-N", &format!("n{i}")])
    }

    /// Starts the controller again.
    pub fn start_controller(&self) -> Result<(), String> {
        self.start(0, "slurmctld", &["-D"])
    }

    /// Kills the controller: nobody answers any more.
    pub fn kill_controller(&self) {
        self.kill(|label| label.starts_with("slurmctld"));
    }

    /// Kills a node with everything that runs on it, as a power failure would.
    pub fn kill_node(&self, i: usize) {
        self.kill(|label| label == format!("slurmdn{i}"));
        // what its daemon had started lives on without it: the steps' managers, and below them the jobs
        let spool = self.path(&format!("n{i}")).display().to_string();
        for pid in processes() {
            let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&read("environ")).into_owned();
            let of_node = environment.split('\0').any(|one| one == format!("SLURMD_NODENAME=n{i}"))
                && environment.contains(&format!("SLURM_CONF={}", self.conf()));
            let line = String::from_utf8_lossy(&read("cmdline")).into_owned();
            if of_node
                || line.starts_with("slurmstepd")
                    && self.steps_of(i).iter().any(|job| line.contains(&format!("[{job}.")))
            {
                // SAFETY: a process of our own cluster.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        let _ = std::fs::remove_dir_all(spool);
    }

    /// The jobs on a node.
    fn steps_of(&self, i: usize) -> Vec<String> {
        let text = self.say(&["squeue", "--noheader", "--format=%A", &format!("--nodelist=n{i}")]);
        text.lines().map(|line| line.trim().to_string()).collect()
    }

    fn kill(&self, which: impl Fn(&str) -> bool) {
        let mut daemons = self.daemons.lock().expect("nobody panics with it");
        for (_, child) in daemons.iter_mut().filter(|(label, _)| which(label)) {
            let _ = child.kill();
            let _ = child.wait();
        }
        daemons.retain(|(label, _)| !which(label));
    }

    /// What a command of Slurm's prints.
    pub fn say(&self, words: &[&str]) -> String {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("SLURM_CONF", self.conf()).stdin(Stdio::null());
        self.place(0, &mut command);
        let Output { stdout, stderr, .. } = command.output().expect("it is installed");
        let text = String::from_utf8_lossy(&stdout).into_owned();
        if text.is_empty() { String::from_utf8_lossy(&stderr).into_owned() } else { text }
    }

    /// The jobs that wait or run: number and state.
    pub fn jobs(&self) -> Vec<(String, String)> {
        let text = self.say(&["squeue", "--noheader", "--array", "--format=%i %T"]);
        let pair = |line: &str| line.split_once(' ').map(|(id, state)| (id.to_string(), state.to_string()));
        text.lines().filter_map(pair).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..NODES).for_each(|i| self.kill_node(i));
        self.end();
    }
}

fn processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
