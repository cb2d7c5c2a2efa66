//! `transforms.json`, as nerfstudio, instant-ngp, NeRF-synthetic and exports of multi-view head captures write it.
//!
//! ```text
//! {"camera_model": "OPENCV", "fl_x", "fl_y", "cx", "cy", "w", "h", "k1" ... "k4", "p1", "p2"     for all frames, or in each frame
//!  "distortion_params": [k1, k2, k3, k4, p1, p2]                      in place of these
//!  "camera_angle_x", "camera_angle_y"                                 radians, in place of fl_x, fl_y
//!  "x_fov", "y_fov"                                                   degrees, in place of these
//!  "applied_transform": 3 x 4, "applied_scale"                        what a tool did to the capture's world; undone here
//!  "frames": [{"file_path", "transform_matrix": 4 x 4,                camera to world, OpenGL axes: x right, y up, z back
//!              "mask_path" or "fg_mask_path",                         optional, as is all that follows
//!              "camera_label", or "camera_id", or "camera_index",
//!              "timestep_index", or "timestep_id", or "time"}]}
//! ```
//! Sources: nerfstudio's page on data conventions and its parser; the exports of VHAP, which GaussianAvatars reads
//! (`camera_id`, `camera_index`, `timestep_index`, `timestep_id`, `fg_mask_path`); `camera_label` and `time` are taken
//! where files have them. A pixel's centre is taken to be at + 0.5, as with us, so `cx` and `cy` are left as they are.
//! Who calibrated with OpenCV and wrote its `cx` here is half a pixel off, which no file tells. This file reads names
//! and numbers; it decodes no picture, except for the size of one where `w` and `h` are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::PI;
use std::path::{Path, PathBuf};

use geometry::Distortion;
use glam::DMat4;
use serde_json::Value;

use crate::fault::Fault;
use crate::files;
use crate::views::{View, is_video, rotation_fault};

/// The files of a folder that are read: `transforms.json`, or else those of the three parts of NeRF-synthetic.
pub fn find(root: &Path) -> Vec<PathBuf> {
    let named = |names: &[&str]| -> Vec<PathBuf> {
        names.iter().map(|name| root.join(name)).filter(|path| path.is_file()).collect()
    };
    let whole = named(&["transforms.json"]);
    if whole.is_empty() {
        named(&["transforms_train.json", "transforms_val.json", "transforms_test.json"])
    } else {
        whole
    }
}

/// Reads the files of a capture ([`find`]); views are in their order, and in the units and the world that the capture
/// had before `applied_transform`. Times that are fractions are counted over all files: they are parts of one
/// recording. Beside them, what is to be said of how they were read, a sentence each.
///
/// # Errors
/// If a field is missing, has another shape, or says what this reader does not know.
pub fn read(paths: &[PathBuf]) -> Result<(Vec<View>, Vec<String>), Fault> {
    let values = paths.iter().map(|path| files::json(path)).collect::<Result<Vec<Value>, Fault>>()?;
    let files = paths.iter().zip(&values).map(|(path, value)| Fields { path, prefix: String::new(), value });
    let files: Vec<Fields<'_>> = files.collect();
    let frames = files.iter().map(frames_of).collect::<Result<Vec<&[Value]>, Fault>>()?;
    check_one_way(&files, &frames)?;
    let times = Times::new(frames.iter().copied().flatten());
    let parts = files.iter().zip(frames).map(|(whole, frames)| views_of(whole, frames, &times));
    let mut parts = parts.collect::<Result<Vec<Vec<View>>, Fault>>()?;
    name_parts(paths, &mut parts);
    Ok((parts.concat(), times.remark().into_iter().collect()))
}

fn frames_of<'a>(whole: &Fields<'a>) -> Result<&'a [Value], Fault> {
    let frames = whole.value.get("frames").and_then(Value::as_array).ok_or_else(|| {
        whole.fault("frames", "a list of frames", "this file is to be the transforms.json of nerfstudio or instant-ngp")
    })?;
    if frames.is_empty() {
        return Err(whole.fault("frames", "at least one frame", "was the export finished?"));
    }
    Ok(frames)
}

