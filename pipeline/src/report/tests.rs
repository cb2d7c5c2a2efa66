//! A whole report of a run made by hand, read back.

use super::*;
use crate::finished::{HostInfo, TableItem};
use manifests::{Blob, Digest, Schema, Type, Value};
use std::collections::HashMap;

/// A picture as a PNG file: `color` gives red, green and blue at column and row. Stored, not compressed.
fn png(width: u32, height: u32, color: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    let mut raw = Vec::new();
    for y in 0..height {
        raw.push(0);
        (0..width).for_each(|x| raw.extend(color(x, y)));
    }
    let mut zlib = vec![0x78, 0x01];
    let blocks: Vec<&[u8]> = raw.chunks(60_000).collect();
    for (i, block) in blocks.iter().enumerate() {
        let n = block.len() as u16;
        zlib.push(u8::from(i + 1 == blocks.len()));
        zlib.extend(n.to_le_bytes());
        zlib.extend((!n).to_le_bytes());
        zlib.extend(*block);
    }
    let (a, b) = raw.iter().fold((1u32, 0u32), |(a, b), &x| {
        let a = (a + u32::from(x)) % 65521;
        (a, (b + a) % 65521)
    });
    zlib.extend(((b << 16) | a).to_be_bytes());
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (kind, data) in [(b"IHDR", &head), (b"IDAT", &zlib), (b"IEND", &Vec::new())] {
        out.extend((data.len() as u32).to_be_bytes());
        let body = [&kind[..], data].concat();
        let crc = body.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
        });
        out.extend(&body);
        out.extend((!crc).to_be_bytes());
    }
    out
}

/// Something like a face, lit from the left, with its mouth open by `open`.
fn face(side: u32, open: f64) -> impl Fn(u32, u32) -> [u8; 3] {
    move |px, py| {
        let (x, y) = (2.0 * f64::from(px) / f64::from(side) - 1.0, 2.0 * f64::from(py) / f64::from(side) - 1.0);
        let inside = (x / 0.62).powi(2) + (y / 0.82).powi(2);
        let spot = |cx: f64, cy: f64, rx: f64, ry: f64| ((x - cx) / rx).powi(2) + ((y - cy) / ry).powi(2) < 1.0;
        if inside > 1.0 {
            return [255; 3];
        }
        let light = 0.55 + 0.45 * ((1.0 - inside).sqrt() - 0.5 * x).clamp(0.0, 1.0);
        let dark = spot(-0.24, -0.15, 0.1, 0.06) || spot(0.24, -0.15, 0.1, 0.06) || y < -0.5;
        let base = if dark {
            [60.0, 42.0, 36.0]
        } else if spot(0.0, 0.42, 0.22, 0.04 + open) {
            [150.0, 62.0, 60.0]
        } else {
            [224.0, 172.0, 146.0]
        };
        base.map(|c: f64| (c * light) as u8)
    }
}

/// Files kept in a folder by their digests, as a cache would.
struct Files {
    folder: tempfile::TempDir,
    paths: HashMap<Digest, PathBuf>,
}

impl Files {
    fn put(&mut self, bytes: &[u8], ext: &str) -> Value {
        let digest = Digest::of_bytes(bytes);
        let path = self.folder.path().join(digest.short());
        fs::write(&path, bytes).unwrap();
        self.paths.insert(digest, path);
        Value::Blob(Blob { digest, len: bytes.len() as u64, ext: ext.into() })
    }
}

fn node(name: &str, kind: &str, from: &str, with: &str, counts: [usize; 3], seconds: f64) -> FinishedNode {
    let names = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>();
    FinishedNode {
        name: name.into(),
        kind: kind.into(),
        version: 1,
        grain: if counts.iter().sum::<usize>() > 1 { "row" } else { "whole" }.into(),
        state: NodeState::Done,
        executed: counts[0],
        cached: counts[1],
        failed: counts[2],
        seconds,
        worth: seconds.max(12.0),
        key: Digest::of_bytes(name.as_bytes()).short(),
        params: vec![("size".into(), "64".into())],
        from: names(from),
        with: names(with).into_iter().map(|name| (name.clone(), name)).collect(),
        manifest: Some(Manifest::unit(counts.iter().sum())),
    }
}

