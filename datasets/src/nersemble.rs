//! NeRSemble captures on disk, in the four layouts that are about: where pictures, mattes and calibration lie.
//!
//! ```text
//! A  the download (version 2)      {id:03}/calibration/{camera_params,color_calibration}.json
//!                                  {id:03}/sequences/{SEQ}/images/cam_{serial}.mp4, sequences/BACKGROUND/image_{serial}.jpg
//! B  the benchmark                 as A, intrinsics for each serial, alpha_maps/cam_{serial}.mp4, pointclouds/frame_{t:05}.pcd,
//!                                  tracking/flame2023_tracking*.npz; below nvs/ or mono_flame_avatar/
//! C  the paper's release (v1)      {id:03}/camera_params.json, annotations/{SEQ}/color_correction/{serial}.npy
//!                                  {id:03}/sequences/{SEQ}/frame_{t:05}/{images-2x-73fps,alpha_map-73fps}/cam_{serial}.png
//!                                  and there colmap-73fps/depth_maps_compressed/cam_{serial}.png
//! D  DiffusionAvatars' data        {id:03}/calibration/{config,calibration_result}.json
//!                                  {id:03}/sequences/{SEQ}/timesteps/frame_{t:05}/{images-2x,alpha_map}/cam_{serial}.{jpg,png}
//!                                  {id:03}/sequences/{SEQ}/annotations/{color_correction,bbox,tracking}
//! ```
//! Sources: the published `nersemble-data`, `nersemble-benchmark`, `nersemble` and DiffusionAvatars readers. These
//! files write and read names and numbers; they decode no video and no picture. Serials and participants are text: two
//! serials of the rig do not start like the others.

use std::path::PathBuf;

mod calibration;
mod colour;
mod depth;
mod layout;
mod numpy;
mod tracking;

pub use calibration::{
    Calibration, Calibrations, alpha_path, calibration_path, read_calibration, video_path, write_calibration,
    write_diffusion_avatars_calibration,
};
pub use colour::{read_colour, write_affine, write_boxes, write_colours};
pub use depth::{DepthMap, read_depth, write_depth};
pub use layout::{Layout, Part, Recording, Survey, SurveyedSequence, Wanted, frame_folder, list, published, survey};
pub(crate) use numpy::c_order;
pub use tracking::{FlameFrame, read_flame, write_flame};

/// Size in pixels of a full NeRSemble picture, for which published intrinsics hold.
pub const FULL_SIZE: (u32, u32) = (2200, 3208);

/// What can be wrong with a capture on disk.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file or folder can't be read or written.
    #[error("{path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// A folder has nothing that looks like a recording.
    #[error("{path}: found {found}, expected {expected}")]
    NoRecordings {
        /// The folder.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
    /// Recordings are there, and something that belongs to them is not, or is empty.
    #[error("{path}: found {found}, expected {expected}")]
    Lacking {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
    /// A field of a calibration file is missing or has the wrong shape.
    #[error("{path}, field `{field}`: found {found}, expected {expected}")]
    Field {
        /// The file.
        path: PathBuf,
        /// Dotted path of the field.
        field: String,
        /// What is there.
        found: String,
        /// What should be there.
        expected: &'static str,
        /// What the user can do about it.
        hint: &'static str,
    },
}

impl LayoutError {
    /// A file that cannot be read.
    fn unreadable(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::Unreadable { path: path.to_owned(), reason: reason.to_string() }
    }

    /// A field that is not as it should be.
    fn field(
        path: &std::path::Path,
        field: impl Into<String>,
        found: impl Into<String>,
        expected: &'static str,
    ) -> Self {
        let hint = "is the file whole, and of this participant? copy or download it again";
        Self::Field { path: path.to_owned(), field: field.into(), found: found.into(), expected, hint }
    }

    /// The same error of a field, with something better to do about it.
    fn advised(mut self, advice: &'static str) -> Self {
        if let Self::Field { hint, .. } = &mut self {
            *hint = advice;
        }
        self
    }

    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "does it exist, and may you read it?",
            Self::NoRecordings { .. } => {
                "give the folder that holds the participants, or one participant's; was a download cut short?"
            }
            Self::Lacking { .. } => {
                "copy or download it again, or leave it out: `participants`, `sequences` and `cameras` of source_nersemble name those that are taken"
            }
            Self::Field { hint, .. } => hint,
        }
    }
}

#[cfg(test)]
mod tests;