/// The views of one file.
fn views_of(whole: &Fields<'_>, frames: &[Value], times: &Times) -> Result<Vec<View>, Fault> {
    let path = whole.path;
    let undo = applied(whole)?;
    let mut views = Vec::with_capacity(frames.len());
    for (at, frame) in frames.iter().enumerate() {
        let frame = Fields { path, prefix: format!("frames[{at}]."), value: frame };
        let file = frame.text("file_path")?.ok_or_else(|| {
            frame.fault("file_path", "the path of a picture", "every frame names its picture, from this file's folder")
        })?;
        let file = resolve(path, &file);
        let mask = match frame.text("mask_path")? {
            Some(mask) => Some(mask),
            None => frame.text("fg_mask_path")?,
        };
        let (width, height) = size(&frame, whole, &file)?;
        views.push(View {
            mask: mask.map(|mask| resolve(path, &mask)),
            camera: camera(&frame)?,
            lens: None,
            timestep: times.of(&frame)?,
            intrinsics: intrinsics(&frame, whole, width, height)?,
            world_to_cam: pose(&frame, &undo)?,
            width,
            height,
            distortion: distortion(&frame, whole)?,
            file,
        });
    }
    Ok(views)
}

/// Pictures without a camera's name that show the same moments in several files (the train, val and test of D-NeRF) are
/// of one moving camera for each file, called as that is: no camera is in two places at a time.
fn name_parts(paths: &[PathBuf], parts: &mut [Vec<View>]) {
    let nameless = |view: &&View| view.camera.is_empty() && !view.is_video();
    let mut seen: BTreeSet<i64> = BTreeSet::new();
    let meets = parts.iter().any(|part| {
        let own: BTreeSet<i64> = part.iter().filter(nameless).filter_map(|view| view.timestep).collect();
        let meets = !own.is_disjoint(&seen);
        seen.extend(own);
        meets
    });
    if !meets {
        return;
    }
    for (path, part) in paths.iter().zip(parts) {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let name = stem.strip_prefix("transforms_").unwrap_or(stem);
        part.iter_mut().filter(|view| nameless(&&**view)).for_each(|view| view.camera = name.to_owned());
    }
}

/// An object of the file, with its place for errors.
struct Fields<'a> {
    path: &'a Path,
    prefix: String,
    value: &'a Value,
}

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.value.get(name).filter(|value| !value.is_null())
    }

    fn fault(&self, name: &str, expected: &str, hint: &'static str) -> Fault {
        let found = self.get(name).map_or("nothing".to_owned(), shown);
        Fault::field(self.path, format!("{}{name}", self.prefix), &found, expected, hint)
    }

    fn number(&self, name: &str) -> Result<Option<f64>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64().filter(|x| x.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.fault(name, "a finite number", "numbers stand without quotation marks")),
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_str().filter(|text| !text.is_empty()) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.fault(name, "a text that is not empty", "texts stand in quotation marks")),
        }
    }

    /// A matrix of four columns and three rows, or four with the last 0 0 0 1.
    fn matrix(&self, name: &str) -> Result<Option<DMat4>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = || {
            self.fault(
                name,
                "3 x 4 or 4 x 4 finite numbers, rows first, the last row 0 0 0 1",
                "was it stored by columns?",
            )
        };
        let rows = value.as_array().filter(|rows| rows.len() == 3 || rows.len() == 4).ok_or_else(wrong)?;
        let mut flat = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        for (row, to) in rows.iter().zip(flat.chunks_exact_mut(4)) {
            let row = row.as_array().filter(|row| row.len() == 4).ok_or_else(wrong)?;
            for (x, to) in row.iter().zip(to) {
                *to = x.as_f64().filter(|x| x.is_finite()).ok_or_else(wrong)?;
            }
        }
        let affine = flat[12..].iter().zip([0.0, 0.0, 0.0, 1.0]).all(|(x, y)| (x - y).abs() < 1e-6);
        if affine { Ok(Some(DMat4::from_cols_array(&flat).transpose())) } else { Err(wrong()) }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(object) => format!("an object of {}", object.len()),
        other => other.to_string(),
    }
}

/// What takes the file's world back to the one it had before a tool turned and scaled it: nerfstudio stores
/// `applied_scale * (applied_transform p)`.
fn applied(whole: &Fields<'_>) -> Result<(DMat4, f64), Fault> {
    let turn = whole.matrix("applied_transform")?.unwrap_or(DMat4::IDENTITY);
    if rotation_fault(&turn).is_some() {
        return Err(whole.fault(
            "applied_transform",
            "a rotation and a translation",
            "a scale stands in applied_scale",
        ));
    }
    let scale = whole.number("applied_scale")?.unwrap_or(1.0);
    if scale <= 0.0 {
        return Err(whole.fault("applied_scale", "a number above 0", "leave it out if nothing was scaled"));
    }
    Ok((turn.inverse(), 1.0 / scale))
}

