//! The recipe author's Markdown as HTML: paragraphs, headings, lists, code, bold, emphasis and links.
//!
//! A small and safe part of Markdown: everything else is text. HTML in it is shown, not obeyed. Knows no report.

/// Text with HTML's special characters replaced, fit for elements and quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML allows no other control characters, not even by number
            c if c.is_control() && !"\n\t\r".contains(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Letters of a word that may make the column wide that it stands in.
const LONG: usize = 24;

/// Text as HTML in which long words may be broken where their parts end, as names of variants and files have them.
pub(super) fn breakable(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive(' ') {
        let long = word.chars().count() > LONG;
        let mut line = 0;
        for part in word.split_inclusive(['_', '/', ',', '=', '@']) {
            if long && line >= LONG / 2 {
                out.push_str("<wbr>");
                line = 0;
            }
            out.push_str(&escape(part));
            line += part.chars().count();
        }
    }
    out
}

/// A sentence of ours, or of a program, as HTML: what stands between backticks is code, all else is text.
pub(super) fn quoted(text: &str) -> String {
    if !text.matches('`').count().is_multiple_of(2) {
        return escape(text);
    }
    let part = |(i, part): (usize, &str)| match i % 2 {
        0 => escape(part),
        _ => format!("<code>{}</code>", escape(part)),
    };
    text.split('`').enumerate().map(part).collect()
}

/// The HTML of some Markdown.
pub(super) fn html(markdown: &str) -> String {
    let mut out = String::new();
    let mut lines = markdown.lines().peekable();
    let mut paragraph: Vec<&str> = Vec::new();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            close(&mut paragraph, &mut out);
        } else if trimmed.starts_with("```") {
            close(&mut paragraph, &mut out);
            let code: Vec<&str> = lines.by_ref().take_while(|line| !line.trim().starts_with("```")).collect();
            out.push_str(&format!("<pre><code>{}</code></pre>\n", escape(&code.join("\n"))));
        } else if let Some((level, text)) = heading(trimmed) {
            close(&mut paragraph, &mut out);
            out.push_str(&format!("<h{level}>{}</h{level}>\n", inline(text)));
        } else if let Some((tag, first)) = list_item(trimmed) {
            close(&mut paragraph, &mut out);
            let mut items = vec![first.to_string()];
            while let Some(next) = lines.peek().map(|next| next.trim()).filter(|next| !next.is_empty()) {
                match list_item(next) {
                    Some((same, text)) if same == tag => items.push(text.into()),
                    Some(_) => break,
                    None => *items.last_mut().expect("begun with one") += &format!(" {next}"),
                }
                lines.next();
            }
            let items: String = items.iter().map(|item| format!("<li>{}</li>", inline(item))).collect();
            out.push_str(&format!("<{tag}>{items}</{tag}>\n"));
        } else {
            paragraph.push(trimmed);
        }
    }
    close(&mut paragraph, &mut out);
    out
}

fn close(paragraph: &mut Vec<&str>, out: &mut String) {
    if !paragraph.is_empty() {
        out.push_str(&format!("<p>{}</p>\n", inline(&paragraph.join(" "))));
        paragraph.clear();
    }
}

/// `# title`: the page has the levels 1 and 2, an author's headings lie below them.
fn heading(line: &str) -> Option<(usize, &str)> {
    let hashes = line.bytes().take_while(|&b| b == b'#').count();
    let text = line[hashes..].strip_prefix(' ')?;
    (1..=6).contains(&hashes).then(|| ((hashes + 1).clamp(2, 6), text.trim().trim_end_matches('#').trim_end()))
}

fn list_item(line: &str) -> Option<(&'static str, &str)> {
    if let Some(text) = line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")) {
        return Some(("ul", text.trim()));
    }
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let text = line[digits..].strip_prefix(". ")?;
    (1..=3).contains(&digits).then(|| ("ol", text.trim()))
}

/// The HTML of a run of text within a paragraph.
pub(super) fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[', '\\']) {
        out.push_str(&escape(&rest[..at]));
        rest = &rest[at..];
        let (html, used) = span(rest).unwrap_or_else(|| (escape(&rest[..1]), 1));
        out.push_str(&html);
        rest = &rest[used..];
    }
    out.push_str(&escape(rest));
    out
}

/// The span that begins here, as HTML, and how many bytes of text it takes.
fn span(text: &str) -> Option<(String, usize)> {
    if let Some(rest) = text.strip_prefix('\\') {
        let next = rest.chars().next().filter(char::is_ascii_punctuation)?;
        return Some((escape(&next.to_string()), 2));
    }
    if let Some(rest) = text.strip_prefix('`') {
        let end = rest.find('`')?;
        return Some((format!("<code>{}</code>", escape(&rest[..end])), end + 2));
    }
    for (mark, tag) in [("**", "strong"), ("*", "em")] {
        if let Some(rest) = text.strip_prefix(mark) {
            let end = rest.find(mark).filter(|&end| end > 0 && !rest.starts_with(' '))?;
            return Some((format!("<{tag}>{}</{tag}>", inline(&rest[..end])), end + 2 * mark.len()));
        }
    }
    let middle = text.find("](")?;
    let end = middle + text[middle..].find(')')?;
    let (label, target) = (&text[1..middle], &text[middle + 2..end]);
    let scheme = target.split_once(':').map(|(scheme, _)| scheme);
    if !matches!(scheme, None | Some("http" | "https" | "mailto")) || label.contains('[') {
        return None;
    }
    Some((format!("<a href=\"{}\">{}</a>", escape(target), inline(label)), end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_may_be_broken() {
        assert_eq!(breakable("no_diffusion & more"), "no_diffusion &amp; more");
        assert_eq!(breakable("a_method <b>_with_a_very_long_name"), "a_method &lt;b&gt;_with_a_very_<wbr>long_name");
    }

    #[test]
    fn blocks() {
        let markdown = "# A & B\nfirst\nsecond\n\n- one\n  more\n- **two**\n1. x\n\n```\n<b>*c*\n```";
        let expected = "<h2>A &amp; B</h2>\n<p>first second</p>\n<ul><li>one more</li><li><strong>two</strong></li></ul>\n\
                        <ol><li>x</li></ol>\n<pre><code>&lt;b&gt;*c*</code></pre>\n";
        assert_eq!(html(markdown), expected);
    }

    #[test]
    fn spans() {
        assert_eq!(inline("`a<b` *c* 2 * 3 \\*"), "<code>a&lt;b</code> <em>c</em> 2 * 3 *");
        assert_eq!(inline("[é](https://x.org/?a&b)"), "<a href=\"https://x.org/?a&amp;b\">é</a>");
        assert_eq!(inline("**open `tick [x]"), "**open `tick [x]");
    }

    #[test]
    fn nothing_in_it_is_obeyed_as_html() {
        let hostile = "<script>alert('1')</script> [x](javascript:alert(1)) [\"><img src=x>](a\"onclick=b)";
        let html = html(hostile);
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("href=\"javascript"), "{html}");
        assert!(!html.contains("\"onclick"), "{html}");
    }
}
