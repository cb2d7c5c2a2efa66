//! Sparse models of COLMAP, as text (`cameras.txt`, `images.txt`) and binary (`cameras.bin`, `images.bin`).
//!
//! ```text
//! sparse/0/cameras.txt     CAMERA_ID MODEL WIDTH HEIGHT PARAMS...
//! sparse/0/images.txt      IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of points
//! sparse/0/*.bin           the same, little-endian, counts as 64 bits
//! images/NAME              the pictures
//! masks/NAME.png           mattes, optional
//! ```
//! Source: COLMAP's page on its output format. Poses are world to camera with OpenCV axes already, and the centre of
//! pixel i is at i + 0.5 as with us: nothing is converted. The world has no unit unless the model was aligned. Points
//! are passed over. Files may be cut or hostile: no count is believed that the file's length does not bear out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use geometry::Distortion;
use glam::{DMat4, DQuat, DVec3};

use crate::fault::Fault;
use crate::files::text;
use crate::views::View;
use models::{MODELS, checked};

mod models;

pub use models::lens;

/// A camera of the model: size, intrinsics and lens.
#[derive(Clone, Debug, PartialEq)]
pub struct Lens {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Row-major 3 x 3, pixels.
    pub intrinsics: [f64; 9],
    /// How it bends, if it does.
    pub distortion: Option<Distortion>,
}

/// Cameras by their numbers. One that is of a model which is not known here is an error only for who needs it: models
/// of COLMAP keep cameras that no picture is left of.
pub type Lenses = BTreeMap<u32, Result<Lens, Fault>>;

/// A picture of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Posed {
    /// Its path below the folder of pictures.
    pub name: String,
    /// Which camera took it.
    pub camera: u32,
    /// Row-major 4 x 4, OpenCV axes.
    pub world_to_cam: [f64; 16],
}

/// The folder of a model at or below `root`: the first of the usual places that has both files.
pub fn find(root: &Path) -> Option<PathBuf> {
    let places = ["sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", ""];
    let whole = |folder: &PathBuf| ["bin", "txt"].iter().any(|ext| both(folder, ext).is_some());
    places.iter().map(|place| root.join(place)).find(whole)
}

fn both(folder: &Path, ext: &str) -> Option<(PathBuf, PathBuf)> {
    let (cameras, images) = (folder.join(format!("cameras.{ext}")), folder.join(format!("images.{ext}")));
    (cameras.is_file() && images.is_file()).then_some((cameras, images))
}

/// Reads the model in `folder`, whose pictures lie below `root` in `images`, `input` or `rgb`, or in `root` itself.
///
/// # Errors
/// If there is no model, a file is damaged, or the model of a camera that took a picture is none that [`lens`] knows.
pub fn read(root: &Path, folder: &Path) -> Result<Vec<View>, Fault> {
    let (mut lenses, posed, images) = if let Some((cameras, images)) = both(folder, "bin") {
        (read_cameras_bin(&cameras)?, read_images_bin(&images)?, images)
    } else if let Some((cameras, images)) = both(folder, "txt") {
        (read_cameras_txt(&cameras)?, read_images_txt(&images)?, images)
    } else {
        return Err(Fault::unreadable(
            folder,
            "there are neither cameras.bin and images.bin nor cameras.txt and images.txt",
        ));
    };
    if posed.is_empty() {
        return Err(Fault::whole(&images, "no picture", "at least one", "did COLMAP place any picture?"));
    }
    // the first folder that has the first picture; without any, errors speak of the usual one
    let folders = ["images", "input", "rgb", ""].map(|name| root.join(name));
    let has_it = |folder: &&PathBuf| folder.join(&posed[0].name).is_file();
    let pictures = folders.iter().find(has_it).or_else(|| folders.iter().find(|folder| folder.is_dir()));
    let pictures = pictures.unwrap_or(&folders[0]).clone();
    posed
        .into_iter()
        .map(|posed| {
            if lenses.get(&posed.camera).is_some_and(Result::is_err) {
                lenses.remove(&posed.camera).transpose()?;
            }
            let lens = lenses.get(&posed.camera).and_then(|lens| lens.as_ref().ok()).ok_or_else(|| {
                let (place, found) = (format!("picture `{}`", posed.name), format!("camera {}", posed.camera));
                Fault::at(&images, &place, &found, "a camera of the cameras file", "do both files belong to one model?")
            })?;
            let stem = Path::new(&posed.name).with_extension("png");
            let masks = [root.join("masks").join(format!("{}.png", posed.name)), root.join("masks").join(stem)];
            Ok(View {
                file: pictures.join(&posed.name),
                mask: masks.into_iter().find(|mask| mask.is_file()),
                camera: String::new(),
                lens: Some(posed.camera),
                timestep: None,
                intrinsics: lens.intrinsics,
                world_to_cam: posed.world_to_cam,
                width: lens.width,
                height: lens.height,
                distortion: lens.distortion,
            })
        })
        .collect()
}

