//! Starting a program without copying our own memory map first, which `fork` does and which costs more than most
//! programs of a line do. The child shares our memory until it becomes the program, as with `posix_spawn`, but dies
//! when we die: that `posix_spawn` cannot be asked for, and an orphan would go on working beside its successor.
//!
//! Call it from a thread that lives as long as the program: the child dies with that thread.

use crate::executor::process::kill;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Mutex;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// What the child needs, made ready beforehand: it must not allocate.
struct Child {
    program: *const c_char,
    argv: *const *const c_char,
    /// For a script without a first line that names its interpreter, the shell is one.
    shell_argv: *const *const c_char,
    dir: *const c_char,
    environment: *const *const c_char,
    input: RawFd,
    output: RawFd,
    parent: libc::pid_t,
    mask: libc::sigset_t,
    error: c_int,
}

const STACK: usize = 64 << 10;

/// Starts `program` with these words (the first is its name) in `dir`, as the leader of a process group; what it writes
/// goes to `output`. It has our environment, with these variables in it or in the place of ours. Gives back its process
/// id.
///
/// # Errors
/// If it cannot be started: it is not there, not executable, or the folder is not there.
pub fn spawn(program: &Path, argv: &[String], dir: &Path, output: &File, variables: &[(&str, String)]) -> Result<u32> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Error::other("a word of the command holds a zero byte"));
    let program = text(program.as_os_str().as_bytes())?;
    let dir = text(dir.as_os_str().as_bytes())?;
    let words = argv.iter().map(|word| text(word.as_bytes())).collect::<Result<Vec<_>>>()?;
    let shell = text(b"/bin/sh")?;
    let more = variables.iter().map(|(name, value)| text(format!("{name}={value}").as_bytes()));
    let more = more.collect::<Result<Vec<_>>>()?;
    // SAFETY: nobody in this process changes the environment.
    let ours = (0..).map(|i| unsafe { *environ.add(i) }).take_while(|entry| !entry.is_null());
    let is_named = |entry: &*const c_char, name: &str| {
        // SAFETY: an entry of the environment ends with a zero byte.
        let entry = unsafe { CStr::from_ptr(*entry) }.to_bytes();
        entry.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
    };
    let ours = ours.filter(|entry| !variables.iter().any(|(name, _)| is_named(entry, name)));
    let more = || more.iter().map(|entry| entry.as_ptr());
    let environment: Vec<*const c_char> = ours.chain(more()).chain([std::ptr::null()]).collect();
    let pointers = |first: &[&CString]| -> Vec<*const c_char> {
        let rest = words.iter().skip(1);
        first.iter().copied().chain(rest).map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let argv = pointers(&[words.first().unwrap_or(&program)]);
    let shell_argv = pointers(&[&shell, &program]);
    let input = File::open("/dev/null")?;
    let mut stack = vec![0_u8; STACK];
    // SAFETY: all pointers outlive the child's use of them, for we are suspended until it has become the program or has
    // given up (CLONE_VFORK). It runs on a stack of its own with all signals blocked, calls only async-signal-safe
    // functions, and touches no memory but `child`.
    unsafe {
        let mut child = Child {
            program: program.as_ptr(),
            argv: argv.as_ptr(),
            shell_argv: shell_argv.as_ptr(),
            dir: dir.as_ptr(),
            environment: environment.as_ptr(),
            input: input.as_raw_fd(),
            output: output.as_raw_fd(),
            parent: libc::getpid(),
            mask: std::mem::zeroed(),
            error: 0,
        };
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, &mut child.mask);
        // stacks grow downwards and start aligned
        let top = stack.as_mut_ptr().add(STACK);
        let top = top.sub(top as usize % 16).cast::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let pid = libc::clone(become_program, top, flags, (&raw mut child).cast());
        let failure = Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &child.mask, std::ptr::null_mut());
        if pid < 0 {
            return Err(failure);
        }
        let error = (&raw const child.error).read_volatile();
        if error != 0 {
            // it is gone already; nobody else waits for it
            let _ = wait(pid as u32);
            return Err(Error::from_raw_os_error(error));
        }
        Ok(pid as u32)
    }
}

/// Waits until a process that [`spawn`] started is over, and ends what it has left behind in its group: a unit is over
/// when its program is, and nobody goes on to write into its folder.
///
/// # Errors
/// If somebody else has waited for it.
pub fn wait(pid: u32) -> Result<ExitStatus> {
    await_end(pid);
    reap(pid)
}

/// A process that leads a group of its own, which one thread waits for and others may end. Once it is reaped its number
/// may be somebody else's: it is signalled no more.
pub struct Group {
    /// Its number.
    pub id: u32,
    reaped: Mutex<bool>,
}

impl Group {
    /// That of a process that nobody has waited for.
    pub fn new(id: u32) -> Group {
        Group { id, reaped: Mutex::new(false) }
    }

