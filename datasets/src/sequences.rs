//! What people do in a recording: NeRSemble's sequences as smooth curves of expression, gaze and head motion.
//!
//! Each sequence is a list of poses in time, or spoken letters; blinks, small eye movements and sway are added. The
//! same sequence, time and person always give the same expression, so frames may be made in any order. Knows names of
//! muscles, not meshes.
//!
//! Two sequences hold what no other does, so that they can be held out and still ask something new: EMO-1 (wide shouts
//! and laughter with the head thrown back) and EXP-5 (sideways mouth with an open jaw while
//! the head is turned far and leans to a shoulder: a lean is what no other camera of the rig shows either).

use glam::Vec3;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::heads::Expression;
use crate::heads::noise::{smoothstep, value_noise};

/// A sequence that is not known.
#[derive(Debug, thiserror::Error)]
#[error("unknown sequence `{name}`; known are: {}", SEQUENCES.map(|s| s.name).join(", "))]
pub struct UnknownSequence {
    /// The name asked for.
    pub name: String,
}

/// A sequence: its NeRSemble name and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    /// Name as in NeRSemble.
    pub name: &'static str,
    /// Seconds.
    pub seconds: f32,
    script: Script,
}

#[derive(Clone, Copy, Debug)]
enum Script {
    /// Poses at equal distances in time; neutral before the first and after the last.
    Poses(&'static [Pose]),
    /// Spoken text.
    Speech(&'static str),
    /// Random combinations.
    Free,
}

/// A face to reach: units with weights, (pitch, yaw, roll) of the head and (yaw, pitch) of the eyes in degrees.
type Pose = (&'static [(&'static str, f32)], [f32; 3], [f32; 2]);

const STILL: [f32; 3] = [0.0; 3];
const AHEAD: [f32; 2] = [0.0; 2];

const fn poses(name: &'static str, seconds: f32, script: &'static [Pose]) -> Sequence {
    Sequence { name, seconds, script: Script::Poses(script) }
}

const fn speech(name: &'static str, seconds: f32, text: &'static str) -> Sequence {
    Sequence { name, seconds, script: Script::Speech(text) }
}

