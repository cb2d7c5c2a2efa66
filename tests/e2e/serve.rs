//! `effigy serve`: who is answered and who is refused, what the page asks for, and the page in a real browser.

use crate::chrome::{self, Chrome};
use crate::server::Server;
use crate::support::Space;
use serde_json::json;
use std::net::TcpStream;

const RECIPE: &str = "
recipe: demo
stages:
  pictures: { files: 'in/*.png' }
  words: { files: 'in/*.txt' }
  facts: { rows: [{ path: in/a.png, score: 20.5 }, { path: in/b.png, score: 30 }, { path: in/c.png, score: 1 }] }
  kept: { run: 'cp {file} {out}/file.png', from: pictures, writes: { file: blob } }
  scored: { join: [kept, facts], on: [path] }
  size: { run: 'wc -c < {file} > {out}/size', shell: true, from: pictures, writes: { size: blob } }
  page: { run: 'echo \"<script>alert(1)</script>\" > {out}/page', shell: true, from: pictures, where: { path: in/a.png }, writes: { page: blob } }
";

/// A square of one colour.
fn picture(space: &Space, name: &str, color: [u8; 3]) {
    std::fs::create_dir_all(space.path("in")).expect("a folder");
    let file = std::fs::File::create(space.path(name)).expect("a file");
    let mut encoder = png::Encoder::new(file, 64, 64);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&color.repeat(64 * 64)).expect("a picture");
}

/// A workspace in which a recipe ran twice; in between a picture turned from red to blue.
fn start() -> (Space, Server) {
    let space = Space::new();
    space.write("r.yaml", RECIPE);
    for (name, color) in [("in/a.png", [200, 0, 0]), ("in/b.png", [0, 200, 0]), ("in/c.png", [90, 90, 90])] {
        picture(&space, name, color);
    }
    space.write("in/words.txt", "words");
    space.settle();
    space.run();
    picture(&space, "in/a.png", [0, 0, 200]);
    space.settle();
    space.run();
    let server = Server::start(&space);
    (space, server)
}

/// The names of the two runs, the last one first.
fn runs(server: &Server) -> [String; 2] {
    let told = server.json("runs");
    [0, 1].map(|i| told["runs"][i]["run"].as_str().expect("a name").to_string())
}

/// The digest of the table of a stage.
fn table(server: &Server, run: &str, stage: &str) -> String {
    let told = server.json(&format!("run?run={run}"));
    let stages = told["stages"].as_array().expect("a list");
    let found = stages.iter().find(|one| one["name"] == stage).expect("the stage");
    found["table"].as_str().expect("a digest").to_string()
}