/// World to camera with OpenCV axes, from camera to world with OpenGL axes.
fn pose(frame: &Fields<'_>, (undo, unscale): &(DMat4, f64)) -> Result<[f64; 16], Fault> {
    let name = "transform_matrix";
    let matrix = frame.matrix(name)?;
    let mut to_world =
        matrix.ok_or_else(|| frame.fault(name, "the camera-to-world matrix", "was the calibration finished?"))?;
    if let Some(fault) = rotation_fault(&to_world) {
        return Err(Fault::field(
            frame.path,
            format!("{}{name}", frame.prefix),
            format!("a matrix that {fault}"),
            "a rotation and a translation",
            "poses are camera to world, rows first; a change of units belongs into the parameter `scale`",
        ));
    }
    to_world.w_axis = (to_world.w_axis.truncate() * *unscale).extend(1.0);
    let mut to_world = *undo * to_world;
    // y up, z back -> y down, z forward
    to_world.y_axis = -to_world.y_axis;
    to_world.z_axis = -to_world.z_axis;
    Ok(to_world.inverse().transpose().to_cols_array())
}

/// A field of the frame, or else of the file.
fn either(frame: &Fields<'_>, whole: &Fields<'_>, name: &str) -> Result<Option<f64>, Fault> {
    match frame.number(name)? {
        Some(number) => Ok(Some(number)),
        None => whole.number(name),
    }
}

fn size(frame: &Fields<'_>, whole: &Fields<'_>, file: &Path) -> Result<(u32, u32), Fault> {
    let side = |name: &str| -> Result<Option<u32>, Fault> {
        let Some(number) = either(frame, whole, name)? else { return Ok(None) };
        // some tools write 1920.0
        if number.fract() == 0.0 && (1.0..=65536.0).contains(&number) {
            return Ok(Some(number as u32));
        }
        let place = if frame.get(name).is_some() { frame } else { whole };
        Err(place.fault(
            name,
            "a whole number of pixels from 1 to 65536",
            "`w` and `h` are those that `fl_x` holds for",
        ))
    };
    let given = (side("w")?, side("h")?);
    if let (Some(width), Some(height)) = given {
        return Ok((width, height));
    }
    let missing = format!("{}{}", frame.prefix, if given.0.is_none() { "w" } else { "h" });
    if is_video(file) {
        return Err(Fault::field(
            frame.path,
            &missing,
            format!("nothing, and {} is a video", file.display()),
            "width and height of its pictures, px",
            "write `w` and `h` into the file, of the pictures that `fl_x` holds for: no video is opened to find its size",
        ));
    }
    let picture = files::size(file).map_err(|error| {
        Fault::field(
            frame.path,
            &missing,
            format!("nothing, and the size of {} cannot be read ({error})", file.display()),
            "the picture's size in pixels",
            "write `w` and `h` into the file, or copy the pictures beside it",
        )
    })?;
    // calibrated pictures may be of another size than the stored ones, but not of another shape
    let other = |side: u32, given: u32, stored: u32| {
        ((f64::from(side) * f64::from(given) / f64::from(stored.max(1))).round() as u32).max(1)
    };
    Ok(match given {
        (Some(width), _) => (width, other(picture.1, width, picture.0)),
        (None, Some(height)) => (other(picture.0, height, picture.1), height),
        (None, None) => picture,
    })
}