/// All sequences, sorted as NeRSemble lists them.
pub const SEQUENCES: [Sequence; 25] = [
    poses(
        "EXP-1-head",
        8.0,
        &[
            (&[], [0.0, 18.0, 0.0], AHEAD),
            (&[("mouthSmile", 0.25)], [0.0, -18.0, 0.0], AHEAD),
            (&[], [13.0, 0.0, 0.0], AHEAD),
            (&[("browInnerUp", 0.3)], [-11.0, 0.0, 0.0], AHEAD),
            (&[], [0.0, 4.0, 12.0], AHEAD),
            (&[], [0.0, -4.0, -12.0], AHEAD),
        ],
    ),
    poses(
        "EXP-2-eyes",
        8.0,
        &[
            (&[], STILL, [25.0, 0.0]),
            (&[], STILL, [-25.0, 0.0]),
            (&[("browInnerUp", 0.3), ("browOuterUp", 0.4)], STILL, [0.0, 18.0]),
            (&[], STILL, [0.0, -18.0]),
            (&[("eyeWide", 1.0), ("browOuterUp", 0.6)], STILL, AHEAD),
            (&[("eyeSquint", 1.0), ("cheekSquint", 0.5)], STILL, AHEAD),
            (&[("eyeBlink", 1.0)], STILL, AHEAD),
            (&[("eyeBlinkLeft", 1.0), ("cheekSquintLeft", 0.7)], STILL, AHEAD),
            (&[("eyeBlinkRight", 1.0), ("cheekSquintRight", 0.7)], STILL, AHEAD),
        ],
    ),
    poses(
        "EXP-3-cheeks+nose",
        8.0,
        &[
            (&[("cheekPuff", 1.0), ("mouthPress", 0.4)], STILL, AHEAD),
            (&[("mouthPucker", 0.5), ("mouthDimple", 0.8)], STILL, AHEAD),
            (&[("noseSneer", 1.0), ("mouthUpperUp", 0.4)], STILL, AHEAD),
            (&[("noseSneerLeft", 1.0), ("cheekSquintLeft", 0.6)], STILL, AHEAD),
            (&[("noseSneerRight", 1.0), ("cheekSquintRight", 0.6)], STILL, AHEAD),
            (&[("cheekPuff", 0.8), ("mouthPucker", 0.6)], [0.0, 8.0, 0.0], AHEAD),
        ],
    ),
    poses(
        "EXP-4-lips",
        8.0,
        &[
            (&[("mouthPucker", 1.0)], STILL, AHEAD),
            (&[("mouthFunnel", 1.0), ("jawOpen", 0.12)], STILL, AHEAD),
            (&[("mouthRollLower", 1.0), ("mouthRollUpper", 1.0)], STILL, AHEAD),
            (&[("mouthSmile", 1.0)], STILL, AHEAD),
            (&[("mouthPress", 1.0)], STILL, AHEAD),
            (&[("mouthUpperUp", 0.9), ("mouthLowerDown", 0.9)], STILL, AHEAD),
            (&[("mouthShrugLower", 1.0), ("mouthFrown", 0.6)], STILL, AHEAD),
        ],
    ),
    poses(
        "EXP-5-mouth",
        8.0,
        &[
            (&[("mouthLeft", 1.0), ("jawOpen", 0.35), ("jawLeft", 0.6)], [10.0, 23.0, 15.0], [-15.0, 0.0]),
            (&[("mouthRight", 1.0), ("jawOpen", 0.35), ("jawRight", 0.6)], [-10.0, -23.0, -15.0], [15.0, 0.0]),
            (&[("jawOpen", 0.9), ("mouthFunnel", 0.5)], [14.0, 10.0, -13.0], [0.0, 10.0]),
            (&[("mouthStretch", 1.0), ("mouthLowerDown", 0.9), ("jawOpen", 0.15)], [-12.0, -4.0, 16.0], AHEAD),
            (&[("mouthSmileLeft", 1.0), ("mouthFrownRight", 0.8)], [4.0, -14.0, 16.0], AHEAD),
            (&[("mouthSmileRight", 1.0), ("mouthFrownLeft", 0.8), ("jawOpen", 0.2)], [-6.0, 14.0, -16.0], AHEAD),
            (&[("mouthPucker", 0.8), ("mouthLeft", 0.9), ("eyeBlinkLeft", 0.9)], [-14.0, 8.0, 12.0], AHEAD),
        ],
    ),
    poses(
        "EXP-6-tongue-1",
        7.0,
        &[
            (&[("jawOpen", 0.35), ("tongueOut", 0.9)], STILL, AHEAD),
            (&[("jawOpen", 0.3)], STILL, AHEAD),
            (&[("jawOpen", 0.6), ("tongueOut", 1.0), ("mouthLowerDown", 0.3)], STILL, AHEAD),
            (&[("jawOpen", 0.25), ("tongueOut", 0.6), ("mouthSmile", 0.5)], [0.0, 6.0, 0.0], AHEAD),
        ],
    ),
    poses(
        "EXP-7-tongue-2",
        7.0,
        &[
            (&[("jawOpen", 0.5), ("tongueOut", 0.7), ("mouthStretch", 0.4)], STILL, AHEAD),
            (&[("jawOpen", 0.25), ("tongueOut", 0.4), ("mouthFunnel", 0.5)], STILL, AHEAD),
            (&[("jawOpen", 0.45), ("tongueOut", 1.0), ("noseSneer", 0.6)], [5.0, -6.0, 0.0], AHEAD),
        ],
    ),
    poses(
        "EXP-8-jaw-1",
        7.0,
        &[
            (&[("jawOpen", 0.8)], STILL, AHEAD),
            (&[("jawLeft", 1.0)], STILL, AHEAD),
            (&[("jawRight", 1.0)], STILL, AHEAD),
            (&[("jawForward", 1.0)], STILL, AHEAD),
            (&[("jawOpen", 0.45)], STILL, AHEAD),
        ],
    ),
    poses(
        "EXP-9-jaw-2",
        7.0,
        &[
            (&[("jawOpen", 0.6), ("mouthClose", 0.5)], STILL, AHEAD),
            (&[("jawForward", 0.8), ("jawOpen", 0.25)], STILL, AHEAD),
            (&[("jawOpen", 0.7), ("mouthLowerDown", 0.4)], [4.0, 5.0, 0.0], AHEAD),
        ],
    ),
    poses(
        "HAIR",
        6.0,
        &[
            (&[("mouthSmile", 0.3)], [0.0, 17.0, 8.0], AHEAD),
            (&[("mouthSmile", 0.3)], [0.0, -17.0, -8.0], AHEAD),
            (&[("mouthSmile", 0.2)], [10.0, 10.0, 0.0], AHEAD),
            (&[("mouthSmile", 0.4), ("eyeBlink", 0.6)], [-8.0, -12.0, 0.0], AHEAD),
        ],
    ),
    Sequence { name: "FREE", seconds: 10.0, script: Script::Free },
    poses(
        "EMO-1-shout+laugh",
        8.0,
        &[
            (
                &[("jawOpen", 1.0), ("mouthStretch", 0.8), ("browDown", 0.8), ("noseSneer", 0.5)],
                [6.0, 10.0, 0.0],
                AHEAD,
            ),
            (
                &[("jawOpen", 0.75), ("mouthUpperUp", 0.7), ("mouthLowerDown", 0.7), ("eyeSquint", 0.7)],
                [-12.0, -9.0, 4.0],
                AHEAD,
            ),
            (
                &[("jawOpen", 0.5), ("mouthSmile", 1.0), ("cheekSquint", 0.9), ("eyeSquint", 0.8)],
                [-14.0, 6.0, -7.0],
                AHEAD,
            ),
            (
                &[("jawOpen", 0.3), ("mouthSmile", 0.9), ("cheekSquint", 1.0), ("eyeBlink", 0.75)],
                [4.0, -12.0, 8.0],
                AHEAD,
            ),
            (
                &[("jawOpen", 0.65), ("mouthSmile", 1.0), ("cheekSquint", 0.8), ("browInnerUp", 0.5)],
                [-9.0, 14.0, 3.0],
                AHEAD,
            ),
        ],
    ),
    poses(
        "EMO-2-surprise+fear",
        7.0,
        &[
            (&[("browInnerUp", 1.0), ("browOuterUp", 1.0), ("eyeWide", 1.0), ("jawOpen", 0.4)], STILL, AHEAD),
            (
                &[("browInnerUp", 0.7), ("browOuterUp", 0.7), ("eyeWide", 0.7), ("mouthFunnel", 0.6)],
                [-4.0, 0.0, 0.0],
                AHEAD,
            ),
            (
                &[("browInnerUp", 0.9), ("browDown", 0.3), ("eyeWide", 0.9), ("mouthStretch", 0.9)],
                [-6.0, 8.0, 0.0],
                [-8.0, 0.0],
            ),
            (
                &[("browInnerUp", 0.6), ("eyeWide", 0.5), ("mouthStretch", 0.5), ("jawOpen", 0.2)],
                [0.0, -8.0, 0.0],
                [10.0, 0.0],
            ),
        ],
    ),
    poses(
        "EMO-3-angry+sad",
        7.0,
        &[
            (&[("browDown", 1.0), ("noseSneer", 0.5), ("mouthPress", 0.8), ("eyeSquint", 0.4)], [6.0, 0.0, 0.0], AHEAD),
            (
                &[("browDown", 1.0), ("mouthLowerDown", 0.6), ("mouthUpperUp", 0.4), ("jawForward", 0.5)],
                [8.0, 6.0, 0.0],
                AHEAD,
            ),
            (&[("browInnerUp", 1.0), ("mouthFrown", 1.0), ("mouthShrugLower", 0.7)], [8.0, -6.0, 5.0], [0.0, -12.0]),
            (&[("browInnerUp", 0.8), ("mouthFrown", 0.8), ("eyeBlink", 0.35)], [10.0, -3.0, -4.0], [0.0, -10.0]),
        ],
    ),
    poses(
        "EMO-4-disgust+happy",
        7.0,
        &[
            (
                &[("noseSneer", 1.0), ("mouthUpperUp", 0.8), ("browDown", 0.6), ("cheekSquint", 0.5)],
                [-3.0, 7.0, 0.0],
                AHEAD,
            ),
            (
                &[
                    ("noseSneer", 0.7),
                    ("mouthFrown", 0.6),
                    ("mouthLowerDown", 0.4),
                    ("tongueOut", 0.3),
                    ("jawOpen", 0.2),
                ],
                [0.0, 9.0, 0.0],
                AHEAD,
            ),
            (&[("mouthSmile", 0.9), ("cheekSquint", 0.7), ("browOuterUp", 0.2)], [0.0, -5.0, 4.0], AHEAD),
            (
                &[("mouthSmile", 1.0), ("cheekSquint", 0.8), ("mouthUpperUp", 0.4), ("jawOpen", 0.12)],
                [-3.0, 0.0, -4.0],
                AHEAD,
            ),
        ],
    ),
    speech("SEN-01-cramp_small_danger", 6.0, "cramp small danger"),
    speech("SEN-02-same_phrase_thirty_times", 6.0, "same phrase thirty times"),
    speech("SEN-03-pluck_bright_rose", 6.0, "pluck bright rose"),
    speech("SEN-04-two_plus_seven", 6.0, "two plus seven"),
    speech("SEN-05-glow_eyes_sweet_girl", 6.0, "glow eyes sweet girl"),
    speech("SEN-06-problems_wise_chief", 6.0, "problems wise chief"),
    speech("SEN-07-fond_note_fried", 6.0, "fond note fried"),
    speech("SEN-08-clothes_and_lodging", 6.0, "clothes and lodging"),
    speech("SEN-09-frown_events_bad", 6.0, "frown events bad"),
    speech("SEN-10-port_strong_smokey", 6.0, "port strong smokey"),
];

