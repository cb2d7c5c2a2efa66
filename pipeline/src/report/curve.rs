//! Curves from CSV files: one panel for each column over the first, drawn by plotters.
//!
//! Training logs have terms of very different size, so each has a panel and an axis of its own; a logarithmic one where
//! the values, all positive, span more than a decade and a half. Curves of several files lie over each other, each in a
//! colour and a stroke of its own that a line above names. Knows no page.

use super::document::Drawing;
use super::graph::text_width;
use super::numbers::{Style, number};
use super::prose::escape;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// A CSV file of numbers.
#[derive(Debug)]
pub(super) struct Log {
    /// Name of the first column.
    pub step: String,
    /// The other columns: name and points; what is no finite number is left out.
    pub terms: Vec<(String, Vec<(f64, f64)>)>,
    /// Cells with text, NaN or infinity.
    pub dropped: usize,
    /// Columns of nothing but these.
    pub lost: Vec<String>,
}

/// Reads a CSV file: a head with names, then numbers; empty cells are allowed.
///
/// # Errors
/// A sentence with the line's number, if a line has another number of cells than the head or a step is no number.
pub(super) fn read(csv: &str) -> Result<Log, String> {
    let mut lines = csv.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let cells =
        |line: &str| -> Vec<String> { line.split(',').map(|cell| cell.trim().trim_matches('"').into()).collect() };
    let Some((_, head)) = lines.next() else { return Err("the file is empty".into()) };
    let head = cells(head);
    if head.len() < 2 {
        return Err("the file has only one column".into());
    }
    let terms = head[1..].iter().map(|name| (name.clone(), Vec::new())).collect();
    let mut log = Log { step: head[0].clone(), terms, dropped: 0, lost: Vec::new() };
    let mut dropped = vec![0; head.len() - 1];
    for (i, line) in lines {
        let row = cells(line);
        if row.len() != head.len() {
            return Err(format!("line {} has {} cells, the head has {}", i + 1, row.len(), head.len()));
        }
        let step = row[0].parse::<f64>().ok().filter(|step| step.is_finite());
        let Some(step) = step else { return Err(format!("line {}: `{}` is no step", i + 1, row[0])) };
        for ((cell, (_, points)), dropped) in row[1..].iter().zip(&mut log.terms).zip(&mut dropped) {
            match cell.parse::<f64>() {
                Ok(value) if value.is_finite() => points.push((step, value)),
                _ if cell.is_empty() => {}
                _ => *dropped += 1,
            }
        }
    }
    log.dropped = dropped.iter().sum();
    let lost = log.terms.iter().zip(dropped).filter(|((_, points), dropped)| points.is_empty() && *dropped > 0);
    log.lost = lost.map(|((name, _), _)| name.clone()).collect();
    log.terms.retain(|(_, points)| !points.is_empty());
    if log.terms.is_empty() {
        return Err("the file holds no numbers".into());
    }
    Ok(log)
}

/// A curve of a panel: its points, and which of the logs it is of.
type Line<'a> = (usize, &'a [(f64, f64)]);

/// Draws each term of some logs, the same one of all in one panel; of several, what the colours mean comes first.
/// `name` begins the files' names. At most as many logs as there are [`SERIES`], each with what it is called.
///
/// # Errors
/// If plotters fails.
pub(super) fn draw(logs: &[(String, &Log)], name: &str) -> anyhow::Result<Vec<Drawing>> {
    let mut terms: Vec<(&str, Vec<Line<'_>>)> = Vec::new();
    for (i, (_, log)) in logs.iter().enumerate() {
        for (term, points) in &log.terms {
            match terms.iter_mut().find(|(known, _)| known == term) {
                Some((_, lines)) => lines.push((i, points)),
                None => terms.push((term, vec![(i, points)])),
            }
        }
    }
    let step = logs.first().map_or("", |(_, log)| &log.step);
    let size = if terms.len() == 1 { (WIDTH, 320) } else { (510, 250) };
    let several = logs.len() > 1;
    let mut drawings = Vec::new();
    if several {
        drawings.push(legend(logs, format!("{name}-00.svg")));
    }
    for (i, (term, lines)) in terms.iter().enumerate() {
        let of = if several { format!(", of {} rows", lines.len()) } else { String::new() };
        let alt = format!("{term} over {step}{of}");
        let svg = panel((step, term), lines, several, size, &alt)?;
        drawings.push(Drawing { name: format!("{name}-{:02}.svg", i + 1), svg, size, alt });
    }
    Ok(drawings)
}

/// Width of what takes the whole page, px.
const WIDTH: u32 = 1036;

/// What the colours mean: names behind strokes, as many in a line as there is room for.
fn legend(logs: &[(String, &Log)], file: String) -> Drawing {
    const SIZE: f64 = 13.0;
    let (mut x, mut y) = (0.0, 16.0);
    let mut body = String::new();
    for (i, ((name, _), (_, color))) in logs.iter().zip(SERIES).enumerate() {
        let long = 48.0 + text_width(name, SIZE);
        if x > 0.0 && x + long > f64::from(WIDTH) {
            (x, y) = (0.0, y + 21.0);
        }
        body += &format!(
            "<line x1=\"{x:.0}\" x2=\"{:.0}\" y1=\"{:.0}\" y2=\"{:.0}\" stroke=\"var(--{color})\" stroke-width=\"3\"{}/>\
             <text x=\"{:.0}\" y=\"{y:.0}\" font-size=\"{SIZE}\" fill=\"var(--ink)\">{}</text>\n",
            x + 34.0,
            y - 4.5,
            y - 4.5,
            dashes(i, 1),
            x + 41.0,
            escape(name)
        );
        x += long + 14.0;
    }
    let names: Vec<&str> = logs.iter().map(|(name, _)| name.as_str()).collect();
    let (height, alt) = ((y + 8.0) as u32, format!("Colours of: {}", names.join("; ")));
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" aria-label=\"{}\" font-family=\"system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif\">\n{body}</svg>",
        escape(&alt)
    );
    Drawing { name: file, svg, size: (WIDTH, height), alt }
}

