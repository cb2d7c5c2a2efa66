//! Which layout a participant's folder has, its recordings, and what else is there or missing.
//!
//! Knows names of files and folders, not what they hold.

use crate::fault::Fault;
use crate::nphm_tracking;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// How a participant's data lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layout {
    /// A: videos, as `nersemble-data` downloads them.
    Download,
    /// B: videos with mattes, clouds or FLAME tracking, as `nersemble-benchmark` downloads them.
    Benchmark,
    /// C: a folder of pictures for each frame, as released with the paper of NeRSemble.
    PaperRelease,
    /// D: a folder of pictures for each frame below `timesteps`, as DiffusionAvatars reads it.
    DiffusionAvatars,
}

impl Layout {
    /// Letter and name.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Download => "A, nersemble-data (version 2)",
            Layout::Benchmark => "B, nersemble-benchmark",
            Layout::PaperRelease => "C, the paper's release (version 1)",
            Layout::DiffusionAvatars => "D, DiffusionAvatars",
        }
    }
}

/// A video of one camera, or one picture of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recording {
    /// Participant, as the folder is called, like `017`.
    pub participant: String,
    /// Sequence, like `EXP-1-head`.
    pub sequence: String,
    /// Camera serial.
    pub camera: String,
    /// Number of the frame, if this is a picture; a video's frames count from 0.
    pub timestep: Option<u32>,
    /// The video or picture.
    pub pixels: PathBuf,
    /// Its matte, of the same kind, if there is one.
    pub matte: Option<PathBuf>,
    /// Its depth map ([`super::read_depth`]), if this is a picture and has one.
    pub depth: Option<PathBuf>,
    /// A picture of what is behind the person, if there is one.
    pub background: Option<PathBuf>,
    /// The participant's calibration file.
    pub calibration: PathBuf,
    /// The colour calibration that holds for it, if there is one.
    pub colour: Option<PathBuf>,
}

/// The folder of a frame in DiffusionAvatars' data, below its root; in it lie `images-2x` and `alpha_map`.
pub fn frame_folder(participant: u32, sequence: &str, timestep: u32) -> String {
    format!("{participant:03}/sequences/{sequence}/timesteps/frame_{timestep:05}")
}

/// What may accompany the recordings of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Mattes, of as many recordings.
    Mattes,
    /// Pictures of the background, of as many recordings.
    Backgrounds,
    /// Colour calibration, of as many recordings.
    Colours,
    /// Point clouds, as many files.
    Clouds,
    /// Depth maps, of as many recordings.
    Depths,
    /// FLAME tracking, as many files.
    Flame,
    /// NPHM fits: as many files with expression codes.
    Nphm,
    /// Boxes around the face, as many files.
    Boxes,
}

/// What a sequence has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedSequence {
    /// Its name.
    pub name: String,
    /// Serials of its cameras, sorted.
    pub cameras: Vec<String>,
    /// Videos or pictures; a sequence may have none, and tracking or clouds all the same.
    pub recordings: usize,
    /// Frames, if they are pictures.
    pub frames: Option<usize>,
    /// How many there are of each part; a part that is absent is not in here.
    pub parts: BTreeMap<Part, usize>,
    /// Pictures that are not there, of cameras that have others in the sequence: serial and number of the frame, by
    /// frame.
    pub absent: Vec<(String, u32)>,
    /// What keeps its recordings from being read, if something does: the first thing, and how many more.
    pub problem: Option<String>,
}