/// What of a capture the model in `folder` leaves out, a sentence each: models beside it, as COLMAP writes one for each
/// group of pictures that it cannot connect, pictures that it did not place, and masks that are called otherwise than
/// pictures. `views` are those that [`read`] found there.
///
/// # Errors
/// If a folder cannot be listed.
pub fn left_out(root: &Path, folder: &Path, views: &[View]) -> Result<Vec<String>, Fault> {
    let mut told = Vec::new();
    let is_number = |path: &Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    };
    if let Some(above) = folder.parent().filter(|_| folder != root && is_number(folder)) {
        let is_model = |path: &Path| ["bin", "txt"].iter().any(|ext| both(path, ext).is_some());
        let others = entries(above)?.into_iter().filter(|path| path != folder && is_number(path) && is_model(path));
        let others: Vec<String> = others.map(|path| path.display().to_string()).collect();
        if !others.is_empty() {
            told.push(format!(
                "only the model in {} is read, and what others of the same capture placed is not used: {}",
                folder.display(),
                others.join(", ")
            ));
        }
    }
    let images = root.join("images");
    if images.is_dir() {
        let placed: BTreeSet<&Path> = views.iter().map(|view| view.file.as_path()).collect();
        let mut pictures = Vec::new();
        pictures_below(&images, &mut pictures)?;
        let all = pictures.len();
        pictures.retain(|path| !placed.contains(path.as_path()));
        if let Some(first) = pictures.first() {
            told.push(format!(
                "{} of {all} pictures in {} are not in the model, which did not place them: the first is {}",
                pictures.len(),
                images.display(),
                first.display()
            ));
        }
    }
    let masks = root.join("masks");
    if masks.is_dir() && views.iter().all(|view| view.mask.is_none()) {
        let mut files = Vec::new();
        pictures_below(&masks, &mut files)?;
        if let Some((first, view)) = files.first().zip(views.first()) {
            let name = view.file.file_name().unwrap_or_default().to_string_lossy();
            told.push(format!(
                "none of {} files in {} is used, as none has the name of a picture: the first is {}, and that of {} would be {name}.png in the same folder of `masks`",
                files.len(),
                masks.display(),
                first.display(),
                view.file.display()
            ));
        }
    }
    Ok(told)
}

/// What lies in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Fault> {
    let unreadable = |e: std::io::Error| Fault::unreadable(folder, e);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        found.push(entry.map_err(unreadable)?.path());
    }
    found.sort_unstable();
    Ok(found)
}

fn pictures_below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Fault> {
    for path in entries(folder)? {
        let ending = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default().to_ascii_lowercase();
        if path.is_dir() {
            pictures_below(&path, found)?;
        } else if ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "ppm", "pgm"].contains(&ending.as_str()) {
            found.push(path);
        }
    }
    Ok(())
}

const TWO_LINES: &str =
    "each picture has two lines, its pose and its points; a program that drops empty lines takes the second one away";
const DAMAGED: &str = "the file is damaged, or was cut when it was copied: export the model again";

