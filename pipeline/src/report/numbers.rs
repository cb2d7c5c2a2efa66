//! Numbers, times and values as a person reads them. Knows no tables.

use manifests::Value;

/// How the numbers of one column are written, so that they can be compared at a glance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Style {
    /// So many decimals.
    Fixed(usize),
    /// Two decimals and a power of ten.
    Scientific,
}

impl Style {
    /// Four digits for the largest of these numbers; powers of ten for very large and very small ones.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Style {
        let largest = numbers.into_iter().filter(|x| x.is_finite()).fold(0.0f64, |max, x| max.max(x.abs()));
        if largest == 0.0 {
            return Style::Fixed(0);
        }
        if !(1e-3..1e7).contains(&largest) {
            return Style::Scientific;
        }
        Style::Fixed((3 - largest.log10().floor() as i32).clamp(0, 6) as usize)
    }

    /// Without decimals that none of these numbers has: zeros at the end say that somebody measured them.
    pub fn given(self, numbers: impl IntoIterator<Item = f64>) -> Style {
        let decimals = |x: f64| format!("{x}").split_once('.').map_or(0, |(_, decimals)| decimals.len());
        match self {
            Style::Fixed(most) => {
                let given = numbers.into_iter().filter(|x| x.is_finite()).map(decimals).max().unwrap_or(0);
                // a number without a point looks like a count
                Style::Fixed(given.max(1).min(most))
            }
            Style::Scientific => self,
        }
    }

    /// A number in this style; infinities as `inf` and `-inf`.
    pub fn write(self, x: f64) -> String {
        if x.is_nan() {
            return "NaN".into();
        }
        if x.is_infinite() {
            return if x > 0.0 { "inf".into() } else { "-inf".into() };
        }
        let text = match self {
            Style::Fixed(decimals) => format!("{x:.decimals$}"),
            Style::Scientific if x == 0.0 => "0".into(),
            Style::Scientific => format!("{x:.2e}"),
        };
        // what rounds to zero has no sign
        if text.starts_with('-') && text.chars().all(|c| "-0.".contains(c)) { text[1..].into() } else { text }
    }
}

/// One number on its own: four digits, no trailing zeros.
pub(super) fn number(x: f64) -> String {
    let text = Style::of([x]).write(x);
    if text.contains('.') && !text.contains('e') {
        return text.trim_end_matches('0').trim_end_matches('.').into();
    }
    text
}

/// A value of a manifest; a blob by the first digits of its digest.
pub(super) fn value(value: &Value) -> String {
    const SHOWN: usize = 4;
    match value {
        Value::Null => "–".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::I64(x) => x.to_string(),
        Value::F64(x) => number(*x),
        Value::Str(text) => text.clone(),
        Value::Floats(xs) => {
            let shown: Vec<String> = xs.iter().take(SHOWN).map(|x| number(*x)).collect();
            let more = if xs.len() > SHOWN { ", …" } else { "" };
            format!("[{}{more}]", shown.join(", "))
        }
        Value::Blob(blob) => blob.digest.short(),
    }
}

/// A duration given in seconds.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".into();
    }
    if seconds < 0.095 {
        return format!("{:.0} ms", seconds * 1e3);
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A moment, given in milliseconds since 1970 UTC, to the minute.
pub(super) fn moment(milliseconds: u64) -> String {
    let time = i64::try_from(milliseconds).ok().and_then(chrono::DateTime::from_timestamp_millis);
    time.unwrap_or_default().format("%F %R UTC").to_string()
}

/// A size in bytes.
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..1000 => format!("{n} B"),
        1000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// A count and its noun: `1 row`, `3 rows`.
pub(super) fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_their_decimals() {
        let psnr = Style::of([24.318, 9.2, f64::INFINITY]);
        assert_eq!([24.318, 9.2, f64::INFINITY].map(|x| psnr.write(x)), ["24.32", "9.20", "inf"]);
        assert_eq!(Style::of([0.91234, 0.5]).write(0.5), "0.5000");
        assert_eq!(Style::of([2.5e-5]).write(2.5e-5), "2.50e-5");
        assert_eq!(Style::of([3.0, f64::NAN]).write(f64::NAN), "NaN");
        assert_eq!(Style::Fixed(2).write(-0.001), "0.00");
        let given = |numbers: &[f64]| Style::of(numbers.iter().copied()).given(numbers.iter().copied());
        assert_eq!(given(&[23.0, 19.5]).write(23.0), "23.0", "no digit that nobody gave");
        assert_eq!(given(&[23.0, 19.512]).write(23.0), "23.00");
        assert_eq!(given(&[23.0]).write(23.0), "23.0");
        assert_eq!(given(&[2.5e-5]).write(2.5e-5), "2.50e-5");
    }

    #[test]
    fn single_numbers_are_short() {
        assert_eq!([0.5, 12.0, 1234.6, -0.03, 0.0].map(number), ["0.5", "12", "1235", "-0.03", "0"]);
        assert_eq!(number(f64::NEG_INFINITY), "-inf");
        assert_eq!(value(&Value::Floats(vec![1.0; 16])), "[1, 1, 1, 1, …]");
    }

    #[test]
    fn times_read_like_times() {
        assert_eq!([0.04, 59.6, 252.0, 3780.0].map(duration), ["40 ms", "1 min 00 s", "4 min 12 s", "1 h 03 min"]);
        assert_eq!(moment(0), "1970-01-01 00:00 UTC");
        assert_eq!(moment(951_827_696_000), "2000-02-29 12:34 UTC");
        assert_eq!(moment(1_767_225_599_000), "2025-12-31 23:59 UTC");
    }
}
