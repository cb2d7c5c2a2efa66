//! The two JSON files beside rendered G-buffers: how they were made (`config.json`) and what there is (`stats.json`).
//!
//! Written as the reference code writes them: its fields in its order, indented by four blanks. Fields that it has a
//! default for may be missing; fields that it does not have are passed over. Knows no pictures.

use super::Frame;
use crate::capture::SERIALS;
use crate::fault::Fault;
use crate::files;
use serde_json::{Map, Value, json};
use std::path::Path;

/// How rendered data was made (`RenderingDataConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the version.
    pub name: Option<String>,
    /// The calibrated image size divided by this is the rendered one.
    pub downscale_factor: u32,
    /// Participants and sequences.
    pub sequences: Vec<(u32, String)>,
    /// Timesteps of each sequence that were rendered; -1 is all.
    pub n_timesteps: i64,
    /// Whether derivatives of texture coordinates were written.
    pub use_mipmapping: bool,
    /// Whether triangle ids were written.
    pub use_antialiasing: bool,
    /// Whether ambient coordinates were written.
    pub use_ambient_dimensions: bool,
    /// Whether the mesh is that of the neural head model, so that `uv` is canonical xyz.
    pub use_nphm: bool,
    /// Where meshes came from.
    pub mesh_provider_config: MeshProvider,
    /// Serials of the cameras that were rendered.
    pub serials: Vec<String>,
}

/// Where meshes came from (`MeshProviderConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct MeshProvider {
    /// Which FLAME tracking, like `FLAME_2023_V2`.
    pub flame_tracking: String,
    /// FLAME only: whether the mouth is closed by triangles.
    pub close_mouth: bool,
    /// FLAME only: whether texture coordinates have faces of their own.
    pub use_uv_faces: bool,
    /// FLAME only: half the width of the temporal filter, 0 for none.
    pub temporal_smoothing: i64,
    /// FLAME only: a Gaussian instead of a box.
    pub use_gaussian: bool,
    /// FLAME only: what is smoothed.
    pub param_groups: Vec<String>,
    /// Whether each triangle was split into four.
    pub use_subdivision: bool,
    /// Which NPHM tracking, like `NPHM_TEMPORAL_NECK_LMS`; see [`crate::nphm_tracking::folder`].
    pub nphm_tracking: String,
    /// Without effect in the reference code.
    pub include_ambient_dimensions: bool,
    /// Whether the neck was cut off by a plane.
    pub cut_throat: bool,
    /// Where, in canonical units below three vertices of FLAME.
    pub cut_throat_margin: f64,
}

impl Default for MeshProvider {
    /// The defaults of the reference's class.
    fn default() -> Self {
        MeshProvider {
            flame_tracking: "FLAME".into(),
            close_mouth: false,
            use_uv_faces: false,
            temporal_smoothing: 0,
            use_gaussian: false,
            param_groups: vec!["rotation".into(), "jaw_pose".into()],
            use_subdivision: false,
            nphm_tracking: "NPHM".into(),
            include_ambient_dimensions: false,
            cut_throat: false,
            cut_throat_margin: 0.0,
        }
    }
}

impl Config {
    /// The text of `config.json`.
    pub fn text(&self) -> String {
        let mesh = &self.mesh_provider_config;
        pretty(&json!({
            "name": self.name,
            "downscale_factor": self.downscale_factor,
            "sequences": self.sequences,
            "n_timesteps": self.n_timesteps,
            "use_mipmapping": self.use_mipmapping,
            "use_antialiasing": self.use_antialiasing,
            "use_ambient_dimensions": self.use_ambient_dimensions,
            "use_nphm": self.use_nphm,
            "mesh_provider_config": {
                "flame_tracking": mesh.flame_tracking,
                "close_mouth": mesh.close_mouth,
                "use_uv_faces": mesh.use_uv_faces,
                "temporal_smoothing_config": {
                    "temporal_smoothing": mesh.temporal_smoothing,
                    "use_gaussian": mesh.use_gaussian,
                    "param_groups": mesh.param_groups,
                },
                "use_subdivision": mesh.use_subdivision,
                "nphm_tracking": mesh.nphm_tracking,
                "include_ambient_dimensions": mesh.include_ambient_dimensions,
                "cut_throat": mesh.cut_throat,
                "cut_throat_margin": mesh.cut_throat_margin,
            },
            "serials": self.serials,
        }))
    }