/// The graph of an avatar, about as large as a real one.
fn nodes() -> Vec<FinishedNode> {
    vec![
        node("assets", "files", "", "", [0, 1, 0], 0.0),
        node("capture", "capture_synthetic", "", "assets", [0, 8, 0], 0.0),
        node("source", "source_nersemble", "capture", "", [1, 0, 0], 0.3),
        node("frames", "extract_frames", "source", "", [0, 192, 0], 0.0),
        node("points", "reconstruct_points", "frames", "", [24, 0, 0], 48.1),
        node("scans", "scans_synthetic", "", "assets", [0, 40, 0], 0.0),
        node("head_model", "train_head_model", "scans", "", [0, 1, 0], 0.0),
        node("tracked", "track_head", "points", "head_model", [3, 0, 0], 121.7),
        node("meshes", "extract_mesh", "tracked", "head_model", [24, 0, 0], 33.0),
        node("samples", "join", "frames meshes", "", [1, 0, 0], 0.0),
        node("gbuffers", "raster_gbuffer", "samples", "", [192, 0, 0], 9.4),
        node("vae", "files", "", "", [0, 1, 0], 0.0),
        node("prior", "files", "", "", [0, 1, 0], 0.0),
        node("training", "select", "gbuffers", "", [1, 0, 0], 0.0),
        node("held_out", "select", "gbuffers", "", [1, 0, 0], 0.0),
        node("latents", "encode_latents", "training", "vae", [168, 0, 0], 14.2),
        node("avatar", "train_avatar", "latents", "prior vae", [1, 0, 0], 843.0),
        node("renders", "render_avatar", "held_out", "avatar prior vae", [24, 0, 0], 62.0),
        node("mean_image", "baseline_mean", "held_out", "training", [24, 0, 0], 1.2),
        node("nearest", "baseline_nearest", "held_out", "training", [24, 0, 0], 2.4),
        node("candidates", "concat", "renders mean_image nearest", "", [1, 0, 0], 0.0),
        node("scores", "evaluate", "candidates", "", [72, 0, 0], 6.6),
        node("sheets", "contact_sheet", "candidates", "meshes", [3, 0, 0], 1.1),
        node("videos", "encode_video", "renders", "", [1, 0, 0], 0.9),
        node("surface", "scan_to_mesh", "meshes", "scans", [24, 0, 0], 4.8),
    ]
}

fn rows(columns: &[(&str, Type)], rows: Vec<Vec<Value>>) -> Option<Manifest> {
    Some(Manifest::from_rows(Schema::new(columns.iter().copied()).unwrap(), &rows).unwrap())
}