fn posed(path: &Path, name: String, camera: u32, pose: [f64; 7]) -> Result<Posed, Fault> {
    let [w, x, y, z, ..] = pose;
    let rotation = DQuat::from_xyzw(x, y, z, w);
    // COLMAP writes unit quaternions; a text of few digits is nearly one
    if pose.iter().any(|x| !x.is_finite()) || (rotation.length() - 1.0).abs() > 0.01 {
        let found = format!("the pose {pose:?}");
        return Err(Fault::at(
            path,
            format!("picture `{name}`"),
            &found,
            "a unit quaternion w x y z and a translation",
            DAMAGED,
        ));
    }
    let matrix = DMat4::from_rotation_translation(rotation.normalize(), DVec3::new(pose[4], pose[5], pose[6]));
    Ok(Posed { name, camera, world_to_cam: matrix.transpose().to_cols_array() })
}

fn keep(path: &Path, id: u32, lens: Result<Lens, Fault>, lenses: &mut Lenses) -> Result<(), Fault> {
    match lenses.insert(id, lens) {
        None => Ok(()),
        Some(_) => Err(Fault::at(path, format!("camera {id}"), "it twice", "each camera once", DAMAGED)),
    }
}

/// Reads `cameras.txt`: number -> camera.
///
/// # Errors
/// If a line is not one of a camera.
pub fn read_cameras_txt(path: &Path) -> Result<Lenses, Fault> {
    let mut lenses = BTreeMap::new();
    for (at, line) in text(path)?.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let place = format!("line {}", at + 1);
        let read = || {
            let [id, model, width, height, params @ ..] = &words[..] else { return None };
            let params = params.iter().map(|word| word.parse().ok()).collect::<Option<Vec<f64>>>()?;
            Some((id.parse().ok()?, *model, [width.parse().ok()?, height.parse().ok()?], params))
        };
        let (id, model, size, params) = read().ok_or_else(|| {
            Fault::at(path, &place, format!("`{line}`"), "CAMERA_ID MODEL WIDTH HEIGHT PARAMS...", DAMAGED)
        })?;
        keep(path, id, checked(path, &place, model, size, &params)?, &mut lenses)?;
    }
    Ok(lenses)
}

/// Reads `images.txt`, in its order.
///
/// # Errors
/// If a line is not one of a picture, or the line for its points is another picture's.
pub fn read_images_txt(path: &Path) -> Result<Vec<Posed>, Fault> {
    let text = text(path)?;
    let mut lines = text.lines().enumerate();
    let mut found = Vec::new();
    while let Some((at, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = |at: usize| format!("line {}", at + 1);
        let (name, camera, pose) = image_line(line).ok_or_else(|| {
            let expected = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME";
            Fault::at(path, place(at), format!("`{}`", short(line)), expected, DAMAGED)
        })?;
        found.push(posed(path, name.to_owned(), camera, pose)?);
        // its points, on a line that may be empty and has nothing but numbers
        let Some((at, points)) = lines.next() else { break };
        if image_line(points.trim())
            .is_some_and(|(name, ..)| name.split_whitespace().any(|word| word.parse::<f64>().is_err()))
        {
            let expected = format!("the points of {}, as X Y POINT3D_ID, or an empty line", short(name));
            let found = format!("the next picture, `{}`", short(points.trim()));
            return Err(Fault::at(path, place(at), &found, &expected, TWO_LINES));
        }
    }
    Ok(found)
}

/// Name, camera and pose of a line of `images.txt`; none if it is not one of a picture.
fn image_line(line: &str) -> Option<(&str, u32, [f64; 7])> {
    // a name may have blanks in it
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once(char::is_whitespace)?;
        rest = after.trim_start();
        Some(word)
    };
    word()?.parse::<u32>().ok()?;
    let mut pose = [0.0; 7];
    for x in &mut pose {
        *x = word()?.parse().ok()?;
    }
    let camera = word()?.parse().ok()?;
    (!rest.is_empty()).then_some((rest, camera, pose))
}

fn short(line: &str) -> String {
    line.chars().take(60).collect()
}

