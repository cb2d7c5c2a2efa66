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

use crate::fault::Fault;
use std::fmt::Display;
use std::path::Path;

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

/// What is wrong with a field of a file, or an array.
fn fault(path: &Path, field: impl Display, found: impl Display, expected: impl Display) -> Fault {
    Fault::field(path, field, found, expected, "is the file whole, and of this participant? copy or download it again")
}

#[cfg(test)]
mod tests;