/// plotters counts in whole units; drawn this much larger and shown smaller, curves are smooth.
const FINE: u32 = 4;
/// Points drawn at most.
const POINTS: usize = 480;

/// Stand-ins for the palette: plotters only writes numbers. No two are alike, and nobody would choose them.
const STAND_INS: [(RGBColor, &str); 5] = [
    (RGBColor(1, 254, 3), "ink"),
    (RGBColor(1, 254, 5), "faint"),
    (RGBColor(1, 254, 7), "grid"),
    (RGBColor(1, 254, 9), "curve"),
    (RGBColor(1, 254, 11), "raw"),
];
const INK: RGBColor = STAND_INS[0].0;
const FAINT: RGBColor = STAND_INS[1].0;
const GRID: RGBColor = STAND_INS[2].0;
const CURVE: RGBColor = STAND_INS[3].0;
const RAW: RGBColor = STAND_INS[4].0;

/// The same of curves that lie over each other.
pub(super) const SERIES: [(RGBColor, &str); 8] = [
    (RGBColor(3, 254, 1), "series1"),
    (RGBColor(3, 254, 3), "series2"),
    (RGBColor(3, 254, 5), "series3"),
    (RGBColor(3, 254, 7), "series4"),
    (RGBColor(3, 254, 9), "series5"),
    (RGBColor(3, 254, 11), "series6"),
    (RGBColor(3, 254, 13), "series7"),
    (RGBColor(3, 254, 15), "series8"),
];

/// The stroke of a curve of several, so that they are told apart without colours as well; lengths are `unit` px.
fn dashes(series: usize, unit: u32) -> String {
    const STROKES: [&[u32]; 4] = [&[], &[8, 4], &[2, 3], &[9, 3, 2, 3]];
    match STROKES[series % STROKES.len()] {
        [] => String::new(),
        lengths => {
            let lengths: Vec<String> = lengths.iter().map(|length| (length * unit).to_string()).collect();
            format!(" stroke-dasharray=\"{}\"", lengths.join(" "))
        }
    }
}

/// `several`: whether there are curves of several logs, though this panel may have one of them alone.
fn panel(
    (step, term): (&str, &str),
    lines: &[Line<'_>],
    several: bool,
    size: (u32, u32),
    alt: &str,
) -> anyhow::Result<String> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter());
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
    };
    let x = widened(bounds(&mut points().map(|p| p.0)), 0.0);
    let (low, high) = bounds(&mut points().map(|p| p.1));
    let logarithmic = low > 0.0 && high / low > 30.0;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (size.0 * FINE, size.1 * FINE)).into_drawing_area();
        let title = if logarithmic { format!("{term} (logarithmic)") } else { term.into() };
        if logarithmic {
            let range = (low / 1.15..high * 1.15).log_scale();
            chart(&root, (step, &title), (lines, several), x, range, &number)?;
        } else {
            let (low, high) = widened((low, high), 0.06);
            let style = Style::of([low, high]);
            let label = |value: f64| tidy(style.write(value));
            chart(&root, (step, &title), (lines, several), x, low..high, &label)?;
        }
        root.present()?;
    }
    // plotters has dashes of its own, which are lines of two points each: a thousand to a curve
    for (i, (RGBColor(r, g, b), name)) in SERIES.into_iter().enumerate() {
        let stroke = format!("stroke=\"#{r:02X}{g:02X}{b:02X}\"");
        svg = svg.replace(&stroke, &format!("stroke=\"var(--{name})\"{}", dashes(i, FINE)));
    }
    for (color, name) in STAND_INS.into_iter().chain(SERIES) {
        let RGBColor(r, g, b) = color;
        svg = svg.replace(&format!("#{r:02X}{g:02X}{b:02X}"), &format!("var(--{name})"));
    }
    // the size it is shown at, and words for those who cannot see it
    let (w, h) = (size.0 * FINE, size.1 * FINE);
    let shown = format!("<svg width=\"{}\" height=\"{}\" role=\"img\" aria-label=\"{}\"", size.0, size.1, escape(alt));
    Ok(svg.replacen(&format!("<svg width=\"{w}\" height=\"{h}\""), &shown, 1))
}