/// What a participant has.
#[derive(Debug)]
pub struct Survey {
    /// The participant, as the folder is called.
    pub participant: String,
    /// The participant's folder.
    pub folder: PathBuf,
    /// How it lies on disk.
    pub layout: Layout,
    /// The calibration file that is expected, and that may not be there.
    pub calibration: PathBuf,
    /// Sequences of which there is anything, sorted.
    pub sequences: Vec<SurveyedSequence>,
    /// What lies there as well and no stage reads: name of the file or of the folders of each frame, and how many
    /// files.
    pub unused: Vec<(&'static str, usize)>,
}

/// Whether recordings of a participant, a sequence and a camera are wanted, as their folders and files are called.
pub type Wanted<'a> = &'a dyn Fn([&str; 3]) -> bool;

/// What is to be done about recordings to which something is missing.
const LACKING: &str = "copy or download it again, or leave it out: `participants`, `sequences` and `cameras` of source_nersemble name those that are taken";

/// The recordings below a folder that are wanted, sorted by participant, sequence, camera and frame. The folder holds
/// participants, is the benchmark's with `nvs` and `mono_flame_avatar` in it, or is one participant's own.
///
/// Sequences without pictures of a person (like BACKGROUND) are passed over. What is wrong with others is no matter.
///
/// # Errors
/// If there are none at all, or of those that are wanted a participant has no calibration, or a matte lies there
/// without its video.
pub fn list(root: &Path, wanted: Wanted<'_>) -> Result<Vec<Recording>, Fault> {
    let (mut recordings, mut is_empty) = (Vec::new(), true);
    for folder in participants(root)? {
        let participant = Participant::open(&folder)?;
        let of_this = participant.recordings(wanted, &mut is_empty)?;
        if !of_this.is_empty() && !participant.calibration.is_file() {
            return Err(Fault::whole(
                &participant.calibration,
                "no such file",
                "the calibration of the participant",
                LACKING,
            ));
        }
        recordings.extend(of_this);
    }
    if is_empty {
        let found = folders(root)?.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        return Err(Fault::whole(
            root,
            if found.is_empty() { "no folders".to_owned() } else { format!("folders {found}") },
            "{participant number}/sequences/{SEQUENCE}/images/cam_{serial}.mp4 or a frame_{number} folder of pictures",
            "give the folder that holds the participants, or one participant's; was a download cut short?",
        ));
    }
    recordings.sort_unstable();
    Ok(recordings)
}

/// What each participant below a folder has, whole or not: a sequence that is not whole has a
/// [`SurveyedSequence::problem`].
///
/// # Errors
/// If the folder cannot be read.
pub fn survey(root: &Path) -> Result<Vec<Survey>, Fault> {
    participants(root)?.iter().map(|folder| Participant::open(folder)?.survey()).collect()
}

/// Columns of `metadata_sequences.csv` that are about no sequence of the person.
const NO_SEQUENCES: [&str; 2] = ["BACKGROUND", "wears_glasses"];

/// The sequences that were published of each participant, as `metadata_sequences.csv` of a download says: a line for
/// each, by its number, with `x` or `m` below the names of those there are. Nothing where there is no such file;
/// pictures of the background are no sequence.
pub fn published(root: &Path) -> BTreeMap<u32, Vec<String>> {
    // beside the participants, also where one of them is asked for
    let whole = root.canonicalize().unwrap_or(root.to_owned());
    let text =
        whole.ancestors().take(2).find_map(|folder| fs::read_to_string(folder.join("metadata_sequences.csv")).ok());
    let text = text.unwrap_or_default();
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    // neither names nor marks have commas or quotation marks in them
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
    let mut all = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let Some(participant) = cells.first().and_then(|number| number.parse().ok()) else { continue };
        let there = names
            .iter()
            .zip(&cells)
            .skip(1)
            .filter(|(name, mark)| ["x", "m"].contains(*mark) && !NO_SEQUENCES.contains(name));
        all.insert(participant, there.map(|(name, _)| (*name).to_owned()).collect());
    }
    all
}

/// The participants' folders: those with numeric names and `sequences` in them.
fn participants(root: &Path) -> Result<Vec<PathBuf>, Fault> {
    if root.join("sequences").is_dir() {
        // `.` and `018/` have no name of their own before they are resolved
        return Ok(vec![root.canonicalize().map_err(|e| Fault::unreadable(root, e))?]);
    }
    let below = |root: &Path| -> Result<Vec<PathBuf>, Fault> {
        let numeric = folders(root)?.into_iter().filter(|name| name.chars().all(|c| c.is_ascii_digit()));
        Ok(numeric.map(|name| root.join(name)).filter(|folder| folder.join("sequences").is_dir()).collect())
    };
    let mut found = below(root)?;
    for benchmark in ["mono_flame_avatar", "nvs"] {
        if root.join(benchmark).is_dir() {
            found.extend(below(&root.join(benchmark))?);
        }
    }
    Ok(found)
}

struct Participant {
    name: String,
    folder: PathBuf,
    layout: Layout,
    calibration: PathBuf,
    sequences: Vec<String>,
}

