//! Slurm's accounting for tests: a database of our own in a temporary folder, and the daemon before it. Knows nothing
//! of clusters but the lines that they need.

use crate::cluster::{free_port, have};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// An accounting that is up.
pub struct Accounting {
    _dir: tempfile::TempDir,
    port: u16,
    /// The one before the database goes first.
    daemons: Vec<Child>,
}

impl Accounting {
    /// Starts it.
    ///
    /// # Errors
    /// Why there can be none, as a sentence.
    pub fn new() -> Result<Accounting, String> {
        for program in ["slurmdbd", "mariadbd", "mariadb-install-db"] {
            if !have(program) {
                return Err(format!("{program} is not installed (apt-get install slurmdbd mariadb-server)"));
            }
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let root = dir.path().display().to_string();
        let (storage, port) =
            (free_port().ok_or("there is no free port")?, free_port().ok_or("there is no free port")?);
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--user=root", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .arg(format!("--datadir={root}/data"))
            .output()
            .map_err(|error| error.to_string())?;
        if !made.status.success() {
            return Err(format!("mariadb-install-db: {}", String::from_utf8_lossy(&made.stderr).trim()));
        }
        let conf = format!(
            "AuthType=auth/munge\nDbdHost=localhost\nDbdPort={port}\nSlurmUser=root\nStorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\n\
             StoragePort={storage}\nStorageUser=root\nStorageLoc=accounts\nPidFile={root}/slurmdbd.pid\nLogFile={root}/slurmdbd.log\n"
        );
        let path = dir.path().join("slurmdbd.conf");
        let write = || {
            std::fs::write(&path, conf)?;
            // it refuses one that others may read
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        };
        write().map_err(|error| error.to_string())?;
        let database = [
            "--no-defaults".into(),
            "--user=root".into(),
            "--bind-address=127.0.0.1".into(),
            format!("--port={storage}"),
            format!("--datadir={root}/data"),
            format!("--socket={root}/socket"),
            format!("--pid-file={root}/mariadbd.pid"),
        ];
        let mut accounting = Accounting { _dir: dir, port, daemons: Vec::new() };
        accounting.start("mariadbd", &database, &path, storage)?;
        accounting.start("slurmdbd", &["-D".to_string()], &path, port)?;
        Ok(accounting)
    }

    /// Starts a daemon, and waits until something listens at its port.
    fn start(&mut self, name: &str, args: &[String], conf: &Path, port: u16) -> Result<(), String> {
        let mut command = Command::new(name);
        // `slurmdbd` looks for its own file beside that of the cluster
        command.args(args).env("SLURM_CONF", conf.with_file_name("slurm.conf"));
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: one async-signal-safe system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            })
        };
        self.daemons.push(command.spawn().map_err(|error| format!("{name}: {error}"))?);
        let since = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if since.elapsed() > Duration::from_secs(60) {
                return Err(format!("{name} does not listen after a minute"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The lines of a cluster's configuration that name it. Its controller forgets jobs as soon as it can.
    pub fn conf(&self) -> String {
        format!(
            "MinJobAge=2\nAccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\nAccountingStoragePort={}",
            self.port
        )
    }
}

impl Drop for Accounting {
    fn drop(&mut self) {
        for child in self.daemons.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
