//! `import_points`: points that come with a capture, clouds or depth maps of one moment, in place of stereo.
//!
//! reads: scan? (PCD or PLY), or depth? (PNG of 16 bits) with matte?, intrinsics, world_to_cam, width, height; camera?
//! writes: cloud (PLY: metres, normals, colours), points, too_few
//!
//! A group is what was seen at one moment (`by: [participant, sequence, timestep]`), as `source_nersemble_clouds` lists
//! it: a cloud, or the depth maps of the cameras, whose pixels are places in the world by the calibration: those of all
//! cameras are one cloud, without what a matte calls background. A moment with few points near the head is marked
//! `too_few`, as `reconstruct_points` marks it. Clouds without normals get them from their neighbours, turned away from
//! the head's inside, or towards the camera that saw them. Knows no colours of pictures, and not whose files they are.

use crate::common::faults::hinted;
use crate::common::media::{Image, camera_of, ensure_shape};
use anyhow::{Context, Result, anyhow, bail};
use datasets::nersemble::read_depth;
use geometry::camera::Camera;
use geometry::cloud::PointCloud;
use geometry::{pcd, ply};
use glam::Vec3;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Points are thinned to one in cubes of this side, metres; 0 keeps all.
    #[serde(default = "cell")]
    #[schemars(range(min = 0))]
    cell: f64,
    /// What is further from the origin of the world is left out, metres.
    #[serde(default = "radius")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    radius: f32,
    /// A moment with fewer points than this shows too little of a head: it is marked.
    #[serde(default = "min_points")]
    min_points: usize,
}

fn cell() -> f64 {
    0.002
}
fn radius() -> f32 {
    0.25
}

fn min_points() -> usize {
    200
}