fn sample() -> FinishedRun {
    let mut files = Files { folder: tempfile::tempdir().unwrap(), paths: HashMap::new() };
    let text = |text: &str| Value::Str(text.into());
    let mut nodes = nodes();
    let mut set = |name: &str, manifest| nodes.iter_mut().find(|node| node.name == name).unwrap().manifest = manifest;

    let methods = [("avatar", 25.1, 0.061), ("mean of nearest camera", 18.2, 0.22), ("nearest frame", 22.9, 0.074)];
    let score = |(method, psnr, l1): &(&str, f64, f64), i: usize| {
        let wave = (i as f64 * 1.7).sin();
        let whole = [psnr + wave, psnr - 2.0 + wave, 0.8 + psnr / 200.0 + 0.01 * wave, l1 + 0.01 * wave];
        let sequence = text(if i.is_multiple_of(2) { "EXP-1" } else { "SEN-01" });
        [text(method), sequence].into_iter().chain(whole.map(Value::F64)).chain([Value::Null]).collect::<Vec<_>>()
    };
    let columns = [
        ("method", Type::Str),
        ("sequence", Type::Str),
        ("psnr", Type::F64),
        ("psnr_head", Type::F64),
        ("ssim", Type::F64),
        ("l1", Type::F64),
        ("lpips", Type::F64),
    ];
    set("scores", rows(&columns, methods.iter().flat_map(|m| (0..24).map(move |i| score(m, i))).collect()));

    let sheet = |open: f64| {
        let tile = face(64, open);
        move |x: u32, y: u32| match x / 64 {
            0 => tile(x, y),
            1 => tile((x % 64) / 2 * 2, y / 2 * 2),
            2 => [tile(x % 64, y)[0]; 3],
            i if tile(x % 64, y) == [255; 3] => [(i * 20) as u8; 3],
            i => [(x % 64 * 4) as u8, (y * 4) as u8, (i * 30) as u8],
        }
    };
    let sheets =
        (0..3).map(|i| vec![files.put(&png(512, 64, sheet(0.05 * f64::from(i))), "png"), Value::I64(i.into())]);
    set("sheets", rows(&[("sheet", Type::Blob), ("frame", Type::I64)], sheets.collect()));
    let mut faces: Vec<Vec<Value>> = (0..9)
        .map(|i| {
            let image = files.put(&png(64, 64, face(64, 0.02 * f64::from(i))), "png");
            vec![image, text("EXP-1"), Value::I64(i.into())]
        })
        .collect();
    faces.push(vec![files.put(b"<svg onload=alert(1)>", "png"), text("<b>&|"), Value::I64(9)]);
    set("renders", rows(&[("image", Type::Blob), ("sequence", Type::Str), ("frame", Type::I64)], faces));

    let mut csv = String::from("step,loss,noise,latent_l1,rate\n");
    for i in 0..1500u32 {
        let (x, jitter) = (f64::from(i), f64::from(i.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24));
        let noise = 0.9 * (-x / 180.0).exp() + 0.08 + 0.1 * jitter;
        csv += &format!(
            "{i},{:.4},{noise:.4},{:.4},{:.2e}\n",
            noise * 1.2,
            3.0 / (1.0 + x / 20.0),
            1e-4 * (x / 200.0).min(1.0)
        );
    }
    set("avatar", rows(&[("curve", Type::Blob)], vec![vec![files.put(csv.as_bytes(), "csv")]]));
    let mp4 = |codec: &[u8]| [b"\x00\x00\x00\x08ftyp\x00\x00\x00\x10moov", codec, b"...."].concat();
    let videos = vec![vec![files.put(&mp4(b"avc1"), "mp4")], vec![files.put(&mp4(b"mp4v"), "mp4")]];
    set("videos", rows(&[("video", Type::Blob)], videos));

    let strings = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let table = |title: &str, by: &[&str], mean: &[&str]| {
        ReportItem::Table(TableItem {
            stage: "scores".into(),
            title: Some(title.into()),
            by: strings(by),
            mean: strings(mean),
            higher: strings(&["psnr", "psnr_head", "ssim"]),
            lower: strings(&["l1", "lpips"]),
            ..TableItem::default()
        })
    };
    let all = ["psnr", "psnr_head", "ssim", "l1", "lpips"];
    let images = |stage: &str, title: &str, column: &str, caption: &[&str]| ReportItem::Images {
        stage: stage.into(),
        title: Some(title.into()),
        column: column.into(),
        caption: strings(caption),
        groups: Vec::new(),
        limit: None,
    };
    let report = vec![
        ReportItem::Text {
            text: "An avatar of one person, *trained on seven cameras* & shown from the eighth.".into(),
        },
        table("Scores on the held-out camera", &["method"], &all),
        table("By sequence", &["method", "sequence"], &["psnr", "ssim"]),
        images("sheets", "Truth, render, and what it was made from", "sheet", &["frame"]),
        images("renders", "Renders <of> the held-out sequence", "image", &["sequence", "frame"]),
        ReportItem::Curve {
            stage: "avatar".into(),
            title: Some("Training".into()),
            column: "curve".into(),
            limit: None,
        },
        ReportItem::Videos {
            stage: "videos".into(),
            title: None,
            column: "video".into(),
            caption: strings(&["at 25 fps"]),
            groups: Vec::new(),
            limit: None,
        },
        images("surfaces", "Surfaces", "image", &[]),
        ReportItem::Rates { stages: strings(&["points", "frames"]), title: None, count: Some("points".into()) },
    ];
    FinishedRun {
        recipe: "avatar".into(),
        file: "pipeline/recipes/avatar.yaml".into(),
        text: "recipe: avatar # <b>\nparams: { size: 64 }\n".into(),
        profile: Some("default".into()),
        params: vec![("size".into(), "64".into()), ("steps".into(), "1500".into())],
        nodes,
        report,
        workspace: "/home/somebody/.effigy".into(),
        started: 1_767_225_599_000,
        seconds: 1151.0,
        warnings: vec!["stage `frames`: irises were found in 3 of 6 moments <b>*in* c:\\x".into()],
        host: HostInfo {
            name: "box".into(),
            cpu: "Some CPU at 2.4 GHz".into(),
            threads: 2,
            version: "0.1.0".into(),
            software: vec![("libtorch".into(), "2.13.0".into()), ("OpenCV".into(), "4.6.0".into())],
            commit: Some("0123456789ab".into()),
        },
        blob_path: Box::new(move |blob| {
            // the whole of it: the folder must live as long as the paths
            let files = &files;
            files.paths.get(&blob.digest).cloned().filter(|path| path.exists())
        }),
    }
}

