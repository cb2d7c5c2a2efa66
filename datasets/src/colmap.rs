//! Sparse models of COLMAP, as text (`cameras.txt`, `images.txt`) and binary (`cameras.bin`, `images.bin`).
//!
//! ```text
//! sparse/0/cameras.txt     CAMERA_ID MODEL WIDTH HEIGHT PARAMS...
//! sparse/0/images.txt      IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of points
//! sparse/0/*.bin           the same, little-endian, counts as 64 bits
//! images/NAME              the pictures
//! masks/NAME.png           mattes, optional
//! ```
//! Source: COLMAP's page on its output format. Poses are world to camera with OpenCV axes already, and the centre of pixel i
//! is at i + 0.5 as with us: nothing is converted. The world has no unit unless the model was aligned. Points are passed
//! over. Files may be cut or hostile: no count is believed that the file's length does not bear out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use geometry::Distortion;
use glam::{DMat4, DQuat, DVec3};

use crate::views::{View, ViewError};

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

/// Reads the model in `folder`, whose pictures lie below `root` in `images` (or in `root` itself).
///
/// # Errors
/// If there is no model, a file is damaged, or a camera's model is not one of those with a name in [`lens`].
pub fn read(root: &Path, folder: &Path) -> Result<Vec<View>, ViewError> {
    let (lenses, posed, images) = if let Some((cameras, images)) = both(folder, "bin") {
        (read_cameras_bin(&cameras)?, read_images_bin(&images)?, images)
    } else if let Some((cameras, images)) = both(folder, "txt") {
        (read_cameras_txt(&cameras)?, read_images_txt(&images)?, images)
    } else {
        return Err(ViewError::Unreadable {
            path: folder.to_owned(),
            reason: "there are neither cameras.bin and images.bin nor cameras.txt and images.txt".to_owned(),
        });
    };
    if posed.is_empty() {
        return Err(fault(&images, "(file)", "no picture", "at least one", "did COLMAP place any picture?"));
    }
    let pictures = Some(root.join("images")).filter(|folder| folder.is_dir()).unwrap_or_else(|| root.to_owned());
    posed
        .into_iter()
        .map(|posed| {
            let lens = lenses.get(&posed.camera).ok_or_else(|| {
                let (place, found) = (format!("picture `{}`", posed.name), format!("camera {}", posed.camera));
                fault(&images, &place, &found, "a camera of the cameras file", "do both files belong to one model?")
            })?;
            let stem = Path::new(&posed.name).with_extension("png");
            let masks = [root.join("masks").join(format!("{}.png", posed.name)), root.join("masks").join(stem)];
            Ok(View {
                file: pictures.join(&posed.name),
                mask: masks.into_iter().find(|mask| mask.is_file()),
                camera: String::new(),
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

const DAMAGED: &str = "the file is damaged, or was cut when it was copied: export the model again";

fn fault(path: &Path, place: &str, found: &str, expected: &str, hint: &'static str) -> ViewError {
    ViewError::Field {
        path: path.to_owned(),
        place: place.to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
        hint,
    }
}

/// COLMAP's models by number, with how many parameters each has.
const MODELS: [(&str, usize); 11] = [
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
];

/// Intrinsics and distortion of one of the models SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV, FULL_OPENCV and
/// OPENCV_FISHEYE; none for any other, or for another number of parameters.
pub fn lens(model: &str, params: &[f64]) -> Option<([f64; 9], Option<Distortion>)> {
    let bent = |k1, k2, p1, p2, k3, k4, k5, k6| {
        let bent = Distortion::Rational([k1, k2, p1, p2, k3, k4, k5, k6]);
        (!bent.is_identity()).then_some(bent)
    };
    let (fx, fy, cx, cy, distortion) = match (model, params) {
        ("SIMPLE_PINHOLE", &[f, cx, cy]) => (f, f, cx, cy, None),
        ("PINHOLE", &[fx, fy, cx, cy]) => (fx, fy, cx, cy, None),
        ("SIMPLE_RADIAL", &[f, cx, cy, k]) => (f, f, cx, cy, bent(k, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ("RADIAL", &[f, cx, cy, k1, k2]) => (f, f, cx, cy, bent(k1, k2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        ("OPENCV", &[fx, fy, cx, cy, k1, k2, p1, p2]) => (fx, fy, cx, cy, bent(k1, k2, p1, p2, 0.0, 0.0, 0.0, 0.0)),
        ("FULL_OPENCV", &[fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6]) => {
            (fx, fy, cx, cy, bent(k1, k2, p1, p2, k3, k4, k5, k6))
        }
        ("OPENCV_FISHEYE", &[fx, fy, cx, cy, k1, k2, k3, k4]) => {
            (fx, fy, cx, cy, Some(Distortion::Fisheye([k1, k2, k3, k4])))
        }
        _ => return None,
    };
    Some(([fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0], distortion))
}

fn checked(path: &Path, place: &str, model: &str, size: [u64; 2], params: &[f64]) -> Result<Lens, ViewError> {
    let Some((intrinsics, distortion)) = lens(model, params) else {
        return Err(match MODELS.iter().find(|(name, _)| *name == model) {
            Some((_, count)) if *count != params.len() => {
                fault(path, place, &format!("{} parameters", params.len()), &format!("{count} for {model}"), DAMAGED)
            }
            _ => fault(
                path,
                place,
                &format!("the camera model {model}"),
                "SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV, FULL_OPENCV or OPENCV_FISHEYE",
                "run `colmap image_undistorter`, which makes pictures and a model of PINHOLE cameras, or calibrate as OPENCV",
            ),
        });
    };
    let [width, height] = size.map(|side| u32::try_from(side).ok().filter(|side| (1..=65536).contains(side)));
    let (Some(width), Some(height)) = (width, height) else {
        return Err(fault(path, place, &format!("{} x {} px", size[0], size[1]), "1 to 65536 px a side", DAMAGED));
    };
    if params.iter().any(|x| !x.is_finite()) || intrinsics[0] <= 0.0 || intrinsics[4] <= 0.0 {
        return Err(fault(
            path,
            place,
            &format!("parameters {params:?}"),
            "finite ones, focal lengths above 0",
            DAMAGED,
        ));
    }
    Ok(Lens { width, height, intrinsics, distortion })
}

fn posed(path: &Path, name: String, camera: u32, pose: [f64; 7]) -> Result<Posed, ViewError> {
    let [w, x, y, z, ..] = pose;
    let rotation = DQuat::from_xyzw(x, y, z, w);
    // COLMAP writes unit quaternions; a text of few digits is nearly one
    if pose.iter().any(|x| !x.is_finite()) || (rotation.length() - 1.0).abs() > 0.01 {
        let found = format!("the pose {pose:?}");
        return Err(fault(
            path,
            &format!("picture `{name}`"),
            &found,
            "a unit quaternion w x y z and a translation",
            DAMAGED,
        ));
    }
    let matrix = DMat4::from_rotation_translation(rotation.normalize(), DVec3::new(pose[4], pose[5], pose[6]));
    Ok(Posed { name, camera, world_to_cam: matrix.transpose().to_cols_array() })
}

fn keep(path: &Path, id: u32, lens: Lens, lenses: &mut BTreeMap<u32, Lens>) -> Result<(), ViewError> {
    match lenses.insert(id, lens) {
        None => Ok(()),
        Some(_) => Err(fault(path, &format!("camera {id}"), "it twice", "each camera once", DAMAGED)),
    }
}

fn text(path: &Path) -> Result<String, ViewError> {
    fs::read_to_string(path).map_err(|e| ViewError::unreadable(path, e))
}

/// Reads `cameras.txt`: number -> camera.
///
/// # Errors
/// If a line is not one of a camera, or of a model that is not known here.
pub fn read_cameras_txt(path: &Path) -> Result<BTreeMap<u32, Lens>, ViewError> {
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
            fault(path, &place, &format!("`{line}`"), "CAMERA_ID MODEL WIDTH HEIGHT PARAMS...", DAMAGED)
        })?;
        keep(path, id, checked(path, &place, model, size, &params)?, &mut lenses)?;
    }
    Ok(lenses)
}

/// Reads `images.txt`, in its order.
///
/// # Errors
/// If a line is not one of a picture.
pub fn read_images_txt(path: &Path) -> Result<Vec<Posed>, ViewError> {
    let text = text(path)?;
    let mut lines = text.lines().enumerate();
    let mut found = Vec::new();
    while let Some((at, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = || {
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
            (!rest.is_empty()).then(|| (rest.to_owned(), camera, pose))
        };
        let (name, camera, pose) = read().ok_or_else(|| {
            let expected = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME";
            fault(path, &format!("line {}", at + 1), &format!("`{}`", short(line)), expected, DAMAGED)
        })?;
        found.push(posed(path, name, camera, pose)?);
        // its points, on a line that may be empty
        lines.next();
    }
    Ok(found)
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
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], ViewError> {
        let left = self.all.len() - self.at;
        if count > left {
            let found = format!("the end of the file after {left} bytes");
            return Err(fault(
                self.path,
                &format!("byte {}", self.at),
                &found,
                &format!("{count} bytes: {what}"),
                DAMAGED,
            ));
        }
        self.at += count;
        Ok(&self.all[self.at - count..self.at])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ViewError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32, ViewError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, ViewError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn f64(&mut self, what: &str) -> Result<f64, ViewError> {
        Ok(f64::from_le_bytes(self.array(what)?))
    }

    /// A count of records that take at least `least` bytes each.
    fn count(&mut self, least: usize, what: &str) -> Result<usize, ViewError> {
        let at = self.at;
        let count = self.u64(what)?;
        let room = (self.all.len() - self.at) / least;
        match usize::try_from(count).ok().filter(|count| *count <= room) {
            Some(count) => Ok(count),
            None => {
                let found = format!("{count} as {what}");
                Err(fault(
                    self.path,
                    &format!("byte {at}"),
                    &found,
                    &format!("at most {room}, which have room"),
                    DAMAGED,
                ))
            }
        }
    }

    fn end(&self) -> Result<(), ViewError> {
        let left = self.all.len() - self.at;
        if left == 0 {
            return Ok(());
        }
        Err(fault(
            self.path,
            &format!("byte {}", self.at),
            &format!("{left} bytes more"),
            "the end of the file",
            DAMAGED,
        ))
    }
}

/// Reads `cameras.bin`: number -> camera.
///
/// # Errors
/// If the file is damaged, or has a model that is not known here.
pub fn read_cameras_bin(path: &Path) -> Result<BTreeMap<u32, Lens>, ViewError> {
    parse_cameras(path, &fs::read(path).map_err(|e| ViewError::unreadable(path, e))?)
}

fn parse_cameras(path: &Path, all: &[u8]) -> Result<BTreeMap<u32, Lens>, ViewError> {
    let mut bytes = Bytes { path, all, at: 0 };
    let mut lenses = BTreeMap::new();
    for _ in 0..bytes.count(4 + 4 + 8 + 8 + 3 * 8, "the number of cameras")? {
        let place = format!("byte {}", bytes.at);
        let id = bytes.u32("a camera's number")?;
        let number = bytes.u32("a camera's model")?;
        let size = [bytes.u64("a width")?, bytes.u64("a height")?];
        let Some((model, count)) = usize::try_from(number).ok().and_then(|number| MODELS.get(number)) else {
            return checked(path, &place, &format!("number {number}"), size, &[]).map(|_| lenses);
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
pub fn read_images_bin(path: &Path) -> Result<Vec<Posed>, ViewError> {
    parse_images(path, &fs::read(path).map_err(|e| ViewError::unreadable(path, e))?)
}

fn parse_images(path: &Path, all: &[u8]) -> Result<Vec<Posed>, ViewError> {
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
            fault(path, &format!("byte {at}"), "a name that is empty or no UTF-8", "a picture's name", DAMAGED)
        })?;
        found.push(posed(path, name, camera, pose)?);
        let points = bytes.count(POINT, "the number of a picture's points")?;
        bytes.take(points * POINT, "a picture's points")?;
    }
    bytes.end()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::DVec2;
    use rand::{Rng, RngCore, SeedableRng};

    /// Two cameras, three pictures: straight at (0, 0, -1), from the side, and one whose name has a blank.
    const CAMERAS: &str =
        "# Camera list\n1 PINHOLE 200 100 100 110 100 50\n2 OPENCV 64 48 50 51 32 24 0.1 0.2 0.3 0.4\n";
    const IMAGES: &str = "# Image list\n# two lines each\n\
        1 1 0 0 0 0 0 1 1 cam_a/frame_00001.png\n1.5 2.5 -1 3.5 4.5 17\n\
        2 0.7071067811865476 0 0.7071067811865476 0 0.25 0 1 2 cam_b/frame_00001.png\n\n\
        3 1 0 0 0 0 0 2 1 cam_a/a name.png\n";

    fn cameras_bin() -> Vec<u8> {
        let mut bytes = 2u64.to_le_bytes().to_vec();
        for (id, model, size, params) in [
            (1u32, 1u32, [200u64, 100], &[100.0, 110.0, 100.0, 50.0][..]),
            (2, 4, [64, 48], &[50.0, 51.0, 32.0, 24.0, 0.1, 0.2, 0.3, 0.4]),
        ] {
            bytes.extend(id.to_le_bytes().into_iter().chain(model.to_le_bytes()));
            bytes.extend(size.iter().flat_map(|side| side.to_le_bytes()));
            bytes.extend(params.iter().flat_map(|x: &f64| x.to_le_bytes()));
        }
        bytes
    }

    fn images_bin() -> Vec<u8> {
        let mut bytes = 3u64.to_le_bytes().to_vec();
        let half = std::f64::consts::FRAC_1_SQRT_2;
        for (id, pose, camera, name, points) in [
            (1u32, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 1u32, "cam_a/frame_00001.png", 2u64),
            (2, [half, 0.0, half, 0.0, 0.25, 0.0, 1.0], 2, "cam_b/frame_00001.png", 0),
            (3, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0], 1, "cam_a/a name.png", 1),
        ] {
            bytes.extend(id.to_le_bytes());
            bytes.extend(pose.iter().flat_map(|x: &f64| x.to_le_bytes()));
            bytes.extend(camera.to_le_bytes());
            bytes.extend(name.bytes().chain([0]));
            bytes.extend(points.to_le_bytes());
            bytes.extend((0..points).flat_map(|_| [7u8; 24]));
        }
        bytes
    }

    fn text_model(cameras: &str, images: &str) -> (tempfile::TempDir, Result<Vec<View>, ViewError>) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sparse/0");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cameras.txt"), cameras).unwrap();
        fs::write(folder.join("images.txt"), images).unwrap();
        assert_eq!(find(root.path()), Some(folder.clone()));
        let views = read(root.path(), &folder);
        (root, views)
    }

    #[test]
    fn text_and_binary_agree_and_points_fall_where_they_should() {
        let (root, views) = text_model(CAMERAS, IMAGES);
        let views = views.unwrap();
        assert_eq!(views.len(), 3);
        let folder = root.path().join("sparse/0");
        fs::write(folder.join("cameras.bin"), cameras_bin()).unwrap();
        fs::write(folder.join("images.bin"), images_bin()).unwrap();
        fs::write(folder.join("images.txt"), "damaged, and not looked at").unwrap();
        assert_eq!(read(root.path(), &folder).unwrap(), views);
        // straight: (0.1, 0.2, 0) is 1 before it, and y is down
        let seen = |view: &View, at: [f64; 3]| view.pinhole().project(DVec3::from_array(at));
        let (px, z) = seen(&views[0], [0.1, 0.2, 0.0]);
        assert!((px - DVec2::new(110.0, 72.0)).length() < 1e-9 && (z - 1.0).abs() < 1e-12, "{px}");
        // a quarter turn about y takes +z to +x and +x to -z: (0.5, 0, 0) gets x = 0.25, z = 1 - 0.5
        let (px, z) = seen(&views[1], [0.5, 0.0, 0.0]);
        assert!((px - DVec2::new(57.0, 24.0)).length() < 1e-9 && (z - 0.5).abs() < 1e-12, "{px}");
        assert_eq!(views[1].distortion, Some(Distortion::Rational([0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.0, 0.0])));
        assert_eq!(views[2].file, root.path().join("cam_a/a name.png"), "without a folder `images`");
    }

    #[test]
    fn pictures_and_masks_lie_beside_the_model() {
        let (root, _) = text_model(CAMERAS, IMAGES);
        for file in ["images/x", "masks/cam_a/frame_00001.png.png", "masks/cam_b/frame_00001.png"] {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, b"").unwrap();
        }
        let views = read(root.path(), &root.path().join("sparse/0")).unwrap();
        assert_eq!(views[0].file, root.path().join("images/cam_a/frame_00001.png"));
        let masks: Vec<_> = views.iter().map(|view| view.mask.clone()).collect();
        let mask = |name| Some(root.path().join("masks").join(name));
        assert_eq!(masks, [mask("cam_a/frame_00001.png.png"), mask("cam_b/frame_00001.png"), None]);
    }

    #[test]
    fn models_have_their_parameters_in_order() {
        let rational = |k: [f64; 8]| Some(Distortion::Rational(k));
        assert_eq!(lens("SIMPLE_PINHOLE", &[5.0, 1.0, 2.0]).unwrap().0, [5.0, 0.0, 1.0, 0.0, 5.0, 2.0, 0.0, 0.0, 1.0]);
        let bent = |model: &str, params: &[f64]| lens(model, params).unwrap().1;
        assert_eq!(bent("SIMPLE_RADIAL", &[5.0, 1.0, 2.0, 0.1]), rational([0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
        assert_eq!(bent("RADIAL", &[5.0, 1.0, 2.0, 0.1, 0.2]), rational([0.1, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
        let twelve = [5.0, 6.0, 1.0, 2.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
        assert_eq!(bent("FULL_OPENCV", &twelve), rational([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]));
        assert_eq!(bent("OPENCV_FISHEYE", &twelve[..8]), Some(Distortion::Fisheye([0.1, 0.2, 0.3, 0.4])));
        assert_eq!(bent("OPENCV", &[5.0, 6.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]), None);
        assert_eq!(lens("FOV", &[1.0; 5]), None);
    }

    #[test]
    fn errors_say_where_and_what() {
        let check = |cameras: &str, images: &str, expected: &str| {
            let error = text_model(cameras, images).1.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.hint().is_empty());
        };
        check(
            "1 FOV 2 2 1 1 1 1 1\n",
            IMAGES,
            "cameras.txt, line 1: found the camera model FOV, expected SIMPLE_PINHOLE,",
        );
        check("1 PINHOLE 2 2 1 1 1\n", IMAGES, "line 1: found 3 parameters, expected 4 for PINHOLE");
        check("1 PINHOLE 2 0 1 1 1 1\n", IMAGES, "found 2 x 0 px");
        check("1 PINHOLE 2 2 1 nan 1 1\n", IMAGES, "found parameters");
        check("1 PINHOLE\n", IMAGES, "line 1: found `1 PINHOLE`");
        check(&CAMERAS[..CAMERAS.len() / 2], IMAGES, "picture `cam_b/frame_00001.png`: found camera 2");
        check(&[CAMERAS, CAMERAS].concat(), IMAGES, "camera 1: found it twice");
        check(CAMERAS, "", "found no picture");
        check(CAMERAS, "1 1 0 0 0 0 0 1 1\n", "images.txt, line 1: found `1 1 0 0 0 0 0 1 1`");
        check(CAMERAS, "1 9 0 0 0 0 0 1 1 a.png\n", "picture `a.png`: found the pose");
        let error = parse_cameras(Path::new("c.bin"), &[&1u64.to_le_bytes()[..], &[9, 0, 0, 0, 99], &[0; 43]].concat());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("c.bin, byte 8: found the camera model number 99"), "{error}");
    }

    #[test]
    fn truncated_and_hostile_files_are_errors() {
        let path = Path::new("x.bin");
        let (cameras, images) = (cameras_bin(), images_bin());
        assert_eq!(parse_cameras(path, &cameras).unwrap().len(), 2);
        for length in 0..cameras.len() {
            assert!(parse_cameras(path, &cameras[..length]).is_err(), "{length}");
        }
        for length in 0..images.len() {
            assert!(parse_images(path, &images[..length]).is_err(), "{length}");
        }
        assert!(parse_images(path, &[&images[..], &[0]].concat()).unwrap_err().to_string().contains("1 bytes more"));
        let hostile = [&u64::MAX.to_le_bytes()[..], &images[8..]].concat();
        let error = parse_images(path, &hostile).unwrap_err().to_string();
        assert!(error.contains("byte 0: found 18446744073709551615 as the number of pictures"), "{error}");
    }

    #[test]
    fn random_bytes_never_panic() {
        let path = Path::new("x.bin");
        let mut draw = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for _ in 0..20_000 {
            let mut noise = vec![0; draw.random_range(0..300)];
            draw.fill_bytes(&mut noise);
            // a small count, so that records are looked at
            if noise.len() > 8 {
                noise[1..8].fill(0);
            }
            let _ = parse_cameras(path, &noise);
            let _ = parse_images(path, &noise);
            let (mut cameras, mut images) = (cameras_bin(), images_bin());
            for bytes in [&mut cameras, &mut images] {
                for _ in 0..draw.random_range(1..4) {
                    let at = draw.random_range(0..bytes.len());
                    bytes[at] = draw.random();
                }
            }
            let _ = parse_cameras(path, &cameras);
            let _ = parse_images(path, &images);
        }
    }
}
