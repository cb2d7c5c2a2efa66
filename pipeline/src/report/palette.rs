//! The colours of the page and its drawings, by day and by night. Knows nothing else.

/// One colour: its name, and its value on light and on dark ground.
pub(super) struct Color {
    /// Name in the style sheet, without the dashes.
    pub name: &'static str,
    /// On light ground.
    pub light: &'static str,
    /// On dark ground.
    pub dark: &'static str,
}

/// All colours. Drawings name them as `var(--NAME)`.
pub(super) const PALETTE: [Color; 24] = [
    color("ground", "#fdfdfb", "#17191b"),
    color("panel", "#f5f5f1", "#1f2225"),
    color("line", "#dddcd6", "#363a3e"),
    color("grid", "#ecebe6", "#26292c"),
    color("ink", "#1f2225", "#e3e2dd"),
    color("faint", "#686d73", "#989da3"),
    color("link", "#235f94", "#86b6de"),
    color("edge", "#a3a7ab", "#5f656b"),
    color("ran", "#2f7d4f", "#67b98a"),
    color("ran-ground", "#eaf4ec", "#1c2b22"),
    color("due-ground", "#fcf3e2", "#33291a"),
    color("due", "#b06f00", "#e0a64a"),
    color("bad", "#b3261e", "#f0857c"),
    color("bad-ground", "#fbecea", "#35201f"),
    color("curve", "#235f94", "#86b6de"),
    color("raw", "#b5cbe0", "#36506a"),
    color("series1", "#235f94", "#86b6de"),
    color("series2", "#d9730d", "#f2a65e"),
    color("series3", "#2f8f57", "#67c08d"),
    color("series4", "#a3347f", "#e08cc6"),
    color("series5", "#7a5a1e", "#c9a866"),
    color("series6", "#1aa0b0", "#5cd0dd"),
    color("series7", "#c22b22", "#f0857c"),
    color("series8", "#63676d", "#b3b8bf"),
];

const fn color(name: &'static str, light: &'static str, dark: &'static str) -> Color {
    Color { name, light, dark }
}

/// The colours as style sheets name them, light ones and those for dark ground.
pub fn style_sheet() -> String {
    let list = |value: fn(&Color) -> &str| {
        PALETTE.iter().map(|color| format!("--{}: {}; ", color.name, value(color))).collect::<String>()
    };
    let (light, dark) = (list(|color| color.light), list(|color| color.dark));
    format!(":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n")
}

/// A drawing that stands alone, as a file: light colours on their own ground instead of the page's.
pub fn standalone(svg: &str) -> String {
    let mut out = light(svg);
    let end = out.find('>').map_or(0, |at| at + 1);
    let ground = PALETTE[0].light;
    out.insert_str(end, &format!("<rect width=\"100%\" height=\"100%\" fill=\"{ground}\"/>"));
    out
}

/// The same text with light colours in the place of their names.
pub fn light(svg: &str) -> String {
    let replaced = |text: String, color: &Color| text.replace(&format!("var(--{})", color.name), color.light);
    PALETTE.iter().fold(svg.to_string(), replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_alone_needs_no_style_sheet() {
        let text: String = PALETTE.iter().map(|c| format!("<a fill=\"var(--{})\"/>", c.name)).collect();
        let alone = standalone(&format!("<svg width=\"1\">{text}</svg>"));
        assert!(!alone.contains("var("), "{alone}");
        assert!(alone.starts_with("<svg width=\"1\"><rect "));
    }
}
