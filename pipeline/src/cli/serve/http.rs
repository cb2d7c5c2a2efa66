//! The connections: as much of HTTP/1.1 as a browser needs that only reads. A connection is answered once and closed,
//! so that no thread waits for what may never come, and what is not understood is over with its connection. Every
//! answer bears the headers that keep a page from being framed, guessed at or read by others. Knows no addresses.

use super::asked::{Answer, Asked, Body, Refusal};
use super::guard;
use crate::error::{Problem, Problems};
use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Connections that are answered at the same time; others wait for one of these. A browser keeps six, and some more
/// that it never uses.
const THREADS: usize = 32;

/// The longest head of a request, which holds its address and headers.
const HEAD: usize = 32 * 1024;

/// How long the head of a request may take to arrive: whoever opens a connection on this machine and says nothing holds
/// up the others.
const ARRIVAL: Duration = Duration::from_secs(5);

/// How long a browser may take for a piece of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is read at most of a request that has been answered, and for how long.
const REST: (u64, Duration) = (1 << 20, Duration::from_millis(300));

/// What our page may do: show what we send, and nothing else. A file opened by itself is shut off even from that.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers requests that the guard has let in.
pub type Answers = dyn Fn(&Asked) -> Answer + Send + Sync;

/// A server that listens and does not answer yet.
pub struct Listener {
    listener: TcpListener,
    port: u16,
    stop: (Sender<()>, Receiver<()>),
}

impl Listener {
    /// Listens on the loopback interface.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn bind(port: u16) -> Result<Listener> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| {
            let port = listener.local_addr()?.port();
            Ok(Listener { listener, port, stop: channel() })
        });
        bound.map_err(|error| {
            let message = format!("cannot listen on port {port} of 127.0.0.1: {error}");
            let problem =
                Problem::new(message).hint("another `effigy serve` may have it; `--port 0` takes one that is free");
            Problems::from(problem).into()
        })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What ends [`Listener::serve`].
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let stop = self.stop.0.clone();
        move || {
            // a server that has ended does not listen
            let _ = stop.send(());
        }
    }

    /// Answers until it is stopped. What is being answered then is not waited for. The threads stay: workers that were
    /// started by one die with it.
    ///
    /// # Errors
    /// If there are no threads.
    pub fn serve(&self, answers: &Arc<Answers>) -> Result<()> {
        for _ in 0..THREADS {
            let (listener, answers) = (self.listener.try_clone()?, answers.clone());
            std::thread::Builder::new().name("connections".into()).spawn(move || {
                loop {
                    match listener.accept() {
                        // a browser that has gone elsewhere does not listen
                        Ok((stream, _)) => drop(handle(&stream, &*answers)),
                        // it was closed before it was accepted, or there are too many files open, which passes
                        Err(_) => std::thread::sleep(Duration::from_millis(20)),
                    }
                }
            })?;
        }
        // it cannot fail: we hold a sender
        let _ = self.stop.1.recv();
        Ok(())
    }
}

fn handle(stream: &TcpStream, answers: &Answers) -> std::io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let Some(head) = head(stream)? else { return Ok(()) };
    let asked = parsed(&head);
    let bare = asked.as_ref().is_ok_and(|asked| asked.method == "HEAD");
    let page = asked.as_ref().is_ok_and(Asked::wants_page);
    let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let checked = asked.and_then(|asked| guard::check(&asked).map(|()| asked));
        checked.map_or_else(|refusal| refusal.answer(page), |asked| answers(&asked))
    }));
    let answer = answered.unwrap_or_else(|_| {
        Refusal { status: 500, ..super::asked::wrong("the server panicked over this") }.answer(page)
    });
    send(stream, answer, bare)?;
    stream.shutdown(Shutdown::Write)?;
    // what is closed while something lies unread takes the answer with it
    stream.set_read_timeout(Some(REST.1))?;
    std::io::copy(&mut Read::take(stream, REST.0), &mut std::io::sink())?;
    Ok(())
}

