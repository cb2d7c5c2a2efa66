//! Shared caches on a real S3 server, with a proxy in between that drops, breaks, cuts and spoils. Where there is no
//! such server, these tests say so and pass.

use crate::remotes::{self, BIG, Fault, Proxy, S3, URL, files, named, spoil};
use crate::support::{Said, Space};

/// Three small files, and with `big` one that moves in parts.
fn colleague(big: bool) -> Space {
    remotes::colleague(3, if big { BIG } else { 4000 }, 0.0)
}

const UNITS: u64 = 4;

fn effigy(space: &Space, port: u16, args: &[&str]) -> Said {
    let mut command = space.command(args);
    S3::set(&mut command, port);
    let output = command.output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

fn run(space: &Space, port: u16) -> Said {
    let said = effigy(space, port, &["run", "r.yaml", "--json", "--remote", URL]);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    said
}

fn is_calm(said: &Said) -> bool {
    !said.out.contains("\"event\":\"warning\"")
}

fn tables(space: &Space) -> Vec<Vec<serde_json::Value>> {
    ["upper", "big"].iter().map(|stage| space.rows(stage)).collect()
}

#[test]
fn a_colleague_gets_everything_from_s3_and_no_secret_is_left_anywhere() {
    let Some(s3) = S3::start("sharing over S3") else { return };
    let (one, two) = (colleague(true), colleague(true));
    let said = run(&one, s3.port);
    assert!(said.counts() == (UNITS, 0, 0) && is_calm(&said), "{}", said.out);
    let objects = |start: &str| named(&s3.folder("team/cache"), start).len();
    assert_eq!((objects("records/"), objects("blobs/")), (UNITS as usize, UNITS as usize));
    let said = run(&two, s3.port);
    assert!(said.counts() == (0, UNITS, 0) && is_calm(&said), "{}", said.out);
    assert!(two.ran().is_empty());
    assert_eq!(tables(&two), tables(&one));
    // without the right credentials it is one clear sentence
    let mut command = one.command(&["cache", "pull", "--remote", URL]);
    S3::set(&mut command, s3.port);
    let output = command.env("AWS_SECRET_ACCESS_KEY", "another-secret").output().expect("it starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains("refuses these credentials"), "{err}");
    let secret = crate::remotes::KEY.1;
    for folder in [one.path(""), two.path(""), s3.folder("")] {
        for (name, bytes) in files(&folder) {
            assert!(!bytes.windows(secret.len()).any(|found| found == secret.as_bytes()), "{name} holds the secret");
        }
    }
    assert!(![said.out, said.err, err.into()].iter().any(|text| text.contains("secret")));
}

#[test]
fn dropped_connections_and_errors_of_the_server_are_tried_again() {
    let Some(s3) = S3::start("faults of S3") else { return };
    let (one, two) = (colleague(true), colleague(true));
    let proxy = Proxy::start(s3.port, |n, _| match n % 6 {
        0 => Fault::Drop,
        3 => Fault::Error,
        _ => Fault::None,
    });
    for (space, counts) in [(&one, (UNITS, 0, 0)), (&two, (0, UNITS, 0))] {
        let said = run(space, proxy.port);
        assert!(said.counts() == counts && is_calm(&said), "{}", said.out);
    }
    assert!(proxy.count(Fault::Drop) > 5 && proxy.count(Fault::Error) > 5);
    assert_eq!(tables(&two), tables(&one));
    let parts =
        proxy.seen.lock().expect("no thread panics").iter().filter(|(line, _)| line.contains("partNumber=")).count();
    assert!(parts >= BIG / (8 << 20), "the large file went in {parts} parts");
}

#[test]
fn cut_and_spoilt_answers_never_become_results() {
    let Some(s3) = S3::start("spoilt answers of S3") else { return };
    let (one, two) = (colleague(true), colleague(true));
    run(&one, s3.port);
    // once each: what is fetched again is right
    let proxy = Proxy::start(s3.port, |n, line| match (line.starts_with("GET"), n % 5) {
        (true, 1) => Fault::Cut,
        (true, 3) => Fault::Wrong,
        _ => Fault::None,
    });
    let said = run(&two, proxy.port);
    assert!(proxy.count(Fault::Cut) > 0 && proxy.count(Fault::Wrong) > 0);
    assert_eq!(said.counts().2, 0);
    assert_eq!(tables(&two), tables(&one));
    assert_eq!(two.effigy(&["cache", "verify"]).code, 0);
    // always: everything is a miss, and nothing is taken for a result
    let three = colleague(true);
    let before = named(&s3.folder("team/cache"), "").len();
    let proxy = Proxy::start(s3.port, |_, line| if line.starts_with("GET") { Fault::Wrong } else { Fault::None });
    let said = effigy(&three, proxy.port, &["run", "r.yaml", "--json", "--remote", URL, "--remote-read-only"]);
    assert_eq!((said.code, said.counts()), (0, (UNITS, 0, 0)), "{}", said.out);
    assert!(said.out.contains("is refused"), "{}", said.out);
    assert_eq!(tables(&three), tables(&one));
    assert_eq!(named(&s3.folder("team/cache"), "").len(), before);
}

#[test]
fn objects_that_were_spoilt_are_set_aside_and_replaced() {
    let Some(s3) = S3::start("poisoned objects of S3") else { return };
    let (one, two, three) = (colleague(false), colleague(false), colleague(false));
    run(&one, s3.port);
    let folder = s3.folder("team/cache");
    spoil(&named(&folder, "blobs/")[0]);
    let record = &named(&folder, "records/")[0];
    spoil(record);
    let said = run(&two, s3.port);
    let refused = said.out.matches("is refused").count();
    assert!((1..=2).contains(&refused) && (1..=2).contains(&said.counts().0), "{}", said.out);
    assert_eq!(tables(&two), tables(&one));
    assert_eq!(named(&folder, "quarantine/").len(), refused);
    // objects of nothing, as a full disk leaves them
    for path in [&named(&folder, "blobs/")[1], &named(&folder, "records/")[1]] {
        std::fs::write(path, "").expect("a file");
    }
    let said = run(&colleague(false), s3.port);
    assert!(said.out.contains("is refused") && !said.out.contains("cannot be used"), "{}", said.out);
    let said = run(&three, s3.port);
    assert!(said.counts() == (0, UNITS, 0) || refused == 1, "{}", said.out);
    assert_eq!(tables(&three), tables(&one));
}

#[test]
fn a_server_that_goes_away_costs_one_sentence_and_no_work() {
    let Some(s3) = S3::start("an S3 server that goes away") else { return };
    let (one, two) = (colleague(false), colleague(false));
    let proxy = Proxy::start(s3.port, |_, line| if line.starts_with("PUT") { Fault::Drop } else { Fault::None });
    let said = run(&one, proxy.port);
    assert_eq!(said.counts(), (UNITS, 0, 0));
    assert_eq!(said.out.matches("cannot be used").count(), 1, "{}", said.out);
    assert!(said.out.contains("stays queued"));
    one.ran();
    // later it is there again
    let said = effigy(&one, s3.port, &["cache", "push", "--remote", URL, "--json"]);
    assert_eq!((said.code, said.json()["waiting"].as_u64()), (0, Some(0)), "{}", said.err);
    assert!(one.ran().is_empty());
    assert_eq!(run(&two, s3.port).counts(), (0, UNITS, 0));
    // nobody listens at all
    let three = colleague(false);
    let since = std::time::Instant::now();
    let said = run(&three, 9);
    assert!(since.elapsed().as_secs() < 30, "it does not try for ever");
    assert_eq!((said.counts(), said.out.matches("cannot be used").count()), ((UNITS, 0, 0), 1), "{}", said.out);
}
