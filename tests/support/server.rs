//! `effigy serve` as tests ask it: started on a free port, asked byte by byte, ended with its test.

#![allow(dead_code, reason = "each test executable uses a part of it")]

use crate::support::Space;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

/// A server that is on.
pub struct Server {
    child: Child,
    /// Where.
    pub port: u16,
}

/// What it answered.
pub struct Answered {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Server {
    /// Over the workspace `.effigy` of a space.
    pub fn start(space: &Space) -> Server {
        let mut child = space.command(&["serve", "--port", "0"]).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says where it is");
        let port =
            line.trim().strip_prefix("http://127.0.0.1:").and_then(|rest| rest.strip_suffix('/')).map(str::parse);
        let port = port.unwrap_or_else(|| panic!("it said {line:?}")).expect("a port");
        Server { child, port }
    }

    /// The address of a view.
    pub fn address(&self, view: &str) -> String {
        format!("http://127.0.0.1:{}/{view}", self.port)
    }

    /// Sends bytes as they are.
    pub fn send(&self, request: &str) -> Answered {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("it answers and closes");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("text");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        Answered { status, head, body: bytes[end + 4..].to_vec() }
    }

    /// Asks with a method and headers besides `Host`.
    pub fn ask(&self, method: &str, target: &str, headers: &str) -> Answered {
        self.send(&format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}\r\n", self.port))
    }

    pub fn get(&self, target: &str) -> Answered {
        self.ask("GET", target, "")
    }

    /// The answer to `/api/...` as JSON; it must be one.
    pub fn json(&self, target: &str) -> Value {
        let answered = self.get(&format!("/api/{target}"));
        let text = String::from_utf8(answered.body).expect("text");
        assert_eq!(answered.status, 200, "{target}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{target}: {error} in {text}"))
    }

    /// Interrupts it, and gives its exit code.
    pub fn interrupt(mut self) -> Option<i32> {
        self.end()
    }

    fn end(&mut self) -> Option<i32> {
        let id = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: a signal to the process that we started
        unsafe { libc::kill(id, libc::SIGINT) };
        self.child.wait().ok()?.code()
    }
}

impl Answered {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body as JSON.
    pub fn told(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // killed, it would leave its temporary folder; it may have ended already
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.end();
        }
    }
}