fn written(run: &FinishedRun) -> (tempfile::TempDir, String, String) {
    let out = tempfile::tempdir().unwrap();
    let written = write(run, out.path()).unwrap();
    let read = |path| fs::read_to_string(path).unwrap();
    let (markdown, html) = (read(written.markdown), read(written.html));
    (out, markdown, html)
}

#[test]
fn both_renderings_tell_the_same() {
    let run = sample();
    let (out, markdown, html) = written(&run);
    for said in [
        "25 stages",
        "irises were found in",
        "2025-12-31 23:59 UTC",
        "not available",
        "± ",
        "libtorch 2.13.0",
        "no such stage",
        "mp4v",
        "of them in this run",
    ] {
        assert!(html.contains(said), "the page lacks {said}");
        assert!(markdown.contains(said), "the Markdown lacks {said}");
    }
    let warned = "stage <code>frames</code>: irises were found in 3 of 6 moments &lt;b&gt;*in* c:\\x<";
    assert!(html.contains(warned), "words of programs are no Markdown");
    assert!(html.contains("<strong class=\"best\">25.") && markdown.contains("| **25."), "the best PSNR is bold");
    assert!(html.contains("<strong class=\"best\">0.061") && markdown.contains("| **0.061"), "the least L1 is bold");
    assert!(run.nodes.iter().all(|node| html.contains(&node.name) && html.contains(&node.key)));

    // 24 points in 48.1 s, and in the 12 s that frames took in another run
    assert!(markdown.contains("| points | 24 | 24 | 48 s | 24 | 0.499 |"), "{markdown}");
    assert!(markdown.contains("| frames | 192 | 0 | 12 s | 24 | 2.000 |"), "{markdown}");
    assert!(html.contains("0.499"));

    // every file the Markdown names is there
    let named: Vec<&str> =
        markdown.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(to, _)| to).collect();
    assert_eq!(named.len(), 1 + 3 + 9 + 4 + 2, "{named:?}");
    assert!(named.iter().all(|name| out.path().join(name).is_file()), "{named:?}");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 3, "nothing but the two files and the folder");
}

#[test]
fn the_page_is_complete_and_obeys_nobody() {
    let (_out, _, html) = written(&sample());
    assert_eq!(html.matches("src=\"data:image/png;base64,").count(), 12);
    assert_eq!(html.matches("src=\"data:video/mp4;base64,").count(), 1);
    assert_eq!(html.matches("src=").count(), 13, "nothing comes from elsewhere");
    assert!(html.matches("<script").count() == 1 && !html.contains("@import") && !html.contains("onload="));
    assert!(html.contains("Renders &#60;of&#62; the held-out") || html.contains("Renders &lt;of&gt; the held-out"));
    let shown = html.split("<pre>").nth(2).unwrap();
    assert!(shown.starts_with("recipe: avatar # &"), "{shown}");
}