fn def() -> StageDef {
    StageDef::new("import_points", 2, Grain::Group)
        .doc("Takes the points that come with a capture: the cloud of a moment, or its depth maps as one.")
        .may_read([("scan", Type::Blob), ("depth", Type::Blob), ("matte", Type::Blob)])
        .may_read([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .may_read([("width", Type::I64), ("height", Type::I64), ("camera", Type::Str)])
        .writes([("cloud", Type::Blob), ("points", Type::I64), ("too_few", Type::Bool)])
        .memory_mb(1000)
}

protocol::register!(Params, def, |params, _: &Cx<'_>| anyhow::Ok(ImportPoints { params }));

struct ImportPoints {
    params: Params,
}

impl Stage for ImportPoints {
    fn run(&mut self, units: &[Unit<'_>], cx: &Cx<'_>) -> Result<Vec<Rows>> {
        units.iter().map(|unit| self.import(unit, cx)).collect()
    }
}

impl ImportPoints {
    fn import(&self, unit: &Unit<'_>, cx: &Cx<'_>) -> Result<Rows> {
        let rows = unit.rows();
        let scans: Vec<PathBuf> =
            rows.iter().filter_map(|row| row.maybe_path("scan").transpose()).collect::<Result<_>>()?;
        let cloud = match &scans[..] {
            [] => self.unproject(&rows.iter().map(DepthMap::of).collect::<Result<Vec<_>>>()?)?,
            [scan] if rows.len() == 1 && !rows[0].has("depth") => self.read(scan)?,
            [scan, ..] => bail!(
                "{} rows of one moment name {} clouds, the first of them {}, and {} depth maps\n\
                 hint: a moment has one cloud or depth maps; `by:` names what tells moments apart, as participant, sequence and timestep do",
                rows.len(),
                scans.len(),
                scan.display(),
                rows.iter().filter(|row| row.has("depth")).count()
            ),
        };
        let found = cloud.len();
        let too_few = found < self.params.min_points;
        if too_few {
            cx.warn(&format!(
                "only {found} points are within {} m of the origin of the world (metres), where the head should be, fewer than min_points: {}; \
                 the moment is marked",
                self.params.radius, self.params.min_points
            ));
        }
        let to = cx.file(unit, "cloud.ply");
        ply::write_cloud(&to, &cloud)?;
        Ok(vec![OutRow::new().file("cloud", &to).i64("points", found).bool("too_few", too_few)])
    }

    /// One cloud of the depth maps of a moment.
    fn unproject(&self, maps: &[DepthMap]) -> Result<PointCloud> {
        let mut cloud = PointCloud::default();
        let mut eyes = Vec::new();
        for map in maps {
            let seen = self.thinned(map.places(self.params.radius).with_context(|| map.name())?);
            eyes.extend(std::iter::repeat_n(map.camera.center().as_vec3(), seen.len()));
            cloud.positions.extend(seen.positions);
        }
        if !cloud.is_empty() {
            cloud.estimate_normals(16);
            cloud.orient_normals(|i| eyes[i]);
        }
        Ok(self.thinned(cloud))
    }

    fn read(&self, path: &Path) -> Result<PointCloud> {
        // by its content, whatever it is called
        let is_ply = std::fs::File::open(path).and_then(|mut file| {
            let mut first = [0; 3];
            file.read_exact(&mut first).map(|()| first == *b"ply")
        });
        let cloud = match is_ply {
            Ok(true) => ply::read_cloud(path)?,
            _ => pcd::read_cloud(path).map_err(|error| {
                anyhow!("{error}\nhint: PLY and PCD (Point Cloud Library) are read; is the file whole? copy or download it again")
            })?,
        };
        let near = self.params.radius * self.params.radius;
        let mut cloud = self.thinned(cloud.retain(|i| cloud.positions[i].length_squared() < near));
        if cloud.normals.is_empty() && !cloud.is_empty() {
            cloud.estimate_normals(16);
            // from outside: of points on a head, the way from its middle
            let middle = cloud.positions.iter().sum::<Vec3>() / cloud.len() as f32;
            let positions = cloud.positions.clone();
            cloud.orient_normals(|i| positions[i] * 2.0 - middle);
        }
        Ok(cloud)
    }

    fn thinned(&self, cloud: PointCloud) -> PointCloud {
        if self.params.cell > 0.0 && !cloud.is_empty() { cloud.voxel_subsample(self.params.cell as f32) } else { cloud }
    }
}

/// A depth map and how it was taken.
struct DepthMap {
    path: PathBuf,
    of: Option<String>,
    matte: Option<PathBuf>,
    /// Of the calibrated pictures, which may be of another size.
    camera: Camera,
}

impl DepthMap {
    fn of(row: &Row<'_>) -> Result<DepthMap> {
        let of = if row.has("camera") { Some(row.str("camera")?) } else { None };
        let path = row.maybe_path("depth")?.with_context(|| {
            format!(
                "a row{} has neither `scan` nor `depth`",
                of.as_ref().map_or(String::new(), |of| format!(" of camera {of}"))
            )
        })?;
        Ok(DepthMap { path, of, matte: row.maybe_path("matte")?, camera: camera_of(row, None)? })
    }

    /// What to call it: its file may be one of the workspace's, which are called by their digests.
    fn name(&self) -> String {
        self.of.as_ref().map_or("a depth map".into(), |of| format!("the depth map of camera {of}"))
    }

    /// Where in the world its pixels are, as far as they are near the origin.
    fn places(&self, radius: f32) -> Result<PointCloud> {
        let mut map = read_depth(&self.path).map_err(hinted)?;
        let (size, calibrated) = ((map.width, map.height), (self.camera.width, self.camera.height));
        let wide = |(width, height): (u32, u32)| (width as usize, height as usize);
        ensure_shape(self.path.display(), wide(size), wide(calibrated), "the calibrated pictures")?;
        if let Some(matte) = &self.matte {
            let (path, matte) = (matte, Image::read(matte, 1)?);
            ensure_shape(
                path.display(),
                (matte.width, matte.height),
                wide(size),
                "the depth map that this is the matte of",
            )?;
            let matte = matte.resized(size.0 as usize, size.1 as usize)?;
            map.metres.iter_mut().zip(&matte.data).filter(|(_, alpha)| **alpha < 128).for_each(|(z, _)| *z = 0.0);
        }
        let near = f64::from(radius).powi(2);
        let places = self.camera.resized(size.0, size.1).unproject(&map.metres);
        let places = places.into_iter().filter(|place| place.length_squared() < near);
        Ok(PointCloud { positions: places.map(|place| place.as_vec3()).collect(), ..Default::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datasets::nersemble::{DepthMap as Metres, write_depth};

    #[test]
    fn pixels_of_depth_maps_are_where_a_hand_puts_them() {
        let root = tempfile::tempdir().unwrap();
        let [path, matte] = ["depth.png", "matte.png"].map(|name| root.path().join(name));
        let mut values = vec![255; 24];
        values[0] = 0;
        Image::new(4, 6, 1, values).write_png(&matte).unwrap();
        let mut metres = vec![0.9; 24];
        // unknown, and a wall behind the head
        (metres[1], metres[2]) = (0.0, 1.9);
        write_depth(&path, &Metres { width: 4, height: 6, metres }).unwrap();
        // one metre before the head, looking at it; intrinsics for pictures of twice the size of the map
        let k = [200.0, 0.0, 4.0, 0.0, 200.0, 6.0, 0.0, 0.0, 1.0];
        let w2c = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        let map = |width, height| DepthMap {
            path: path.clone(),
            of: Some("1".into()),
            matte: Some(matte.clone()),
            camera: Camera::from_row_major(&k, &w2c, width, height),
        };
        let stage = ImportPoints { params: Params { cell: 0.0, radius: 0.25, min_points: 1 } };
        let cloud = stage.unproject(&[map(8, 12)]).unwrap();
        assert_eq!(cloud.len(), 24 - 3, "neither the matte's background, nor the unknown, nor the wall");
        // pixel (3, 1), centre (3.5, 1.5), of a camera of focal length 100 and centre (2, 3): (1.5, -1.5) / 100 * 0.9
        // in its axes, of which y and z point the other way in the world
        let expected = Vec3::new(0.0135, 0.0135, 0.1);
        let nearest = cloud.positions.iter().map(|p| (*p - expected).length()).fold(f32::MAX, f32::min);
        assert!(nearest < 2e-5, "{:?}", cloud.positions);
        assert!(cloud.normals.iter().all(|n| n.z > 0.999), "towards the camera");

        let error = format!("{:#}", stage.unproject(&[map(12, 8)]).unwrap_err());
        let shape = "depth.png: found 4 x 6 px, expected the shape of the calibrated pictures, 12 x 8 px";
        assert!(error.contains(shape) && error.contains("hint:") && error.contains("of camera 1: "), "{error}");
        Image::new(6, 4, 1, vec![255; 24]).write_png(&matte).unwrap();
        let error = format!("{:#}", stage.unproject(&[map(8, 12)]).unwrap_err());
        assert!(error.contains("matte.png: found 6 x 4 px, expected the shape of the depth map"), "{error}");
        let cloud = root.path().join("frame_00000.pcd");
        std::fs::write(&cloud, "VERSION 0.7\nFIELDS x y z\n").unwrap();
        let error = stage.read(&cloud).unwrap_err().to_string();
        assert!(error.contains("frame_00000.pcd") && error.contains("hint: PLY and PCD"), "{error}");
        std::fs::write(&path, b"\x89PNG").unwrap();
        let error = format!("{:#}", stage.unproject(&[map(8, 12)]).unwrap_err());
        assert!(error.contains("depth.png") && error.contains("hint:"), "{error}");
    }

    #[test]
    fn clouds_are_told_by_their_content_and_one_without_points_is_one() {
        let root = tempfile::tempdir().unwrap();
        let stage = ImportPoints { params: Params { cell: 0.0, radius: 0.25, min_points: 1 } };
        let ball = |n: usize, radius: f32| -> Vec<Vec3> {
            let on = |i: usize| {
                let (y, turn) = (2.0 * (i as f32 + 0.5) / n as f32 - 1.0, 2.4 * i as f32);
                Vec3::new((1.0 - y * y).sqrt() * turn.cos(), y, (1.0 - y * y).sqrt() * turn.sin()) * radius
            };
            (0..n).map(on).collect()
        };
        // metres, and a wall that the rig saw as well
        let mut positions = ball(400, 0.1);
        positions.push(Vec3::new(0.0, 0.0, -2.0));
        let seen = PointCloud { positions, ..Default::default() };
        let [called_ply, called_pcd] = ["a.ply", "a.pcd"].map(|name| root.path().join(name));
        pcd::write_cloud(&called_ply, &seen).unwrap();
        ply::write_cloud(&called_pcd, &seen).unwrap();
        for path in [&called_ply, &called_pcd] {
            let cloud = stage.read(path).unwrap();
            assert_eq!(cloud.len(), 400);
            let outward = |i: usize| cloud.normals[i].dot(cloud.positions[i].normalize());
            assert!((0..400).all(|i| outward(i) > 0.9), "{}", path.display());
        }
        // what has normals keeps them
        let given = PointCloud { normals: vec![Vec3::X; 400], positions: ball(400, 0.1), ..Default::default() };
        ply::write_cloud(&called_ply, &given).unwrap();
        assert!(stage.read(&called_ply).unwrap().normals.iter().all(|normal| *normal == Vec3::X));
        // millimetres
        ply::write_cloud(&called_ply, &PointCloud { positions: ball(400, 100.0), ..Default::default() }).unwrap();
        let none = stage.read(&called_ply).unwrap();
        assert!(none.is_empty());
        ply::write_cloud(&called_pcd, &none).unwrap();
        assert!(ply::read_cloud(&called_pcd).unwrap().is_empty());
    }
}