/// What was found of a sequence's recordings, and what is wrong there, each with the camera whose it is.
#[derive(Default)]
struct Found {
    recordings: Vec<Recording>,
    problems: Vec<(String, Fault)>,
}

impl Participant {
    fn open(folder: &Path) -> Result<Participant, Fault> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let sequences = folders(&folder.join("sequences"))?;
        let any = |inside: &str| sequences.iter().any(|name| folder.join("sequences").join(name).join(inside).is_dir());
        let pictures = |name: &String| {
            folders(&folder.join("sequences").join(name))
                .is_ok_and(|names| names.iter().any(|n| frame_number(n).is_some()))
        };
        let [of_videos, of_release, of_avatars] =
            ["calibration/camera_params.json", "camera_params.json", "calibration/calibration_result.json"]
                .map(|name| folder.join(name).is_file());
        // a converted calibration may have been put beside a capture's own
        let layout = if any("timesteps") || of_avatars && !of_videos && !of_release {
            Layout::DiffusionAvatars
        } else if sequences.iter().any(pictures) || of_release {
            Layout::PaperRelease
        } else if any("alpha_maps") || any("pointclouds") || any("tracking") {
            Layout::Benchmark
        } else {
            Layout::Download
        };
        let calibration = folder.join(match layout {
            Layout::DiffusionAvatars if !of_videos => "calibration/calibration_result.json",
            Layout::PaperRelease if !of_videos => "camera_params.json",
            _ => "calibration/camera_params.json",
        });
        Ok(Participant { name, folder: folder.to_owned(), layout, calibration, sequences })
    }

    fn recordings(&self, wanted: Wanted<'_>, is_empty: &mut bool) -> Result<Vec<Recording>, Fault> {
        let mut all = Vec::new();
        for sequence in &self.sequences {
            let Found { recordings, problems } = self.recordings_of(sequence)?;
            let is_wanted = |camera: &str| wanted([&self.name, sequence, camera]);
            if let Some((_, problem)) = problems.into_iter().find(|(camera, _)| is_wanted(camera)) {
                return Err(problem);
            }
            *is_empty &= recordings.is_empty();
            all.extend(recordings.into_iter().filter(|recording| is_wanted(&recording.camera)));
        }
        Ok(all)
    }

    fn recordings_of(&self, sequence: &str) -> Result<Found, Fault> {
        let base = self.folder.join("sequences").join(sequence);
        let mut found = Found::default();
        if matches!(self.layout, Layout::Download | Layout::Benchmark) {
            self.add(&mut found, sequence, None, &base.join("images"), &base.join("alpha_maps"), &["mp4"])?;
            return Ok(found);
        }
        for (timestep, frame) in frames(&base)? {
            let Some(images) = pictures_of(&frame) else { continue };
            let mattes = ["alpha_map-73fps", "alpha_map"].map(|name| frame.join(name));
            let [long, short] = mattes;
            let mattes = if long.is_dir() { long } else { short };
            self.add(&mut found, sequence, Some(timestep), &images, &mattes, &["png", "jpg", "jpeg"])?;
        }
        Ok(found)
    }

    /// The recordings in one folder.
    fn add(
        &self,
        found: &mut Found,
        sequence: &str,
        timestep: Option<u32>,
        images: &Path,
        mattes: &Path,
        endings: &[&str],
    ) -> Result<(), Fault> {
        if !images.is_dir() {
            return Ok(());
        }
        let by_camera = |folder: &Path| -> Result<BTreeMap<String, PathBuf>, Fault> {
            let names = if folder.is_dir() { names(folder)? } else { Vec::new() };
            let camera = |name: &String| {
                let (stem, ending) = name.strip_prefix("cam_")?.rsplit_once('.')?;
                endings.contains(&ending).then(|| (stem.to_owned(), folder.join(name)))
            };
            Ok(names.iter().filter_map(camera).collect())
        };
        let (pictures, mut mattes) = (by_camera(images)?, by_camera(mattes)?);
        let widow = |(camera, matte): (&String, &PathBuf)| {
            let problem = Fault::whole(
                &images.join(format!("cam_{camera}.{}", endings[0])),
                format!("no such file, though its matte {} is there", matte.display()),
                "a recording for every matte",
                LACKING,
            );
            (camera.clone(), problem)
        };
        found.problems.extend(mattes.iter().filter(|(camera, _)| !pictures.contains_key(*camera)).map(widow));
        let has_nothing = |path: &Path| path.metadata().is_ok_and(|file| file.len() == 0);
        // pictures are too many to be looked at, and who reads them will tell
        if timestep.is_none() {
            let empty = pictures.iter().chain(&mattes).filter(|(_, path)| has_nothing(path));
            found.problems.extend(empty.map(|(camera, path)| {
                let (found, expected) = ("an empty file".to_owned(), "a video");
                (camera.clone(), Fault::whole(path, found, expected, LACKING))
            }));
        }
        for (camera, pixels) in pictures {
            let background = self.folder.join(format!("sequences/BACKGROUND/image_{camera}.jpg"));
            let colours = [
                "calibration/color_calibration.json".to_owned(),
                format!("sequences/{sequence}/annotations/color_correction/{camera}.npy"),
                format!("annotations/{sequence}/color_correction/{camera}.npy"),
            ];
            found.recordings.push(Recording {
                participant: self.name.clone(),
                sequence: sequence.to_owned(),
                timestep,
                pixels,
                matte: mattes.remove(&camera),
                depth: timestep.and_then(|_| depth_map(images.parent()?, &camera)),
                background: (background.is_file() && !has_nothing(&background)).then_some(background),
                calibration: self.calibration.clone(),
                colour: colours
                    .iter()
                    .map(|name| self.folder.join(name))
                    .find(|path| path.is_file() && !has_nothing(path)),
                camera,
            });
        }
        Ok(())
    }

    fn survey(self) -> Result<Survey, Fault> {
        let (mut sequences, mut other_codes) = (Vec::new(), 0);
        for name in &self.sequences {
            // what cannot be read of one sequence says nothing of the others
            let found = self.recordings_of(name);
            let Found { recordings, problems } =
                found.unwrap_or_else(|problem| Found { problems: vec![(String::new(), problem)], ..Found::default() });
            let problem = problems.first().map(|(_, first)| match problems.len() - 1 {
                0 => first.to_string(),
                more => format!("{first}; and {more} more of this kind"),
            });
            let mut cameras: Vec<String> = recordings.iter().map(|r| r.camera.clone()).collect();
            let mut frames: Vec<u32> = recordings.iter().filter_map(|r| r.timestep).collect();
            cameras.sort_unstable();
            cameras.dedup();
            frames.sort_unstable();
            frames.dedup();
            let there: BTreeSet<(&str, u32)> =
                recordings.iter().filter_map(|r| Some((r.camera.as_str(), r.timestep?))).collect();
            let all = frames.iter().flat_map(|frame| cameras.iter().map(move |camera| (camera, *frame)));
            let absent = all.filter(|(camera, frame)| !there.contains(&(camera.as_str(), *frame)));
            let absent: Vec<(String, u32)> = absent.map(|(camera, frame)| (camera.clone(), frame)).collect();
            let of_each = |has: &dyn Fn(&Recording) -> bool| recordings.iter().filter(|r| has(r)).count();
            let base = self.folder.join("sequences").join(name);
            let annotations = [base.join("annotations"), self.folder.join("annotations").join(name)];
            let codes = self.name.parse().map_or(0, |participant| {
                nphm_tracking::timesteps(&base, participant).map_or(0, |timesteps| timesteps.len())
            });
            let counts = [
                (Part::Mattes, of_each(&|r| r.matte.is_some())),
                (Part::Backgrounds, of_each(&|r| r.background.is_some())),
                (Part::Colours, of_each(&|r| r.colour.is_some())),
                (Part::Clouds, count(&base.join("pointclouds"), ".pcd") + count(&base.join("pointclouds"), ".ply")),
                (Part::Depths, of_each(&|r| r.depth.is_some())),
                (Part::Flame, usize::from(flame_file(&base).is_some())),
                (Part::Nphm, codes),
                (Part::Boxes, annotations.iter().map(|folder| count(&folder.join("bbox"), ".npy")).sum()),
            ];
            let parts: BTreeMap<Part, usize> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
            // such as BACKGROUND
            if recordings.is_empty() && parts.is_empty() && problem.is_none() {
                continue;
            }
            let all_codes = annotations.iter().flat_map(|folder| tracked(folder));
            other_codes += all_codes.map(|folder| count(&folder, "_ex_code.npz")).sum::<usize>().saturating_sub(codes);
            sequences.push(SurveyedSequence {
                name: name.clone(),
                cameras,
                recordings: recordings.len(),
                frames: (!frames.is_empty()).then_some(frames.len()),
                parts,
                absent,
                problem,
            });
        }
        let mut unused = vec![
            ("flame.ply", usize::from(self.folder.join("flame.ply").is_file())),
            ("expression codes in folders of other NPHM fits", other_codes),
        ];
        for masks in ["facer_segmentation_masks", "bisenet_segmentation_masks"] {
            let mut found = 0;
            for name in &self.sequences {
                let frames = frames(&self.folder.join("sequences").join(name)).unwrap_or_default();
                found += frames.iter().map(|(_, frame)| count(&frame.join(masks), ".png")).sum::<usize>();
            }
            unused.push((masks, found));
        }
        unused.retain(|(_, files)| *files > 0);
        Ok(Survey {
            unused,
            participant: self.name,
            folder: self.folder,
            layout: self.layout,
            calibration: self.calibration,
            sequences,
        })
    }
}

