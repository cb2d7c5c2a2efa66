//! `tracking_sheet`: tracking to look at: some moments as cameras see them, the tracked mesh over them, and how far
//! what was observed is from it.
//!
//! reads: sequence, camera, timestep, image, intrinsics, world_to_cam, width, height, mesh, cloud, pose; with person
//! writes: sheet (RGB PNG), legend_mm, median_mm, p90_mm
//!
//! A line is a moment, of which `lines` are spread evenly over what there is. Each camera has three pictures of it, cut
//! out around the head: the frame; the tracked mesh, shaded, with its outline, over the frame; and the observed points
//! that a fit looks at (those where the face is), coloured by their distance to the mesh in viridis, over the mesh in
//! grey. Points that face away from the camera or lie behind others are not seen, but none is hidden by the mesh. One
//! scale, from 0 to `legend_mm`, serves the whole sheet: four times the median of all shown moments, rounded up; a
//! percentile would go by how much hair there is, which is no part of the model. Sees what the tracker sees, and no
//! truth: real captures have this, too.

use crate::common::drawing::{
    Anchor, INK, Layer, Look, WHITE, color_bar, mesh_layer, place, plain, points_layer, round_up, text, viridis,
};
use crate::common::head_models::{Person, observed};
use crate::common::media::{Image, camera_of};
use crate::common::tracked;
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
use std::collections::{BTreeMap, BTreeSet};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Lines of the sheet.
    #[serde(default = "lines")]
    #[schemars(range(min = 1))]
    lines: usize,
    /// Width and height of each picture, px.
    #[serde(default = "picture")]
    #[schemars(range(min = 64, max = 4096))]
    picture: usize,
}

fn lines() -> usize {
    3
}
fn picture() -> usize {
    240
}

/// Nearer to a camera than this, m, nothing of a head counts: it would be drawn infinitely large.
const NEAR: f64 = 0.05;
/// What a picture shows, in widths of the head or, if that is more, heights.
const WINDOW: f64 = 1.3;
/// How much of a picture the middle of the head lies below its middle: hair is no part of the model.
const HAIR: f64 = 0.04;
/// Points below this are shoulders, model units.
const THROAT: f32 = -0.4;
/// Where the colours end, in medians of the distance.
const SCALE: f64 = 4.0;
/// Between pictures, px.
const GAP: usize = 4;
/// Between cameras, and around the sheet, px.
const MARGIN: usize = 14;
/// Height of the lines of text, px.
const STRIP: usize = 26;
/// Capitals of the text, px.
const SIZE: f64 = 10.0;
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
        .writes([("sheet", Type::Blob), ("legend_mm", Type::F64), ("median_mm", Type::F64), ("p90_mm", Type::F64)])
}

protocol::register!(Params, def, |params: Params, cx: &Cx<'_>| {
    anyhow::Ok(TrackingSheet { params, scale: Person::of(cx)?.scale })
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
    /// What of it is above the throat.
    head: Vec<Vec3>,
    points: Vec<Vec3>,
    normals: Vec<Vec3>,
    /// Of each point to the mesh.
    distances_mm: Vec<f32>,
    /// Of the disks that points are drawn as, metres.
    radius: f64,
    /// By camera.
    views: BTreeMap<String, View>,
}

/// A picture and its camera.
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
        let mut moments = chosen
            .map(|((sequence, timestep), rows)| {
                let name = format!("{sequence}, frame {timestep}");
                self.moment(name.clone(), rows).with_context(|| name)
            })
            .collect::<Result<Vec<_>>>()?;
        cut_out(&mut moments, self.params.picture)?;
        let mut distances: Vec<f32> = moments.iter().flat_map(|m| m.distances_mm.iter().copied()).collect();
        distances.sort_unstable_by(f32::total_cmp);
        // null where all shown moments are blank
        let known = |share: f64| quantile(&distances, share).ok().map(f64::from);
        let (median, p90) = (known(0.5), known(0.9));
        let legend = median.map_or(1.0, |median| round_up((SCALE * median).max(0.01)));
        let path = cx.file(unit, "sheet.png");
        draw(&moments, legend)?.write_png(&path)?;
        let row = OutRow::new().file("sheet", &path).f64("legend_mm", legend);
        Ok(vec![row.maybe_f64("median_mm", median).maybe_f64("p90_mm", p90)])
    }

    fn moment(&self, name: String, rows: &[Row<'_>]) -> Result<Moment> {
        let (mesh, _) = tracked::read_mesh(&rows[0].path("mesh")?)?;
        let cloud = geometry::ply::read_cloud(&rows[0].path("cloud")?)?;
        let pose = rows[0].array::<6>("pose")?;
        let pose = Pose { rotation: [pose[0], pose[1], pose[2]], translation: [pose[3], pose[4], pose[5]] };
        // of a moment that shows too little of a face there is nothing to compare: frame and mesh alone
        let seen = observed(&cloud, usize::MAX, &pose, self.scale).unwrap_or_default();
        let vectors = |values: &[[f32; 3]]| values.iter().map(|v| Vec3::from(*v)).collect::<Vec<_>>();
        let (points, normals) = (vectors(&seen.points), vectors(&seen.normals));
        let distances_mm = MeshDistance::new(&mesh).distances(&points).into_iter().map(|d| d * 1000.0).collect();
        let above = |p: &Vec3| pose.to_model(p.to_array(), self.scale)[1] > THROAT;
        let head = mesh.positions.iter().copied().filter(above).collect();
        let mut views = BTreeMap::new();
        for row in rows {
            let frame = Image::read(&row.path("image")?, 3)?;
            let camera = camera_of(row, Some((frame.width, frame.height)))?;
            views.insert(row.str("camera")?, View { frame, camera });
        }
        let radius = spacing(&points) * 1.2;
        Ok(Moment { name, mesh, head, points, normals, distances_mm, radius, views })
    }
}