/// The sequence of that name.
pub fn sequence(name: &str) -> Result<&'static Sequence, UnknownSequence> {
    SEQUENCES.iter().find(|s| s.name == name).ok_or_else(|| UnknownSequence { name: name.to_owned() })
}

/// What a person does `seconds` after the start of a sequence. Times outside the sequence give its first or last
/// moment. `person` seeds habits: how strongly and how evenly somebody moves, when they blink.
pub fn expression_at(name: &str, seconds: f32, person: u64) -> Result<Expression, UnknownSequence> {
    let sequence = sequence(name)?;
    let t = seconds.clamp(0.0, sequence.seconds);
    let seed = (person as u32).wrapping_mul(0x9E37_79B1) ^ (person >> 32) as u32;
    let place = SEQUENCES.iter().position(|s| s.name == name).unwrap_or(0) as f32;
    // A slow random curve in [-1, 1] with features of `period` seconds.
    let drift =
        |channel: u32, period: f32| value_noise(Vec3::new(t / period, 31.7 * place, 0.5), seed ^ (channel * 7919));
    let mut e = Expression::default();
    let mut gaze = [0.0f32; 2];
    match sequence.script {
        Script::Poses(list) => play(list, t / sequence.seconds, seed, &mut e, &mut gaze),
        Script::Speech(text) => speak(text, t, &mut e),
        Script::Free => free(t, seed, &mut e, &mut gaze),
    }
    // The body is never still.
    e.neck += Vec3::new(drift(1, 2.1), 1.3 * drift(2, 2.7), 0.8 * drift(3, 3.1)) * 0.018;
    e.head += Vec3::new(drift(4, 1.3), drift(5, 1.7), 0.6 * drift(6, 1.9)) * 0.02;
    let dart = |channel: u32| {
        // Eyes rest and jump: a step function with short ramps.
        let slot = t / 0.7 + 0.3 * drift(9, 5.0);
        let at = |k: f32| value_noise(Vec3::new(k * 3.7, 5.1, place), seed ^ (channel * 104_729));
        let ramp = smoothstep(0.88, 1.0, slot - slot.floor());
        at(slot.floor()) * (1.0 - ramp) + at(slot.floor() + 1.0) * ramp
    };
    let (yaw, pitch) = (gaze[0] + 4.5 * dart(7), gaze[1] + 2.5 * dart(8));
    // Eyes partly make up for turns of the head.
    let turned = e.neck + e.head;
    e.look(yaw.to_radians() - 0.35 * turned.y, pitch.to_radians() + 0.35 * turned.x);
    let blink = blink(t, seed ^ place as u32);
    e.add("eyeBlink", blink);
    e.add("eyeWide", -blink);
    Ok(e)
}

