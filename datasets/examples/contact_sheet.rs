//! Renders a sheet of synthetic people to a PNG: `contact_sheet WHEEL OUT.png [people|faces|close|eyes|rig|SEQUENCE]
//! [size] [count] [seed]`; `contact_sheet WHEEL - speed` times it.
//!
//! `people`: different persons from three sides; `faces`, `close` and `eyes`: one person, several expressions; `rig`:
//! one moment from the sixteen cameras; the name of a sequence: one person through that sequence. For looking at what
//! the generator makes; the pipeline does not use it.

use std::path::Path;
use std::time::Instant;

use datasets::capture::{self, Frame};
use datasets::heads::{Expression, Head, HeadAssets, Identity, Placed, PosedHead};
use datasets::sequences::{self, UnknownSequence};
use geometry::Camera;
use rayon::prelude::*;

const FACES: [&[(&str, f32)]; 8] = [
    &[],
    &[("mouthSmile", 0.9), ("cheekSquint", 0.5), ("jawOpen", 0.15)],
    &[("jawOpen", 0.7)],
    &[("mouthPucker", 0.9), ("browInnerUp", 0.7)],
    &[("eyeBlink", 1.0), ("mouthPress", 0.6)],
    &[("browDown", 1.0), ("noseSneer", 0.8), ("mouthUpperUp", 0.7), ("jawOpen", 0.2)],
    &[("tongueOut", 1.0), ("jawOpen", 0.5)],
    &[("eyeWide", 1.0), ("browInnerUp", 1.0), ("browOuterUp", 1.0), ("jawOpen", 0.35), ("mouthFunnel", 0.4)],
];

const LIDS: [&[(&str, f32)]; 8] = [
    &[],
    &[("eyeSquint", 1.0)],
    &[("eyeSquint", 1.0), ("cheekSquint", 1.0), ("mouthSmile", 0.8)],
    &[("eyeBlink", 0.5)],
    &[("eyeBlink", 1.0)],
    &[("eyeLookDown", 1.0)],
    &[("eyeWide", 1.0), ("eyeLookUp", 1.0)],
    &[("eyeBlink", 1.0), ("eyeSquint", 1.0), ("cheekSquint", 1.0)],
];

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
        return Err(
            "usage: contact_sheet WHEEL OUT.png [people|faces|close|eyes|rig|SEQUENCE] [size] [count] [seed]".into()
        );
    };
    let kind = args.get(3).map_or("people", String::as_str);
    let number = |i: usize, default: u32| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (size, count, seed) = (number(4, 256), number(5, 8), number(6, 1));
    let assets = HeadAssets::load(Path::new(wheel))?;
    let front = |azimuth: f64, zoom: f64| capture::portrait_camera(azimuth, 2.0, zoom, size, size);

    if kind == "speed" {
        // as `capture_synthetic` films: one moment, all cameras side by side
        let head = Head::new(&assets, &Identity::random(&assets, u64::from(seed)))?;
        let rig = capture::rig(&capture::SERIALS, size, size);
        let start = Instant::now();
        let seconds = sequences::sequence("FREE")?.seconds;
        let pose = |i: usize| {
            let at = seconds * (i as f32 + 0.5) / count as f32;
            let expression = |at: f32| sequences::expression_at("FREE", at, u64::from(seed));
            Ok::<_, UnknownSequence>((head.pose(&expression(at)?), head.place(&expression(at + capture::EXPOSURE)?)))
        };
        let shoot = |_, (posed, end): &(PosedHead<'_>, Placed)| {
            rig.par_iter().for_each(|(_, camera)| drop(capture::film(posed, end, camera, 2)));
        };
        capture::in_turn(count as usize, pose, shoot, |_, ()| Ok(()))?;
        let images = count as usize * rig.len();
        println!("{images} images of {size} px: {:.1} a second", images as f64 / start.elapsed().as_secs_f64());
        return Ok(());
    }

    // What to film: (person, expression, cameras), each a run of neighbouring cells.
    let mut shots: Vec<(u32, Expression, Vec<Camera>)> = Vec::new();
    let mut across = 8;
    for i in 0..count {
        match kind {
            "people" => {
                across = 6;
                let cameras = [0.0, 38.0, -75.0].map(|a| front(a, 1.0)).to_vec();
                shots.push((seed + i, Expression::default(), cameras));
            }
            "faces" | "close" | "eyes" => {
                across = 4;
                let mut e = Expression::default();
                let shown = if kind == "eyes" { LIDS } else { FACES };
                for (name, weight) in shown[i as usize % shown.len()] {
                    e.add(name, *weight).ok_or("unknown unit")?;
                }
                let azimuth = if i >= 8 { 30.0 } else { 0.0 };
                let zoom = match kind {
                    "eyes" => 3.6,
                    "close" => 1.9,
                    _ => 1.0,
                };
                shots.push((seed, e, vec![front(azimuth, zoom)]));
            }
            "rig" => {
                let rig = capture::rig(&capture::SERIALS, size, size * 16 / 11);
                shots = vec![(seed, Expression::default(), rig.into_iter().map(|c| c.1).collect())];
            }
            name => {
                let seconds = sequences::sequence(name)?.seconds * (i as f32 + 0.5) / count as f32;
                shots.push((seed, sequences::expression_at(name, seconds, u64::from(seed))?, vec![front(0.0, 1.0)]));
            }
        }
    }
    let cells: u32 = shots.iter().map(|s| s.2.len() as u32).sum();
    let height = shots.first().map_or(size, |s| s.2[0].height);
    let mut sheet = image::RgbImage::new(across * size, cells.div_ceil(across) * height);
    let (mut cell, mut spent) = (0, [0.0f64; 3]);
    let mut head: Option<Head<'_>> = None;
    for (person, expression, cameras) in shots {
        let start = Instant::now();
        let wanted = Identity::random(&assets, u64::from(person));
        if head.as_ref().is_none_or(|h| h.identity != wanted) {
            head = Some(Head::new(&assets, &wanted)?);
        }
        let Some(head) = &head else { continue };
        spent[0] += start.elapsed().as_secs_f64();
        let start = Instant::now();
        let posed = head.pose(&expression);
        spent[1] += start.elapsed().as_secs_f64();
        for camera in cameras {
            let start = Instant::now();
            let frame = capture::render(&posed, &camera, if size >= 200 { 3 } else { 4 });
            spent[2] += start.elapsed().as_secs_f64();
            paste(&mut sheet, &frame, cell % across, cell / across);
            cell += 1;
        }
    }
    sheet.save(out)?;
    println!("{out}: heads {:.2} s, poses {:.2} s, {cell} views {:.2} s", spent[0], spent[1], spent[2]);
    Ok(())
}
