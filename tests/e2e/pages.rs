//! What a reader of a run gets: the report in a real browser, and `effigy table` with its comparison.

use crate::chrome::{self, Chrome};
use crate::support::Space;
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
  dot: { run: 'cp dot.png {out}/dot.png', shell: true, from: scores, grain: whole, writes: { dot: blob } }
report:
  - { text: 'Some *words* & <signs>.' }
  - { table: scores, title: Means, by: [method], per: [person], mean: [psnr, lpips], higher: [psnr], lower: [lpips], against: full, tolerance: { psnr: 0.5 } }
  - { table: scores, title: All of them }
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
            chrome.click("#sorted button");
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
    assert_eq!(chrome.value("[...document.images].map((image) => image.naturalWidth)"), json!([8]));
    assert!(chrome.value("document.querySelectorAll('svg').length").as_u64() >= Some(2), "a curve and the stages");
    assert_eq!(chrome.value("document.documentElement.scrollWidth > innerWidth"), false, "something stands out");
    assert!(chrome.complaints().is_empty(), "{:?}", chrome.complaints());
}

#[test]
fn tables_are_written_in_four_formats() {
    let space = start();
    let markdown = table(&space, &["--only", "Means"]);
    assert!(markdown.contains("| full | 2 |") && markdown.contains("**110.0**"), "{markdown}");
    assert!(markdown.contains("Δ") && !markdown.contains("All of them"), "{markdown}");
    let csv = table(&space, &["--only", "1", "--format", "csv"]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "# Means");
    assert!(lines[1].starts_with("method,n,psnr,psnr_deviation,psnr_n,psnr_best,psnr_delta,"), "{csv}");
    assert!(lines[2].starts_with("full,2,19.5,14.8") && lines[4].starts_with("blind,2,110,14.1"), "{csv}");
    assert!(lines[4].ends_with(",,,,,,,") && !csv.contains("n/a") && !csv.contains('–'), "{csv}");
    let latex = table(&space, &["--only", "1", "--format", "tex"]);
    assert!(latex.contains("\\begin{tabular}") && latex.contains("\\textbf{110.0}"), "{latex}");
    table(&space, &["--to", "tables.html"]);
    let html = space.read("tables.html");
    assert!(html.contains("<h3>Means</h3>") && html.contains("<h3>All of them</h3>"), "{html}");
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
