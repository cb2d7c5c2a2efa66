//! Which pictures a model may learn from, and what the others ask of it.
//!
//! Knows names of cameras and sequences only.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_names_decide() {
        let split = |c, s| assign(c, s, &["222200037"], &["EMO-1-shout+laugh"]).name();
        assert_eq!(split("222200036", "FREE"), "train");
        assert_eq!(split("222200037", "FREE"), "view");
        assert_eq!(split("222200036", "EMO-1-shout+laugh"), "sequence");
        assert_eq!(split("222200037", "EMO-1-shout+laugh"), "both");
    }
}
