//! What remotes are tested against: shared folders, a real S3 server on this machine, and a proxy before it that spoils
//! what it is told to.

#![allow(dead_code, reason = "each test executable uses a part of it")]

use crate::support::Space;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A cache on an S3 server.
pub const URL: &str = "s3://bucket/team/cache";
/// Bytes of a file that moves in parts.
pub const BIG: usize = 40 << 20;

/// The workspace of one colleague: so many small files, each in work for `pause` seconds, and one of `size` bytes. What
/// runs is noted in `ran.log`.
pub fn colleague(files: usize, size: usize, pause: f64) -> Space {
    let space = Space::new();
    for i in 0..files {
        space.write(&format!("in/{i:02}.txt"), &"word ".repeat(i + 1));
    }
    space.write(
        "r.yaml",
        &format!(
            "
stages:
  src: {{ files: 'in/*.txt' }}
  upper: {{ run: 'sleep {pause}; tr a-z A-Z < {{file}} > {{out}}/file && echo {{path}} >> ran.log', shell: true, from: src, writes: {{ file: blob }} }}
  big: {{ run: 'yes effigy | head -c {size} > {{out}}/file && echo big >> ran.log', shell: true, writes: {{ file: blob }} }}
"
        ),
    );
    space.settle();
    space
}

/// All files below a folder, by their relative paths, with their content.
pub fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).expect("it lies below").display().to_string();
                // one that is being written may be gone
                found.insert(name, std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    found
}

/// Those of these files whose names begin so.
pub fn named(root: &Path, start: &str) -> Vec<PathBuf> {
    files(root).into_keys().filter(|name| name.starts_with(start)).map(|name| root.join(name)).collect()
}

/// Writes other bytes of the same length over a file.
pub fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).expect("it is there");
    let last = bytes.len() - 1;
    bytes[last] ^= 0x55;
    // files of a remote may be read-only
    std::fs::remove_file(path).expect("it is there");
    std::fs::write(path, bytes).expect("a file");
}

/// The keys that open the server.
pub const KEY: (&str, &str) = ("effigy-test-key", "effigy-test-secret-4711");

/// An S3 server of its own, with the bucket `bucket`.
pub struct S3 {
    child: Child,
    host: String,
    pub port: u16,
    dir: tempfile::TempDir,
}

impl S3 {
    /// `None`, and a loud line, if there is no such program on this machine.
    pub fn start(test: &str) -> Option<S3> {
        S3::start_at(test, "127.0.0.1", |_| {}, |host, port| TcpStream::connect((host, port)).is_ok())
    }

    /// The same at an address of another machine: `place` puts the server there, `listens` tells from there whether it
    /// is up.
    pub fn start_at(
        test: &str,
        host: &str,
        place: impl Fn(&mut Command),
        listens: impl Fn(&str, u16) -> bool,
    ) -> Option<S3> {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        let on_path = || std::env::split_paths(&dirs).map(|dir| dir.join("s3s-fs")).find(|path| path.exists());
        let Some(program) = std::env::var_os("EFFIGY_S3S_FS").map(PathBuf::from).or_else(on_path) else {
            // not by a macro, whose words are kept from whoever looks at tests that pass
            let _ = writeln!(
                std::io::stderr(),
                "not tried: {test}: there is no s3s-fs on PATH or in EFFIGY_S3S_FS; \
                 `cargo install s3s-fs@0.14.1 --features binary` brings it"
            );
            return None;
        };
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("bucket")).expect("a folder");
        // free now, and soon again
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut command = Command::new(program);
        command.args(["--host", host, "--port", &port.to_string()]);
        command.args(["--access-key", KEY.0, "--secret-key", KEY.1]).arg(dir.path());
        place(&mut command);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let since = Instant::now();
        while !listens(host, port) {
            assert!(since.elapsed() < Duration::from_secs(30), "the S3 server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(S3 { child, host: host.into(), port, dir })
    }

    /// Where the objects of a prefix lie as files.
    pub fn folder(&self, prefix: &str) -> PathBuf {
        self.dir.path().join("bucket").join(prefix)
    }

    /// Sets what a colleague would have in the environment, with the server behind this port.
    pub fn set(command: &mut Command, port: u16) {
        set(command, "127.0.0.1", port);
    }

    /// The same for this server, whatever machine it is on.
    pub fn set_here(&self, command: &mut Command) {
        set(command, &self.host, self.port);
    }
}

fn set(command: &mut Command, host: &str, port: u16) {
    command.env("AWS_ACCESS_KEY_ID", KEY.0).env("AWS_SECRET_ACCESS_KEY", KEY.1);
    command.env("AWS_ENDPOINT_URL", format!("http://{host}:{port}")).env("AWS_REGION", "us-east-1");
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The connection is closed before an answer.
    Drop,
    /// The server says 500.
    Error,
    /// The answer's body ends in the middle.
    Cut,
    /// A byte of the answer's body is another.
    Wrong,
    /// The answer comes late.
    Slow,
}

/// A proxy before a server, one request for each connection.
pub struct Proxy {
    pub port: u16,
    /// The first lines of the requests, and what was done to them.
    pub seen: Arc<Mutex<Vec<(String, Fault)>>>,
}

impl Proxy {
    /// Before the server of a port. `fault` decides by the number of the request and its first line.
    pub fn start(server: u16, fault: impl Fn(usize, &str) -> Fault + Send + Sync + 'static) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, fault) = (seen.clone(), Arc::new(fault));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, fault) = (log.clone(), fault.clone());
                // whoever is cut off has to see to it; the test looks at what comes of it
                std::thread::spawn(move || {
                    let _ = pass(stream, server, &log, &*fault);
                });
            }
        });
        Proxy { port, seen }
    }

    /// How often something was done to requests.
    pub fn count(&self, fault: Fault) -> usize {
        self.seen.lock().expect("no thread panics").iter().filter(|(_, done)| *done == fault).count()
    }
}