#[test]
fn serve_answers_its_own_page_and_refuses_all_others() {
    let (_space, server) = start();
    let port = server.port;
    let page = server.get("/");
    assert_eq!((page.status, page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("Content-Security-Policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
    // whoever names another site, or comes from one
    let status = |request: &str| server.send(request).status;
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 421);
    assert_eq!(status(&format!("GET /api/runs HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n")), 421);
    let with = |headers: &str| server.ask("GET", "/api/runs", headers);
    assert_eq!(with("Origin: http://evil.example\r\n").status, 403);
    assert_eq!(with("Origin: null\r\n").status, 403);
    assert_eq!(with("Sec-Fetch-Site: cross-site\r\n").status, 403);
    assert_eq!(with(&format!("Origin: http://127.0.0.1:{port}\r\nSec-Fetch-Site: same-origin\r\n")).status, 200);
    // another port leads here, another program of this machine has its cookies, another page of it a link to the first
    // page
    assert_eq!(status("GET /api/runs HTTP/1.1\r\nHost: localhost:9000\r\n\r\n"), 200);
    assert_eq!(with("Cookie: name=\u{e9}t\u{e9}\r\n").status, 200);
    let followed = "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(server.ask("GET", "/", followed).status, 200);
    assert_eq!(with(followed).status, 403);
    // whoever typed an address reads a page
    let lost = server.ask("GET", "/nothing", "Accept: text/html\r\nSec-Fetch-Dest: document\r\n");
    assert_eq!((lost.status, lost.header("Content-Type")), (404, Some("text/html; charset=utf-8")));
    assert!(with("").header("Access-Control-Allow-Origin").is_none());
    // whoever wants to write
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"] {
        let refused = server.ask(method, "/api/runs", "Content-Length: 5\r\n");
        assert_eq!(refused.status, 405, "{method}");
        assert!(refused.told()["error"].as_str().is_some_and(|error| error.contains("only shows")), "{method}");
    }
    assert_eq!(status("nonsense\r\n\r\n"), 400);
    let head = server.ask("HEAD", "/", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("Content-Length"), page.header("Content-Length"));
}

#[test]
fn serve_gives_out_no_files_but_those_of_the_workspace() {
    let (space, server) = start();
    space.write("secret.txt", "secret");
    space.write(".effigy/secret.txt", "secret");
    let targets = [
        "/../secret.txt",
        "/blob/../secret.txt",
        "/blob/../../../../../../etc/passwd",
        "/blob/%2e%2e/secret.txt",
        "/blob/..%2f..%2fsecret.txt",
        "/secret.txt",
        "//etc/passwd",
        "/blob//etc/passwd",
        "/.effigy/secret.txt",
        "/blob/secret.txt",
        "/api/run?run=../../secret.txt",
        "/api/run?run=..%2F..%2Fr.yaml",
        "/api/rows?table=../secret.txt",
    ];
    for target in targets {
        let answered = server.get(target);
        assert!([400, 404].contains(&answered.status), "{target}: {}", answered.status);
        assert!(!String::from_utf8_lossy(&answered.body).contains("root:"), "{target}");
    }
    // a page that a stage made is handed out, and runs nowhere
    let [last, _] = runs(&server);
    let rows = server.json(&format!("rows?table={}", table(&server, &last, "page")));
    let names: Vec<&str> =
        rows["columns"].as_array().expect("a list").iter().filter_map(|one| one[0].as_str()).collect();
    let cell = &rows["rows"][0][1][names.iter().position(|name| *name == "page").expect("the column")];
    let page = server.get(&format!("/blob/{}.html", cell["blob"].as_str().expect("a digest")));
    assert_eq!(page.status, 200);
    assert_eq!(
        (page.header("Content-Type"), page.header("Content-Disposition")),
        (Some("application/octet-stream"), Some("attachment"))
    );
    assert!(page.header("Content-Security-Policy").is_some_and(|policy| policy.contains("sandbox")));
}

#[test]
fn serve_listens_on_the_loopback_interface_alone() {
    let (_space, server) = start();
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_ok());
    // all of 127.0.0.0/8 is this machine; a server that listened everywhere would answer there
    assert!(TcpStream::connect(("127.0.0.2", server.port)).is_err());
    // connections that say nothing keep nobody from being answered
    let idle: Vec<_> = (0..40).map(|_| TcpStream::connect(("127.0.0.1", server.port)).expect("it listens")).collect();
    let begun = std::time::Instant::now();
    assert_eq!(server.get("/").status, 200);
    assert!(
        begun.elapsed().as_secs() < 15,
        "more of them than there are threads hold it up for seconds: {:?}",
        begun.elapsed()
    );
    drop(idle);
    assert_eq!(server.interrupt(), Some(0));
}

#[test]
fn serve_says_what_is_wrong_before_it_starts() {
    let space = Space::new();
    space
        .effigy(&["serve", "--workspace", "nowhere"])
        .expect_error(2, &["there is no workspace nowhere", "effigy run RECIPE"]);
    space.write("in/x.txt", "");
    space.effigy(&["serve", "--workspace", "in"]).expect_error(2, &["in is no workspace", "effigy run RECIPE"]);
    space.write(".effigy/runs/x", "");
    let server = Server::start(&space);
    let taken = server.port.to_string();
    space.effigy(&["serve", "--port", &taken]).expect_error(2, &["cannot listen on port", &taken, "--port 0"]);
    assert_eq!(server.json("runs")["runs"], json!([]));
}

/// Older runs than those there are: the record of one under other names.
fn older(space: &Space, run: &str, count: usize) {
    let text = space.read(&format!(".effigy/runs/{run}.json"));
    for i in 0..count {
        space.write(&format!(".effigy/runs/0000-{i:03}.json"), &text.replace(run, &format!("0000-{i:03}")));
    }
}