/// Bytes of a file that are read from the front.
struct Bytes<'a> {
    path: &'a Path,
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Fault> {
        let left = self.all.len() - self.at;
        if count > left {
            let found = format!("the end of the file after {left} bytes");
            return Err(Fault::at(
                self.path,
                format!("byte {}", self.at),
                &found,
                format!("{count} bytes: {what}"),
                DAMAGED,
            ));
        }
        self.at += count;
        Ok(&self.all[self.at - count..self.at])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn f64(&mut self, what: &str) -> Result<f64, Fault> {
        Ok(f64::from_le_bytes(self.array(what)?))
    }

    /// A count of records that take at least `least` bytes each.
    fn count(&mut self, least: usize, what: &str) -> Result<usize, Fault> {
        let at = self.at;
        let count = self.u64(what)?;
        let room = (self.all.len() - self.at) / least;
        match usize::try_from(count).ok().filter(|count| *count <= room) {
            Some(count) => Ok(count),
            None => {
                let found = format!("{count} as {what}");
                Err(Fault::at(
                    self.path,
                    format!("byte {at}"),
                    &found,
                    format!("at most {room}, which have room"),
                    DAMAGED,
                ))
            }
        }
    }

    fn end(&self) -> Result<(), Fault> {
        let left = self.all.len() - self.at;
        if left == 0 {
            return Ok(());
        }
        Err(Fault::at(
            self.path,
            format!("byte {}", self.at),
            format!("{left} bytes more"),
            "the end of the file",
            DAMAGED,
        ))
    }
}

/// Reads `cameras.bin`: number -> camera.
///
/// # Errors
/// If the file is damaged, or has a model of which not even the number of parameters is known here.
pub fn read_cameras_bin(path: &Path) -> Result<Lenses, Fault> {
    parse_cameras(path, &fs::read(path).map_err(|e| Fault::unreadable(path, e))?)
}

fn parse_cameras(path: &Path, all: &[u8]) -> Result<Lenses, Fault> {
    let mut bytes = Bytes { path, all, at: 0 };
    let mut lenses = BTreeMap::new();
    // of a panorama, two parameters
    for _ in 0..bytes.count(4 + 4 + 8 + 8 + 2 * 8, "the number of cameras")? {
        let place = format!("byte {}", bytes.at);
        let id = bytes.u32("a camera's number")?;
        let number = bytes.u32("a camera's model")?;
        let size = [bytes.u64("a width")?, bytes.u64("a height")?];
        let Some((model, count)) = usize::try_from(number).ok().and_then(|number| MODELS.get(number)) else {
            // and how long it is, nobody knows
            return checked(path, &place, &format!("number {number}"), size, &[])?.map(|_| lenses);
        };
        let params = (0..*count).map(|_| bytes.f64("a parameter")).collect::<Result<Vec<f64>, _>>()?;
        keep(path, id, checked(path, &place, model, size, &params)?, &mut lenses)?;
    }
    bytes.end()?;
    Ok(lenses)
}

/// Reads `images.bin`, in its order.
///
/// # Errors
/// If the file is damaged.
pub fn read_images_bin(path: &Path) -> Result<Vec<Posed>, Fault> {
    parse_images(path, &fs::read(path).map_err(|e| Fault::unreadable(path, e))?)
}

fn parse_images(path: &Path, all: &[u8]) -> Result<Vec<Posed>, Fault> {
    const POINT: usize = 8 + 8 + 8;
    let mut bytes = Bytes { path, all, at: 0 };
    let mut found = Vec::new();
    for _ in 0..bytes.count(4 + 7 * 8 + 4 + 1 + 8, "the number of pictures")? {
        bytes.u32("a picture's number")?;
        let mut pose = [0.0; 7];
        for x in &mut pose {
            *x = bytes.f64("a pose")?;
        }
        let camera = bytes.u32("a picture's camera")?;
        let at = bytes.at;
        let rest = &all[at..];
        let length = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        let name = bytes.take(length + 1, "a picture's name and a zero")?;
        let name = std::str::from_utf8(&name[..length]).ok().filter(|name| !name.is_empty()).map(str::to_owned);
        let name = name.ok_or_else(|| {
            Fault::at(path, format!("byte {at}"), "a name that is empty or no UTF-8", "a picture's name", DAMAGED)
        })?;
        found.push(posed(path, name, camera, pose)?);
        let points = bytes.count(POINT, "the number of a picture's points")?;
        bytes.take(points * POINT, "a picture's points")?;
    }
    bytes.end()?;
    Ok(found)
}

#[cfg(test)]
mod tests;