/// A face that somebody might make at some moment of some recording, for portraits: drawn from all sequences.
pub fn random_expression(seed: u64) -> Expression {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xface);
    let sequence = &SEQUENCES[rng.random_range(0..SEQUENCES.len())];
    let seconds = sequence.seconds * rng.random::<f32>();
    expression_at(sequence.name, seconds, rng.random()).expect("a sequence of the list")
}

/// Moves from pose to pose and rests a little in each.
fn play(list: &[Pose], share: f32, seed: u32, e: &mut Expression, gaze: &mut [f32; 2]) {
    let strength = 0.92 + 0.1 * value_noise(Vec3::new(0.5, 0.5, 0.5), seed);
    let at = share * (list.len() + 1) as f32;
    for (i, (units, head, eyes)) in list.iter().enumerate() {
        let distance = (at - (i + 1) as f32).abs();
        let weight = strength * smoothstep(1.0, 0.22, distance);
        if weight <= 0.0 {
            continue;
        }
        for (name, w) in *units {
            // Nobody is quite symmetric.
            let uneven = 1.0 + 0.12 * value_noise(Vec3::new(i as f32, name.len() as f32, 0.3), seed);
            let known = e.add(name, w * weight * uneven);
            debug_assert!(known.is_some(), "unknown unit {name}");
        }
        let turn = Vec3::from(*head).map(f32::to_radians) * weight;
        e.neck += turn * 0.45;
        e.head += turn * 0.55;
        gaze[0] += eyes[0] * weight;
        gaze[1] += eyes[1] * weight;
    }
}

