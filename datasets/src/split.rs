//! Which pictures a model may learn from, and what the others ask of it.
//!
//! Knows names of cameras and sequences only, and the paper's choice of them.

/// What a picture is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// Training.
    Train,
    /// Test: a known sequence from a camera that was held out.
    View,
    /// Test: a sequence that was held out, from a camera that was seen in training.
    Sequence,
    /// Test: a held-out sequence from a held-out camera, the paper's self-reenactment.
    Both,
}

impl Split {
    /// The name in manifests: `train`, `view`, `sequence`, `both`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::View => "view",
            Split::Sequence => "sequence",
            Split::Both => "both",
        }
    }
}

/// The split of a picture, from its camera and sequence and the names that are held out.
pub fn assign(camera: &str, sequence: &str, held_out_cameras: &[&str], held_out_sequences: &[&str]) -> Split {
    match (held_out_cameras.contains(&camera), held_out_sequences.contains(&sequence)) {
        (false, false) => Split::Train,
        (true, false) => Split::View,
        (false, true) => Split::Sequence,
        (true, true) => Split::Both,
    }
}

/// The two sequences of a NeRSemble participant that the paper never trains on (DiffusionAvatars, its published data
/// module); none for participants who are not among its thirteen.
pub fn paper_sequences(participant: i64) -> Option<[&'static str; 2]> {
    Some(match participant {
        18 => ["EXP-5-mouth", "EMO-3-angry+sad"],
        37 => ["EMO-1-shout+laugh", "EMO-2-surprise+fear"],
        38 => ["EMO-4-disgust+happy", "SEN-08-clothes_and_lodging"],
        55 => ["EXP-3-cheeks+nose", "SEN-04-two_plus_seven"],
        74 => ["EMO-1-shout+laugh", "EXP-4-lips"],
        124 => ["EMO-1-shout+laugh", "EMO-4-disgust+happy"],
        145 => ["EMO-1-shout+laugh", "EXP-9-jaw-2"],
        165 => ["EMO-2-surprise+fear", "EMO-4-disgust+happy"],
        175 => ["EMO-3-angry+sad", "EMO-4-disgust+happy"],
        210 => ["EMO-4-disgust+happy", "EXP-3-cheeks+nose"],
        251 => ["EMO-1-shout+laugh", "EXP-2-eyes"],
        264 => ["EMO-4-disgust+happy", "EXP-2-eyes"],
        304 => ["EMO-1-shout+laugh", "EMO-2-surprise+fear"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_sequences_are_sequences() {
        let known: Vec<[&str; 2]> = (0..400).filter_map(paper_sequences).collect();
        assert_eq!(known.len(), 13);
        for name in known.as_flattened() {
            assert!(crate::sequences::sequence(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn held_out_names_decide() {
        let split = |c, s| assign(c, s, &["222200037"], &["EMO-1-shout+laugh"]).name();
        assert_eq!(split("222200036", "FREE"), "train");
        assert_eq!(split("222200037", "FREE"), "view");
        assert_eq!(split("222200036", "EMO-1-shout+laugh"), "sequence");
        assert_eq!(split("222200037", "EMO-1-shout+laugh"), "both");
    }
}
