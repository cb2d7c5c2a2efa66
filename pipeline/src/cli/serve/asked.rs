//! What a browser asked, and what it is answered, as plain data. Knows nothing of connections.

use crate::error::Problem;
use serde_json::json;
use std::fs::File;

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `GET`, or another.
    pub method: String,
    /// What stands between the method and the version, as it came.
    pub target: String,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
}

/// An answer.
pub struct Answer {
    /// HTTP's number for it.
    pub status: u16,
    /// The media type.
    pub media: &'static str,
    /// What is sent.
    pub body: Body,
    /// Headers of its own.
    pub headers: Vec<(&'static str, String)>,
}

/// What is sent.
pub enum Body {
    /// Bytes.
    Bytes(Vec<u8>),
    /// So many bytes of a file from where it stands.
    Part(File, u64),
}

/// Why something cannot be answered: HTTP's number, a sentence, a hint.
#[derive(Debug)]
pub struct Refusal {
    /// HTTP's number for it.
    pub status: u16,
    /// A sentence.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// An answer, or why there is none.
pub type Answered<T = Answer> = std::result::Result<T, Refusal>;

/// There is nothing of this name.
pub fn missing(error: impl Into<String>) -> Refusal {
    Refusal { status: 404, error: error.into(), hint: None }
}

/// The request cannot be understood.
pub fn wrong(error: impl Into<String>) -> Refusal {
    Refusal { status: 400, error: error.into(), hint: None }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Refusal {
        Refusal { status: 400, error: problem.message, hint: problem.hint }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Refusal {
        let hint = crate::hints::hint_of(&error);
        Refusal { status: 500, error: crate::run::sentence(&error), hint }
    }
}

impl Refusal {
    /// As an answer that the page can show; for whoever typed the address, `page`, as a page of its own.
    pub fn answer(self, page: bool) -> Answer {
        if page {
            let paragraph = |text: &str| format!("<p>{}</p>", escape(&sentence(text)));
            let text: String =
                [Some(&self.error), self.hint.as_ref()].into_iter().flatten().map(|text| paragraph(text)).collect();
            let text = format!(
                "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>effigy: {}</title><link rel=\"icon\" href=\"/icon.svg\"><link rel=\"stylesheet\" href=\"/style.css\">\
                 <main><h1>This cannot be shown</h1>{text}<p><a href=\"/\">All runs</a></p></main></html>",
                self.status
            );
            return Answer { status: self.status, ..Answer::bytes("text/html; charset=utf-8", text.into_bytes()) };
        }
        let text = json!({"error": self.error, "hint": self.hint}).to_string();
        Answer { status: self.status, ..Answer::json(text) }
    }
}

impl Answer {
    /// Bytes of a media type, which nobody keeps.
    pub fn bytes(media: &'static str, bytes: Vec<u8>) -> Answer {
        let headers = vec![("Cache-Control", "no-store".to_string())];
        Answer { status: 200, media, body: Body::Bytes(bytes), headers }
    }

    /// JSON.
    pub fn json(text: String) -> Answer {
        Answer::bytes("application/json", text.into_bytes())
    }
}

impl Asked {
    /// The value of a header that is there once; several of a name are none.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.next().filter(|_| found.next().is_none())
    }

    /// Whether it comes from the address line of a browser, which shows what it is answered.
    pub fn wants_page(&self) -> bool {
        let takes = self.header("accept").is_some_and(|accept| accept.contains("text/html"));
        takes && self.header("sec-fetch-dest").is_none_or(|dest| dest == "document")
    }

    /// Whether there is a header of this name.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known == name)
    }

    /// The path, decoded, and the fields behind it in order.
    ///
    /// # Errors
    /// If it is no path, or not encoded as it should be.
    pub fn parts(&self) -> Answered<(String, Vec<(String, String)>)> {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let path = decoded(path, false)?;
        let field = |field: &str| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            Ok((decoded(name, true)?, decoded(value, true)?))
        };
        let fields = query.split('&').filter(|field| !field.is_empty()).map(field).collect::<Answered<_>>()?;
        Ok((path, fields))
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let stop = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{}{rest}{stop}", first.to_uppercase())
}

/// Text in a page.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Turns `%2F` into what it stands for, and in fields `+` into a space.
fn decoded(text: &str, plus: bool) -> Answered<String> {
    let malformed = || wrong("the address is not encoded as addresses are");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let digits = std::str::from_utf8(digits.ok_or_else(malformed)?).map_err(|_| malformed())?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| malformed())?);
                rest = &tail[2..];
            }
            b'+' if plus => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_a_page_and_programs_get_data() {
        let asked = |headers: &[(&str, &str)]| Asked {
            headers: headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            ..Asked::default()
        };
        let accept = ("accept", "text/html,application/xhtml+xml");
        assert!(asked(&[accept]).wants_page() && asked(&[accept, ("sec-fetch-dest", "document")]).wants_page());
        assert!(
            !asked(&[("accept", "*/*")]).wants_page() && !asked(&[accept, ("sec-fetch-dest", "empty")]).wants_page()
        );
        let Body::Bytes(page) = missing("no <b>").answer(true).body else { panic!("it is bytes") };
        let page = String::from_utf8(page).unwrap();
        assert!(page.contains("<p>No &lt;b&gt;.</p>"), "{page}");
        let told = missing("no <b>").answer(false);
        assert_eq!((told.status, told.media), (404, "application/json"));
    }

    #[test]
    fn addresses_are_decoded_once() {
        let asked = |target: &str| Asked { target: target.into(), ..Asked::default() }.parts();
        let (path, fields) = asked("/a%20b?x=1%2B1+c&y").unwrap();
        assert_eq!((path.as_str(), fields[0].1.as_str(), fields[1].0.as_str()), ("/a b", "1+1 c", "y"));
        assert_eq!(asked("/%252e").unwrap().0, "/%2e");
        for target in ["/%", "/%4", "/%zz", "/%ff", "/%+1"] {
            assert_eq!(asked(target).unwrap_err().status, 400, "{target}");
        }
    }
}