/// Presses the enter key where the focus is.
fn press_enter(chrome: &mut Chrome) {
    for kind in ["keyDown", "keyUp"] {
        let key = json!({"type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"});
        chrome.call("Input.dispatchKeyEvent", key);
    }
}

#[test]
fn serve_tells_runs_page_by_page() {
    let (space, server) = start();
    let [last, first] = runs(&server);
    older(&space, &first, 120);
    let names = |fields: &str| {
        let told = server.json(&format!("runs?{fields}"));
        let runs = told["runs"].as_array().expect("a list");
        let names: Vec<String> = runs.iter().map(|one| one["run"].as_str().expect("a name").to_string()).collect();
        (told["total"].as_u64().expect("a number"), names)
    };
    assert_eq!(names("limit=1"), (122, vec![last.clone()]));
    assert_eq!(names("offset=1&limit=2"), (122, vec![first, "0000-119".into()]));
    assert_eq!((names("").1.len(), names("limit=1000").1.len(), names("limit=0").1.len()), (100, 122, 0));
    assert_eq!(names("avatar=1"), (0, Vec::new()));
    assert_eq!(server.json("run?run=0000-000")["run"], "0000-000");
    assert_eq!(server.get("/api/runs?offset=-1").status, 400);
    // what was read once is there, and what has come since as well
    older(&space, &last, 121);
    assert_eq!((names("limit=1").0, names("offset=2&limit=1").1), (123, vec!["0000-120".to_string()]));
}

#[test]
fn serve_tells_runs_rows_and_differences() {
    let (space, server) = start();
    let [last, first] = runs(&server);
    let told = server.json(&format!("run?run={last}"));
    assert_eq!((&told["recipe"], &told["outcome"], &told["avatar"]), (&json!("demo"), &json!("done"), &json!(false)));
    assert!(told["svg"].as_str().is_some_and(|svg| svg.contains("<title>scored: join")), "{}", told["svg"]);
    assert_eq!(server.json("live"), json!({"live": null, "svg": null}));
    let scored = table(&server, &last, "scored");
    let page = server.json(&format!("rows?table={scored}&where=score%3E2&order=-score&limit=1"));
    assert_eq!((&page["total"], &page["matching"]), (&json!(3), &json!(2)));
    assert_eq!(page["rows"].as_array().expect("a list").len(), 1);
    assert_eq!((&page["rows"][0][0], &page["rows"][0][1][0]), (&json!(1), &json!("in/b.png")));
    let digest = page["rows"][0][1][1]["blob"].as_str().expect("a file").to_string();
    let picture = server.get(&format!("/blob/{digest}.png"));
    assert_eq!((picture.status, picture.header("Content-Type")), (200, Some("image/png")));
    assert_eq!(picture.body, std::fs::read(space.path("in/b.png")).expect("a file"));
    let part = server.ask("GET", &format!("/blob/{digest}.png"), "Range: bytes=1-3\r\n");
    assert_eq!((part.status, part.body.as_slice()), (206, b"PNG".as_slice()));
    let wrong = server.get(&format!("/api/rows?table={scored}&where=scroe%3E2"));
    assert_eq!(wrong.status, 400);
    assert_eq!(wrong.told()["error"], "there is no column `scroe`");
    // the user's own file is the same one by its content, whoever keeps it; one that has changed since is gone
    let rows = server.json(&format!("rows?table={}", table(&server, &first, "pictures")));
    let gone = rows["rows"][0][1][1]["blob"].as_str().expect("a file").to_string();
    assert_eq!(server.get(&format!("/blob/{gone}.png")).status, 200, "a stage keeps a copy");
    let used = server.json(&format!("rows?table={}", table(&server, &last, "words")));
    let words = used["rows"][0][1][1]["blob"].as_str().expect("a file").to_string();
    assert_eq!(server.get(&format!("/blob/{words}.txt")).body, b"words");
    space.write("in/words.txt", "other words");
    assert_eq!(server.get(&format!("/blob/{words}.txt")).status, 404);
    let tables = format!("old={}&new={scored}", table(&server, &first, "scored"));
    let diff = server.json(&format!("diff?{tables}"));
    assert_eq!((&diff["same"], &diff["changed"]), (&json!(2), &json!(1)));
    let pairs = server.json(&format!("pairs?{tables}"));
    assert_eq!((&pairs["total"], &pairs["files"]), (&json!(3), &json!([["file"], ["file"]])));
    assert_ne!(pairs["pairs"][0]["left"]["file"]["blob"], pairs["pairs"][0]["right"]["file"]["blob"]);
    for (target, status) in
        [("nothing", 404), ("run", 400), ("run?run=x", 404), ("rows?table=x", 400), ("rows?table=", 400)]
    {
        assert_eq!(server.get(&format!("/api/{target}")).status, status, "{target}");
    }
    let avatar = server.get(&format!("/api/avatar?run={last}"));
    assert_eq!(avatar.status, 404);
    assert!(avatar.told()["error"].as_str().is_some_and(|error| error.contains("tracked no head")));
}

