//! `source_folder`: a capture of one's own, a row per picture or video: `transforms.json`, a COLMAP model, or one plain
//! video.
//!
//! no rows in   writes: participant, sequence, camera, timestep, moment, video, image, matte_video, matte, intrinsics,
//! world_to_cam, width, height, distortion, distortion_fisheye (floats as OpenCV orders them), distortion_thin_prism,
//! distortion_fov (as COLMAP has them); columns that do not apply are null. `moment` counts the timesteps of pictures
//! that are there
//!
//! Intrinsics are for pictures of `width x height` px, distorted as the last four columns say. Knows where things lie
//! and how the capture's world becomes ours (metres, +y up, the subject faces +z, the head near the origin), not what
//! pictures show.

use crate::common::faults::hinted;
use crate::common::frame_times::ensure_one_rate;
use crate::common::media::LENSES;
use crate::common::video_reader::VideoReader;
use anyhow::{Context, Result, anyhow, bail, ensure};
use datasets::views::{self, View};
use datasets::{colmap, names, transforms};
use geometry::Distortion;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The folder of the capture. Everything its calibration names must lie in it.
    path: PathBuf,
    /// How it is calibrated.
    #[serde(default)]
    format: Format,
    /// What pictures are that name no camera, neither in the calibration nor all of them in their path.
    #[serde(default)]
    views: Unnamed,
    /// The participant's number.
    #[serde(default)]
    participant: i64,
    /// The sequence's name. It is not the folder's: results do not depend on what a folder is called.
    #[serde(default = "sequence")]
    sequence: String,
    /// Metres per unit of the capture's world.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    scale: f64,
    /// The rotation and translation that take the capture's world, after `scale`, to ours: 12 or 16 numbers, rows
    /// first.
    #[serde(default)]
    world: Option<Vec<f64>>,
    /// Of a video without calibration: its horizontal field of view, degrees.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 180))]
    fov_degrees: Option<f64>,
    /// Of a video without calibration: metres from the camera to the head.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    distance: f64,
}

/// How a folder is calibrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// The first of the others that is there.
    #[default]
    Auto,
    /// `transforms.json` of nerfstudio, instant-ngp or NeRF-synthetic.
    Transforms,
    /// A sparse model of COLMAP.
    Colmap,
    /// One video without calibration.
    Videos,
}

/// What pictures without a name of their camera are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unnamed {
    /// What their paths say, if all of them name camera and number; else moments of one moving camera.
    #[default]
    Auto,
    /// Each is of a camera of its own, all at one moment: stills of a rig.
    Cameras,
    /// Moments of one camera that may move.
    Moments,
}

fn sequence() -> String {
    "capture".into()
}
fn one() -> f64 {
    1.0
}

fn def() -> StageDef {
    StageDef::new("source_folder", 6, Grain::Whole)
        .doc("Lists the pictures or videos of a capture with transforms.json, a COLMAP model, or one plain video.")
        .source()
        .file_param("path")
        .writes([
            ("participant", Type::I64),
            ("sequence", Type::Str),
            ("camera", Type::Str),
            ("timestep", Type::I64),
            ("moment", Type::I64),
            ("video", Type::Blob),
            ("image", Type::Blob),
            ("matte_video", Type::Blob),
            ("matte", Type::Blob),
            ("intrinsics", Type::Floats(9)),
            ("world_to_cam", Type::Floats(16)),
            ("width", Type::I64),
            ("height", Type::I64),
        ])
        .writes(LENSES)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(SourceFolder { params }));

struct SourceFolder {
    params: Params,
}

impl Stage for SourceFolder {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|_| self.list(cx)).collect()
    }
}

impl SourceFolder {
    fn list(&self, cx: &Cx<'_>) -> Result<Rows> {
        let (views, remarks) = self.params.views()?;
        remarks.iter().for_each(|remark| cx.warn(remark));
        let away = views::looking_away(&views);
        if 2 * away > views.len() {
            cx.warn(&format!(
                "{away} of {} cameras do not have the origin in their picture, where the head should be; `world` moves it there",
                views.len()
            ));
        }
        ensure_one_rate(views.iter().filter(|view| view.is_video()).map(|view| view.file.as_path()), cx)?;
        let named =
            |row: OutRow| row.i64("participant", self.params.participant).str("sequence", &self.params.sequence);
        let timesteps: BTreeSet<i64> = views.iter().filter_map(|view| view.timestep).collect();
        let moments: BTreeMap<i64, usize> =
            timesteps.into_iter().enumerate().map(|(at, timestep)| (timestep, at)).collect();
        let moment = |view: &View| view.timestep.and_then(|timestep| moments.get(&timestep).copied());
        let counted = |view: &View| match moment(view) {
            Some(moment) => row(view).i64("moment", moment),
            None => row(view),
        };
        Ok(views.iter().map(|view| named(counted(view))).collect())
    }
}

