//! The avatar viewer of `effigy serve`, on the shared run: sliders move the surface, the picture follows, and in a real
//! browser the camera turns by dragging.

use crate::base::Trial;
use crate::chrome::{self, Chrome};
use crate::server::Server;
use serde_json::{Value, json};

fn start() -> (Trial, Server, String) {
    let trial = Trial::finished();
    let server = Server::start(&trial.space);
    let told = server.json("runs");
    let runs = told["runs"].as_array().expect("a list");
    let run = runs.iter().find(|one| one["avatar"] == true).expect("a run with an avatar");
    (trial, server, run["run"].as_str().expect("a name").to_string())
}

/// How many vertices a surface has.
fn vertices(ply: &[u8]) -> usize {
    let head = String::from_utf8_lossy(&ply[..200]);
    let count = head.lines().find_map(|line| line.strip_prefix("element vertex ")).expect("a PLY file");
    count.parse().expect("a number")
}

#[test]
fn sliders_move_the_surface_and_the_picture_follows() {
    let (_trial, server, run) = start();
    let told = server.json(&format!("avatar?run={run}"));
    let avatar = &told["avatars"][0];
    let actions: Vec<&str> =
        avatar["actions"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert!(actions.contains(&"jawOpen") && !actions.contains(&"tongueOut"), "{actions:?}");
    let shares: Vec<f64> =
        avatar["directions"].as_array().expect("a list").iter().filter_map(|one| one["share"].as_f64()).collect();
    assert!(shares.len() >= 2 && shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
    let get = |what: &str, fields: &str| {
        let answered = server.get(&format!("/api/{what}?run={run}{fields}"));
        assert_eq!(answered.status, 200, "{what} {fields}: {}", String::from_utf8_lossy(&answered.body));
        answered.body
    };
    let rest = get("mesh", "");
    assert!(vertices(&rest) > 2 * vertices(&get("mesh", "&sketch=1")), "a sketch is coarser");
    assert_eq!(rest, get("mesh", "&along=0"), "a slider at rest moves nothing");
    assert_ne!(rest, get("mesh", "&along=2"));
    assert_ne!(rest, get("mesh", "&action=jawOpen:0.5"));
    assert_ne!(rest, get("mesh", "&mean=1"));
    let picture = get("render", "");
    assert!(picture.starts_with(b"\x89PNG"));
    assert_ne!(picture, get("render", "&about=0.8"), "the camera turns");
    assert_ne!(picture, get("render", "&along=2"), "the expression changes");
    assert_ne!(picture, get("render", "&gaze=30,-20"), "the eyes turn");
    assert_ne!(picture, get("render", "&lids=-1"), "the lids close");
    assert_eq!(rest, get("mesh", "&gaze=30,-20&lids=-1"), "which are no part of the surface");
    assert_eq!(picture, get("render", ""), "nothing else does");
    for fields in [
        "&gaze=90,0",
        "&lids=-2",
        "&along=9",
        "&action=jawOpen:2",
        "&action=smile:1",
        "&row=100000",
        "&above=2",
        "&about=x",
        "&along=a",
    ] {
        assert_eq!(server.get(&format!("/api/render?run={run}{fields}")).status, 400, "{fields}");
    }
    assert_eq!(server.get(&format!("/api/mesh?run={run}&avatar=x")).status, 404);
}

#[test]
fn the_viewer_works_in_a_browser() {
    let Some(program) = chrome::program() else { return };
    let (_trial, server, run) = start();
    let mut chrome = Chrome::start(&program, 1280, 900);
    chrome.go(&server.address(&format!("#/avatar/{run}")));
    let drawn = "document.querySelector('.frame img')?.naturalWidth > 0 && !document.querySelector('.busy')";
    chrome.until(drawn);
    let source = |chrome: &mut Chrome| -> Value { chrome.until("document.querySelector('.frame img').src") };
    let (side, before) = chrome.pixels(".frame canvas");
    // inside of the corner, which is round
    let ground = before[8 * side + 8];
    let seen = |pixels: &[[u8; 3]]| {
        pixels.iter().filter(|p| p.iter().zip(&ground).any(|(a, b)| a.abs_diff(*b) > 12)).count() as f64
            / pixels.len() as f64
    };
    assert!(seen(&before) > 0.1 && seen(&before) < 0.9, "a head is seen: {}", seen(&before));
    // the camera turns at once, and the picture follows
    let old = source(&mut chrome);
    let [x, y, ..] = chrome.place(".frame canvas");
    chrome.drag([x, y], [x + 120.0, y + 10.0]);
    let (_, turned) = chrome.pixels(".frame canvas");
    let changed = before.iter().zip(&turned).filter(|(a, b)| a != b).count() as f64 / before.len() as f64;
    assert!(changed > 0.05, "{changed}");
    chrome.until(&format!("document.querySelector('.frame img').src !== {old} && {drawn}"));
    // nearer, the head is larger
    chrome.wheel(x, y, -300.0);
    chrome.until(drawn);
    let (_, near) = chrome.pixels(".frame canvas");
    assert!(seen(&near) > 1.2 * seen(&turned), "{} {}", seen(&turned), seen(&near));
    // a slider
    let old = source(&mut chrome);
    let [x, y, left, width] = chrome.place("input[name=jawOpen]");
    chrome.drag([left + 8.0, y], [left + 0.9 * width, y]);
    assert!(x > left && chrome.value("Number(document.querySelector('input[name=jawOpen]').value) > 0.1") == true);
    chrome.until("document.querySelector('figure:nth-child(2) .status').innerText === 'computing the picture…'");
    chrome.until(&format!("document.querySelector('.frame img').src !== {old} && {drawn}"));
    let (_, moved) = chrome.pixels(".frame canvas");
    assert!(moved != near, "the surface follows");
    // eyes beside it, of which the surface knows nothing
    let old = source(&mut chrome);
    let [_, y, left, width] = chrome.place("input[name=sideways]");
    chrome.drag([left + 0.5 * width, y], [left + 0.95 * width, y]);
    chrome.until(&format!("document.querySelector('.frame img').src !== {old} && {drawn}"));
    chrome.until("location.hash.includes('gaze=')");
    // the address has it all, and the camera too
    chrome.until("location.hash.includes('action=jawOpen') && location.hash.includes('about=')");
    chrome.call("Page.reload", json!({}));
    chrome.until("Number(document.querySelector('input[name=jawOpen]')?.value) > 0.1");
    chrome.until("Number(document.querySelector('input[name=sideways]')?.value) > 10");
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}