    /// As [`wait`].
    ///
    /// # Errors
    /// If somebody else has waited for it.
    pub fn wait(&self) -> Result<ExitStatus> {
        await_end(self.id);
        let mut reaped = self.reaped.lock().expect("no thread panics while it holds this");
        *reaped = true;
        reap(self.id)
    }

    /// Ends it and all of its group; says whether it was still there to be ended.
    pub fn kill(&self) -> bool {
        let reaped = self.reaped.lock().expect("no thread panics while it holds this");
        if !*reaped {
            kill(self.id);
        }
        !*reaped
    }

    /// Whether it is over and was waited for.
    pub fn is_reaped(&self) -> bool {
        *self.reaped.lock().expect("no thread panics while it holds this")
    }
}

/// Waits until a process is over, and leaves it to be reaped.
fn await_end(pid: u32) {
    // SAFETY: the structure is ours to write.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        while libc::waitid(libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT) < 0
            && Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
        {}
    }
}

/// Ends what a process that is over has left behind in its group, and reaps it.
fn reap(pid: u32) -> Result<ExitStatus> {
    let mut status = 0;
    // while the process is not reaped its number, and so its group, is nobody else's
    kill(pid);
    loop {
        // SAFETY: the status is ours to write.
        if unsafe { libc::waitpid(pid as libc::pid_t, &mut status, 0) } >= 0 {
            return Ok(ExitStatus::from_raw(status));
        }
        let error = Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// The child: sets itself up and becomes the program. Does not return if that works.
extern "C" fn become_program(child: *mut c_void) -> c_int {
    let child = child.cast::<Child>();
    // SAFETY: see `spawn`; handlers are reset before signals are let in, so that none of ours runs in the child.
    unsafe {
        let own_group = libc::setpgid(0, 0) == 0;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
            // ignoring one drops what was sent to our group before the child left it: a program must not start with our
            // Ctrl-C
            libc::signal(signal, libc::SIG_IGN);
            libc::signal(signal, libc::SIG_DFL);
        }
        let ready = own_group
            && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
            && libc::getppid() == (*child).parent
            && libc::dup2((*child).input, 0) >= 0
            && libc::dup2((*child).output, 1) >= 0
            && libc::dup2((*child).output, 2) >= 0
            && libc::chdir((*child).dir) == 0
            && libc::sigprocmask(libc::SIG_SETMASK, &(*child).mask, std::ptr::null_mut()) == 0;
        if ready {
            libc::execve((*child).program, (*child).argv, (*child).environment);
            if *libc::__errno_location() == libc::ENOEXEC {
                libc::execve(*(*child).shell_argv, (*child).shell_argv, (*child).environment);
            }
        }
        (&raw mut (*child).error).write_volatile((*libc::__errno_location()).max(1));
        libc::_exit(127)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn run(argv: &[&str], program: &str) -> (Result<ExitStatus>, String) {
        let mut log = tempfile::tempfile().unwrap();
        let argv: Vec<String> = argv.iter().map(|word| word.to_string()).collect();
        let status =
            spawn(Path::new(program), &argv, Path::new("/"), &log, &[("X_Y", "z".into()), ("HOME", "/x".into())])
                .and_then(wait);
        let mut text = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut text).unwrap();
        (status, text)
    }

    #[test]
    fn programs_start_and_end() {
        let (status, text) =
            run(&["sh", "-c", "pwd; echo \"$0-$1-$X_Y\" >&2; env | grep -c ^HOME=; exit 3", "a b", "c"], "/bin/sh");
        assert_eq!((status.unwrap().code(), text.as_str()), (Some(3), "/\na b-c-z\n1\n"));
        let (status, _) = run(&["sh", "-c", "kill -SEGV $$"], "/bin/sh");
        assert_eq!(status.unwrap().signal(), Some(libc::SIGSEGV));
        let (status, _) = run(&["nobody"], "/no/such/program");
        assert_eq!(status.unwrap_err().kind(), std::io::ErrorKind::NotFound);
        let (status, _) = run(&["passwd"], "/etc/passwd");
        assert_eq!(status.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn what_a_program_leaves_behind_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let late = dir.path().join("late");
        let line = format!("(sleep 0.3; echo late > {}) & echo begun", late.display());
        let (status, text) = run(&["sh", "-c", &line], "/bin/sh");
        assert_eq!((status.unwrap().success(), text.as_str()), (true, "begun\n"));
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert!(!late.exists());
    }

    #[test]
    fn a_group_that_was_reaped_is_signalled_no_more() {
        let log = tempfile::tempfile().unwrap();
        let argv = ["sleep".to_string(), "60".into()];
        let group = Group::new(spawn(Path::new("/bin/sleep"), &argv, Path::new("/"), &log, &[]).unwrap());
        assert!(group.kill() && !group.is_reaped());
        assert_eq!(group.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(group.is_reaped() && !group.kill());
    }

    #[test]
    fn scripts_without_an_interpreter_are_the_shells() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "echo \"got $1\"\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (status, text) = run(&["script", "x"], script.to_str().unwrap());
        assert_eq!((status.unwrap().success(), text.as_str()), (true, "got x\n"));
    }
}