fn intrinsics(frame: &Fields<'_>, whole: &Fields<'_>, width: u32, height: u32) -> Result<[f64; 9], Fault> {
    let (w, h) = (f64::from(width), f64::from(height));
    let focal = |length: &str, angle: &str, side: f64| -> Result<Option<f64>, Fault> {
        for place in [frame, whole] {
            if let Some(found) = place.number(length)? {
                if found <= 0.0 {
                    return Err(place.fault(length, "a focal length above 0 px", "focal lengths are pixels"));
                }
                return Ok(Some(found));
            }
            // the second is instant-ngp's
            let degrees = if length == "fl_x" { "x_fov" } else { "y_fov" };
            let angles = [
                (angle, 1.0, "an angle between 0 and pi", "angles are radians, of the whole picture"),
                (
                    degrees,
                    PI / 180.0,
                    "an angle between 0 and 180",
                    "angles of this name are degrees, of the whole picture",
                ),
            ];
            for (name, unit, expected, hint) in angles {
                let Some(found) = place.number(name)?.map(|found| found * unit) else { continue };
                if found > 0.0 && found < PI {
                    return Ok(Some(0.5 * side / (0.5 * found).tan()));
                }
                return Err(place.fault(name, expected, hint));
            }
        }
        Ok(None)
    };
    let fx = focal("fl_x", "camera_angle_x", w)?;
    let fy = focal("fl_y", "camera_angle_y", h)?;
    let Some(fx) = fx.or(fy) else {
        return Err(frame.fault("fl_x", "a focal length in pixels, here or for all frames", "or give camera_angle_x"));
    };
    let fy = fy.unwrap_or(fx);
    let cx = either(frame, whole, "cx")?.unwrap_or(w / 2.0);
    let cy = either(frame, whole, "cy")?.unwrap_or(h / 2.0);
    // nobody has pictures whose middle is at pixel 1
    if w.min(h) >= 16.0 && (cx.abs() <= 1.0 && cy.abs() <= 1.0 || fx.max(fy) <= 4.0) {
        return Err(Fault::field(
            frame.path,
            "fl_x, fl_y, cx, cy",
            format!("{fx}, {fy}, {cx}, {cy} for a picture of {width} x {height} px"),
            "pixels",
            "these are lengths relative to the picture: multiply fl_x and cx by its width, fl_y and cy by its height",
        ));
    }
    Ok([fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0])
}

/// Fields of lenses and shutters that nothing here undoes.
const UNKNOWN: [&str; 9] =
    ["k5", "k6", "ftheta_p0", "ftheta_p1", "ftheta_p2", "ftheta_p3", "ftheta_p4", "equirectangular", "rolling_shutter"];

/// nerfstudio's list of coefficients, in the order of [`COEFFICIENTS`].
const LIST: &str = "distortion_params";
const COEFFICIENTS: [&str; 6] = ["k1", "k2", "k3", "k4", "p1", "p2"];

/// The coefficients that a frame or a file gives, by name or as a list.
fn coefficients(place: &Fields<'_>, is_fisheye: bool) -> Result<[Option<f64>; 6], Fault> {
    let mut found = [None; 6];
    if let Some(value) = place.get(LIST) {
        let wrong = || {
            place.fault(
                LIST,
                "the six finite numbers k1, k2, k3, k4, p1, p2, or the four of a fisheye lens",
                "OpenCV's own order is another one, k1, k2, p1, p2, k3: give those by their names",
            )
        };
        let list = value.as_array().ok_or_else(wrong)?;
        let numbers = list.iter().map(|x| x.as_f64().filter(|x| x.is_finite())).collect::<Option<Vec<f64>>>();
        let numbers = numbers.ok_or_else(wrong)?;
        // four numbers of any other lens are likely to be OpenCV's k1, k2, p1, p2
        if numbers.len() != 6 && !(numbers.len() == 4 && is_fisheye) {
            return Err(wrong());
        }
        found.iter_mut().zip(numbers).for_each(|(to, number)| *to = Some(number));
    }
    for (to, name) in found.iter_mut().zip(COEFFICIENTS) {
        let Some(number) = place.number(name)? else { continue };
        if to.is_some_and(|listed| listed != number) {
            let expected = format!("{} as in {LIST}", to.unwrap_or_default());
            return Err(place.fault(
                name,
                &expected,
                "take out what does not hold: a lens has one set of coefficients",
            ));
        }
        *to = Some(number);
    }
    Ok(found)
}

