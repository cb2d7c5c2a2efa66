//! What a face does at one moment: ARKit weights and the turns of neck and head.
//!
//! Knows the names and meaning of the 52 ARKit units, not their geometry.

use glam::Vec3;

/// The 52 ARKit units, in the order of [`Expression::arkit`] (alphabetical, as in the asset files).
pub const ARKIT_NAMES: [&str; 52] = [
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
];

/// How far, in radians, an eye turns at weight 1 of its look units: up, down, towards the nose, away from it.
const LOOK: [f32; 4] = [0.42, 0.42, 0.55, 0.55];

/// The state of a face. The default is neutral, looking straight ahead.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// Weights of the ARKit units, [0, 1], in the order of [`ARKIT_NAMES`].
    pub arkit: [f32; 52],
    /// Axis-angle turn of the neck on the shoulders, radians, world axes (x: nod down, y: turn to the subject's left,
    /// z: tilt to the subject's right).
    pub neck: Vec3,
    /// Axis-angle turn of the head on the neck, radians.
    pub head: Vec3,
}

impl Default for Expression {
    fn default() -> Self {
        Self { arkit: [0.0; 52], neck: Vec3::ZERO, head: Vec3::ZERO }
    }
}

/// The index of a unit in [`ARKIT_NAMES`].
pub fn unit(name: &str) -> Option<usize> {
    ARKIT_NAMES.binary_search(&name).ok()
}

impl Expression {
    /// The weight of a unit; `None` if there is no unit of this name.
    pub fn get(&self, name: &str) -> Option<f32> {
        unit(name).map(|i| self.arkit[i])
    }

    /// Adds `weight` to a unit, or, for a name without `Left` / `Right` that exists only in pairs, to both; the result
    /// is clamped to [0, 1]. Unknown names are `None` and change nothing.
    pub fn add(&mut self, name: &str, weight: f32) -> Option<()> {
        let mut add = |i: usize| self.arkit[i] = (self.arkit[i] + weight).clamp(0.0, 1.0);
        if let Some(i) = unit(name) {
            add(i);
            return Some(());
        }
        let (left, right) = (unit(&format!("{name}Left"))?, unit(&format!("{name}Right"))?);
        add(left);
        add(right);
        Some(())
    }

    /// Turns both eyes: `yaw` towards the subject's left, `pitch` upwards, radians; replaces the look units.
    pub fn look(&mut self, yaw: f32, pitch: f32) {
        let [up, down, inwards, outwards] = LOOK;
        let mut set = |name: &str, weight: f32| {
            if let Some(i) = unit(name) {
                self.arkit[i] = weight.clamp(0.0, 1.0);
            }
        };
        for side in ["Left", "Right"] {
            set(&format!("eyeLookUp{side}"), pitch / up);
            set(&format!("eyeLookDown{side}"), -pitch / down);
            let out = if side == "Left" { yaw } else { -yaw };
            set(&format!("eyeLookOut{side}"), out / outwards);
            set(&format!("eyeLookIn{side}"), -out / inwards);
        }
    }

    /// (yaw, pitch) of the left and the right eye from the look units, radians, as in [`Expression::look`].
    pub fn gaze(&self) -> [(f32, f32); 2] {
        let get = |name: &str, side: &str| unit(&format!("{name}{side}")).map_or(0.0, |i| self.arkit[i]);
        ["Left", "Right"].map(|side| {
            let pitch = get("eyeLookUp", side) * LOOK[0] - get("eyeLookDown", side) * LOOK[1];
            let out = get("eyeLookOut", side) * LOOK[3] - get("eyeLookIn", side) * LOOK[2];
            (if side == "Left" { out } else { -out }, pitch)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_gaze_round_trips() {
        assert!(ARKIT_NAMES.windows(2).all(|w| w[0] < w[1]));
        let mut e = Expression::default();
        e.look(0.3, -0.2);
        for (yaw, pitch) in e.gaze() {
            assert!((yaw - 0.3).abs() < 1e-6 && (pitch + 0.2).abs() < 1e-6);
        }
        assert!(e.add("mouthSmile", 0.5).is_some() && e.add("mouthGrin", 0.5).is_none());
        assert_eq!(e.arkit[unit("mouthSmileLeft").unwrap()], 0.5);
    }
}
