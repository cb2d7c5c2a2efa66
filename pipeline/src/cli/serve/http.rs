//! The connections: the only file that names the HTTP library. Every answer bears the headers that keep a page from being
//! framed, guessed at or read by others.

use super::asked::{Answer, Asked, Body};
use super::guard;
use crate::hints::hinted;
use anyhow::{Result, anyhow};
use std::io::{Cursor, Read};
use std::sync::Arc;
use tiny_http::{Header, Request, Response, Server, StatusCode};

/// Requests that are answered at the same time: a computation must not keep the page waiting.
const THREADS: usize = 8;

/// What our page may do: show what we send, and nothing else. A file opened by itself is shut off even from that.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A server that listens and does not answer yet.
pub struct Listener {
    server: Arc<Server>,
    port: u16,
}

impl Listener {
    /// Listens on the loopback interface.
    ///
    /// # Errors
    /// If the port is taken.
    pub fn bind(port: u16) -> Result<Listener> {
        let server = Server::http(("127.0.0.1", port)).map_err(|error| {
            let message = format!("cannot listen on port {port} of 127.0.0.1: {error}");
            hinted(message, "another `effigy serve` may have it; `--port 0` takes one that is free")
        })?;
        let port = server.server_addr().to_ip().ok_or_else(|| anyhow!("the server has no address"))?.port();
        Ok(Listener { server: Arc::new(server), port })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What ends [`Listener::serve`].
    pub fn stopper(&self) -> impl Fn() + Send + 'static {
        let server = self.server.clone();
        move || (0..THREADS).for_each(|_| server.unblock())
    }

    /// Answers until it is stopped.
    pub fn serve(&self, answer: &(dyn Fn(&Asked) -> Answer + Sync)) {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Ok(request) = self.server.recv() {
                        self.handle(request, answer);
                    }
                });
            }
        });
    }

    fn handle(&self, request: Request, answer: &(dyn Fn(&Asked) -> Answer + Sync)) {
        let header = |header: &Header| (header.field.as_str().as_str().to_ascii_lowercase(), header.value.to_string());
        let asked = Asked {
            method: request.method().to_string(),
            target: request.url().into(),
            headers: request.headers().iter().map(header).collect(),
        };
        let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match guard::check(&asked, self.port) {
            Ok(()) => answer(&asked),
            Err(refusal) => refusal.answer(),
        }));
        let answer = answered.unwrap_or_else(|_| Answer {
            status: 500,
            ..Answer::json("{\"error\":\"the server panicked over this\"}".into())
        });
        // a browser that has gone elsewhere does not listen
        let _ = request.respond(response(answer));
    }
}

fn response(answer: Answer) -> Response<Box<dyn Read + Send>> {
    let mut headers = vec![
        ("Content-Type", answer.media.to_string()),
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
    let header = |(name, value): (&str, String)| Header::from_bytes(name, value).expect("our headers are ASCII");
    let (body, length): (Box<dyn Read + Send>, usize) = match answer.body {
        Body::Bytes(bytes) => {
            let length = bytes.len();
            (Box::new(Cursor::new(bytes)), length)
        }
        Body::Part(file, length) => (Box::new(file.take(length)), length as usize),
    };
    let headers = headers.into_iter().map(header).collect();
    Response::new(StatusCode(answer.status), headers, body, Some(length), None)
        // a length is known, and players of videos go by it
        .with_chunked_threshold(usize::MAX)
}