#[test]
fn headings_leave_no_level_out_and_times_are_numbers() {
    let (_out, markdown, html) = written(&sample());
    assert_eq!(html.matches("<main>").count(), 1);
    // whatever the contents name is there, once
    let named: Vec<&str> =
        html.split("href=\"#").skip(1).filter_map(|rest| rest.split_once('"')).map(|(id, _)| id).collect();
    assert!(named.len() > 8 && named.iter().all(|id| html.matches(&format!(" id=\"{id}\"")).count() == 1), "{named:?}");
    assert!(html.contains("<video controls loop muted playsinline aria-label=\"at 25 fps\""), "films have names");
    let levels = html.split("<h").skip(1).filter_map(|rest| rest.chars().next()?.to_digit(10));
    let levels: Vec<u32> = levels.collect();
    assert_eq!(levels[..2], [1, 2]);
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    assert!(
        html.contains("<h2 id=\"training\" class=\"item\">Training</h2>")
            && html.contains("class=\"item\">Stages</h3>")
    );
    assert!(html.contains("<h2 id=\"how-it-was-made\">How it was made</h2>"));
    assert!(markdown.contains("\n### Training\n") && markdown.contains("\n## How it was made\n"), "{markdown}");
    // seconds, whatever the unit that is written
    for time in ["data-value=\"121.7\">2 min 02 s<", "data-value=\"0.3\">0.3 s<", "data-value=\"12\">once 12 s<"] {
        assert!(html.contains(time), "{time}");
    }
}

#[test]
fn a_second_report_replaces_the_first_and_failures_are_on_top() {
    let mut run = sample();
    let out = tempfile::tempdir().unwrap();
    write(&run, out.path()).unwrap();
    for node in run.nodes.iter_mut().skip_while(|node| node.name != "renders") {
        (node.state, node.executed, node.manifest) = (NodeState::Skipped, 0, None);
    }
    let avatar = run.nodes.iter_mut().find(|node| node.name == "avatar").unwrap();
    (avatar.state, avatar.executed, avatar.failed, avatar.manifest) = (NodeState::Failed, 0, 1, None);
    let html = fs::read_to_string(write(&run, out.path()).unwrap().html).unwrap();
    let banner = html.find("Stage avatar failed: 1 unit (effigy log avatar says why).").unwrap();
    assert!(banner < html.find("<dl>").unwrap());
    assert!(html.contains("stage <code>scores</code>: something it needs failed"));
    let left: Vec<_> = fs::read_dir(out.path().join(FILES)).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left.iter().filter(|name| *name != MARK).collect::<Vec<_>>(), ["stages.svg"]);
}

#[test]
fn long_lists_are_folded_and_what_is_not_there_is_not_explained() {
    let mut run = sample();
    let (_out, markdown, html) = written(&run);
    assert!(!html.contains("class=\"folded\"") && markdown.contains("; once: work in the run that made the rows"));
    assert!(markdown.contains(" known. "), "{markdown}");
    run.report.push(ReportItem::Text { text: " ".into() });
    run.nodes.extend((0..MANY).map(|i| node(&format!("more{i}"), "select", "", "", [1, 0, 0], 0.0)));
    run.nodes.iter_mut().for_each(|node| node.worth = node.seconds);
    let (_out, markdown, html) = written(&run);
    assert_eq!(html.matches("class=\"folded\"").count(), 2);
    assert_eq!(html.matches("<details").count(), html.matches("</details>").count());
    assert!(markdown.contains("\n### Graph of the stages\n") && markdown.contains("\n### Stages\n"));
    assert!(!markdown.contains("once: work"), "no row says once");
    assert_eq!(html.matches("<div class=\"prose\">").count(), 1, "a text without words is none");
}