fn pass(
    client: TcpStream,
    server: u16,
    log: &Mutex<Vec<(String, Fault)>>,
    fault: &dyn Fn(usize, &str) -> Fault,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (first, head, length) = head(&mut reader)?;
    let what = {
        let mut log = log.lock().expect("no thread panics");
        let what = fault(log.len(), &first);
        log.push((first.clone(), what));
        what
    };
    if what == Fault::Drop {
        return Ok(());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut client = client;
    if what == Fault::Error {
        return client
            .write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", server))?;
    upstream.write_all(format!("{first}\r\n{head}Connection: close\r\n\r\n").as_bytes())?;
    upstream.write_all(&body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let length = answer.len() - end;
    match what {
        Fault::Wrong if length > 0 => answer[end + length / 2] ^= 0x20,
        Fault::Cut => answer.truncate(end + length / 2),
        Fault::Slow => std::thread::sleep(Duration::from_millis(300)),
        _ => {}
    }
    client.write_all(&answer)
}

/// A web server over a folder, which answers GET and HEAD, and PUT if it `takes` files. It lasts as long as the test.
pub fn web(dir: &Path, takes: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let dir = dir.to_path_buf();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let dir = dir.clone();
            // a client that goes away wants no answer
            std::thread::spawn(move || answer(stream, &dir, takes).is_ok());
        }
    });
    port
}

fn answer(mut client: TcpStream, dir: &Path, takes: bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (first, _, length) = head(&mut reader)?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = dir.join(path.trim_start_matches('/'));
    let say = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    match (method, std::fs::read(&path)) {
        ("GET", Ok(bytes)) => client.write_all(&[say("200 OK", bytes.len()).as_bytes(), &bytes].concat()),
        ("HEAD", Ok(bytes)) => client.write_all(say("200 OK", bytes.len()).as_bytes()),
        ("PUT", _) if takes => {
            std::fs::create_dir_all(path.parent().expect("a file lies in a folder"))?;
            std::fs::write(&path, &body)?;
            client.write_all(say("201 Created", 0).as_bytes())
        }
        ("GET" | "HEAD", _) => client.write_all(say("404 Not Found", 0).as_bytes()),
        _ => client.write_all(say("405 Method Not Allowed", 0).as_bytes()),
    }
}

/// The first line of a request, its other lines but for `Connection`, and the length of its body.
fn head(reader: &mut impl BufRead) -> std::io::Result<(String, String, usize)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_string()),
        }
    }
    let first = lines.remove(0);
    let value = |line: &str, name: &str| {
        line.split_once(':')
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_string())
    };
    let length = lines.iter().find_map(|line| value(line, "content-length")?.parse().ok()).unwrap_or(0);
    let kept = lines.iter().filter(|line| value(line, "connection").is_none());
    Ok((first, kept.map(|line| format!("{line}\r\n")).collect(), length))
}