    /// Writes `config.json`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Fault> {
        files::put(path, self.text().as_bytes())
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// If it is missing, no JSON, or a field is missing or of another type.
    pub fn read(path: &Path) -> Result<Config, Fault> {
        let value = files::json(path)?;
        let top = Object::of(path, "", &value)?;
        let empty = Value::Object(Map::new());
        let mesh = Object::of(path, "mesh_provider_config.", top.get("mesh_provider_config").unwrap_or(&empty))?;
        let place = "mesh_provider_config.temporal_smoothing_config.";
        let smoothing = Object::of(path, place, mesh.get("temporal_smoothing_config").unwrap_or(&empty))?;
        let default = MeshProvider::default();
        let sequence = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([person, name]) => Some((u32::try_from(person.as_u64()?).ok()?, name.as_str()?.to_owned())),
            _ => None,
        };
        Ok(Config {
            name: top.field("name", Some(None), "text or null", |v| match v {
                Value::Null => Some(None),
                other => Some(Some(other.as_str()?.to_owned())),
            })?,
            downscale_factor: top.field("downscale_factor", None, "an integer from 1", |v| {
                u32::try_from(v.as_u64()?).ok().filter(|n| *n > 0)
            })?,
            sequences: top.list("sequences", None, "pairs of participant and sequence", sequence)?,
            n_timesteps: top.int("n_timesteps", -1)?,
            use_mipmapping: top.flag("use_mipmapping", false)?,
            use_antialiasing: top.flag("use_antialiasing", false)?,
            use_ambient_dimensions: top.flag("use_ambient_dimensions", false)?,
            use_nphm: top.flag("use_nphm", false)?,
            serials: top.list("serials", Some(SERIALS.map(str::to_owned).to_vec()), "texts", text)?,
            mesh_provider_config: MeshProvider {
                flame_tracking: mesh.field("flame_tracking", Some(default.flame_tracking), "text", text)?,
                close_mouth: mesh.flag("close_mouth", false)?,
                use_uv_faces: mesh.flag("use_uv_faces", false)?,
                temporal_smoothing: smoothing.int("temporal_smoothing", 0)?,
                use_gaussian: smoothing.flag("use_gaussian", false)?,
                param_groups: smoothing.list("param_groups", Some(default.param_groups), "texts", text)?,
                use_subdivision: mesh.flag("use_subdivision", false)?,
                nphm_tracking: mesh.field("nphm_tracking", Some(default.nphm_tracking), "text", text)?,
                include_ambient_dimensions: mesh.flag("include_ambient_dimensions", false)?,
                cut_throat: mesh.flag("cut_throat", false)?,
                cut_throat_margin: mesh.field("cut_throat_margin", Some(0.0), "a number", Value::as_f64)?,
            },
        })
    }
}

/// The timesteps of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceSteps {
    /// Participant.
    pub participant: u32,
    /// Sequence.
    pub sequence: String,
    /// Numbers of its frames.
    pub timesteps: Vec<u32>,
}

/// What there is (`RenderingDataStatistics`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Timesteps, over all sequences.
    pub total_n_timesteps: usize,
    /// Timesteps times cameras.
    pub total_n_frames: usize,
    /// Timesteps of each sequence: `available_timesteps` and `available_sequences` of the file.
    pub sequences: Vec<SequenceSteps>,
}

impl Stats {
    /// The statistics of these sequences, each seen by so many cameras.
    pub fn of(sequences: Vec<SequenceSteps>, cameras: usize) -> Stats {
        let total_n_timesteps = sequences.iter().map(|s| s.timesteps.len()).sum();
        Stats { total_n_timesteps, total_n_frames: total_n_timesteps * cameras, sequences }
    }

    /// All frames, for these cameras.
    pub fn frames<'a>(&'a self, serials: &'a [String]) -> impl Iterator<Item = Frame> + 'a {
        self.sequences.iter().flat_map(move |s| {
            serials.iter().flat_map(move |camera| {
                s.timesteps.iter().map(move |&timestep| Frame {
                    participant: s.participant,
                    sequence: s.sequence.clone(),
                    camera: camera.clone(),
                    timestep,
                })
            })
        })
    }

    /// The text of `stats.json`.
    pub fn text(&self) -> String {
        let mut people = Map::new();
        for s in &self.sequences {
            let person = people.entry(s.participant.to_string()).or_insert_with(|| Value::Object(Map::new()));
            if let Some(sequences) = person.as_object_mut() {
                sequences.insert(s.sequence.clone(), json!(s.timesteps));
            }
        }
        pretty(&json!({
            "total_n_timesteps": self.total_n_timesteps,
            "total_n_frames": self.total_n_frames,
            "available_timesteps": self.sequences.iter().map(|s| &s.timesteps).collect::<Vec<_>>(),
            "available_sequences": people,
        }))
    }

