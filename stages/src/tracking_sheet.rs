//! `tracking_sheet`: tracking to look at: some moments as cameras see them, the tracked mesh over them, and how far what was observed is from it.
//!
//! reads: sequence, camera, timestep, image, intrinsics, world_to_cam, width, height, mesh, cloud, pose; with person
//! writes: sheet (RGB PNG), legend_mm, median_mm, p95_mm
//!
//! A line is a moment, of which `lines` are spread evenly over what there is. Each camera has three pictures of it: the frame; the tracked mesh,
//! shaded, with its outline, over the frame; and the observed points that a fit looks at (those where the face is), coloured by their distance to the mesh in
//! viridis, over the mesh in grey. Points that face away from the camera or lie behind others are not seen, but none is hidden by the
//! mesh. One scale, from 0 to `legend_mm`, serves the whole sheet: the 95th percentile of all shown moments, rounded up. Sees what the tracker
//! sees, and no truth: real captures have this, too.

use crate::drawing::{Anchor, INK, Layer, Look, color_bar, mesh_layer, place, plain, points_layer, round_up, text, viridis};
use crate::head_models::{Person, observed};
use crate::media::{Image, camera_of};
use crate::tracked;
use anyhow::{Context, Result, ensure};
use geometry::distance::MeshDistance;
use geometry::nearest::KdTree;
use geometry::{Camera, Mesh};
use glam::Vec3;
use manifests::Type;
use models::nphm::pose::Pose;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Lines of the sheet.
    #[serde(default = "lines")]
    lines: usize,
    /// Height of each picture, px.
    #[serde(default = "picture")]
    picture: usize,
}

fn lines() -> usize {
    3
}
fn picture() -> usize {
    320
}

/// Between pictures, px.
const GAP: usize = 4;
/// Between cameras, and around the sheet, px.
const MARGIN: usize = 14;
/// Height of the lines of text, px.
const STRIP: usize = 24;
/// Capitals of the text, px.
const SIZE: f64 = 9.0;
const BLUE: [f32; 3] = [105.0, 175.0, 235.0];
const OUTLINE: [f32; 3] = [10.0, 50.0, 120.0];
const GREY: [f32; 3] = [232.0, 232.0, 232.0];

fn def() -> StageDef {
    StageDef::new("tracking_sheet", 1, Grain::Group)
        .doc("Frames, the tracked mesh over them, and the distance of the observed points to it, in one picture.")
        .reads([("sequence", Type::Str), ("camera", Type::Str), ("timestep", Type::I64), ("image", Type::Blob)])
        .reads([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .reads([("width", Type::I64), ("height", Type::I64)])
        .reads([("mesh", Type::Blob), ("cloud", Type::Blob), ("pose", Type::Floats(6))])
        .with("person", [("person", Type::Blob)])
        .writes([("sheet", Type::Blob), ("legend_mm", Type::F64), ("median_mm", Type::F64), ("p95_mm", Type::F64)])
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    ensure!(params.picture >= 64, "`picture` is {}, expected at least 64", params.picture);
    let path = cx.with("person")?.only().context("`person` is what fit_identity puts out")?.path("person")?;
    let person: Person = serde_json::from_slice(&std::fs::read(&path)?)
        .with_context(|| format!("{} does not describe a person", path.display()))?;
    anyhow::Ok(TrackingSheet { params, scale: person.scale })
});

struct TrackingSheet {
    params: Params,
    /// Size of the head.
    scale: f64,
}

/// What was tracked at a moment.
struct Moment {
    name: String,
    mesh: Mesh,
    points: Vec<Vec3>,
    normals: Vec<Vec3>,
    /// Of each point to the mesh.
    distances_mm: Vec<f32>,
    /// Of the disks that points are drawn as, metres.
    radius: f64,
    /// By camera.
    views: BTreeMap<String, View>,
}

/// A frame in the size of the sheet, and its camera.
struct View {
    frame: Image,
    camera: Camera,
}

impl Stage for TrackingSheet {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.sheet(unit, cx)).collect()
    }
}

