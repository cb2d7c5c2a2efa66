//! A real browser for tests: Chromium without a window, driven by its DevTools protocol over two pipes, as JSON with a
//! zero byte behind each message. Knows no page of ours.

#![allow(dead_code, reason = "each test executable uses a part of it")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Names under which it is installed, in the order in which they are tried.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// How long a page may take for what a test waits for.
const WITHIN: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Chrome {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: String,
    asked: u64,
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

/// The browser's program; `None`, said aloud, where there is none.
pub fn program() -> Option<String> {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&dirs).flat_map(|dir| PROGRAMS.map(|name| dir.join(name))).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: there is no browser to test with; install chromium (looked for {})", PROGRAMS.join(", "));
    }
    found.map(|path| path.display().to_string())
}

impl Chrome {
    /// Starts it, with a page of this size.
    pub fn start(program: &str, width: u32, height: u32) -> Chrome {
        let profile = tempfile::tempdir().expect("a temporary folder");
        // the protocol speaks on descriptors 3 and 4; the shell lays our pipes there
        let line = "exec \"$0\" --headless --no-sandbox --remote-debugging-pipe --use-angle=swiftshader --enable-unsafe-swiftshader \
                    --no-first-run --disable-background-networking --user-data-dir=\"$1\" about:blank 3<&0 4>&1 0</dev/null 1>/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", line, program]).arg(profile.path()).env("HOME", profile.path());
        // a group of its own, so that all its processes can be ended
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().expect("sh starts");
        let (input, output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (output, session, complaints) = (BufReader::new(output), String::new(), Vec::new());
        let mut chrome = Chrome { child, input, output, session, asked: 0, complaints, _profile: profile };
        let targets = chrome.call("Target.getTargets", json!({}));
        let pages = targets["targetInfos"].as_array().expect("a list");
        let page = pages.iter().find(|one| one["type"] == "page").expect("a page")["targetId"].clone();
        let attached = chrome.call("Target.attachToTarget", json!({"targetId": page, "flatten": true}));
        chrome.session = attached["sessionId"].as_str().expect("a session").into();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            chrome.call(domain, json!({}));
        }
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        chrome.call("Emulation.setDeviceMetricsOverride", size);
        chrome
    }

    /// Calls a method of the protocol, and gives its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let mut message = json!({"id": self.asked, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.input.write_all(format!("{message}\0").as_bytes()).expect("the browser listens");
        loop {
            let mut bytes = Vec::new();
            self.output.read_until(0, &mut bytes).expect("the browser answers");
            assert_eq!(bytes.pop(), Some(0), "the browser has gone");
            let mut told: Value = serde_json::from_slice(&bytes).expect("JSON");
            if told["id"] == self.asked {
                assert!(told["error"].is_null(), "{method}: {}", told["error"]);
                return told["result"].take();
            }
            let params = &told["params"];
            match told["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.complaints.push(params["exceptionDetails"].to_string()),
                Some("Log.entryAdded") => self.complaints.push(params["entry"].to_string()),
                Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                    self.complaints.push(params["args"].to_string())
                }
                _ => {}
            }
        }
    }

    /// Goes to an address.
    pub fn go(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
    }

    /// Goes to a page that lies on disk, and waits until all of it is there.
    pub fn open(&mut self, path: &Path) {
        self.go(&format!("file://{}", path.display()));
        self.until("location.protocol === 'file:' && document.readyState === 'complete'");
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut told = self.call("Runtime.evaluate", asked);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {}", told["exceptionDetails"]);
        told["result"]["value"].take()
    }

    /// Waits until an expression is true (or anything but false, null, 0 and ""), and gives it.
    pub fn until(&mut self, expression: &str) -> Value {
        let begun = Instant::now();
        loop {
            // a page that is just being left has no expressions
            let value =
                self.value(&format!("(() => {{ try {{ return {expression} }} catch (error) {{ return null }} }})()"));
            if ![json!(false), json!(null), json!(0), json!("")].contains(&value) {
                return value;
            }
            if begun.elapsed() > WITHIN {
                let page = self.value("document.body.innerText");
                panic!(
                    "waited in vain for {expression}; the page says:\n{}\n{:?}",
                    page.as_str().unwrap_or_default(),
                    self.complaints
                );
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// The middle, left edge, and width of an element, scrolled into sight.
    pub fn place(&mut self, selector: &str) -> [f64; 4] {
        let place = self.until(&format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{block: 'center'}}); \
             const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2, b.x, b.width]; }})()"
        ));
        std::array::from_fn(|i| place[i].as_f64().expect("a number"))
    }

    fn mouse(&mut self, kind: &str, x: f64, y: f64, down: bool) {
        let event = json!({"type": kind, "x": x, "y": y, "button": "left", "buttons": u8::from(down), "clickCount": 1});
        self.call("Input.dispatchMouseEvent", event);
    }

    /// Clicks in the middle of an element.
    pub fn click(&mut self, selector: &str) {
        let [x, y, ..] = self.place(selector);
        self.drag([x, y], [x, y]);
    }

    /// Presses the mouse at a place, moves it in steps, and lets go.
    pub fn drag(&mut self, from: [f64; 2], to: [f64; 2]) {
        self.mouse("mouseMoved", from[0], from[1], false);
        self.mouse("mousePressed", from[0], from[1], true);
        if from != to {
            for step in 1..=5 {
                let at = |i: usize| from[i] + (to[i] - from[i]) * f64::from(step) / 5.0;
                self.mouse("mouseMoved", at(0), at(1), true);
            }
        }
        self.mouse("mouseReleased", to[0], to[1], false);
    }

    /// Turns the wheel.
    pub fn wheel(&mut self, x: f64, y: f64, by: f64) {
        self.call("Input.dispatchMouseEvent", json!({"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": by}));
    }

    /// Types a text where the cursor stands, and the enter key.
    pub fn enter(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
        for kind in ["keyDown", "keyUp"] {
            self.call(
                "Input.dispatchKeyEvent",
                json!({"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}),
            );
        }
    }

    /// What the page looks like at a place: RGB rows of so many pixels.
    pub fn pixels(&mut self, selector: &str) -> (usize, Vec<[u8; 3]>) {
        let [x, y, left, width] = self.place(selector);
        let clip = json!({"x": left, "y": y - (x - left), "width": width, "height": width, "scale": 1});
        let shot = self.call("Page.captureScreenshot", json!({"format": "png", "clip": clip}));
        let bytes = decoded(shot["data"].as_str().expect("a picture"));
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut out = vec![0; reader.output_buffer_size().expect("it has a size")];
        let info = reader.next_frame(&mut out).expect("a picture");
        let channels = info.color_type.samples();
        (info.width as usize, out[..info.buffer_size()].chunks(channels).map(|p| [p[0], p[1], p[2]]).collect())
    }

    /// What the page has complained of so far.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }
}

impl Drop for Chrome {
    fn drop(&mut self) {
        let group = -i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: a signal to the group of processes that we started
        unsafe { libc::kill(group, libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

/// Base64, of which there is no more here than a picture's worth.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut out = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0u32, |bits, c| (bits << 6) | u32::from(digit(*c))) << (6 * (4 - four.len()));
        out.extend(&bits.to_be_bytes()[1..four.len()]);
    }
    out
}