/// A run that waits for a file `stop` in a stage of two units, and has begun.
fn run_that_waits() -> (Space, std::process::Child) {
    let space = Space::new();
    let until = "while [ ! -e {param.stop} ]; do sleep 0.02; done; echo {n} > {out}/x";
    space.write(
        "r.yaml",
        &format!(
            "
recipe: slow
stages:
  src: {{ rows: [{{ n: 1 }}, {{ n: 2 }}] }}
  wait: {{ run: '{until}', shell: true, from: src, params: {{ stop: '{}' }}, writes: {{ x: blob }} }}
",
            space.path("stop").display()
        ),
    );
    let mut run = space.start(&["run", "r.yaml"]);
    while !space.path(".effigy/runs/current").exists() {
        assert!(run.try_wait().expect("it can be asked").is_none(), "the run is over");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    (space, run)
}

#[test]
fn a_run_that_is_on_is_told() {
    let (space, mut run) = run_that_waits();
    let server = Server::start(&space);
    let working = |told: &serde_json::Value| {
        let stages = told["live"]["stages"].as_array().cloned().unwrap_or_default();
        stages.iter().any(|one| one["name"] == "wait" && one["working"].as_u64().is_some_and(|units| units >= 1))
    };
    // its notes say that it is there before they say that it works
    let mut told = server.json("live");
    for _ in 0..1000 {
        if working(&told) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        told = server.json("live");
    }
    assert!(working(&told), "{told}");
    assert_eq!(told["live"]["recipe"], "slow");
    let stages = told["live"]["stages"].as_array().expect("a list");
    assert!(stages.iter().any(|one| one["name"] == "wait" && one["state"] == "running" && one["units"] == 2), "{told}");
    assert!(told["svg"].as_str().is_some_and(|svg| svg.contains("0 of 2")), "{told}");
    assert_eq!((&told["live"]["over"], &told["live"]["of"]), (&json!(1), &json!(2)));
    // a drawing that the page has is not sent again
    let again = server.json(&format!("live?drawing={}", told["drawing"].as_str().expect("a digest")));
    assert!(again["svg"].is_null() && again["drawing"] == told["drawing"], "{again}");
    assert!(server.json("live?drawing=none")["svg"].is_null());
    space.write("stop", "");
    run.wait().expect("it ends");
    assert!(server.json("live")["live"].is_null());
}

#[test]
fn a_stage_that_failed_says_why() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
recipe: broken
stages:
  src: { rows: [{ n: 1 }, { n: 2 }] }
  bad: { run: 'echo before; echo went wrong with {n} >&2; test {n} = 1 && echo > {out}/x', shell: true, from: src, writes: { x: blob } }
",
    );
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 1);
    let server = Server::start(&space);
    let run = server.json("runs")["runs"][0]["run"].as_str().expect("a name").to_string();
    let told = server.json(&format!("run?run={run}"));
    let stage = told["stages"].as_array().expect("a list").iter().find(|one| one["name"] == "bad").expect("the stage");
    let failures = stage["failures"].as_array().expect("a list");
    assert_eq!((failures.len(), &failures[0]["unit"], &failures[0]["grain"]), (1, &json!(1), &json!("row")), "{told}");
    assert!(failures[0]["words"].as_str().is_some_and(|words| words.contains("went wrong with 2")), "{told}");
    let Some(program) = chrome::program() else { return };
    let mut chrome = Chrome::start(&program, 1280, 800);
    chrome.go(&server.address(&format!("#/run/{run}")));
    chrome.until("document.querySelector('.failures pre')?.innerText.includes('went wrong with 2')");
    chrome.until("document.querySelector('.trouble')?.innerText.includes('bad failed: 1 unit')");
    // what goes on without some of its units has not failed, and what the run warned of is still told
    let part = "bad: { run: 'test {n} = 1 && echo > {out}/x', shell: true, from: src, writes: { x: blob }, allow_failures: 0.5 }";
    let stages = format!(
        "  src: {{ rows: [{{ n: 1 }}, {{ n: 2 }}] }}\n  other: {{ rows: [{{ n: 1, v: 1 }}] }}\n  more: {{ rows: [{{ n: 1, v: 2 }}] }}\n  both: {{ join: [other, more], on: [n] }}\n  {part}\n"
    );
    space.write("r.yaml", &format!("recipe: broken\nstages:\n{stages}"));
    space.settle();
    space.effigy(&["run", "r.yaml"]);
    let run = server.json("runs")["runs"][0]["run"].as_str().expect("a name").to_string();
    let told = server.json(&format!("run?run={run}"));
    assert!(told["warnings"][0].as_str().is_some_and(|text| text.contains("both tables have `v`")), "{told}");
    chrome.go(&server.address(&format!("#/run/{run}")));
    chrome
        .until("document.querySelector('.trouble.mild')?.innerText.includes('bad goes on without 1 unit that failed')");
    chrome.until("document.querySelector('details.trouble.mild')?.innerText.includes('both tables have `v`')");
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}