impl TrackingSheet {
    fn sheet(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let mut all: BTreeMap<(String, i64), Vec<Row<'_>>> = BTreeMap::new();
        for row in unit.rows() {
            all.entry((row.str("sequence")?, row.i64("timestep")?)).or_default().push(row);
        }
        let all: Vec<_> = all.into_iter().collect();
        let n = self.params.lines.clamp(1, all.len().max(1));
        // the middles of n equal parts: neither always the first frame nor always the last
        let chosen = (0..n.min(all.len())).map(|i| &all[(2 * i + 1) * all.len() / (2 * n)]);
        let moments = chosen
            .map(|((sequence, timestep), rows)| {
                let name = format!("{sequence}, frame {timestep}");
                self.moment(name.clone(), rows).with_context(|| name)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut distances: Vec<f32> = moments.iter().flat_map(|m| m.distances_mm.iter().copied()).collect();
        distances.sort_unstable_by(f32::total_cmp);
        let (median, p95) = (quantile(&distances, 0.5)?, quantile(&distances, 0.95)?);
        let legend = round_up(f64::from(p95).max(0.01));
        let path = cx.file(unit, "sheet.png");
        draw(&moments, legend)?.write_png(&path)?;
        let row = OutRow::new().file("sheet", &path).f64("legend_mm", legend);
        Ok(vec![row.f64("median_mm", median).f64("p95_mm", p95)])
    }

    fn moment(&self, name: String, rows: &[Row<'_>]) -> Result<Moment> {
        let (mesh, _) = tracked::read_mesh(&rows[0].path("mesh")?)?;
        let cloud = geometry::ply::read_cloud(&rows[0].path("cloud")?)?;
        let pose = rows[0].array::<6>("pose")?;
        let pose = Pose { rotation: [pose[0], pose[1], pose[2]], translation: [pose[3], pose[4], pose[5]] };
        let seen = observed(&cloud, usize::MAX, &pose, self.scale)?;
        let vectors = |values: &[[f32; 3]]| values.iter().map(|v| Vec3::from(*v)).collect::<Vec<_>>();
        let (points, normals) = (vectors(&seen.points), vectors(&seen.normals));
        let distances_mm = MeshDistance::new(&mesh).distances(&points).into_iter().map(|d| d * 1000.0).collect();
        let mut views = BTreeMap::new();
        for row in rows {
            let image = Image::read(&row.path("image")?, 3)?;
            let height = self.params.picture;
            let width = (height as f64 * image.width as f64 / image.height as f64).round().max(1.0) as usize;
            let frame = image.resized(width, height)?;
            views.insert(row.str("camera")?, View { camera: camera_of(row, Some((width, height)))?, frame });
        }
        let radius = spacing(&points) * 0.8;
        Ok(Moment { name, mesh, points, normals, distances_mm, radius, views })
    }
}

/// The value below which a share of sorted values lies.
fn quantile(sorted: &[f32], share: f64) -> Result<f32> {
    let last = sorted.len().checked_sub(1).context("no points were observed at the moments shown")?;
    Ok(sorted[(share * last as f64).round() as usize])
}

/// How far points are from their nearest neighbours, in the middle.
fn spacing(points: &[Vec3]) -> f64 {
    let tree = KdTree::new(points);
    let next = |p: &Vec3| tree.k_nearest(*p, 2).last().map_or(0.0, |(_, distance)| *distance);
    let mut found: Vec<f32> = points.par_iter().with_min_len(256).map(next).collect();
    found.sort_unstable_by(f32::total_cmp);
    found.get(found.len() / 2).copied().unwrap_or(0.0).into()
}

/// The tracked mesh over the frame.
fn overlay(moment: &Moment, view: &View) -> Image {
    let look = Look { colors: &[BLUE], opacity: 0.6, outline: Some(OUTLINE) };
    mesh_layer(&moment.mesh, &look, &view.camera).over(&view.frame)
}

/// The observed points over the mesh, yellow from `legend` mm on.
fn residuals(moment: &Moment, view: &View, legend: f64) -> Result<Image> {
    let look = Look { colors: &[GREY], opacity: 1.0, outline: None };
    let white = plain(view.frame.width, view.frame.height, [255; 3]);
    let levels: Vec<f32> = moment.distances_mm.iter().map(|d| d / legend as f32).collect();
    let colors = viridis(&levels)?;
    let points: Layer = points_layer(&moment.points, &moment.normals, &colors, moment.radius, &view.camera);
    Ok(points.over(&mesh_layer(&moment.mesh, &look, &view.camera).over(&white)))
}

fn draw(moments: &[Moment], legend: f64) -> Result<Image> {
    // each camera has the width of its widest frame
    let mut cameras: BTreeMap<&str, usize> = BTreeMap::new();
    for (camera, view) in moments.iter().flat_map(|m| &m.views) {
        let width = cameras.entry(camera).or_default();
        *width = view.frame.width.max(*width);
    }
    let height = moments.iter().flat_map(|m| m.views.values()).map(|v| v.frame.height).max().unwrap_or(1);
    let block = |width: usize| 3 * width + 2 * GAP;
    let total = MARGIN + cameras.values().map(|width| block(*width) + MARGIN).sum::<usize>();
    let line = STRIP + height + GAP;
    let bar = color_bar((total - 2 * MARGIN).min(460), legend, "distance of observed points to the tracked mesh, mm")?;
    let top = 2 * STRIP;
    let mut sheet = plain(total, top + moments.len() * line + MARGIN + bar.height + 6, [255; 3]);
    let mut x = MARGIN;
    for (camera, width) in &cameras {
        text(&mut sheet, &format!("camera {camera}"), (x + block(*width) / 2, STRIP - 6), SIZE, Anchor::Middle)?;
        for (k, name) in ["frame", "tracked mesh", "observed points"].into_iter().enumerate() {
            let middle = x + k * (width + GAP) + width / 2;
            text(&mut sheet, name, (middle, 2 * STRIP - 8), SIZE, Anchor::Middle)?;
        }
        for (i, moment) in moments.iter().enumerate() {
            let y = top + i * line + STRIP;
            let Some(view) = moment.views.get(*camera) else {
                text(&mut sheet, "not filmed", (x + block(*width) / 2, y + height / 2), SIZE, Anchor::Middle)?;
                continue;
            };
            let pictures = [view.frame.clone(), overlay(moment, view), residuals(moment, view, legend)?];
            for (k, picture) in pictures.iter().enumerate() {
                place(&mut sheet, picture, x + k * (width + GAP) + (width - picture.width) / 2, y);
            }
        }
        x += block(*width) + MARGIN;
    }
    for (i, moment) in moments.iter().enumerate() {
        let y = top + i * line;
        place(&mut sheet, &plain(total - 2 * MARGIN, 1, INK), MARGIN, y);
        text(&mut sheet, &moment.name, (MARGIN, y + STRIP - 7), SIZE, Anchor::Left)?;
        let mut sorted = moment.distances_mm.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let (median, p95) = (quantile(&sorted, 0.5)?, quantile(&sorted, 0.95)?);
        let said = format!("{} points: median {median:.2} mm, 95 % within {p95:.2} mm", sorted.len());
        text(&mut sheet, &said, (total - MARGIN, y + STRIP - 7), SIZE, Anchor::Right)?;
    }
    let y = top + moments.len() * line + MARGIN;
    place(&mut sheet, &bar, (total - bar.width) / 2, y);
    Ok(sheet)
}