/// Units for a spoken letter.
fn viseme(letter: char) -> &'static [(&'static str, f32)] {
    match letter {
        'a' => &[("jawOpen", 0.42), ("mouthLowerDown", 0.2)],
        'e' => &[("jawOpen", 0.24), ("mouthStretch", 0.3), ("mouthSmile", 0.15)],
        'i' | 'y' => &[("jawOpen", 0.16), ("mouthSmile", 0.4), ("mouthUpperUp", 0.15)],
        'o' => &[("jawOpen", 0.34), ("mouthFunnel", 0.6)],
        'u' | 'w' => &[("jawOpen", 0.14), ("mouthPucker", 0.75)],
        'm' | 'b' | 'p' => &[("mouthPress", 0.5), ("mouthRollLower", 0.3), ("mouthRollUpper", 0.25)],
        'f' | 'v' => &[("mouthRollLower", 0.6), ("mouthUpperUp", 0.3), ("jawOpen", 0.06)],
        'l' | 'n' | 'd' | 't' => &[("jawOpen", 0.18), ("mouthUpperUp", 0.15), ("mouthLowerDown", 0.15)],
        's' | 'z' | 'c' | 'x' => &[("jawOpen", 0.07), ("mouthStretch", 0.35), ("mouthLowerDown", 0.25)],
        'r' => &[("jawOpen", 0.15), ("mouthPucker", 0.45), ("mouthFunnel", 0.2)],
        'g' | 'k' | 'h' | 'q' | 'j' => &[("jawOpen", 0.22), ("mouthFunnel", 0.15)],
        _ => &[],
    }
}

/// Says a text twice; neighbouring sounds run into each other.
fn speak(text: &str, t: f32, e: &mut Expression) {
    const SOUND: f32 = 0.13;
    let letters: Vec<char> = text.chars().chain("   ".chars()).collect();
    let start = 0.4;
    for (i, letter) in letters.iter().cycle().take(2 * letters.len()).enumerate() {
        let centre = start + SOUND * i as f32;
        let distance = (t - centre) / SOUND;
        let weight = (-0.5 * distance * distance / 0.55).exp();
        if weight < 0.01 {
            continue;
        }
        for (name, w) in viseme(*letter) {
            e.add(name, 1.05 * w * weight);
        }
    }
    // Speaking moves brows and head a little.
    e.add("browInnerUp", 0.22 * value_noise(Vec3::new(t * 1.1, 2.0, 0.5), text.len() as u32).max(0.0));
    e.neck += Vec3::new((t * 5.1).sin() * 0.022, (t * 1.9).sin() * 0.06, (t * 1.3).cos() * 0.02);
}

