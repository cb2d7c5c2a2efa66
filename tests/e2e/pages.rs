//! What a reader of a run gets: the report in a real browser, and `effigy table` with its comparison.

use crate::chrome::{self, Chrome};
use crate::support::Space;
use manifests::{Manifest, Schema, Type, Value};
use serde_json::json;

/// Three methods over two people; pictures and a curve are drawn by the stanzas themselves.
const RECIPE: &str = "
recipe: shown
stages:
  scores:
    rows:
      - { method: full, person: 1, psnr: 30.0, lpips: 0.10 }
      - { method: full, person: 2, psnr: 9.0, lpips: 0.20 }
      - { method: plain, person: 1, psnr: 10.0, lpips: 0.40 }
      - { method: plain, person: 2, psnr: 8.5, lpips: 0.30 }
      - { method: blind, person: 1, psnr: 100.0 }
      - { method: blind, person: 2, psnr: 120.0 }
  curve: { run: 'printf \"step,loss\\n1,2\\n2,1\\n\" > {out}/losses.csv', shell: true, from: scores, grain: whole, writes: { losses: blob } }
  perfect: { run: 'cp perfect.arrow {out}/out.arrow', writes: { name: str, psnr: f64 } }
  dot: { run: 'cp dot.png {out}/dot.png', shell: true, from: scores, grain: whole, writes: { dot: blob } }
report:
  - { text: 'Some *words* & <signs>.' }
  - { table: scores, title: Means, by: [method], per: [person], mean: [psnr, lpips], higher: [psnr], lower: [lpips], against: full, tolerance: { psnr: 0.5 } }
  - { table: scores, title: All of them }
  - { table: scores, title: Person 1, by: [method], mean: [psnr], where: { person: 1 } }
  - { table: scores, title: Person 2, by: [method], mean: [psnr], where: { person: 2 } }
  - { table: perfect, title: Perfect, higher: [psnr] }
  - { images: dot, column: dot, title: A picture }
  - { curve: curve, column: losses, title: A curve }
";

fn start() -> Space {
    let space = Space::new();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 8, 8);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().expect("a header").write_image_data(&[200; 8 * 8 * 3]).expect("pixels");
    std::fs::write(space.path("dot.png"), bytes).expect("it can be written");
    let schema = Schema::new([("name", Type::Str), ("psnr", Type::F64)]).expect("names");
    let row = |name: &str, psnr| vec![Value::Str(name.into()), psnr];
    let rows = [
        row("good", Value::F64(30.0)),
        row("perfect", Value::F64(f64::INFINITY)),
        row("none", Value::Null),
        row("worst", Value::F64(f64::NEG_INFINITY)),
    ];
    let table = Manifest::from_rows(schema, &rows).expect("rows");
    manifests::write_ipc(&space.path("perfect.arrow"), &table).expect("it can be written");
    space.write("r.yaml", RECIPE);
    space.settle();
    let said = space.effigy(&["run", "r.yaml"]);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    space
}

fn table(space: &Space, words: &[&str]) -> String {
    let said = space.effigy(&[&["table", "r.yaml"], words].concat());
    assert_eq!(said.code, 0, "{words:?}: {}\n{}", said.out, said.err);
    said.out
}

