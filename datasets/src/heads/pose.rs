//! A person made ready ([`Head`]) and that person at one moment ([`PosedHead`]): shape, motion, materials, light.
//!
//! Everything is in world metres. Knows no cameras and no pixels.

use std::ops::Range;

use glam::{Mat3, Mat4, Quat, Vec3};

use super::expression::Expression;
use super::hair::{Groom, PosedStrands};
use super::identity::Identity;
use super::lids::Lids;
use super::light::{self, Environment, Lighting};
use super::noise::smoothstep;
use super::teeth::Teeth;
use super::wheel::HeadError;
use super::{HeadAssets, Part, regions, skin, topology};

/// Vertices of the wheel's base mesh on the midline: top of the head, chin, between the brows, back of the head.
const MIDLINE: [u32; 4] = [881, 732, 220, 5389];
/// Pivots in the base mesh, asset units.
const NECK_JOINT: Vec3 = Vec3::new(0.0, 5.89, 0.068);
const HEAD_JOINT: Vec3 = Vec3::new(0.0, 6.85, 0.161);
/// Asset units to metres.
pub const METRES: f32 = 0.1;

/// How a triangle of the rendered mesh is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Material {
    /// Skin, and the shirt below the collar.
    Skin,
    /// An eyeball: 0 the subject's left, 1 the right.
    Eye(u8),
    /// Gums.
    Gum,
    /// Tongue.
    Tongue,
    /// Teeth.
    Tooth,
}

/// One eyeball.
#[derive(Clone, Copy, Debug)]
pub struct Eyeball {
    /// Centre in the neutral pose, world metres.
    pub centre: Vec3,
    /// Radius, metres.
    pub radius: f32,
}

/// A person, ready to be posed: everything that does not depend on the expression.
pub struct Head<'a> {
    /// The shared assets.
    pub assets: &'a HeadAssets,
    /// Who it is.
    pub identity: Identity,
    /// Neutral cage, asset units.
    pub cage: Vec<Vec3>,
    /// The point of the neutral cage that lies at the world origin, asset units.
    pub centre: Vec3,
    /// Neutral fine vertices in world metres: the canonical coordinates.
    pub neutral: Vec<Vec3>,
    /// Left and right eyeball.
    pub eyes: [Eyeball; 2],
    /// Reflectance of the fine vertices, linear RGB.
    pub albedo: Vec<Vec3>,
    /// Gloss of the fine vertices, 1 for dry skin.
    pub gloss: Vec<f32>,
    /// Hair, brows, beard and lashes.
    pub groom: Groom,
    /// Per fine vertex: how far it follows the neck and, beyond that, the head.
    weights: Vec<[f32; 2]>,
    lids: Lids,
    teeth: Teeth,
    /// Fine vertices along the open lower rim of the body, as edges.
    rim: Vec<[u32; 2]>,
    faces: RenderFaces,
    neighbours: (Vec<u32>, Vec<u32>),
    environment: Environment,
}

/// The triangles that are drawn, and what they are made of.
pub struct RenderFaces {
    /// Triangles over fine vertices, then tooth vertices, then the lowered rim.
    pub triangles: Vec<[u32; 3]>,
    /// Material of consecutive ranges of `triangles`.
    pub materials: Vec<(Range<usize>, Material)>,
    /// A coarser mesh over the same vertices that casts the shadows.
    pub casters: Vec<[u32; 3]>,
}

impl RenderFaces {
    /// The material of a triangle.
    pub fn material(&self, triangle: usize) -> Material {
        let at = self.materials.partition_point(|(r, _)| r.end <= triangle);
        self.materials[at].1
    }
}

/// Where everything that is drawn of a person is at one moment, without light: motion is measured between two of these.
pub struct Placed {
    /// Drawn vertices, in the order of [`PosedHead::drawn`], world metres.
    pub drawn: Vec<Vec3>,
    /// Points of the strands, in the order of [`PosedHead::strands`], world metres.
    pub strands: Vec<Vec3>,
}

