//! What programs of ours have started must not outlive us, and a process that is killed can end nothing. So a shell
//! waits beside us, in a session of its own; when we are gone without a word, it ends what bears our mark in its
//! environment.
//!
//! A process that has left our session did so on purpose, and is spared. Knows no tasks.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The name of the mark.
pub const MARK: &str = "EFFIGY_PROCESS";

/// Ends what is marked and of the same session. Twice, since what was being started may have been missed.
const SCRIPT: &str = r#"
read -r word && exit 0
for again in 1 2; do
  for file in $(grep -laF "$1" /proc/[0-9]*/environ 2>/dev/null); do
    dir=${file%/environ}
    read -r stat < "$dir/stat" || continue
    set -- "$1" "$2" ${stat##*) }
    if [ "$6" = "$2" ]; then kill -9 "${dir#/proc/}" 2>/dev/null; fi
  done
done
"#;

/// The shell that waits.
pub struct Watch {
    child: Child,
    /// What a process of ours has in its environment: the value of [`MARK`].
    pub mark: String,
}

impl Watch {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no shell.
    pub fn start() -> std::io::Result<Watch> {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mark = format!("{}-{}", std::process::id(), since.as_nanos());
        // SAFETY: it only asks.
        let session = unsafe { libc::getsid(0) };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "sh", &format!("{MARK}={mark}"), &session.to_string()]).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: one async-signal-safe system call between fork and exec: whoever kills our group does not mean it.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                Ok(())
            })
        };
        Ok(Watch { child: command.spawn()?, mark })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.write_all(b"end\n");
        }
        let _ = self.child.wait();
    }
}