#[test]
fn the_page_follows_a_run_that_is_on() {
    let Some(program) = chrome::program() else { return };
    let (space, mut run) = run_that_waits();
    let server = Server::start(&space);
    let mut chrome = Chrome::start(&program, 1280, 800);
    chrome.go(&server.address(""));
    chrome.until("document.querySelector('h1')?.innerText === 'slow is running'");
    chrome.until("document.querySelector('table.live')?.innerText.includes('wait')");
    chrome.until("document.querySelector('main svg')?.textContent.includes('0 of 2')");
    space.write("stop", "");
    run.wait().expect("it ends");
    // of itself the progress goes, and the run stands in the list
    chrome.until("!document.querySelector('table.live') && document.querySelectorAll('main tbody tr').length === 1");
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}

#[test]
fn the_page_works_without_a_mouse() {
    let Some(program) = chrome::program() else { return };
    let (space, server) = start();
    let [last, first] = runs(&server);
    older(&space, &first, 120);
    let mut chrome = Chrome::start(&program, 1280, 800);
    // pages of runs
    chrome.go(&server.address(""));
    chrome.until("document.querySelectorAll('main tbody tr').length === 100");
    assert_eq!(
        chrome.value("[...document.querySelectorAll('nav [aria-current=page]')].map((e) => e.innerText)"),
        json!(["Runs"])
    );
    chrome.click(".turn a");
    chrome.until("document.querySelectorAll('main tbody tr').length === 22 && document.querySelector('.turn').innerText.includes('101 to 122 of 122')");
    // an address that is none is told, and leads back
    chrome.go(&server.address("#/%"));
    chrome.until("document.querySelector('main').innerText.includes('There is nothing at this address.')");
    chrome.go(&server.address("#/constructor"));
    chrome.until("document.title.includes('constructor') && document.querySelector('main a').innerText === 'All runs'");
    // a box of the graph, and a row, by the enter key
    chrome.go(&server.address(&format!("#/run/{last}")));
    chrome.until("document.querySelector('.drawing .leads')");
    chrome.value("[...document.querySelectorAll('.leads')].find((e) => e.textContent.includes('scored')).focus()");
    press_enter(&mut chrome);
    chrome.until("document.querySelectorAll('.rows tbody tr').length === 3");
    chrome.value("document.querySelectorAll('.rows tbody button')[1].focus()");
    press_enter(&mut chrome);
    chrome.until("document.querySelector('dialog[open]')?.innerText.includes('in/b.png')");
    chrome.click("dialog button:not(:disabled)");
    chrome.until("document.querySelector('dialog[open]')?.innerText.includes('in/a.png')");
    assert_eq!(chrome.value("document.querySelectorAll('dialog').length"), 1);
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}