    /// Writes `stats.json`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Fault> {
        files::put(path, self.text().as_bytes())
    }

    /// Reads `stats.json`.
    ///
    /// # Errors
    /// If it is missing, no JSON, a field is missing or of another type, or its two lists of timesteps disagree.
    pub fn read(path: &Path) -> Result<Stats, Fault> {
        let value = files::json(path)?;
        let top = Object::of(path, "", &value)?;
        let steps = |value: &Value| -> Option<Vec<u32>> {
            value.as_array()?.iter().map(|t| u32::try_from(t.as_u64()?).ok()).collect()
        };
        let nothing = Value::Null;
        let people = Object::of(path, "available_sequences.", top.get("available_sequences").unwrap_or(&nothing))?;
        let mut sequences = Vec::new();
        for (person, list) in people.object {
            let field = format!("available_sequences.{person}");
            let digits = person.bytes().all(|byte| byte.is_ascii_digit());
            let participant = person.parse().ok().filter(|_| digits).ok_or_else(|| {
                wrong(path, &field, format!("the name `{person}`"), "a participant's number as the name")
            })?;
            let list = Object::of(path, &format!("{field}."), list)?;
            for (sequence, value) in list.object {
                let expected = "a list of timesteps (integers from 0)";
                let timesteps =
                    steps(value).ok_or_else(|| wrong(path, &format!("{field}.{sequence}"), kind(value), expected))?;
                sequences.push(SequenceSteps { participant, sequence: sequence.clone(), timesteps });
            }
        }
        let listed = top.list("available_timesteps", None, "lists of timesteps (integers from 0)", steps)?;
        // The reference keeps the order of its command line there, and groups by participant here.
        let sorted = |mut lists: Vec<Vec<u32>>| {
            lists.sort_unstable();
            lists
        };
        if sorted(listed.clone()) != sorted(sequences.iter().map(|s| s.timesteps.clone()).collect()) {
            let found = format!("{} lists with {} timesteps", listed.len(), listed.iter().map(Vec::len).sum::<usize>());
            return Err(wrong(path, "available_timesteps", found, "the lists of `available_sequences`"));
        }
        let count = |name: &str| top.field(name, None, "an integer from 0", |v| usize::try_from(v.as_u64()?).ok());
        Ok(Stats {
            total_n_timesteps: count("total_n_timesteps")?,
            total_n_frames: count("total_n_frames")?,
            sequences,
        })
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// As Python's `json.dump(..., indent=4)` writes it.
fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut writer).expect("JSON goes into memory");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

fn wrong(path: &Path, field: &str, found: String, expected: &str) -> Fault {
    Fault::field(
        path,
        field,
        found,
        expected,
        "the file is to look as the reference's `create_renderings_dataset` writes it; copy it again",
    )
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) => format!("the text `{s}`"),
        Value::Array(a) => format!("a list of {}", a.len()),
        Value::Object(o) => format!("an object of {}", o.len()),
    }
}

/// A JSON object with the place where it stands.
struct Object<'a> {
    path: &'a Path,
    place: String,
    object: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    fn of(path: &'a Path, place: &str, value: &'a Value) -> Result<Object<'a>, Fault> {
        let name = if place.is_empty() { "(file)" } else { place.trim_end_matches('.') };
        let object = value.as_object().ok_or_else(|| {
            let found = if value.is_null() { "nothing".into() } else { kind(value) };
            wrong(path, name, found, "a JSON object")
        })?;
        Ok(Object { path, place: place.into(), object })
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name)
    }

    fn field<T>(
        &self,
        name: &str,
        default: Option<T>,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, Fault> {
        let bad = |found| wrong(self.path, &format!("{}{name}", self.place), found, expected);
        match self.get(name) {
            Some(value) => parse(value).ok_or_else(|| bad(kind(value))),
            None => default.ok_or_else(|| bad("nothing".into())),
        }
    }

    fn list<T: Clone>(
        &self,
        name: &str,
        default: Option<Vec<T>>,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, Fault> {
        let expected = format!("a list of {expected}");
        self.field(name, default, &expected, |value| value.as_array()?.iter().map(&parse).collect())
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, Fault> {
        self.field(name, Some(default), "true or false", Value::as_bool)
    }

    fn int(&self, name: &str, default: i64) -> Result<i64, Fault> {
        self.field(name, Some(default), "an integer", Value::as_i64)
    }
}
