//! How a text becomes the token numbers of CLIP: the `tokenizer/` folder of a latent diffusion model, through the
//! library that its authors use. Knows no network.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as Cuts;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder};

use crate::weights::{WeightsError, read_json};

/// What a word is: contractions, runs of letters, single digits, runs of anything else that is no space.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// Length of CLIP's texts, where the folder does not say.
const LENGTH: usize = 77;

type Inner = tokenizers::TokenizerImpl<
    BPE,
    Sequence,
    Cuts,
    tokenizers::processors::PostProcessorWrapper,
    tokenizers::decoders::DecoderWrapper,
>;

/// CLIP's tokenizer.
pub struct Tokenizer {
    inner: Inner,
    begin: i64,
    end: i64,
    pad: i64,
    length: usize,
}

impl Tokenizer {
    /// Opens a folder with `vocab.json` and `merges.txt`, or with `tokenizer.json` alone, as transformers saves it
    /// since its fifth version; `tokenizer_config.json` and `special_tokens_map.json` say which tokens begin, end and
    /// pad a text, and how long it is. The first generation pads with the end, the second with `!`.
    pub fn open(dir: &Path) -> Result<Self, WeightsError> {
        let path = |name: &str| dir.join(name);
        let bad = |place: &Path, reason: String| {
            WeightsError::Config {
            place: place.display().to_string(),
            reason,
            hint: "the tokenizer's folder of Stable Diffusion holds vocab.json and merges.txt, or tokenizer.json, and tokenizer_config.json"
                .into(),
        }
        };
        let (vocabulary, merges, whole) = (path("vocab.json"), path("merges.txt"), path("tokenizer.json"));
        let text = |file: &PathBuf| file.to_string_lossy().into_owned();
        let (model, vocabulary) = if !(vocabulary.is_file() && merges.is_file()) && whole.is_file() {
            let model = read_json(&whole)?.get_mut("model").map(Value::take).unwrap_or_default();
            let model: BPE = serde_json::from_str(&model.to_string())
                .map_err(|error| bad(&whole, format!("its `model` is none of byte pairs, as CLIP's is: {error}")))?;
            (model, whole)
        } else {
            if let Some(missing) = [&vocabulary, &merges].into_iter().find(|file| !file.is_file()) {
                return Err(bad(missing, "it is not there".into()));
            }
            let model = BPE::from_file(&text(&vocabulary), &text(&merges))
                .unk_token("<|endoftext|>".into())
                .end_of_word_suffix("</w>".into())
                .build()
                .map_err(|error| bad(dir, format!("vocab.json and merges.txt are no tokenizer: {error}")))?;
            (model, vocabulary)
        };
        let library = |error: tokenizers::Error| bad(dir, error.to_string());
        let spaces = Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".into()), " ");
        let words = Split::new(SplitPattern::Regex(WORDS.into()), SplitDelimiterBehavior::Removed, true);
        let normal = Sequence::new(vec![NFC.into(), spaces.map_err(library)?.into(), Lowercase.into()]);
        let cuts = Cuts::new(vec![words.map_err(library)?.into(), ByteLevel::new(false, true, true).into()]);
        let mut inner: Inner = TokenizerBuilder::new()
            .with_model(model)
            .with_normalizer(Some(normal))
            .with_pre_tokenizer(Some(cuts))
            .with_post_processor(None)
            .with_decoder(None)
            .build()
            .map_err(library)?;

        let optional = |name: &str| match path(name).is_file() {
            true => read_json(&path(name)),
            false => Ok(Value::Null),
        };
        let (config, map) = (optional("tokenizer_config.json")?, optional("special_tokens_map.json")?);
        let spelled = |key: &str, default: &str| {
            content(&config, key).or_else(|| content(&map, key)).unwrap_or(default).to_owned()
        };
        let number = |key: &str, default: &str| {
            let name = spelled(key, default);
            let id = inner.token_to_id(&name).map(i64::from);
            id.ok_or_else(|| bad(&vocabulary, format!("it lacks `{name}`, the {key}")))
        };
        let (begin, end) = (number("bos_token", "<|startoftext|>")?, number("eos_token", "<|endoftext|>")?);
        let pad = number("pad_token", "<|endoftext|>")?;
        // in a text they are themselves, wherever they stand: also the second generation's `!`
        let special =
            [("bos_token", "<|startoftext|>"), ("eos_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")];
        inner.add_special_tokens(&special.map(|(key, default)| AddedToken::from(spelled(key, default), true)));
        let length = match config.get("model_max_length").and_then(Value::as_u64) {
            Some(length) if length < 1 << 16 => length as usize,
            // transformers writes an absurd number for "none"
            _ => LENGTH,
        };
        if length < 2 {
            return Err(bad(&path("tokenizer_config.json"), "model_max_length leaves no room for a text".into()));
        }
        Ok(Self { inner, begin, end, pad, length })
    }

    /// Number of tokens of every text, CLIP's 77 unless the folder says otherwise.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Token numbers of a text between the tokens that begin and end one, padded to [`Tokenizer::length`].
    ///
    /// # Errors
    /// If the text has more tokens than there is room for: nothing is cut off silently.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>, String> {
        let encoding = self.inner.encode(text, false).map_err(|error| error.to_string())?;
        let tokens = encoding.get_ids();
        let room = self.length - 2;
        if tokens.len() > room {
            return Err(format!("the text has {} tokens, the text encoder takes {room}", tokens.len()));
        }
        let mut ids = vec![self.begin];
        ids.extend(tokens.iter().map(|&id| i64::from(id)));
        ids.push(self.end);
        ids.resize(self.length, self.pad);
        Ok(ids)
    }
}

/// The text of a special token, which files give as such or as an object with `content`.
fn content<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    let token = value.get(key)?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn one_file_says_the_same_as_three() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/releases/text_first/tokenizer");
        let text = "A photo of a head, it's 2 heads!  <|endoftext|>";
        let expected = Tokenizer::open(&shipped).unwrap().encode(text).unwrap();
        let merges = fs::read_to_string(shipped.join("merges.txt")).unwrap();
        let merges = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
        let pairs: Vec<Value> = merges.map(|line| json!(line.split(' ').collect::<Vec<_>>())).collect();
        let dir = tempfile::tempdir().unwrap();
        fs::copy(shipped.join("tokenizer_config.json"), dir.path().join("tokenizer_config.json")).unwrap();
        let open = |model: &Value| {
            fs::write(dir.path().join("tokenizer.json"), json!({ "model": model }).to_string()).unwrap();
            Tokenizer::open(dir.path())
        };
        let vocabulary = read_json(&shipped.join("vocab.json")).unwrap();
        let model = json!({ "type": "BPE", "unk_token": "<|endoftext|>", "end_of_word_suffix": "</w>", "vocab": vocabulary, "merges": pairs });
        assert_eq!(open(&model).unwrap().encode(text).unwrap(), expected);
        assert!(
            expected.len() > 8 && expected.iter().collect::<std::collections::BTreeSet<_>>().len() > 5,
            "{expected:?}"
        );
        let error = |found: Result<Tokenizer, WeightsError>| found.err().expect("it is none").to_string();
        assert!(error(open(&json!({ "type": "WordLevel" }))).contains("is none of byte pairs"));
        fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
        assert!(error(Tokenizer::open(dir.path())).contains("or tokenizer.json"));
    }
}