fn distortion(frame: &Fields<'_>, whole: &Fields<'_>) -> Result<Option<Distortion>, Fault> {
    fn is_nothing(value: &Value) -> bool {
        match value {
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Bool(is_so) => !is_so,
            Value::Array(list) => list.iter().all(is_nothing),
            _ => false,
        }
    }
    for (name, place) in UNKNOWN.iter().flat_map(|name| [(name, frame), (name, whole)]) {
        if place.get(name).is_some_and(|value| !is_nothing(value)) {
            return Err(place.fault(
                name,
                "nothing, or 0",
                "undistort the pictures with the program that calibrated them, and export them as PINHOLE",
            ));
        }
    }
    let place = if frame.get("camera_model").is_some() { frame } else { whole };
    let model = place.text("camera_model")?;
    // instant-ngp's way of saying it
    let is_fisheye =
        [frame, whole].iter().any(|place| place.get("is_fisheye").is_some_and(|x| x.as_bool() == Some(true)));
    let model = model.as_deref().unwrap_or(if is_fisheye { "OPENCV_FISHEYE" } else { "OPENCV" });
    let [of_frame, of_whole] = [frame, whole].map(|place| coefficients(place, model == "OPENCV_FISHEYE"));
    let (of_frame, of_whole) = (of_frame?, of_whole?);
    let [k1, k2, k3, k4, p1, p2] = [0, 1, 2, 3, 4, 5].map(|at| of_frame[at].or(of_whole[at]).unwrap_or(0.0));
    let bends = [k1, k2, k3, k4, p1, p2].iter().any(|k| *k != 0.0);
    match model {
        "OPENCV_FISHEYE" => Ok(Some(Distortion::Fisheye([k1, k2, k3, k4]))),
        // the coefficients have names, so the simpler models of COLMAP are this one, too
        "OPENCV" | "SIMPLE_RADIAL" | "RADIAL" if k4 != 0.0 => {
            let place = if of_frame[3].is_some() { frame } else { whole };
            Err(place.fault(
                if place.get("k4").is_some() { "k4" } else { LIST },
                "0 as k4 of a lens that is not OPENCV_FISHEYE",
                "programs disagree on what it means: undistort the pictures first, or calibrate without it",
            ))
        }
        "OPENCV" | "SIMPLE_RADIAL" | "RADIAL" => {
            Ok(bends.then_some(Distortion::Rational([k1, k2, p1, p2, k3, 0.0, 0.0, 0.0])))
        }
        "PINHOLE" | "SIMPLE_PINHOLE" if bends => Err(place.fault(
            "camera_model",
            "OPENCV, as k1 to p2 are not all 0",
            "write OPENCV, or take the coefficients out if the pictures are undistorted",
        )),
        "PINHOLE" | "SIMPLE_PINHOLE" => Ok(None),
        _ => Err(place.fault(
            "camera_model",
            "OPENCV, RADIAL, SIMPLE_RADIAL, PINHOLE, SIMPLE_PINHOLE or OPENCV_FISHEYE",
            "undistort the pictures with the program that calibrated them, and export them as PINHOLE",
        )),
    }
}

/// What a camera's name is called.
const CAMERA: [&str; 3] = ["camera_label", "camera_id", "camera_index"];

fn camera(frame: &Fields<'_>) -> Result<String, Fault> {
    for name in CAMERA {
        match frame.get(name) {
            None => {}
            Some(Value::String(text)) if !text.is_empty() => return Ok(text.clone()),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => return Ok(number.to_string()),
            Some(_) => return Err(frame.fault(name, "a text or an integer", "it is the camera's name")),
        }
    }
    Ok(String::new())
}

/// What the number of a moment is called.
const INDEX: [&str; 2] = ["timestep_index", "timestep_id"];