/// A browser before the page of a workspace without runs, whose scripts can be called; none if there is no browser.
fn page_of_no_run() -> Option<(Space, Server, Chrome)> {
    let program = chrome::program()?;
    let space = Space::new();
    space.write(".effigy/runs/x", "");
    let server = Server::start(&space);
    let mut chrome = Chrome::start(&program, 1280, 800);
    chrome.go(&server.address(""));
    chrome.until("document.querySelector('main h1')");
    Some((space, server, chrome))
}

#[test]
fn numbers_are_written_as_people_read_them() {
    let Some((_space, _server, mut chrome)) = page_of_no_run() else { return };
    chrome.value("import('/dom.js').then((all) => { window.dom = all; })");
    assert_eq!(
        chrome.value("[0.01, 0.3, 59.7, 119.7, 3599.8, 3725].map(dom.duration)"),
        json!(["", "0.3 s", "1 min 00 s", "2 min 00 s", "1 h 00 min", "1 h 02 min"])
    );
    assert_eq!(
        chrome.value("[1234567.8, 12.3456789, 0.00001234, 5].map(dom.digits)"),
        json!(["1234567.8", "12.346", "1.234e-5", "5"]),
        "nothing is rounded before the point"
    );
    assert_eq!(
        chrome.value("[2, 12.25, -0.5].map(dom.alike({ largest: 12.25, decimals: 2 }))"),
        json!(["2.00", "12.25", "-0.50"]),
        "one column, one format"
    );
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}