/// A range made wider by a share of itself; one without width gets some.
fn widened((low, high): (f64, f64), share: f64) -> (f64, f64) {
    if high > low {
        return (low - share * (high - low), high + share * (high - low));
    }
    let half = (low.abs() * 0.1).max(0.5);
    (low - half, high + half)
}

/// Without zeros that say nothing: `0.50` and `1.00e-4` become `0.5` and `1e-4`.
fn tidy(text: String) -> String {
    let (mantissa, power) = text.split_at(text.find('e').unwrap_or(text.len()));
    let short = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    format!("{short}{power}")
}

fn chart<'a, Y>(
    root: &DrawingArea<SVGBackend<'a>, Shift>,
    (step, title): (&str, &str),
    (lines, several): (&[Line<'_>], bool),
    x: (f64, f64),
    y: Y,
    label: &dyn Fn(f64) -> String,
) -> anyhow::Result<()>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let unit = FINE as i32;
    // plotters counts the height of a line: letters come out as a face of four fifths of that
    let font = |size: i32, color: &RGBColor| ("sans-serif", size * unit).into_font().color(color);
    let fail = |error: &dyn std::fmt::Display| anyhow::anyhow!("drawing the curve of `{title}`: {error}");
    let mut chart = ChartBuilder::on(root)
        .margin_top(6 * unit)
        .margin_right(16 * unit)
        .caption(title, font(17, &INK))
        .x_label_area_size(42 * unit)
        .y_label_area_size(68 * unit)
        .build_cartesian_2d(x.0..x.1, y)
        .map_err(|error| fail(&error))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(FINE))
        .axis_style(FAINT.stroke_width(FINE))
        .label_style(font(15, &FAINT))
        .axis_desc_style(font(15, &FAINT))
        .x_labels(6)
        .y_labels(6)
        .x_desc(step)
        .x_label_formatter(&|value| number(*value))
        .y_label_formatter(&|value| label(*value))
        .set_all_tick_mark_size(4 * unit)
        .draw()
        .map_err(|error| fail(&error))?;
    let line = |points: Vec<(f64, f64)>, color: &RGBColor, width: u32| {
        LineSeries::new(points, color.stroke_width(width)).point_size(0)
    };
    for &(i, points) in lines {
        // of several the course alone: what is thin of one would hide the others
        let color = if several { &SERIES[i % SERIES.len()].0 } else { &CURVE };
        let course = if is_noisy(points) { smoothed(points, points.len() / SMOOTH) } else { points.to_vec() };
        if is_noisy(points) && !several {
            chart.draw_series(line(extremes(points), &RAW, FINE)).map_err(|error| fail(&error))?;
        }
        chart.draw_series(line(course, color, 2 * FINE)).map_err(|error| fail(&error))?;
        if points.len() == 1 {
            chart
                .draw_series(points.iter().map(|&point| Circle::new(point, 3 * unit, color.filled())))
                .map_err(|error| fail(&error))?;
        }
    }
    Ok(())
}

/// Half the width of the moving average: this part of all points.
const SMOOTH: usize = 60;

/// Whether a curve goes up and down so much that its course is drawn as well.
pub(super) fn is_noisy(points: &[(f64, f64)]) -> bool {
    let (low, high) = points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p.1), b.max(p.1)));
    let way: f64 = points.windows(2).map(|pair| (pair[1].1 - pair[0].1).abs()).sum();
    points.len() >= 2 * SMOOTH && way > 4.0 * (high - low)
}

/// So many points that the eye misses none: the least and the greatest of each stretch.
fn extremes(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(POINTS / 2);
    let mut out = Vec::new();
    for part in points.chunks(stretch) {
        let by = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let mut ends = [*part.iter().min_by(by).expect("not empty"), *part.iter().max_by(by).expect("not empty")];
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        out.extend(ends);
    }
    out
}