fn row(view: &View) -> OutRow {
    let [file, mask] = if view.is_video() { ["video", "matte_video"] } else { ["image", "matte"] };
    let mut row = OutRow::new()
        .str("camera", &view.camera)
        .file(file, &view.file)
        .floats("intrinsics", view.intrinsics)
        .floats("world_to_cam", view.world_to_cam)
        .i64("width", view.width)
        .i64("height", view.height);
    if let Some(path) = &view.mask {
        row = row.file(mask, path);
    }
    if let Some(timestep) = view.timestep {
        row = row.i64("timestep", timestep);
    }
    match view.distortion {
        None => row,
        Some(Distortion::Rational(k)) => row.floats("distortion", k),
        Some(Distortion::Fisheye(k)) => row.floats("distortion_fisheye", k),
        Some(Distortion::ThinPrism(k)) => row.floats("distortion_thin_prism", k),
        Some(Distortion::Fov(omega)) => row.f64("distortion_fov", omega),
    }
}

/// All pictures and videos of a folder that is calibrated in metres and in our world.
///
/// # Errors
/// If there are none, or calibration and files do not fit together.
pub fn views(path: &Path) -> Result<Vec<View>> {
    let params = Params {
        path: path.to_owned(),
        format: Format::Auto,
        views: Unnamed::Auto,
        participant: 0,
        sequence: sequence(),
        scale: one(),
        world: None,
        fov_degrees: None,
        distance: one(),
    };
    Ok(params.views()?.0)
}

impl Params {
    /// All pictures and videos of the folder, in our world, sorted by camera and time; and what is to be said of them:
    /// what was guessed, what was left out.
    fn views(&self) -> Result<(Vec<View>, Vec<String>)> {
        let root = &self.path;
        ensure!(
            !root.is_file(),
            "{} is a file, expected the folder that it lies in\nhint: `path` is the folder of a capture; what lies in it is found",
            root.display()
        );
        let world = self.world.as_deref().map(views::rigid).transpose().map_err(hinted)?.unwrap_or_default();
        let jsons = transforms::find(root);
        let model = colmap::find(root);
        let format = match self.format {
            Format::Auto if !jsons.is_empty() => Format::Transforms,
            Format::Auto if model.is_some() => Format::Colmap,
            Format::Auto => Format::Videos,
            given => given,
        };
        let mut remarks = Vec::new();
        let (mut views, calibration) = match format {
            Format::Videos | Format::Auto => return self.video().map(|view| (vec![view], remarks)),
            Format::Transforms => {
                let first = jsons.first().with_context(|| nothing(root, "transforms.json"))?;
                let (views, told) = transforms::read(&jsons).map_err(hinted)?;
                remarks.extend(told);
                (views, first.clone())
            }
            Format::Colmap => {
                let model = model.with_context(|| nothing(root, "sparse/0/cameras.bin and images.bin"))?;
                let views = colmap::read(root, &model).map_err(hinted)?;
                remarks.extend(colmap::left_out(root, &model, &views).map_err(hinted)?);
                (views, model)
            }
        };
        views.iter_mut().for_each(|view| views::move_view(view, self.scale, &world));
        views::check_files(root, &calibration, &views).map_err(hinted)?;
        match self.views {
            Unnamed::Auto => {}
            Unnamed::Cameras => names::name_cameras(&mut views),
            Unnamed::Moments => names::name_moments(&mut views),
        }
        remarks.extend(names::name_views(root, &mut views).map_err(hinted)?);
        let masked = views.iter().filter(|view| view.mask.is_some()).count();
        if masked > 0 && masked < views.len() {
            remarks.push(format!(
                "{masked} of {} pictures or videos have a mask, and the others stay as they are",
                views.len()
            ));
        }
        remarks.extend(views::off_centre(&views));
        let upside_down = views::upside_down(&views);
        if 2 * upside_down > views.len() {
            remarks.push(format!(
                "{upside_down} of {} pictures are of cameras that stand on their heads, if +y is up, as it is to be here: `world` turns the capture",
                views.len()
            ));
        }
        views::check_shapes(&views).map_err(hinted)?;
        views::check_distances(&views).map_err(hinted)?;
        views::check_directions(&views).map_err(hinted)?;
        Ok((views, remarks))
    }