/// The folder of pictures in a frame's folder, if there is one: of half size as in the published training, if there is
/// that.
fn pictures_of(frame: &Path) -> Option<PathBuf> {
    let images = ["images-2x-73fps", "images-2x", "images-73fps", "images"].map(|name| frame.join(name));
    images.into_iter().find(|folder| folder.is_dir())
}

/// Numbers of the frames of a sequence that have a folder of pictures, sorted; none of a sequence of videos.
pub(super) fn pictured(sequence: &Path) -> Result<Vec<u32>, Fault> {
    let frames = frames(sequence)?.into_iter().filter(|(_, frame)| pictures_of(frame).is_some());
    let mut numbers: Vec<u32> = frames.map(|(number, _)| number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The FLAME tracking of a sequence's folder, if there is one.
pub(super) fn flame_file(sequence: &Path) -> Option<PathBuf> {
    let names =
        ["flame2023_tracking_v2.npz", "flame2023_tracking.npz"].map(|name| sequence.join("tracking").join(name));
    let old = sequence.join("annotations/tracking/FLAME2023_v2/tracked_flame_params.npz");
    names.into_iter().chain([old]).find(|path| path.is_file())
}

/// The depth map of a camera in a frame's folder, if there is one.
fn depth_map(frame: &Path, camera: &str) -> Option<PathBuf> {
    let names = ["colmap-73fps", "colmap"].map(|folder| format!("{folder}/depth_maps_compressed/cam_{camera}.png"));
    names.into_iter().map(|name| frame.join(name)).find(|path| path.is_file())
}

/// Folders of NPHM fits below a folder of annotations.
fn tracked(annotations: &Path) -> Vec<PathBuf> {
    let base = annotations.join("tracking");
    let names = folders(&base).unwrap_or_default();
    names.into_iter().filter(|name| name.starts_with("NPHM")).map(|name| base.join(name)).collect()
}

fn count(folder: &Path, ending: &str) -> usize {
    names(folder).map_or(0, |names| names.iter().filter(|name| name.ends_with(ending)).count())
}

/// The folders of a sequence's frames, with their numbers, where pictures lie in such.
fn frames(sequence: &Path) -> Result<Vec<(u32, PathBuf)>, Fault> {
    let timesteps = sequence.join("timesteps");
    let base = if timesteps.is_dir() { timesteps } else { sequence.to_owned() };
    Ok(folders(&base)?.into_iter().filter_map(|name| Some((frame_number(&name)?, base.join(&name)))).collect())
}

fn frame_number(name: &str) -> Option<u32> {
    name.strip_prefix("frame_")?.parse().ok()
}

fn names(path: &Path) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| Fault::unreadable(path, e))? {
        names.extend(entry.map_err(|e| Fault::unreadable(path, e))?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn folders(path: &Path) -> Result<Vec<String>, Fault> {
    Ok(names(path)?.into_iter().filter(|n| path.join(n).is_dir()).collect())
}