/// Checks that all pictures tell their moments in one way: numbers of the file and those of paths, or of a clock, do
/// not count the same.
fn check_one_way(files: &[Fields<'_>], frames: &[&[Value]]) -> Result<(), Fault> {
    let way = |frame: &Value| {
        let has = |name: &&str| frame.get(name).is_some_and(|value| !value.is_null());
        if INDEX.iter().any(&has) { Some(INDEX[0]) } else { has(&"time").then_some("time") }
    };
    let is_picture =
        |frame: &Value| frame.get("file_path").and_then(Value::as_str).is_some_and(|file| !is_video(Path::new(file)));
    let all = files.iter().zip(frames).flat_map(|(file, frames)| frames.iter().enumerate().map(move |at| (file, at)));
    let all: Vec<_> = all.filter(|(_, (_, frame))| is_picture(frame)).collect();
    let Some(first) = all.iter().find_map(|(_, (_, frame))| way(frame)) else { return Ok(()) };
    match all.iter().find(|(_, (_, frame))| way(frame) != Some(first)) {
        None => Ok(()),
        Some((file, (at, frame))) => Err(Fault::field(
            file.path,
            format!("frames[{at}].{first}"),
            way(frame).map_or("nothing".to_owned(), |other| format!("`{other}`")),
            format!("`{first}`, as other frames have it"),
            "all frames have the number of their moment, or a time, or none has",
        )),
    }
}

/// Times that are so much of the recording apart are one: a millionth of an hour is less than the time of a frame.
const SAME: f64 = 2e-6;
/// And those of several cameras that are so much of the time between two frames apart: their clocks differ.
const CLOCKS: f64 = 0.1;

/// The distinct times of a capture, for those that are no integers: then the timestep is the place in their order.
struct Times {
    times: Vec<f64>,
    /// By how much clocks differ, at most, where they differ by more than digits.
    apart: Option<f64>,
}

impl Times {
    fn new<'a>(frames: impl Iterator<Item = &'a Value>) -> Times {
        let mut cameras: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for frame in frames {
            let Some(time) = frame.get("time").and_then(Value::as_f64) else { continue };
            // as a text or a number, and nothing for those without a name
            let camera = CAMERA.iter().find_map(|name| frame.get(name).filter(|name| !name.is_null()));
            cameras.entry(camera.map(Value::to_string).unwrap_or_default()).or_default().push(time);
        }
        let mut gaps = Vec::new();
        for times in cameras.values_mut() {
            times.sort_by(f64::total_cmp);
            gaps.extend(times.windows(2).map(|two| two[1] - two[0]).filter(|gap| *gap > 0.0));
        }
        gaps.sort_by(f64::total_cmp);
        let mut times = cameras.into_values().flatten().collect::<Vec<f64>>();
        times.sort_by(f64::total_cmp);
        // texts of so many digits do not agree to the last one
        let length = times.last().zip(times.first()).map_or(0.0, |(last, first)| last - first);
        let digits = SAME * length;
        // no camera has two pictures at one moment
        let clocks = gaps.first().map_or(0.0, |least| (CLOCKS * gaps[gaps.len() / 2]).min(0.5 * least));
        let is_whole = times.iter().all(|time| time.fract() == 0.0);
        let forgiven = if is_whole { digits } else { digits.max(clocks) };
        let mut apart = 0.0f64;
        times.dedup_by(|later, earlier| {
            let same = *later - *earlier <= forgiven;
            apart = if same { apart.max(*later - *earlier) } else { apart };
            same
        });
        Times { times, apart: (apart > digits).then_some(apart) }
    }

    /// What is to be said of clocks that differ.
    fn remark(&self) -> Option<String> {
        self.apart.map(|apart| {
            format!(
                "clocks of cameras are up to {apart:.6} apart; `time` that differs by no more is taken for one moment"
            )
        })
    }

    fn of(&self, frame: &Fields<'_>) -> Result<Option<i64>, Fault> {
        for name in INDEX {
            let Some(value) = frame.get(name) else { continue };
            // texts like frame_00012
            let trailing = |text: &str| text[text.trim_end_matches(|c: char| c.is_ascii_digit()).len()..].parse().ok();
            let number = value.as_i64().or_else(|| trailing(value.as_str()?));
            return number.map(Some).ok_or_else(|| {
                frame.fault(name, "an integer, or a text that ends in one", "it is the number of the frame in time")
            });
        }
        let Some(time) = frame.number("time")? else { return Ok(None) };
        if self.times.iter().all(|time| time.fract() == 0.0 && time.abs() < 1e15) {
            return Ok(Some(time as i64));
        }
        // each stands for those up to the next
        Ok(i64::try_from(self.times.partition_point(|found| *found <= time)).ok().map(|after| after - 1))
    }
}

/// A path of the file, from the file's folder. NeRF-synthetic leaves the extension out.
fn resolve(calibration: &Path, path: &str) -> PathBuf {
    let path = path.replace('\\', "/");
    let path = path.strip_prefix("./").unwrap_or(&path);
    let file = calibration.parent().unwrap_or(Path::new("")).join(path);
    if file.is_file() {
        return file;
    }
    let with = |ext: &&str| {
        let mut name = file.clone().into_os_string();
        name.push(ext);
        Some(PathBuf::from(name)).filter(|path| path.is_file())
    };
    [".png", ".jpg", ".jpeg", ".webp"].iter().find_map(with).unwrap_or(file)
}

#[cfg(test)]
mod tests;