#[test]
fn the_report_works_in_a_browser_without_a_network() {
    let space = start();
    let page = space.read("out/report.html");
    let outside = |word: &&str| page.contains(word);
    let found = ["src=\"http", "href=\"http", "url(http", "src=\"//", "@import"].into_iter().find(outside);
    assert!(found.is_none(), "the page fetches something: {found:?}");
    let Some(program) = chrome::program() else { return };
    let mut chrome = Chrome::start(&program, 1200, 900);
    // what is fetched all the same is a complaint
    chrome.call("Network.enable", json!({}));
    chrome.call("Network.setBlockedURLs", json!({"urls": ["http://*", "https://*", "ws://*"]}));
    chrome.open(&space.path("out/report.html"));
    let mut orders = Vec::new();
    for (column, clicks) in [("psnr", 3), ("lpips", 2)] {
        for _ in 0..clicks {
            chrome.value(&format!(
                "[...document.querySelectorAll('table:first-of-type th')].find((e) => e.textContent.startsWith('{column}')).id = 'sorted'"
            ));
            chrome.click("#sorted [role=button]");
            let told = "[...document.querySelector('table').tBodies[0].rows].map((row) => row.cells[0].textContent.trim()).join(' ') \
                        + ' ' + (document.getElementById('sorted').ariaSort ?? 'none')";
            orders.push(chrome.value(told));
            chrome.value("document.getElementById('sorted').removeAttribute('id')");
        }
    }
    assert_eq!(
        orders,
        [
            "plain full blind ascending",
            "blind full plain descending",
            "full plain blind none",
            "full plain blind ascending",
            "plain full blind descending",
        ],
        "numbers sort as numbers, the third click restores, what is not available comes last"
    );
    // infinities are numbers
    let perfect = "[...document.querySelectorAll('h2')].find((e) => e.textContent === 'Perfect').nextElementSibling.querySelector('table')";
    let names = format!("[...{perfect}.tBodies[0].rows].map((row) => row.cells[0].textContent).join(' ')");
    chrome.value(&format!("{perfect}.tHead.rows[0].cells[1].id = 'sorted'"));
    for order in ["worst good perfect none", "perfect good worst none", "good perfect none worst"] {
        chrome.click("#sorted [role=button]");
        assert_eq!(chrome.value(&names), order);
    }
    chrome.value("document.getElementById('sorted').removeAttribute('id')");
    // durations sort by how long they are, whatever their unit
    let stages = "[...document.querySelectorAll('h3')].find((e) => e.textContent === 'Stages').nextElementSibling.querySelector('table')";
    let times = format!("[...{stages}.tBodies[0].rows].map((row) => Number(row.cells[8].dataset.value))");
    chrome.value(&format!("{stages}.tHead.rows[0].cells[8].id = 'sorted'"));
    chrome.click("#sorted [role=button]");
    let times: Vec<f64> = serde_json::from_value(chrome.value(&times)).expect("each time has its seconds");
    assert!(times.len() == 4 && times.is_sorted(), "{times:?}");
    assert_eq!(chrome.value("[...document.images].map((image) => image.naturalWidth)"), json!([8]));
    assert!(chrome.value("document.querySelectorAll('svg').length").as_u64() >= Some(2), "a curve and the stages");
    assert_eq!(chrome.value("document.documentElement.scrollWidth > innerWidth"), false, "something stands out");
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}

/// Names that are longer than a phone is wide, a picture that is wider, and something to be warned of.
const WIDE: &str = "
recipe: wide
stages:
  dot: { run: 'cp dot.png {out}/dot.png', shell: true, writes: { dot: blob } }
  a: { rows: [{ k: a_name_that_is_much_longer_than_a_telephone_is_wide, v: 1 }] }
  b: { rows: [{ k: a_name_that_is_much_longer_than_a_telephone_is_wide, v: 2 }] }
  both: { join: [a, b], on: [k] }
  a_stage_whose_name_is_much_longer_than_a_telephone_is_wide: { run: 'exit 1', shell: true, writes: { x: blob } }
report:
  - { table: both, title: A_heading_that_is_much_longer_than_a_telephone_is_wide }
  - { table: both, title: Nothing, where: { v: 3 } }
  - { images: dot, column: dot, title: A picture }
";

#[test]
fn a_phone_shows_long_names_and_pictures_in_their_own_size() {
    let space = start();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 1000, 10);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().expect("a header").write_image_data(&[200; 1000 * 10 * 3]).expect("pixels");
    std::fs::write(space.path("dot.png"), bytes).expect("it can be written");
    space.write("r.yaml", WIDE);
    space.settle();
    assert_eq!(space.effigy(&["run", "r.yaml"]).code, 1);
    let said = space.read("out/report.html");
    for words in [
        "of 1 row there is none where v is 3",
        "<details class=\"mild\" open>",
        "both tables have <code>v</code>",
        "failed: 1 unit (effigy log a_",
    ] {
        assert!(said.contains(words), "{words}");
    }
    let Some(program) = chrome::program() else { return };
    let mut chrome = Chrome::start(&program, 800, 900);
    let size = json!({"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": false});
    chrome.call("Emulation.setDeviceMetricsOverride", size);
    chrome.open(&space.path("out/report.html"));
    assert_eq!(chrome.value("document.documentElement.scrollWidth > innerWidth"), false, "something stands out");
    let width = "document.querySelector('figure img').clientWidth";
    assert!(chrome.value(width).as_u64().is_some_and(|width| width < 390));
    chrome.click("figure img");
    assert_eq!(chrome.value(width), 1000, "a click gives a picture its own size");
    assert_eq!(chrome.value("document.documentElement.scrollWidth > innerWidth"), false, "it moves within its place");
    chrome.value("document.querySelector('figure img').focus()");
    chrome.enter("");
    assert!(chrome.value(width).as_u64().is_some_and(|width| width < 390), "and the keyboard takes it back");
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}

