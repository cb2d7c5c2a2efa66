//! `import_points`: points that come with a capture, clouds or depth maps of one moment, in place of stereo.
//!
//! reads: scan? (PCD or PLY), or depth? (PNG of 16 bits) with matte?, intrinsics, world_to_cam, width, height
//! writes: cloud (PLY: metres, normals, colours), points
//!
//! A group is what was seen at one moment (`by: [participant, sequence, timestep]`), as `source_nersemble_clouds` lists it: a cloud, or the depth
//! maps of the cameras, whose pixels are places in the world by the calibration: those of all cameras are one cloud, without what a
//! matte calls background. Clouds without normals get them from their neighbours, turned away from the head's inside, or towards the
//! camera that saw them. Knows no colours of pictures, and not whose files they are.

use crate::common::media::{Image, camera_of, ensure_shape};
use anyhow::{Context, Result, anyhow, ensure};
use datasets::nersemble::read_depth;
use geometry::camera::Camera;
use geometry::cloud::PointCloud;
use geometry::{pcd, ply};
use glam::Vec3;
use manifests::Type;
use protocol::{Cx, Grain, OutRow, Row, Rows, Stage, StageDef, Unit};
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Points are thinned to one in cubes of this side, metres; 0 keeps all.
    #[serde(default = "cell")]
    #[schemars(range(min = 0))]
    cell: f32,
    /// What is further from the origin of the world is left out, metres.
    #[serde(default = "radius")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    radius: f32,
}

fn cell() -> f32 {
    0.002
}
fn radius() -> f32 {
    0.25
}

fn def() -> StageDef {
    StageDef::new("import_points", 1, Grain::Group)
        .doc("Takes the points that come with a capture: the cloud of a moment, or its depth maps as one.")
        .may_read([("scan", Type::Blob), ("depth", Type::Blob), ("matte", Type::Blob)])
        .may_read([("intrinsics", Type::Floats(9)), ("world_to_cam", Type::Floats(16))])
        .may_read([("width", Type::I64), ("height", Type::I64)])
        .writes([("cloud", Type::Blob), ("points", Type::I64)])
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
        let cloud = match rows[0].maybe_path("scan")? {
            Some(path) => {
                ensure!(
                    rows.len() == 1,
                    "there are {} rows of one moment, and the first names a cloud, {}\n\
                     hint: a moment has one cloud; `by:` names what tells moments apart, as participant, sequence and timestep do",
                    rows.len(),
                    path.display()
                );
                self.read(&path)?
            }
            None => self.unproject(&rows.iter().map(DepthMap::of).collect::<Result<Vec<_>>>()?)?,
        };
        let to = cx.file(unit, "cloud.ply");
        ply::write_cloud(&to, &cloud)?;
        Ok(vec![OutRow::new().file("cloud", &to).i64("points", cloud.len())])
    }

    /// One cloud of the depth maps of a moment.
    fn unproject(&self, maps: &[DepthMap]) -> Result<PointCloud> {
        let mut cloud = PointCloud::default();
        let mut eyes = Vec::new();
        for map in maps {
            let seen = self.thinned(map.places(self.params.radius)?);
            eyes.extend(std::iter::repeat_n(map.camera.center().as_vec3(), seen.len()));
            cloud.positions.extend(seen.positions);
        }
        ensure!(
            !cloud.is_empty(),
            "{} and the {} depth maps beside it: none of their points is within {} m of the origin, where the head should be\n\
             hint: are the maps of this calibration? `radius` may be larger",
            maps[0].path.display(),
            maps.len() - 1,
            self.params.radius
        );
        cloud.estimate_normals(16);
        cloud.orient_normals(|i| eyes[i]);
        Ok(self.thinned(cloud))
    }

    fn read(&self, path: &Path) -> Result<PointCloud> {
        let cloud = if path.extension().is_some_and(|ext| ext == "ply") {
            ply::read_cloud(path)?
        } else {
            pcd::read_cloud(path).map_err(|error| {
                anyhow!(
                    "{error}\nhint: is it a whole file of the Point Cloud Library (.pcd)? copy or download it again"
                )
            })?
        };
        let near = self.params.radius * self.params.radius;
        let cloud = cloud.retain(|i| cloud.positions[i].length_squared() < near);
        ensure!(
            !cloud.is_empty(),
            "{}: none of its points is within {} m of the origin, where the head should be\n\
             hint: positions are metres in the world of the calibration; `radius` may be larger",
            path.display(),
            self.params.radius
        );
        let mut cloud = self.thinned(cloud);
        if cloud.normals.is_empty() {
            cloud.estimate_normals(16);
            // from outside: of points on a head, the way from its middle
            let middle = cloud.positions.iter().sum::<Vec3>() / cloud.len() as f32;
            let positions = cloud.positions.clone();
            cloud.orient_normals(|i| positions[i] * 2.0 - middle);
        }
        Ok(cloud)
    }

    fn thinned(&self, cloud: PointCloud) -> PointCloud {
        if self.params.cell > 0.0 { cloud.voxel_subsample(self.params.cell) } else { cloud }
    }
}