/// A person at one moment, lit, ready to be filmed from anywhere.
pub struct PosedHead<'a> {
    /// The person.
    pub head: &'a Head<'a>,
    /// What it does.
    pub expression: Expression,
    /// Fine vertices, world metres, in the numbering of [`HeadAssets::template`]: body with its shirt, eyes, teeth
    /// bands, tongue, lashes.
    pub vertices: Vec<Vec3>,
    /// Rigid motion of the head from the neutral pose, world to world.
    pub head_pose: Mat4,
    /// Directions of gaze of the left and right eye, unit, world.
    pub gaze: [Vec3; 2],
    /// Eye centres, world metres.
    pub eye_centres: [Vec3; 2],
    /// Vertices that are drawn, world metres, in the numbering of the faces of the head.
    pub drawn: Vec<Vec3>,
    /// Their normals.
    pub normals: Vec<Vec3>,
    /// Their light.
    pub lighting: Lighting,
    /// Hair, brows, beard, lashes as drawn.
    pub strands: PosedStrands,
}

impl<'a> Head<'a> {
    /// Prepares a person: shape, colours, teeth, hair. About a third of a second; pose it often.
    pub fn new(assets: &'a HeadAssets, identity: &Identity) -> Result<Self, HeadError> {
        let cage = identity.cage(assets);
        let vertex = |base: u32| {
            assets.cage_vertex(base).map(|v| cage[v as usize]).ok_or_else(|| HeadError::Broken {
                entry: "base.obj".to_owned(),
                line: 0,
                found: format!("no vertex {base} on the head"),
                expected: "the base mesh hm08",
            })
        };
        let [top, chin, brow, back] =
            [vertex(MIDLINE[0])?, vertex(MIDLINE[1])?, vertex(MIDLINE[2])?, vertex(MIDLINE[3])?];
        let centre = Vec3::new(0.0, 0.5 * (top.y + chin.y), 0.5 * (brow.z + back.z));
        let to_world = |p: Vec3| (p - centre) * METRES;
        let mut neutral: Vec<Vec3> = assets.subdivision.apply(&cage).into_iter().map(to_world).collect();
        dress(&assets.template, &mut neutral);
        let eyes = [Part::EyeLeft, Part::EyeRight].map(|part| eyeball(assets, &neutral, part));
        let lids = Lids::new(assets, &neutral, &eyes);
        lids.lift(&eyes, &[Mat3::IDENTITY; 2], &mut neutral);
        let (scalp, beard) = skin::cover(assets, identity);
        let (albedo, gloss) = skin::vertices(assets, identity, &scalp, &beard);
        let teeth = Teeth::new(assets)?;
        let rim = lower_rim(assets);
        let faces = render_faces(assets, &teeth, &rim);
        let neighbours = topology::neighbours(neutral.len(), &assets.subdivision.quads);
        let groom = Groom::grow(assets, identity, &neutral, &scalp, &beard);
        Ok(Self {
            assets,
            identity: identity.clone(),
            weights: assets.template.iter().map(|t| follow(*t)).collect(),
            cage,
            centre,
            neutral,
            eyes,
            albedo,
            gloss,
            groom,
            lids,
            teeth,
            rim,
            faces,
            neighbours,
            environment: Environment::studio(48),
        })
    }

    /// What is drawn.
    pub fn faces(&self) -> &RenderFaces {
        &self.faces
    }

    /// The light the head stands in.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Rigid motions of neck and head for an expression, world to world.
    fn motions(&self, expression: &Expression) -> (Mat4, Mat4) {
        let about = |joint: Vec3, turn: Vec3| {
            let pivot = (joint - self.template_centre()) * METRES;
            Mat4::from_translation(pivot)
                * Mat4::from_quat(Quat::from_scaled_axis(turn))
                * Mat4::from_translation(-pivot)
        };
        let neck = about(NECK_JOINT, expression.neck);
        (neck, neck * about(HEAD_JOINT, expression.head))
    }

    fn template_centre(&self) -> Vec3 {
        Vec3::new(0.0, 7.33, 0.565)
    }

    /// The fine vertices and the drawn tooth vertices for an expression, world metres, without light.
    fn shape(&self, expression: &Expression) -> (Vec<Vec3>, Vec<Vec3>, Mat4, [Mat3; 2]) {
        let mut cage = self.cage.clone();
        self.lids.apply(self.assets, &expression.arkit, &mut cage);
        let (neck, head) = self.motions(expression);
        let to_world = |p: Vec3| (p - self.centre) * METRES;
        let teeth = self.teeth.positions(&cage).into_iter().map(|p| head.transform_point3(to_world(p))).collect();
        self.teeth.recede_ribbons(&mut cage);
        let mut vertices: Vec<Vec3> = self.assets.subdivision.apply(&cage).into_iter().map(to_world).collect();
        let turns = expression.gaze().map(|(yaw, pitch)| Mat3::from_rotation_y(yaw) * Mat3::from_rotation_x(-pitch));
        self.lids.lift(&self.eyes, &turns, &mut vertices);
        for (e, part) in [Part::EyeLeft, Part::EyeRight].into_iter().enumerate() {
            let eye = self.eyes[e];
            for v in vertices_of(self.assets, part) {
                vertices[v] = eye.centre + turns[e] * (self.neutral[v] - eye.centre);
            }
        }
        dress(&self.assets.template, &mut vertices);
        for (p, [to_neck, to_head]) in vertices.iter_mut().zip(&self.weights) {
            let on_neck = neck.transform_point3(*p);
            let on_head = head.transform_point3(*p);
            *p = p.lerp(on_neck, *to_neck).lerp(on_head, *to_head);
        }
        (vertices, teeth, head, turns)
    }