#[test]
fn what_was_warned_of_is_told_as_long_as_its_rows_are_taken() {
    let space = Space::new();
    space.write(
        "r.yaml",
        "
recipe: warned
params: { fail: 0 }
stages:
  src: { rows: [{ n: 1 }] }
  gate: { run: 'echo {n} > {out}/x; exit {param.fail}', shell: true, from: src, params: { fail: '${fail}' }, writes: { x: blob } }
  a: { run: 'echo \"warning: lens is guessed\" >&2; cp {x} {out}/y', shell: true, from: gate, writes: { y: blob } }
report: [{ table: src }]
",
    );
    space.settle();
    let warned = |args: &[&str], code: i32| {
        assert_eq!(space.effigy(&[&["run", "r.yaml"], args].concat()).code, code);
        space.read("out/report.md").matches("stage `a`: lens is guessed").count()
    };
    assert_eq!(warned(&[], 0), 1);
    assert_eq!(warned(&[], 0), 1, "nothing ran");
    assert_eq!(warned(&["--param", "fail=1"], 1), 0, "it was not reached");
    assert_eq!(warned(&["--only", "gate"], 0), 0, "nor asked for");
    assert_eq!(warned(&[], 0), 1, "its row is that of the first run");
    space.write("r.yaml", &space.read("r.yaml").replace("echo \"warning: lens is guessed\" >&2; ", ""));
    assert_eq!(warned(&[], 0), 0, "it ran anew, and said nothing");
    assert_eq!(warned(&[], 0), 0);
}

#[test]
fn what_is_folded_away_is_printed() {
    let Some(program) = chrome::program() else { return };
    let space = start();
    let mut chrome = Chrome::start(&program, 1200, 900);
    chrome.open(&space.path("out/report.html"));
    // a few warnings are not folded away
    let hidden = "[...document.querySelectorAll('details:not(.mild)')].filter((e) => e.clientHeight < 2 * e.querySelector('summary').clientHeight).length";
    let count = chrome.value("document.querySelectorAll('details:not(.mild)').length");
    assert!(count.as_u64() >= Some(1), "the recipe is there");
    assert_eq!(chrome.value(hidden), count, "on the screen they are folded");
    chrome.call("Emulation.setEmulatedMedia", json!({"media": "print"}));
    assert_eq!(chrome.value(hidden), 0, "by the style");
    chrome.call("Emulation.setEmulatedMedia", json!({"media": ""}));
    assert_eq!(chrome.value(hidden), count);
    chrome.value("void window.dispatchEvent(new Event('beforeprint'))");
    assert_eq!(chrome.value(hidden), 0, "by the script");
    chrome.value("void window.dispatchEvent(new Event('afterprint'))");
    assert_eq!(chrome.value(hidden), count, "and as they were");
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}

#[test]
fn tables_are_put_into_a_file_that_is_kept() {
    let space = start();
    let above = "# Kept\n\nSome words.\n\n## Means\n\nBefore.\n\n";
    let below = "\n\nAfter.\n\n## Other\n\n| mine | own |\n| --- | --- |\n| 1 | 2 |\n";
    space.write("docs.md", &format!("{above}| method | psnr |\n| --- | --- |\n| full | 1 |\n\n*an old note*{below}"));
    let spoilt = space.effigy(&["table", "r.yaml", "--check", "docs.md"]);
    spoilt.expect_error(1, &["`--to` puts the tables in their places there and leaves all other text"]);
    table(&space, &["--to", "docs.md"]);
    let text = space.read("docs.md");
    assert!(text.starts_with(&format!("{above}| method | n | psnr ↑ |")) && text.contains(below), "{text}");
    assert!(text.contains("| blind | 2 | **110.0**") && !text.contains("an old note"), "{text}");
    assert!(text.matches("\n### All of them\n").count() == 1 && text.matches("# Means").count() == 1, "{text}");
    table(&space, &["--check", "docs.md"]);
    table(&space, &["--to", "docs.md"]);
    assert_eq!(space.read("docs.md"), text, "once more it changes nothing");
    // one of them alone, of two with the same columns
    space.write("docs.md", &text.replace("| blind | 1 | 120.0 |", "| blind | 1 | 20.0 |"));
    table(&space, &["--only", "Person 1", "--check", "docs.md"]);
    assert_eq!(space.effigy(&["table", "r.yaml", "--only", "Person 2", "--check", "docs.md"]).code, 1);
    table(&space, &["--only", "Person 2", "--to", "docs.md"]);
    table(&space, &["--only", "Person 2", "--check", "docs.md"]);
    assert_eq!(space.read("docs.md"), text);
    // a file that is no text is not written over
    std::fs::write(space.path("docs.md"), [0xff, 0xfe]).expect("it can be written");
    space.effigy(&["table", "r.yaml", "--to", "docs.md"]).expect_error(2, &["cannot read docs.md", "hint:"]);
    // other formats are written anew
    space.write("docs.csv", "mine\n");
    table(&space, &["--to", "docs.csv"]);
    assert!(space.read("docs.csv").starts_with("# Means\n"));
}