/// A depth map and how it was taken.
struct DepthMap {
    path: PathBuf,
    matte: Option<PathBuf>,
    /// Of the calibrated pictures, which may be of another size.
    camera: Camera,
}

impl DepthMap {
    fn of(row: &Row<'_>) -> Result<DepthMap> {
        let path = row.maybe_path("depth")?.context("a row has neither `scan` nor `depth`")?;
        Ok(DepthMap { path, matte: row.maybe_path("matte")?, camera: camera_of(row, None)? })
    }

    /// Where in the world its pixels are, as far as they are near the origin.
    fn places(&self, radius: f32) -> Result<PointCloud> {
        let mut map = read_depth(&self.path).map_err(|error| anyhow!("{error}\nhint: {}", error.hint()))?;
        let (size, calibrated) = ((map.width, map.height), (self.camera.width, self.camera.height));
        let wide = |(width, height): (u32, u32)| (width as usize, height as usize);
        ensure_shape(self.path.display(), wide(size), wide(calibrated), "the calibrated pictures")?;
        if let Some(matte) = &self.matte {
            let matte = Image::read(matte, 1)?.resized(size.0 as usize, size.1 as usize)?;
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
            matte: Some(matte.clone()),
            camera: Camera::from_row_major(&k, &w2c, width, height),
        };
        let stage = ImportPoints { params: Params { cell: 0.0, radius: 0.25 } };
        let cloud = stage.unproject(&[map(8, 12)]).unwrap();
        assert_eq!(cloud.len(), 24 - 3, "neither the matte's background, nor the unknown, nor the wall");
        // pixel (3, 1), centre (3.5, 1.5), of a camera of focal length 100 and centre (2, 3): (1.5, -1.5) / 100 * 0.9 in its
        // axes, of which y and z point the other way in the world
        let expected = Vec3::new(0.0135, 0.0135, 0.1);
        let nearest = cloud.positions.iter().map(|p| (*p - expected).length()).fold(f32::MAX, f32::min);
        assert!(nearest < 2e-5, "{:?}", cloud.positions);
        assert!(cloud.normals.iter().all(|n| n.z > 0.999), "towards the camera");

        let error = stage.unproject(&[map(12, 8)]).unwrap_err().to_string();
        let shape = "depth.png: found 4 x 6 px, expected the shape of the calibrated pictures, 12 x 8 px";
        assert!(error.contains(shape) && error.contains("hint:"), "{error}");
        let cloud = root.path().join("frame_00000.pcd");
        std::fs::write(&cloud, "VERSION 0.7\nFIELDS x y z\n").unwrap();
        let error = stage.read(&cloud).unwrap_err().to_string();
        assert!(error.contains("frame_00000.pcd") && error.contains("hint: is it a whole file"), "{error}");
        std::fs::write(&path, b"\x89PNG").unwrap();
        let error = stage.unproject(&[map(8, 12)]).unwrap_err().to_string();
        assert!(error.contains("depth.png") && error.contains("hint:"), "{error}");
    }
}
