//! Geometry for head avatars: cameras, lenses, meshes, an exact rasteriser, iso-surfaces, point clouds, nearest
//! neighbours.
//!
//! Pure numbers in, pure numbers out. This crate knows no manifest rows, cache keys, configuration files, tensors or
//! progress bars; results are the same whatever the number of threads.

pub mod align;
pub mod band;
pub mod camera;
pub mod cloud;
pub mod cut;
pub mod distance;
pub mod distortion;
pub mod eigen;
pub mod exchange;
pub mod free_space;
pub mod gbuffer;
pub mod marching_cubes;
pub mod mesh;
pub mod nearest;
pub mod obj;
pub mod pcd;
pub mod ply;
pub mod pose;
pub mod quantize;
pub mod raster;
pub mod resample;
pub mod stereo;
pub mod triangulate;

pub use camera::Camera;
pub use distortion::Distortion;
pub use mesh::Mesh;