    /// Fine vertices for an expression, world metres: geometry alone, cheap (a few milliseconds).
    pub fn geometry(&self, expression: &Expression) -> (Vec<Vec3>, Mat4) {
        let (vertices, _, head, _) = self.shape(expression);
        (vertices, head)
    }

    /// All vertices that are drawn: those of the surface, of the teeth, and of the rim's copy.
    fn drawn(&self, vertices: &[Vec3], teeth: Vec<Vec3>) -> Vec<Vec3> {
        let mut drawn = vertices.to_vec();
        drawn.extend(teeth);
        for edge in &self.rim {
            drawn.extend(edge.map(|v| lowered(drawn[v as usize])));
        }
        drawn
    }

    /// Where everything is that is drawn, for an expression: a small part of the cost of [`Head::pose`].
    pub fn place(&self, expression: &Expression) -> Placed {
        let (vertices, teeth, head_pose, _) = self.shape(expression);
        let drawn = self.drawn(&vertices, teeth);
        let strands = self.groom.points(&drawn, head_pose);
        Placed { drawn, strands }
    }

    /// Gives the person an expression and lights it. A fraction of a second; film the result from many cameras.
    pub fn pose(&'a self, expression: &Expression) -> PosedHead<'a> {
        let (vertices, teeth, head_pose, turns) = self.shape(expression);
        let drawn = self.drawn(&vertices, teeth);
        let mesh = geometry::Mesh { positions: drawn, faces: self.faces.triangles.clone() };
        let mut normals = mesh.vertex_normals();
        let drawn = mesh.positions;
        for (e, part) in [Part::EyeLeft, Part::EyeRight].into_iter().enumerate() {
            let centre = head_pose.transform_point3(self.eyes[e].centre);
            for v in vertices_of(self.assets, part) {
                normals[v] = (drawn[v] - centre).normalize_or_zero();
            }
        }
        let mut strands = self.groom.pose(self, &drawn, head_pose);
        let maps = light::shadow_maps(&self.environment, &drawn, &self.faces.casters);
        let mut lighting = light::light_mesh(&self.environment, &maps, &drawn, &normals, |v, d| {
            strands.shade.at(drawn[v] + normals[v] * 0.002, d)
        });
        strands.light(&self.environment, &maps, &lighting);
        let skin: Vec<bool> = (0..drawn.len()).map(|v| v < self.neutral.len() && self.scatters(v)).collect();
        light::scatter(
            &mut lighting.irradiance[..self.neutral.len()],
            &self.neighbours,
            &skin[..self.neutral.len()],
            [5, 2, 1],
        );
        let rotation = Mat3::from_mat4(head_pose);
        PosedHead {
            head: self,
            expression: expression.clone(),
            gaze: turns.map(|t| rotation * t * Vec3::Z),
            eye_centres: self.eyes.map(|e| head_pose.transform_point3(e.centre)),
            vertices,
            head_pose,
            drawn,
            normals,
            lighting,
            strands,
        }
    }

    /// Whether light spreads under the surface at a fine vertex.
    fn scatters(&self, v: usize) -> bool {
        regions::below_collar(self.assets.template[v]) < 0.0
    }
}

/// Lifts the shirt off the skin.
fn dress(template: &[Vec3], vertices: &mut [Vec3]) {
    for (p, t) in vertices.iter_mut().zip(template) {
        let below = regions::below_collar(*t);
        if below > -0.02 && t.y < 6.3 {
            let outwards = Vec3::new(t.x * 0.6, 0.25, t.z - 0.15).normalize_or_zero();
            *p += outwards * (0.0035 * smoothstep(-0.02, 0.05, below) + 0.004 * smoothstep(0.0, 0.6, below));
        }
    }
}

/// The vertices of one part.
pub fn vertices_of(assets: &HeadAssets, part: Part) -> Vec<usize> {
    let mut all: Vec<usize> =
        assets.triangles[assets.triangles_of(part)].iter().flatten().map(|v| *v as usize).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// How far a template point follows the neck and the head.
fn follow(t: Vec3) -> [f32; 2] {
    let s = t.y + 0.25 * (t.z - 0.1);
    [smoothstep(5.45, 6.05, s), smoothstep(5.85, 6.42, s)]
}

/// The sphere of an eyeball, from its extent across (the cornea bulges at the front).
fn eyeball(assets: &HeadAssets, neutral: &[Vec3], part: Part) -> Eyeball {
    let all = vertices_of(assets, part);
    let (low, high) =
        all.iter().fold((Vec3::INFINITY, Vec3::NEG_INFINITY), |(l, h), v| (l.min(neutral[*v]), h.max(neutral[*v])));
    let radius = 0.25 * (high.x - low.x + high.y - low.y);
    Eyeball { centre: Vec3::new(0.5 * (low.x + high.x), 0.5 * (low.y + high.y), low.z + radius), radius }
}

/// Edges of the body's open rim at the chest.
fn lower_rim(assets: &HeadAssets) -> Vec<[u32; 2]> {
    let body = &assets.triangles[assets.triangles_of(Part::Body)];
    let mesh = geometry::Mesh { positions: Vec::new(), faces: body.to_vec() };
    let open = mesh.edges().into_iter().filter(|(_, n)| *n == 1).map(|(e, _)| e);
    open.filter(|e| e.iter().all(|v| assets.template[*v as usize].y < 5.9)).collect()
}

/// Where the rim's copy hangs below the picture.
fn lowered(p: Vec3) -> Vec3 {
    Vec3::new(p.x * 1.08, p.y - 0.16, p.z * 1.05)
}

fn render_faces(assets: &HeadAssets, teeth: &Teeth, rim: &[[u32; 2]]) -> RenderFaces {
    let mut faces = RenderFaces { triangles: Vec::new(), materials: Vec::new(), casters: Vec::new() };
    let mut push = |triangles: Vec<[u32; 3]>, material: Material| {
        let start = faces.triangles.len();
        faces.triangles.extend(triangles);
        faces.materials.push((start..faces.triangles.len(), material));
    };
    let part = |p: Part| assets.triangles[assets.triangles_of(p)].to_vec();
    push(part(Part::Body), Material::Skin);
    push(part(Part::EyeLeft), Material::Eye(0));
    push(part(Part::EyeRight), Material::Eye(1));
    push(part(Part::TeethUpper), Material::Gum);
    push(part(Part::TeethLower), Material::Gum);
    push(part(Part::Tongue), Material::Tongue);
    let first = assets.template.len() as u32;
    let crowns: Vec<[u32; 3]> = teeth.triangles.iter().map(|t| t.map(|v| v + first)).collect();
    push(crowns.clone(), Material::Tooth);
    let below = first + teeth.len() as u32;
    let skirt = rim.iter().enumerate().flat_map(|(i, [a, b])| {
        let (c, d) = (below + 2 * i as u32, below + 2 * i as u32 + 1);
        [[*a, *b, d], [*a, d, c]]
    });
    push(skirt.collect(), Material::Skin);
    // The first fine vertices are those of the cage: its quads are a mesh over them.
    let solid = assets.quads.iter().zip(&assets.parts).filter(|(_, p)| **p != Part::Lashes).map(|(q, _)| *q);
    faces.casters = topology::triangles(&solid.collect::<Vec<_>>());
    faces.casters.extend(crowns);
    faces
}

impl PosedHead<'_> {
    /// Template coordinates of a drawn vertex; tooth vertices have none and give zero.
    pub fn template(&self, v: usize) -> Vec3 {
        let head = self.head;
        let fine = head.assets.template.len();
        match v.checked_sub(fine) {
            None => head.assets.template[v],
            Some(tooth) if tooth < head.teeth.len() => Vec3::ZERO,
            Some(below) => {
                let end = below - head.teeth.len();
                let mut t = head.assets.template[head.rim[end / 2][end % 2] as usize];
                t.y -= 1.6;
                t
            }
        }
    }

    /// The teeth, for painting.
    pub fn teeth(&self) -> &Teeth {
        &self.head.teeth
    }
}