/// Leaves of every frame a square of `size` px around the head: for each camera the same in all moments, so that one
/// sees the head move.
fn cut_out(moments: &mut [Moment], size: usize) -> Result<()> {
    // in widths of the frame, which may be of another size in another video
    let mut windows: BTreeMap<String, [f64; 4]> = BTreeMap::new();
    for moment in moments.iter() {
        for (name, view) in &moment.views {
            let [left, right, top, bottom] = windows.entry(name.clone()).or_insert([
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::INFINITY,
                f64::NEG_INFINITY,
            ]);
            for point in &moment.head {
                let (px, z) = view.camera.project(point.as_dvec3());
                if z > NEAR {
                    let px = px / view.frame.width as f64;
                    (*left, *right) = (left.min(px.x), right.max(px.x));
                    (*top, *bottom) = (top.min(px.y), bottom.max(px.y));
                }
            }
        }
    }
    for moment in moments {
        for (name, view) in &mut moment.views {
            let [left, right, top, bottom] = windows[name];
            let side = WINDOW * (right - left).max(bottom - top);
            ensure!(
                side.is_finite(),
                "the head lies behind camera {name}\nhint: do mesh and calibration share a world frame?"
            );
            let width = view.frame.width as f64;
            let corner = [(left + right - side) / 2.0, (top + bottom - side) / 2.0 - HAIR * side];
            let [x, y, side] = [corner[0], corner[1], side].map(|length| length * width);
            view.camera = view.camera.crop_resized(x, y, side, size as u32);
            view.frame = view.frame.crop(x, y, side, size, 255);
        }
    }
    Ok(())
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
    let white = plain(view.frame.width, view.frame.height, WHITE);
    let levels: Vec<f32> = moment.distances_mm.iter().map(|d| d / legend as f32).collect();
    let colors = viridis(&levels)?;
    let points: Layer = points_layer(&moment.points, &moment.normals, &colors, moment.radius, &view.camera);
    Ok(points.over(&mesh_layer(&moment.mesh, &look, &view.camera).over(&white)))
}