/// The mean over `window` points to each side, fewer at the ends.
fn smoothed(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let mut sums = vec![0.0];
    points.iter().for_each(|point| sums.push(sums[sums.len() - 1] + point.1));
    let every = points.len().div_ceil(POINTS / 2);
    let at = |i: usize| {
        let reach = window.min(i).min(points.len() - 1 - i);
        (points[i].0, (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1) as f64)
    };
    let last = points.len() - 1;
    (0..last).step_by(every).chain([last]).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_read_and_broken_ones_refused() {
        let log = read("step,loss,\"lr\"\n0,1.5,0.1\n10,nan,\n20,0.5,0.1\n\n").unwrap();
        assert_eq!((log.step.as_str(), log.dropped), ("step", 1));
        assert_eq!(log.terms[0], ("loss".to_string(), vec![(0.0, 1.5), (20.0, 0.5)]));
        assert!(read("step,loss\n1,2\n3\n").unwrap_err().contains("line 3"));
        assert!(read("step,loss\nx,2\n").unwrap_err().contains("`x`"));
        assert!(
            read("").unwrap_err().contains("empty") && read("step,note\n1,a\n").unwrap_err().contains("no numbers")
        );
    }

    #[test]
    fn panels_hold_names_safely_and_name_only_palette_colours() {
        let points: Vec<(f64, f64)> = (0..2000).map(|i| (f64::from(i), f64::from(1 + i % 2 * 99))).collect();
        let log = Log { step: "step".into(), terms: vec![("a<b&\"c\"".into(), points)], dropped: 0, lost: Vec::new() };
        let svg = &draw(&[(String::new(), &log)], "x").unwrap()[0].svg;
        assert!(svg.contains("a&lt;b&amp;") && !svg.contains("a<b"), "names are escaped");
        assert!(svg.contains("(logarithmic)") && svg.contains("var(--curve)") && svg.contains("var(--raw)"));
        assert!(!svg.contains("\"#"), "a colour outside the palette");
        assert!(svg.len() < 60_000, "{} bytes", svg.len());
    }

    #[test]
    fn columns_without_a_number_are_named() {
        let log = read("step,loss,nothing,psnr,rate\n1,2,,nan,1\n2,nan,,inf,2\n").unwrap();
        assert_eq!((log.dropped, log.lost), (3, vec!["psnr".to_string()]));
        assert_eq!(log.terms.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["loss", "rate"]);
    }

    #[test]
    fn smoothing_keeps_straight_lines_and_peaks_stay_visible() {
        let straight: Vec<(f64, f64)> = (0..3000).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        assert!(smoothed(&straight, 50).iter().all(|(x, y)| (y - 2.0 * x).abs() < 1e-6));
        let mut peak = straight;
        assert!(!is_noisy(&peak));
        peak[1234].1 = 1e9;
        assert!(extremes(&peak).contains(&(1234.0, 1e9)));
        assert!(extremes(&peak).len() <= POINTS);
    }

    #[test]
    fn one_point_and_constant_curves_are_drawn() {
        for points in [vec![(5.0, 0.0)], vec![(0.0, 3.0), (1.0, 3.0)]] {
            let log = Log { step: "step".into(), terms: vec![("loss".into(), points)], dropped: 0, lost: Vec::new() };
            assert!(draw(&[(String::new(), &log)], "x").unwrap()[0].svg.contains("var(--curve)"));
        }
    }

    #[test]
    fn curves_of_several_rows_share_panels_and_the_first_drawing_names_them() {
        let log = |terms: &[&str]| {
            let terms = terms.iter().map(|term| (term.to_string(), vec![(0.0, 1.0), (9.0, 2.0)])).collect();
            Log { step: "step".into(), terms, dropped: 0, lost: Vec::new() }
        };
        let (both, one) = (log(&["loss", "rate"]), log(&["loss"]));
        let drawn = draw(&[("seed <1>".into(), &both), ("seed 2".into(), &one)], "x").unwrap();
        let names: Vec<&str> = drawn.iter().map(|drawing| drawing.name.as_str()).collect();
        assert_eq!(names, ["x-00.svg", "x-01.svg", "x-02.svg"]);
        assert!(drawn[0].svg.contains("seed &lt;1&gt;") && drawn[0].svg.contains("var(--series2)"), "{}", drawn[0].svg);
        let colours = |i: usize| ["series1", "series2"].map(|name| drawn[i].svg.contains(&format!("var(--{name})")));
        assert_eq!((colours(1), colours(2)), ([true, true], [true, false]));
    }
}
