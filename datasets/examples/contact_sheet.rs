//! Renders a sheet of synthetic people to a PNG: `contact_sheet WHEEL OUT.png [people|rig|sequence] [size] [count] [seed]`.
//!
//! For looking at what the generator makes; the pipeline does not use it.

use std::path::Path;
use std::time::Instant;

use datasets::capture::{self, Frame};
use datasets::heads::{Expression, Head, HeadAssets, Identity};

fn paste(sheet: &mut image::RgbImage, frame: &Frame, column: u32, row: u32) {
    for y in 0..frame.height {
        for x in 0..frame.width {
            let at = 3 * (y * frame.width + x) as usize;
            let pixel = image::Rgb([frame.rgb[at], frame.rgb[at + 1], frame.rgb[at + 2]]);
            sheet.put_pixel(column * frame.width + x, row * frame.height + y, pixel);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, wheel, out, ..] = args.as_slice() else {
        return Err("usage: contact_sheet WHEEL OUT.png [people|rig|faces] [size] [count] [seed]".into());
    };
    let kind = args.get(3).map_or("people", String::as_str);
    let number = |i: usize, default: u32| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (size, count, seed) = (number(4, 256), number(5, 8), number(6, 1));
    let supersample = if size >= 200 { 3 } else { 4 };
    let start = Instant::now();
    let assets = HeadAssets::load(Path::new(wheel))?;
    eprintln!("assets {:.2} s", start.elapsed().as_secs_f64());
    let columns = if kind == "people" { 3 } else { 4 };
    let people_across = 2;
    let (w, h) = match kind {
        "people" => (columns * people_across, count.div_ceil(people_across)),
        _ => (columns, count.div_ceil(columns)),
    };
    let mut sheet = image::RgbImage::from_pixel(w * size, h * size, image::Rgb([255, 255, 255]));
    let mut times = [0.0f64; 3];
    let mut timed = |slot: usize, since: Instant| times[slot] += since.elapsed().as_secs_f64();
    if kind == "people" {
        for i in 0..count {
            let t = Instant::now();
            let head = Head::new(&assets, &Identity::random(&assets, u64::from(seed + i)))?;
            timed(0, t);
            let t = Instant::now();
            let posed = head.pose(&Expression::default());
            timed(1, t);
            for (c, azimuth) in [0.0, 38.0, -75.0].into_iter().enumerate() {
                let t = Instant::now();
                let frame = capture::render(&posed, &capture::portrait_camera(azimuth, 2.0, 1.0, size, size), supersample);
                timed(2, t);
                paste(&mut sheet, &frame, (i % people_across) * columns + c as u32, i / people_across);
            }
        }
    } else {
        let head = Head::new(&assets, &Identity::random(&assets, u64::from(seed)))?;
        let faces: [&[(&str, f32)]; 8] = [
            &[],
            &[("mouthSmile", 0.9), ("cheekSquint", 0.5), ("jawOpen", 0.15)],
            &[("jawOpen", 0.7)],
            &[("mouthPucker", 0.9), ("browInnerUp", 0.7)],
            &[("eyeBlink", 1.0), ("mouthPress", 0.6)],
            &[("browDown", 1.0), ("noseSneer", 0.8), ("mouthUpperUp", 0.7), ("jawOpen", 0.2)],
            &[("tongueOut", 1.0), ("jawOpen", 0.5)],
            &[("eyeWide", 1.0), ("browInnerUp", 1.0), ("browOuterUp", 1.0), ("jawOpen", 0.35), ("mouthFunnel", 0.4)],
        ];
        for i in 0..count {
            let mut e = Expression::default();
            for (name, weight) in faces[i as usize % faces.len()] {
                e.add(name, *weight).ok_or("unknown unit")?;
            }
            let t = Instant::now();
            let posed = head.pose(&e);
            timed(1, t);
            let azimuth = if i >= 8 { 30.0 } else { 0.0 };
            let t = Instant::now();
            let zoom = if kind == "close" { 1.9 } else { 1.0 };
            let frame = capture::render(&posed, &capture::portrait_camera(azimuth, 0.0, zoom, size, size), supersample);
            timed(2, t);
            paste(&mut sheet, &frame, i % columns, i / columns);
        }
    }
    sheet.save(out)?;
    eprintln!("heads {:.2} s, poses {:.2} s, views {:.2} s; {out}", times[0], times[1], times[2]);
    Ok(())
}