fn draw(moments: &[Moment], legend: f64) -> Result<Image> {
    let cameras: BTreeSet<&str> = moments.iter().flat_map(|m| m.views.keys()).map(String::as_str).collect();
    let size = moments.iter().flat_map(|m| m.views.values()).map(|v| v.frame.width).max().unwrap_or(1);
    let block = 3 * size + 2 * GAP;
    let total = MARGIN + cameras.len() * (block + MARGIN);
    let line = STRIP + size + GAP;
    let bar = color_bar(
        (total - 2 * MARGIN).min(460),
        legend,
        "distance of observed points to the tracked mesh, mm",
        viridis,
    )?;
    let top = 2 * STRIP;
    let mut sheet = plain(total, top + moments.len() * line + MARGIN + bar.height + 6, WHITE);
    let mut x = MARGIN;
    for camera in cameras {
        text(&mut sheet, &format!("camera {camera}"), (x + block / 2, STRIP - 6), SIZE, Anchor::Middle)?;
        for (k, name) in ["frame", "tracked mesh", "observed points"].into_iter().enumerate() {
            let middle = x + k * (size + GAP) + size / 2;
            text(&mut sheet, name, (middle, 2 * STRIP - 8), SIZE, Anchor::Middle)?;
        }
        for (i, moment) in moments.iter().enumerate() {
            let y = top + i * line + STRIP;
            let Some(view) = moment.views.get(camera) else {
                text(&mut sheet, "not filmed", (x + block / 2, y + size / 2), SIZE, Anchor::Middle)?;
                continue;
            };
            let pictures = [view.frame.clone(), overlay(moment, view), residuals(moment, view, legend)?];
            for (k, picture) in pictures.iter().enumerate() {
                place(&mut sheet, picture, x + k * (size + GAP), y);
            }
        }
        x += block + MARGIN;
    }
    for (i, moment) in moments.iter().enumerate() {
        let y = top + i * line;
        place(&mut sheet, &plain(total - 2 * MARGIN, 1, INK), MARGIN, y);
        text(&mut sheet, &moment.name, (MARGIN, y + STRIP - 7), SIZE, Anchor::Left)?;
        let mut sorted = moment.distances_mm.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let said = match (quantile(&sorted, 0.5), quantile(&sorted, 0.9)) {
            (Ok(median), Ok(p90)) => format!("{} points: median {median:.2} mm, 90 % within {p90:.2} mm", sorted.len()),
            _ => "too few points were observed".into(),
        };
        text(&mut sheet, &said, (total - MARGIN, y + STRIP - 7), SIZE, Anchor::Right)?;
    }
    let y = top + moments.len() * line + MARGIN;
    place(&mut sheet, &bar, (total - bar.width) / 2, y);
    Ok(sheet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use geometry::band;

    /// A ball of 10 cm before a camera a metre away, with points 4 mm outside of it, seen in front of stripes.
    fn moment() -> Moment {
        let field = |points: &[Vec3]| points.iter().map(|p| p.length() - 0.1).collect::<Vec<f32>>();
        let mesh = band::extract(&field, Vec3::splat(-0.15), Vec3::splat(0.15), 13, 1);
        let normals: Vec<Vec3> = mesh.positions.iter().map(|p| p.normalize()).collect();
        let points: Vec<Vec3> = mesh.positions.iter().map(|p| p.normalize() * 0.104).collect();
        let distances_mm = MeshDistance::new(&mesh).distances(&points).into_iter().map(|d| d * 1000.0).collect();
        let k = [150.0, 0.0, 50.0, 0.0, 150.0, 70.0, 0.0, 0.0, 1.0];
        // the camera looks along -z, its y down
        let pose = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let camera = Camera::from_row_major(&k, &pose, 100, 140);
        let frame = Image::new(100, 140, 3, (0..100 * 140 * 3).map(|i| [230, 180, 140][i / 9 % 3]).collect());
        let views = BTreeMap::from([("1".to_string(), View { frame, camera })]);
        let head = mesh.positions.clone();
        Moment { name: "ball".into(), mesh, head, radius: 0.01, points, normals, distances_mm, views }
    }

    #[test]
    fn the_overlay_changes_the_frame_inside_the_mesh_and_nowhere_else() {
        let mut moments = [moment()];
        cut_out(&mut moments, 90).unwrap();
        let view = &moments[0].views["1"];
        let shown = overlay(&moments[0], view);
        let inside =
            geometry::raster::rasterize(&moments[0].mesh.positions, &moments[0].mesh.faces, &view.camera, 0.05);
        let inside = inside.mask();
        // a pixel that the mesh only touches may change or not
        let alike = |i: usize| {
            let (x, y) = ((i % 90) as i64, (i / 90) as i64);
            let square = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (x + dx, y + dy)));
            let mut around = square.filter(|(x, y)| (0..90).contains(x) && (0..90).contains(y));
            around.all(|(x, y)| inside[(y * 90 + x) as usize] == inside[i])
        };
        let mut counts = [0; 2];
        for i in (0..90 * 90).filter(|i| alike(*i)) {
            let changed = shown.data[3 * i..3 * i + 3] != view.frame.data[3 * i..3 * i + 3];
            assert_eq!(changed, inside[i], "pixel {}, {}", i % 90, i / 90);
            counts[usize::from(changed)] += 1;
        }
        // the whole ball is in the picture, and fills most of it
        assert!(counts.iter().all(|n| *n > 90 * 90 / 4), "{counts:?}");
        let rim = (0..90).flat_map(|k| [k, 89 * 90 + k, 90 * k, 90 * k + 89]);
        assert!(rim.into_iter().all(|i: usize| !inside[i]));
    }

    #[test]
    fn points_have_the_colour_of_their_distance() {
        let mut moments = [moment()];
        assert!(moments[0].distances_mm.iter().all(|d| (3.8..4.3).contains(d)));
        cut_out(&mut moments, 90).unwrap();
        let shown = residuals(&moments[0], &moments[0].views["1"], 5.0).unwrap();
        let [found, expected] = [&shown.data[3 * (45 * 90 + 45)..][..3], &viridis(&[4.0 / 5.0]).unwrap()[0]];
        assert!(
            found.iter().zip(expected).all(|(f, e)| f.abs_diff(*e) <= 12),
            "{found:?}, expected about {expected:?}"
        );
        assert_eq!(shown.data[..3], [255; 3]);
        // a moment that one camera did not film leaves its place free
        let mut other = moment();
        other.views.clear();
        let sheet = draw(&[moments.into_iter().next().unwrap(), other], 5.0).unwrap();
        assert_eq!(sheet.width, 2 * MARGIN + 3 * 90 + 2 * GAP);
    }

    #[test]
    fn quantiles_are_values_and_need_one() {
        assert_eq!((quantile(&[1.0, 2.0, 9.0], 0.5).unwrap(), quantile(&[1.0, 2.0, 9.0], 0.9).unwrap()), (2.0, 9.0));
        assert!(quantile(&[], 0.5).unwrap_err().to_string().contains("no points"));
    }
}