/// The head of a request, up to the empty line; `None` if the connection was opened for nothing.
fn head(mut stream: &TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let (begun, mut head, mut piece) = (Instant::now(), Vec::new(), [0; 4096]);
    loop {
        let left = ARRIVAL.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(None);
        }
        head.extend_from_slice(&piece[..count]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            head.truncate(end);
            return Ok(Some(head));
        }
        if head.len() > HEAD {
            return Ok(Some(Vec::new()));
        }
    }
}

/// A request as its head tells it. Strict: what could be read in two ways is refused. Values may hold bytes of any
/// alphabet, which cookies of another program on this machine do; nobody here reads those.
fn parsed(head: &[u8]) -> Result<Asked, Refusal> {
    let wrong = || super::asked::wrong("that is no request, or one too long");
    if !head.iter().all(|c| matches!(c, b' '..=b'~' | b'\t' | b'\r' | b'\n' | 0x80..)) {
        return Err(wrong());
    }
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let mut words = lines.next().filter(|line| line.is_ascii()).unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) = (method, target, version, words.next())
    else {
        return Err(wrong());
    };
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let plain = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
        (plain && !value.contains(['\r', '\n'])).then(|| (name.to_ascii_lowercase(), value.trim().to_string()))
    };
    let headers = lines.map(header).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    Ok(Asked { method: method.into(), target: target.into(), headers })
}

fn send(mut stream: &TcpStream, answer: Answer, bare: bool) -> std::io::Result<()> {
    let length = match &answer.body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::Part(_, length) => *length,
    };
    let mut headers = vec![
        ("Content-Type", answer.media.to_string()),
        ("Content-Length", length.to_string()),
        ("Connection", "close".into()),
        ("X-Content-Type-Options", "nosniff".into()),
        ("Cross-Origin-Resource-Policy", "same-origin".into()),
        ("Cross-Origin-Opener-Policy", "same-origin".into()),
        ("Referrer-Policy", "no-referrer".into()),
        ("X-Frame-Options", "DENY".into()),
    ];
    if !answer.headers.iter().any(|(name, _)| *name == "Content-Security-Policy") {
        headers.push(("Content-Security-Policy", POLICY.into()));
    }
    headers.extend(answer.headers);
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // a reason is for people who look at the wire, who know the numbers
    stream.write_all(format!("HTTP/1.1 {} -\r\n{lines}\r\n", answer.status).as_bytes())?;
    match answer.body {
        _ if bare => Ok(()),
        Body::Bytes(bytes) => stream.write_all(&bytes),
        Body::Part(file, length) => std::io::copy(&mut file.take(length), &mut stream).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let asked = parsed(b"GET /a?b HTTP/1.1\r\nHost: x:1\r\nX-A:  b c ").unwrap();
        assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/a?b"));
        assert_eq!((asked.header("host"), asked.header("x-a")), (Some("x:1"), Some("b c")));
        let foreign = parsed(b"GET / HTTP/1.1\r\nHost: x\r\nX.Y: z\r\nCookie: a=\xe9\xff; b=\xc3\xa9").unwrap();
        assert_eq!((foreign.header("host"), foreign.header("x.y")), (Some("x"), Some("z")));
        let odd: [&[u8]; 11] = [
            b"",
            b"GET /",
            b"GET / HTTP/2",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 x",
            b"GET / HTTP/1.1\r\nHost",
            b"GET / HTTP/1.1\r\nHost : x",
            b"GET / HTTP/1.1\r\nHost: x\r\n more",
            b"GET /\xff HTTP/1.1",
            b"GET / HTTP/1.1\r\nH\xf6st: x",
            b"GET / HTTP/1.1\r\nCookie: a\x00b",
        ];
        for head in odd {
            assert_eq!(parsed(head).unwrap_err().status, 400, "{}", String::from_utf8_lossy(head));
        }
    }
}
