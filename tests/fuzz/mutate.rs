//! Bends text and bytes. Knows neither recipes nor Arrow beyond a few words and numbers that are known to hurt.

/// Draws that are the same every time: splitmix64.
pub struct Draws(u64);

impl Draws {
    pub fn new(seed: u64) -> Draws {
        Draws(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Words and marks that have a meaning somewhere, and values at the edges.
const WORDS: [&str; 87] = [
    "stages:",
    "params:",
    "profiles:",
    "report:",
    "providers:",
    "recipe:",
    "stage:",
    "run:",
    "files:",
    "rows:",
    "select:",
    "join:",
    "concat:",
    "from:",
    "with:",
    "by:",
    "where:",
    "grain:",
    "writes:",
    "shell:",
    "code:",
    "version:",
    "needs:",
    "timeout:",
    "allow_failures:",
    "retries:",
    "columns:",
    "rename:",
    "set:",
    "overrides:",
    "distinct:",
    "every:",
    "limit:",
    "on:",
    "how:",
    "label:",
    "parse:",
    "text:",
    "table:",
    "images:",
    "curve:",
    "videos:",
    "mean:",
    "caption:",
    "title:",
    "reads:",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "- ",
    "'",
    "\"",
    "|",
    ">",
    "&a ",
    "*a",
    "<<: ",
    "!!int ",
    "? ",
    "# ",
    "---\n",
    "...\n",
    "${size}",
    "${",
    "}$",
    "{out}",
    "{in}",
    "{with.",
    "{{",
    "{file}",
    "row",
    "group",
    "whole",
    "floats[0]",
    "floats[4294967295]",
    "~",
    "true",
    ".nan",
    ".inf",
    "-0",
    "1e308",
    "9223372036854775807",
    "18446744073709551615",
    "\u{0}é\u{1f600}",
];

/// A text with some of its words, lines and letters changed, or pieces of another in it.
pub fn text(seed: &str, other: &str, draws: &mut Draws) -> Vec<u8> {
    let mut text: Vec<char> = seed.chars().collect();
    for _ in 0..1 + draws.below(6) {
        let at = draws.below(text.len() + 1);
        let word = |text: &[char]| {
            let inside = |c: &char| c.is_alphanumeric() || *c == '_';
            let start = text[..at].iter().rposition(|c| !inside(c)).map_or(0, |i| i + 1);
            let end = text[at..].iter().position(|c| !inside(c)).map_or(text.len(), |i| at + i);
            start..end
        };
        let line = |text: &[char]| {
            let start = text[..at].iter().rposition(|c| *c == '\n').map_or(0, |i| i + 1);
            let end = text[at..].iter().position(|c| *c == '\n').map_or(text.len(), |i| at + i + 1);
            start..end
        };
        let known = WORDS[draws.below(WORDS.len())];
        match draws.below(10) {
            0 => drop(text.splice(word(&text), known.trim_end_matches(':').chars())),
            1 => drop(text.splice(at..at, known.chars())),
            2 => drop(text.drain(line(&text))),
            3 => {
                let copy: Vec<char> = text[line(&text)].to_vec();
                let to = draws.below(text.len() + 1);
                text.splice(to..to, copy);
            }
            4 => {
                let end = (at + draws.below(20)).min(text.len());
                text.drain(at..end);
            }
            5 => {
                let copy: Vec<char> = text[word(&text)].to_vec();
                let place = draws.below(text.len() + 1).min(text.len());
                text.splice(place..(place + draws.below(8)).min(text.len()), copy);
            }
            6 if at < text.len() => text[at] = char::from(draws.below(128) as u8),
            7 => {
                let other: Vec<char> = other.chars().collect();
                let from = draws.below(other.len());
                let end = (from + draws.below(60)).min(other.len());
                text.splice(at..at, other[from..end].iter().copied());
            }
            8 if draws.below(8) == 0 => text.truncate(at),
            9 => drop(text.splice(word(&text), (draws.next() as i64 >> draws.below(64)).to_string().chars())),
            _ => text.insert(at, [' ', '\n', '\t', '-', ':'][draws.below(5)]),
        }
    }
    text.into_iter().collect::<String>().into_bytes()
}

/// Numbers at the edges of what fits.
const NUMBERS: [u64; 10] =
    [0, 1, 7, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX, 0x1_0000_0000];

/// Bytes with some of them changed, cut out, or replaced by pieces of others.
pub fn bytes(seed: &[u8], other: &[u8], draws: &mut Draws) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + draws.below(5) {
        let at = draws.below(bytes.len());
        match draws.below(9) {
            0 if draws.below(4) == 0 => bytes.truncate(at),
            1 | 2 if !bytes.is_empty() => bytes[at] ^= 1 << draws.below(8),
            3 if !bytes.is_empty() => bytes[at] = draws.next() as u8,
            4 | 5 => {
                // numbers of a file lie at multiples of their size, mostly
                let width = [2, 4, 8][draws.below(3)];
                let at = at / width * width;
                let number = NUMBERS[draws.below(NUMBERS.len())].to_le_bytes();
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            6 => {
                let end = (at + draws.below(64)).min(bytes.len());
                let from = draws.below(other.len());
                let to = (from + end - at).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            7 => {
                let end = (at + draws.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ if bytes.len() > 8 => {
                // the length of the footer stands before the last six bytes
                let last = (bytes.len() - 8 + draws.below(8)).min(bytes.len() - 1);
                bytes[last] ^= 1 << draws.below(8);
            }
            _ => bytes.push(draws.next() as u8),
        }
    }
    bytes
}