#[test]
fn thousands_of_moments_are_chosen_from_by_sequence_and_number() {
    let Some((_space, _server, mut chrome)) = page_of_no_run() else { return };
    chrome.value(
        "import('/avatar.js').then(({ controls, grouped }) => {
            const name = (i) => `participant=18, sequence=\"EXP-${i % 2}\", timestep=${i >> 1}, points=${9000 + i}`;
            const moments = [...Array(6000).keys()].map((i) => ({ row: i, name: name(i) }));
            window.own = moments.slice(0, 1000).map((one) => ({ row: one.row, name: `a=${one.row}, b=${one.row}` }));
            window.grouped = grouped;
            window.state = { row: 0, mean: false, along: [], actions: {} };
            window.changes = 0;
            const told = { moments, directions: [], reach: 3, actions: [] };
            document.querySelector('main').replaceChildren(controls(told, state, () => { changes += 1; }, () => {}));
        })",
    );
    let options = "[...document.querySelectorAll('select[name=moment] option')].map((one) => one.innerText)";
    assert_eq!(chrome.value(options), json!(["mean expression", "sequence=\"EXP-0\"", "sequence=\"EXP-1\""]));
    assert_eq!(chrome.value("document.querySelector('select[name=moment]').labels.length"), 1);
    let told = "[state.row, state.mean, changes, document.querySelector('.within output')?.innerText ?? null]";
    assert_eq!(chrome.value(told), json!([0, false, 0, "timestep=0, points=9000"]));
    // the second sequence, and of that the 2000th moment by its number and the last one by the keyboard
    let choose = |chrome: &mut Chrome, value: &str| {
        chrome.value(&format!(
            "(() => {{ const e = document.querySelector('select'); e.value = '{value}'; e.dispatchEvent(new Event('change')); }})()"
        ))
    };
    choose(&mut chrome, "1");
    assert_eq!(chrome.value(told), json!([1, false, 1, "timestep=0, points=9001"]));
    chrome.value("(() => { const e = document.querySelector('input[name=number]'); e.value = 2000; e.dispatchEvent(new Event('change')); })()");
    assert_eq!(chrome.value(told), json!([3999, false, 2, "timestep=1999, points=12999"]));
    assert_eq!(chrome.value("document.querySelector('input[name=place]').value"), "2000");
    chrome.value("document.querySelector('input[name=place]').focus()");
    for kind in ["keyDown", "keyUp"] {
        let key = json!({"type": kind, "key": "End", "code": "End", "windowsVirtualKeyCode": 35});
        chrome.call("Input.dispatchKeyEvent", key);
    }
    chrome.until("state.row === 5999");
    assert_eq!(chrome.value("document.querySelector('input[name=number]').value"), "3000");
    choose(&mut chrome, "mean");
    assert_eq!(chrome.value("[state.mean, document.querySelectorAll('.within input').length]"), json!([true, 0]));
    // where everything is a group of its own, there are none
    assert_eq!(
        chrome.value("grouped(own).map(([title, all]) => [title, all.length, all[7]])"),
        json!([["", 1000, [7, "a=7, b=7"]]])
    );
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(program) = chrome::program() else { return };
    let (_space, server) = start();
    let [last, first] = runs(&server);
    let mut chrome = Chrome::start(&program, 1280, 800);
    chrome.go(&server.address(""));
    assert_eq!(chrome.until("document.querySelectorAll('main tbody tr').length"), 2);
    // to a run, and by its graph to the rows of a stage
    chrome.click("main tbody a");
    chrome.until(&format!("location.hash === '#/run/{last}' && document.querySelector('.drawing .leads')"));
    chrome
        .value("[...document.querySelectorAll('.leads')].find((e) => e.textContent.includes('scored')).id = 'scored'");
    chrome.click("#scored");
    chrome.until("document.querySelectorAll('.rows tbody tr').length === 3");
    chrome.until("[...document.querySelectorAll('.rows img')].every((e) => e.naturalWidth === 64)");
    // a condition, typed; one that is wrong is told in a sentence
    chrome.click("input[name=condition]");
    chrome.enter("score>2");
    chrome.until("document.querySelectorAll('.rows tbody tr').length === 2 && document.querySelector('.chip')");
    chrome.click("input[name=condition]");
    chrome.enter("nothing>2");
    chrome.until("document.querySelector('.trouble')?.innerText.includes('There is no column `nothing`.')");
    chrome.value("history.back()");
    chrome.until("document.querySelectorAll('.rows tbody tr').length === 2");
    // a row in full
    chrome.click(".rows tbody td");
    chrome.until("document.querySelector('dialog dl img')?.naturalWidth === 64");
    // what is sorted, and which row had the focus, survives
    chrome.value("document.querySelector('dialog').close()");
    chrome.until("document.activeElement.dataset.focus === 'row 0'");
    chrome.click(".rows th:nth-child(4) button");
    chrome.until("document.querySelector('.rows th[aria-sort=ascending]') && document.activeElement.dataset.focus?.startsWith('column ')");
    // the two runs: the first picture was red and is blue, and the line between them is dragged
    chrome.go(&server.address(&format!("#/compare?new={last}")));
    assert_eq!(chrome.until("document.querySelector('select[name=old]').value"), json!(first));
    chrome.until("document.querySelector('.summary').innerText.includes('differ')");
    chrome.go(&server.address(&format!("#/compare?new={last}&stage=scored")));
    chrome.until("document.querySelectorAll('.slider').length === 3 && [...document.querySelectorAll('.slider img')].every((e) => e.complete && e.naturalWidth)");
    // which columns were laid upon each other stands in the address
    chrome.value(
        "(() => { const e = document.querySelector('select[name=left]'); e.dispatchEvent(new Event('change')); })()",
    );
    chrome.until("location.hash.includes('left=file') && document.querySelectorAll('.slider').length === 3 && [...document.querySelectorAll('.slider img')].every((e) => e.complete && e.naturalWidth)");
    let share = |chrome: &mut Chrome| {
        let (_, pixels) = chrome.pixels(".slider");
        let of = |channel: usize| {
            pixels.iter().filter(|p| p[channel] > 150 && p[2 - channel] < 50).count() as f64 / pixels.len() as f64
        };
        (of(0), of(2))
    };
    let (red, blue) = share(&mut chrome);
    assert!((red - 0.5).abs() < 0.03 && (blue - 0.5).abs() < 0.03, "{red} {blue}");
    let [x, y, left, width] = chrome.place(".slider");
    chrome.drag([x, y], [left + 0.2 * width, y]);
    let (red, blue) = share(&mut chrome);
    assert!((red - 0.2).abs() < 0.03 && (blue - 0.8).abs() < 0.03, "{red} {blue}");
    // a refusal that we asked for is the only thing the page complained of
    let others: Vec<_> = chrome.complaints().iter().filter(|text| !text.contains("nothing%3E2")).collect();
    assert!(others.is_empty(), "{others:?}");
}