/// Random combinations of a few units, a new one about every second.
fn free(t: f32, seed: u32, e: &mut Expression, gaze: &mut [f32; 2]) {
    const CHOICES: [&str; 16] = [
        "mouthSmile",
        "jawOpen",
        "mouthPucker",
        "browInnerUp",
        "browDown",
        "cheekPuff",
        "mouthFrown",
        "mouthFunnel",
        "eyeSquint",
        "mouthStretch",
        "noseSneer",
        "mouthRollLower",
        "jawLeft",
        "eyeWide",
        "mouthUpperUp",
        "browOuterUp",
    ];
    let at = t / 1.1;
    for k in 0..2 {
        let slot = at.floor() + k as f32;
        let weight = smoothstep(1.0, 0.2, (at - slot).abs());
        let draw = |c: u32| 0.5 + 0.5 * value_noise(Vec3::new(slot * 5.3, c as f32 * 1.7, 0.1), seed ^ 0xf3ee);
        for c in 0..3 {
            let unit = CHOICES[((draw(c) * 3.3 * CHOICES.len() as f32) as usize) % CHOICES.len()];
            e.add(unit, weight * (0.25 + 0.6 * draw(c + 20)));
        }
        let turn = Vec3::new(draw(30) - 0.5, 2.2 * (draw(31) - 0.5), draw(32) - 0.5) * (0.36 * weight);
        e.neck += turn * 0.5;
        e.head += turn * 0.5;
        gaze[0] += 24.0 * (draw(33) - 0.5) * weight;
        gaze[1] += 12.0 * (draw(34) - 0.5) * weight;
    }
}

/// How far the lids are closed by blinking.
fn blink(t: f32, seed: u32) -> f32 {
    const PERIOD: f32 = 2.6;
    let slot = (t / PERIOD).floor();
    let moment = slot * PERIOD + PERIOD * (0.5 + 0.35 * value_noise(Vec3::new(slot * 2.3, 0.7, 0.1), seed ^ 0xb11c));
    let since = t - moment;
    if since < 0.0 { smoothstep(-0.09, -0.01, since) } else { smoothstep(0.22, 0.05, since) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_smooth_repeatable_and_within_range() {
        for s in &SEQUENCES {
            let mut before: Option<Expression> = None;
            for i in 0..=(s.seconds * 50.0) as usize {
                let e = expression_at(s.name, i as f32 / 50.0, 7).unwrap();
                assert!(e.arkit.iter().all(|w| (0.0..=1.0).contains(w)), "{}", s.name);
                assert!(e.neck.length() + e.head.length() < 0.7, "{} turns too far", s.name);
                if let Some(b) = &before {
                    let jump = e.arkit.iter().zip(&b.arkit).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
                    assert!(jump < 0.45, "{} jumps by {jump} at frame {i}", s.name);
                }
                before = Some(e);
            }
        }
        assert_eq!(expression_at("FREE", 3.3, 1).unwrap(), expression_at("FREE", 3.3, 1).unwrap());
        assert_ne!(expression_at("FREE", 3.3, 1).unwrap(), expression_at("FREE", 3.3, 2).unwrap());
        let error = expression_at("EMO-9", 0.0, 1).unwrap_err().to_string();
        assert!(error.contains("EMO-9") && error.contains("EMO-1-shout+laugh"), "{error}");
    }

    #[test]
    fn every_scripted_unit_exists() {
        for s in &SEQUENCES {
            if let Script::Poses(list) = s.script {
                for (name, _) in list.iter().flat_map(|p| p.0) {
                    assert!(Expression::default().add(name, 0.5).is_some(), "{}: {name}", s.name);
                }
            }
        }
    }
}