    /// The one video of a folder without calibration: a camera on the axis +z that looks at the origin.
    fn video(&self) -> Result<View> {
        let root = &self.path;
        let mut videos = videos(root)?;
        if videos.is_empty() {
            videos = videos_below(root)?;
        }
        let [video] = &videos[..] else {
            let found = if videos.is_empty() { "no video".to_owned() } else { format!("{} videos", videos.len()) };
            // a calibration that may lie beside them is not what was asked for
            if self.format == Format::Videos {
                bail!(
                    "{}: found {found}, expected one, as `format: videos` says\n\
                     hint: leave `format` out where there is a transforms.json or a COLMAP model",
                    root.display()
                );
            }
            bail!(
                "{}: found neither transforms.json nor a COLMAP model, and {found}; expected one of these, or one video\n\
                 hint: several cameras need a calibration; COLMAP and nerfstudio's ns-process-data make one",
                root.display()
            );
        };
        let fov = self.fov_degrees.with_context(|| {
            format!(
                "{} has no calibration, and `fov_degrees` is not given\n\
                 hint: give the horizontal field of view of the camera; 60 to 70 is usual for phones, 40 for a portrait lens",
                video.display()
            )
        })?;
        let frame = VideoReader::open(video)?.next_frame()?;
        let frame =
            frame.with_context(|| format!("the video {} has no frame\nhint: copy it again", video.display()))?;
        let (width, height) = (u32::try_from(frame.width)?, u32::try_from(frame.height)?);
        let focal = 0.5 * f64::from(width) / (0.5 * fov.to_radians()).tan();
        let matte = root.join("alpha_maps").join(video.file_name().unwrap_or_default());
        let view = View {
            file: video.clone(),
            mask: matte.is_file().then_some(matte),
            camera: "0".to_owned(),
            lens: None,
            timestep: None,
            intrinsics: [focal, 0.0, f64::from(width) / 2.0, 0.0, focal, f64::from(height) / 2.0, 0.0, 0.0, 1.0],
            world_to_cam: [1., 0., 0., 0., 0., -1., 0., 0., 0., 0., -1., self.distance, 0., 0., 0., 1.],
            width,
            height,
            distortion: None,
        };
        views::check_distances(std::slice::from_ref(&view)).map_err(|error| {
            anyhow!("{error}\nhint: `distance` is metres from the camera to the head; here it is {}", self.distance)
        })?;
        Ok(view)
    }
}

fn nothing(root: &Path, expected: &str) -> String {
    format!(
        "{}: found no {expected}\nhint: `path` is the folder it lies in; does `format` say what is there?",
        root.display()
    )
}