#[test]
fn tables_are_written_in_four_formats() {
    let space = start();
    let markdown = table(&space, &["--only", "Means"]);
    assert!(markdown.contains("| full | 2 |") && markdown.contains("**110.0**"), "{markdown}");
    assert!(markdown.contains("Δ") && !markdown.contains("All of them"), "{markdown}");
    let csv = table(&space, &["--only", "1", "--format", "csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("method,n,psnr,psnr_deviation,psnr_n,psnr_best,psnr_delta,"), "{csv}");
    assert!(lines[1].starts_with("full,2,19.5,14.8") && lines[3].starts_with("blind,2,110,14.1"), "{csv}");
    assert!(lines[3].ends_with(",,,,,,,") && !csv.contains("n/a") && !csv.contains('–'), "{csv}");
    let csv = table(&space, &["--only", "Perfect", "--format", "csv"]);
    assert_eq!(csv.trim(), "name,psnr ↑\ngood,30\nperfect,inf\nnone,\nworst,-inf");
    let latex = table(&space, &["--only", "1", "--format", "tex"]);
    assert!(latex.contains("\\begin{tabular}") && latex.contains("\\textbf{110.0}"), "{latex}");
    table(&space, &["--to", "tables.html"]);
    let html = space.read("tables.html");
    let heading = |title: &str| html.contains(&format!("<h2 class=\"item\">{title}</h2>"));
    assert!(heading("Means") && heading("All of them"), "{html}");
}

#[test]
fn a_committed_table_is_compared() {
    let space = start();
    let markdown = table(&space, &["--only", "Means"]);
    space.write("docs.md", &format!("# Kept\n\nSome words.\n\n{markdown}\nMore words.\n"));
    let check = ["--only", "Means", "--check", "docs.md"];
    table(&space, &check);
    // within the tolerance that the recipe declares, and beyond it
    let spoilt = |from: &str, to: &str| {
        let text = space.read("docs.md");
        assert!(text.contains(from), "{text}");
        space.write("spoilt.md", &text.replace(from, to));
        space.effigy(&["table", "r.yaml", "--only", "Means", "--check", "spoilt.md"])
    };
    assert_eq!(spoilt("110.0", "110.4").code, 0, "tolerated");
    let far = spoilt("110.0", "111.0");
    assert_eq!(far.code, 1, "{}{}", far.out, far.err);
    assert!(format!("{}{}", far.out, far.err).contains("111.0"), "{}{}", far.out, far.err);
    assert_eq!(spoilt("0.1500", "0.1600").code, 1, "no tolerance was declared for it");
    assert_eq!(spoilt("| full |", "| fool |").code, 1, "another row");
    space.effigy(&["table", "r.yaml", "--check", "gone.md"]).expect_error(2, &["gone.md", "hint:"]);
    // a committed table is of the recipe as it is, not of the one that ran last
    space.write("r.yaml", &RECIPE.replace("psnr: 8.5", "psnr: 18.5"));
    space
        .effigy(&["table", "r.yaml", "--only", "Means", "--check", "docs.md"])
        .expect_error(1, &["scores", "hint: effigy run r.yaml"]);
    space.write("r.yaml", RECIPE);
    table(&space, &check);
    space.effigy(&["table", "r.yaml", "--only", "Meens"]).expect_error(2, &["Meens", "Means"]);
}
