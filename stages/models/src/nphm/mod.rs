//! The parametric head: a neural field of identity and expression in the manner of NPHM (Giebenhain et al., CVPR 2023)
//! and MonoNPHM (CVPR 2024), which is what DiffusionAvatars tracks its proxy geometry with. Networks, joint training,
//! tracking of point clouds. Knows no meshes, files or world frames beyond a rigid pose.
//!
//! One model unit is 25 cm; +y up, +z out of the face, origin near the centre of the head. Signed distances are
//! positive outside.

mod blend;
pub mod codes;
pub mod config;
pub mod deform;
pub mod field;
pub mod fit;
pub mod identity;
mod mlp;
pub mod pose;
pub mod published;
pub mod roots;
pub mod sample;
pub mod train;
pub mod validate;

pub use codes::CodeTable;
pub use config::{Blend, DeformationConfig, Direction, HeadConfig, IdentityConfig, Layout};
pub use deform::Deformation;
pub use field::{HeadModel, Person, canonical, field_values, gradient, pushed};
pub use fit::{Cloud, FitConfig, Frame, PersonFit, fit_frame, fit_frames, fit_identity};
pub use identity::{Far, Identity, Sample};
pub use pose::Pose;