/// The videos that lie in a folder, sorted.
fn videos(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot list {}\nhint: does it exist, and may you read it?", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        // what macOS writes beside each file on foreign disks
        let is_shadow = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"._"));
        if views::is_video(&path) && path.is_file() && !is_shadow {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Those of its folder `videos`, if there is one.
fn videos_below(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("videos");
    if folder.is_dir() { videos(&folder) } else { Ok(Vec::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::media::Image;
    use crate::common::video::write_video;
    use manifests::Value;
    use serde_json::json;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("effigy-folder-{}", std::process::id())).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn params(path: &Path, more: serde_json::Value) -> Params {
        let mut all = json!({ "path": path });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn fault(path: &Path, more: serde_json::Value) -> String {
        format!("{:#}", params(path, more).views().unwrap_err())
    }

    fn film(path: &Path) {
        let picture = |t: usize| (0..64 * 48 * 3).map(|i| ((i * 7 + t * 13) % 256) as u8).collect();
        let frames: Vec<Image> = (0..3).map(|t| Image::new(64, 48, 3, picture(t))).collect();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_video(path, 24.0, &frames).unwrap();
    }

    const POSE: [[f64; 4]; 4] =
        [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]];

    #[test]
    fn a_plain_video_needs_its_field_of_view() {
        let root = scratch("plain");
        assert!(fault(&root, json!({})).contains("no video; expected one of these"));
        film(&root.join("talk.mp4"));
        let error = fault(&root, json!({}));
        assert!(
            error.contains("talk.mp4 has no calibration") && error.contains("hint: give the horizontal"),
            "{error}"
        );
        // 90 degrees over 64 px are a focal length of 32 px; (0.1, 0.2, 0) at 0.8 m is 4 px right and 8 px up
        let views = params(&root, json!({ "fov_degrees": 90.0, "distance": 0.8 })).views().unwrap().0;
        let (px, z) = views[0].pinhole().project(glam::DVec3::new(0.1, 0.2, 0.0));
        assert!((z - 0.8).abs() < 1e-12 && (px.x - 36.0).abs() < 1e-9 && (px.y - 16.0).abs() < 1e-9, "{px}");
        assert_eq!(row(&views[0]).values["camera"], Value::Str("0".into()));
        assert!(fault(&root, json!({ "fov_degrees": 90.0, "distance": 80.0 })).contains("hint: `distance` is metres"));
        film(&root.join("walk.mp4"));
        assert!(fault(&root, json!({ "fov_degrees": 90.0 })).contains("2 videos"));
        std::fs::write(root.join("transforms.json"), "{}").unwrap();
        let error = fault(&root, json!({ "format": "videos" }));
        assert!(error.contains("found 2 videos, expected one") && !error.contains("neither"), "{error}");
        std::fs::remove_file(root.join("transforms.json")).unwrap();
        assert!(fault(&root, json!({ "format": "colmap" })).contains("found no sparse/0/cameras.bin"));
        assert_eq!(params(&root, json!({})).sequence, "capture");
    }

    #[test]
    fn a_rig_of_videos_has_a_row_for_each() {
        let root = scratch("rig");
        let frame = |name: &str| json!({ "file_path": format!("videos/cam_{name}.mp4"), "transform_matrix": POSE });
        let text = json!({ "fl_x": 60.0, "w": 64, "h": 48, "k1": 0.1, "frames": [frame("b"), frame("a")] });
        std::fs::write(root.join("transforms.json"), text.to_string()).unwrap();
        let error = fault(&root, json!({}));
        assert!(
            error.contains("transforms.json names 2 files that do not exist") && error.contains("cam_a.mp4"),
            "{error}"
        );
        for name in ["a", "b"] {
            film(&root.join(format!("videos/cam_{name}.mp4")));
        }
        let views = params(&root, json!({})).views().unwrap().0;
        let rows: Vec<OutRow> = views.iter().map(row).collect();
        let cameras: Vec<&Value> = rows.iter().map(|row| &row.values["camera"]).collect();
        assert_eq!(cameras, [&Value::Str("a".into()), &Value::Str("b".into())]);
        assert!(rows[0].values.contains_key("video") && !rows[0].values.contains_key("timestep"));
        assert_eq!(rows[0].values["distortion"], Value::Floats(vec![0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
        // metres taken for millimetres
        let error = fault(&root, json!({ "scale": 0.001 }));
        assert!(
            error.contains("2 of 2 cameras") && error.contains("hint: the head is at the origin: `scale`"),
            "{error}"
        );
    }

    #[test]
    fn stills_of_a_rig_are_told_from_one_moving_camera_by_a_parameter() {
        let root = scratch("flat");
        std::fs::create_dir_all(root.join("images")).unwrap();
        let names = ["cam01", "cam02", "cam03"];
        for name in names {
            Image::new(16, 12, 3, vec![9; 576]).write_png(&root.join(format!("images/{name}.png"))).unwrap();
        }
        let write = |pose: [[f64; 4]; 4]| {
            let frames =
                names.map(|name| json!({ "file_path": format!("images/{name}.png"), "transform_matrix": pose }));
            let text = json!({ "fl_x": 60.0, "w": 16, "h": 12, "frames": frames });
            std::fs::write(root.join("transforms.json"), text.to_string()).unwrap();
        };
        write(POSE);
        let found = |more: serde_json::Value| {
            let (views, remarks) = params(&root, more).views().unwrap();
            let is_guess = remarks.iter().any(|remark| remark.contains("moments of one moving camera"));
            (views.into_iter().map(|view| (view.camera, view.timestep)).collect::<Vec<_>>(), is_guess)
        };
        let pairs =
            |list: [(&str, i64); 3]| list.map(|(camera, timestep)| (camera.to_owned(), Some(timestep))).to_vec();
        assert_eq!(found(json!({})), (pairs([("0", 0), ("0", 1), ("0", 2)]), true));
        assert_eq!(found(json!({ "views": "moments" })), (pairs([("0", 0), ("0", 1), ("0", 2)]), false));
        assert_eq!(found(json!({ "views": "cameras" })), (pairs(names.map(|name| (name, 0))), false));
        // OpenCV's axes in a file whose axes are OpenGL's
        write([[1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 1.0], [0.0, 0.0, 0.0, 1.0]]);
        let error = fault(&root, json!({}));
        assert!(
            error.contains("none of 3 cameras has the origin") && error.contains("hint: they would with y and z"),
            "{error}"
        );
    }

    #[test]
    fn pictures_that_colmap_did_not_place_are_remarked() {
        let root = scratch("colmap");
        std::fs::create_dir_all(root.join("images/cam_a")).unwrap();
        std::fs::create_dir_all(root.join("sparse/0")).unwrap();
        for name in ["frame_1", "frame_2"] {
            Image::new(8, 6, 3, vec![9; 144]).write_png(&root.join(format!("images/cam_a/{name}.png"))).unwrap();
        }
        std::fs::write(root.join("sparse/0/cameras.txt"), "1 PINHOLE 8 6 9 9 4 3\n").unwrap();
        std::fs::write(root.join("sparse/0/images.txt"), "1 1 0 0 0 0 0 1 1 cam_a/frame_1.png\n\n").unwrap();
        let (views, remarks) = params(&root, json!({})).views().unwrap();
        assert_eq!((views.len(), remarks.len()), (1, 2), "{remarks:?}");
        assert!(remarks[1].starts_with("1 of 1 pictures are of cameras that stand on their heads"), "{}", remarks[1]);
        assert!(remarks[0].starts_with("1 of 2 pictures in") && remarks[0].contains("frame_2.png"), "{}", remarks[0]);
        let columns = |lens: Distortion| {
            let values = row(&View { distortion: Some(lens), ..views[0].clone() }).values;
            LENSES.iter().filter_map(|(column, _)| Some((*column, values.get(*column)?.clone()))).collect::<Vec<_>>()
        };
        assert_eq!(columns(Distortion::Fov(0.9)), [("distortion_fov", Value::F64(0.9))]);
        let prism = columns(Distortion::ThinPrism([0.5; 8]));
        assert_eq!(prism, [("distortion_thin_prism", Value::Floats(vec![0.5; 8]))]);
    }

    #[test]
    fn pictures_have_timesteps_and_lie_in_the_folder() {
        let root = scratch("stills");
        for (camera, frame) in [("a", 2), ("a", 10), ("b", 2)] {
            let folder = root.join(format!("images/cam_{camera}"));
            std::fs::create_dir_all(&folder).unwrap();
            Image::new(8, 6, 3, vec![9; 144]).write_png(&folder.join(format!("frame_{frame}.png"))).unwrap();
        }
        let frame = |path: &str| json!({ "file_path": path, "transform_matrix": POSE });
        let write = |paths: &[&str], h: u32| {
            let frames: Vec<_> = paths.iter().map(|path| frame(path)).collect();
            let text = json!({ "fl_x": 60.0, "w": 16, "h": h, "frames": frames });
            std::fs::write(root.join("transforms.json"), text.to_string()).unwrap();
        };
        let all = ["images/cam_b/frame_2.png", "images/cam_a/frame_10.png", "images/cam_a/frame_2"];
        write(&all, 12);
        let views = params(&root, json!({})).views().unwrap().0;
        let names: Vec<_> = views.iter().map(|view| (view.camera.as_str(), view.timestep)).collect();
        assert_eq!(names, [("a", Some(2)), ("a", Some(10)), ("b", Some(2))]);
        assert!(row(&views[0]).values.contains_key("image"));
        // calibrated for another picture
        write(&all, 16);
        assert!(fault(&root, json!({})).contains("is 8 x 6 px, and its calibration is for 16 x 16"));
        write(&["../plain/talk.mp4"], 12);
        assert!(fault(&root, json!({})).contains("lies outside"));
    }
}
