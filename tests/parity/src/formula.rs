//! Scalar fields written as formulas, such as `|p-(0.1,0,0)|-0.4` or `hypot(hypot(x,y)-0.55,z)-0.22, a torus`: a parser
//! by recursive descent, and evaluation in f64. Knows no grids; what can be computed stands in `functions`.

mod functions;

use anyhow::{Error, Result, anyhow, bail};
use glam::DVec3;

use functions::{Function, Node, Part, modulo, point_of};

/// A scalar field of x, y and z, or of the point p that they make up.
///
/// It may use numbers, `pi`, `e`, `+ - * / %`, powers (`^`, `**`, a raised 2 or 3), products without a sign (`0.3x`),
/// parentheses, points `(a,b,c)` and `(a,b)`, which are multiplied and divided coordinate by coordinate, `p.x`, bars
/// for lengths and absolute values, and the functions of `Function::named`.
pub struct Formula(Node);

impl Formula {
    /// Reads a formula. What follows it after a semicolon, after a comma and a blank, or in parentheses after a blank
    /// is a remark.
    ///
    /// # Errors
    /// If it is not understood; the place is counted in characters from 1.
    pub fn parse(text: &str) -> Result<Self> {
        let plain: String = text.chars().map(plain).collect();
        let mut parser = Parser { text: &plain, at: 0, open_bars: 0, is_loose: false };
        let whole = parser.sum()?;
        if !is_remark(parser.rest()) {
            parser.skip_blanks();
            return Err(parser.unexpected("an operator"));
        }
        match whole {
            Part::Number(node) => Ok(Self(node)),
            Part::Point(_) => bail!("the formula `{}` is a point and no number", parser.text),
        }
    }

    /// The field's value.
    pub fn at(&self, point: DVec3) -> f64 {
        self.0.at(point)
    }
}

/// Signs of print as they are typed.
fn plain(symbol: char) -> char {
    match symbol {
        '\u{2212}' | '\u{2013}' => '-',
        '\u{b7}' | '\u{d7}' | '\u{22c5}' | '\u{2217}' => '*',
        '\u{f7}' | '\u{2215}' => '/',
        '\u{2016}' => '|',
        other => other,
    }
}

/// Whether what is left after a formula is nothing or a remark.
fn is_remark(rest: &str) -> bool {
    let (words, has_blank) = (rest.trim(), rest.starts_with(char::is_whitespace));
    let after_comma = words.strip_prefix(',').is_some_and(|words| words.starts_with(char::is_whitespace));
    // what can be read as a formula in parentheses may be meant as a factor
    let inside = words.strip_prefix('(').and_then(|words| words.strip_suffix(')'));
    let in_parentheses = has_blank && inside.is_some_and(|inside| Formula::parse(inside).is_err());
    words.is_empty() || words.starts_with(';') || after_comma || in_parentheses
}

struct Parser<'a> {
    text: &'a str,
    /// How far it is read, in bytes.
    at: usize,
    /// Bars that are open in the innermost parentheses.
    open_bars: usize,
    /// Whether it is not clear how far the divisor or the exponent that was just read goes: `1/2x` and `e^2x` have two
    /// readings.
    is_loose: bool,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Reads a symbol if it is what comes next, with the blanks before it.
    fn eat(&mut self, symbol: &str) -> bool {
        match self.rest().trim_start().strip_prefix(symbol) {
            Some(after) => {
                self.at = self.text.len() - after.len();
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, symbol: &str) -> Result<()> {
        if self.eat(symbol) {
            return Ok(());
        }
        self.skip_blanks();
        Err(self.unexpected(&format!("`{symbol}`")))
    }

    fn mistake(&self, reason: &str) -> Error {
        let place = self.text[..self.at].chars().count() + 1;
        anyhow!("the formula `{}` is not understood at character {place}: {reason}", self.text)
    }

    fn unexpected(&self, wanted: &str) -> Error {
        match self.rest().chars().next() {
            Some(found) => self.mistake(&format!("{wanted} is expected, not `{found}`")),
            None => self.mistake(&format!("{wanted} is expected, not its end")),
        }
    }

    fn sum(&mut self) -> Result<Part> {
        let mut so_far = self.product()?;
        loop {
            so_far = if self.eat("+") {
                let right = self.product()?;
                self.added(|a, b| a + b, so_far, right)?
            } else if self.eat("-") {
                let right = self.product()?;
                self.added(|a, b| a - b, so_far, right)?
            } else {
                return Ok(so_far);
            };
        }
    }

    fn product(&mut self) -> Result<Part> {
        let mut so_far = self.signed()?;
        loop {
            so_far = if self.eat("*") {
                let right = self.signed()?;
                self.together(|a, b| a * b, so_far, right)?
            } else if self.eat("/") {
                let right = self.signed()?;
                self.is_loose = true;
                if matches!((&so_far, &right), (Part::Number(_), Part::Point(_))) {
                    return Err(self.mistake("the divisor of a number before it is a point"));
                }
                self.together(|a, b| a / b, so_far, right)?
            } else if self.eat("%") {
                let right = self.signed()?;
                self.together(modulo, so_far, right)?
            } else if self.factor_follows() {
                if self.is_loose {
                    return Err(self.mistake("`1/2x` and `e^2x` may be read in two ways: parentheses are missing"));
                }
                let right = self.power()?;
                self.together(|a, b| a * b, so_far, right)?
            } else {
                return Ok(so_far);
            };
        }
    }

    /// Whether a factor follows without a sign: a name, parentheses or bars at a number, at parentheses or at bars.
    /// Parentheses after a blank may be a remark, and a bar may be the end of what is inside bars.
    fn factor_follows(&self) -> bool {
        let (before, rest) = (self.text[..self.at].chars().next_back(), self.rest());
        let after_number = before.is_some_and(|symbol| symbol.is_ascii_digit() || symbol == '.');
        let after_whole = before.is_some_and(|symbol| ")]|".contains(symbol) || power_sign(symbol).is_some());
        match rest.chars().next() {
            Some('(') => after_number || after_whole,
            Some('|') => after_number && self.open_bars == 0,
            Some('\u{221a}' | '\u{3c0}' | 'a'..='z' | 'A'..='Z') => true,
            Some(blank) if blank.is_whitespace() => {
                let word = word_of(rest.trim_start());
                constant(word).is_some() || Function::named(unqualified(word)).is_some()
            }
            _ => false,
        }
    }

    /// Two parts, coordinate by coordinate.
    fn together(&self, function: fn(f64, f64) -> f64, left: Part, right: Part) -> Result<Part> {
        left.with(function, right).map_err(|reason| self.mistake(&reason))
    }

    /// Two numbers or two points, put together.
    fn added(&self, function: fn(f64, f64) -> f64, left: Part, right: Part) -> Result<Part> {
        if matches!((&left, &right), (Part::Number(_), Part::Point(_)) | (Part::Point(_), Part::Number(_))) {
            return Err(self.mistake("a point and a number cannot be added before it"));
        }
        self.together(function, left, right)
    }

    /// A power with its sign, which counts last: -x^2 is -(x^2).
    fn signed(&mut self) -> Result<Part> {
        if self.eat("+") {
            return self.signed();
        }
        if self.eat("-") { Ok(self.signed()?.map(|value| -value)) } else { self.power() }
    }

    fn power(&mut self) -> Result<Part> {
        let base = self.atom()?;
        let exponent = if let Some(exponent) = self.rest().chars().next().and_then(power_sign) {
            self.at += '\u{b2}'.len_utf8();
            self.is_loose = false;
            Part::Number(Node::Constant(exponent))
        } else if self.eat("**") || self.eat("^") {
            let exponent = self.signed()?;
            self.is_loose = !self.text[..self.at].ends_with(')');
            exponent
        } else {
            self.is_loose = false;
            return Ok(base);
        };
        match (base, exponent) {
            (base @ Part::Number(_), exponent @ Part::Number(_)) => self.together(f64::powf, base, exponent),
            _ => Err(self.mistake("a point has no power and is none")),
        }
    }

    fn atom(&mut self) -> Result<Part> {
        self.skip_blanks();
        match self.rest().chars().next() {
            Some('(') => self.group("(", ")"),
            Some('[') => self.group("[", "]"),
            Some('|') => {
                self.expect("|")?;
                self.open_bars += 1;
                let inside = self.sum()?;
                self.open_bars -= 1;
                self.expect("|")?;
                Ok(Part::Number(inside.length()))
            }
            Some('\u{221a}') => {
                self.expect("\u{221a}")?;
                Ok(self.atom()?.map(f64::sqrt))
            }
            Some('0'..='9' | '.') => self.number(),
            Some('a'..='z' | 'A'..='Z' | '\u{3c0}') => self.name(),
            _ => Err(self.unexpected("a number, a coordinate, a function, `(` or `|`")),
        }
    }

    /// Parentheses with one part or more. Of NumPy's axes only the last is known, which is the one that a point has.
    fn list(&mut self, open: &str, close: &str) -> Result<Vec<Part>> {
        self.expect(open)?;
        let bars_around = std::mem::take(&mut self.open_bars);
        let mut parts = vec![self.sum()?];
        while self.eat(",") {
            if !self.eat("axis=-1") {
                parts.push(self.sum()?);
            }
        }
        self.open_bars = bars_around;
        self.expect(close)?;
        Ok(parts)
    }

    fn group(&mut self, open: &str, close: &str) -> Result<Part> {
        let mut parts = self.list(open, close)?;
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let number = |part| match part {
            Part::Number(node) => Ok(node),
            Part::Point(_) => Err(self.mistake("a point stands in parentheses before it, where a number is expected")),
        };
        let numbers: Vec<Node> = parts.into_iter().map(number).collect::<Result<_>>()?;
        point_of(numbers.into_iter()).map_err(|reason| self.mistake(&reason))
    }

    fn number(&mut self) -> Result<Part> {
        let rest = self.rest();
        let after = |text: &str, wanted: fn(char) -> bool| text.find(|c: char| !wanted(c)).unwrap_or(text.len());
        let mut end = after(rest, |c: char| c.is_ascii_digit() || c == '.');
        if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let count = after(digits, |c: char| c.is_ascii_digit());
            if count > 0 {
                end = rest.len() - digits.len() + count;
            }
        }
        let digits = &rest[..end];
        let value = digits.parse::<f64>().map_err(|_| self.mistake(&format!("`{digits}` is no number")))?;
        self.at += end;
        Ok(Part::Number(Node::Constant(value)))
    }

    /// A coordinate, a constant or a function; NumPy's names may have their module before them.
    fn name(&mut self) -> Result<Part> {
        let word = word_of(self.rest());
        if let Some(part) = constant(word) {
            self.at += word.len();
            return Ok(part);
        }
        let Some(function) = Function::named(unqualified(word)) else {
            return Err(self.mistake(&format!("`{word}` is neither a coordinate nor a function that is known")));
        };
        self.at += word.len();
        let parts = self.list("(", ")")?;
        function.of(word, parts).map_err(|reason| self.mistake(&reason))
    }
}

/// What a raised digit raises to.
fn power_sign(symbol: char) -> Option<f64> {
    match symbol {
        '\u{b2}' => Some(2.0),
        '\u{b3}' => Some(3.0),
        _ => None,
    }
}

/// The word that a text begins with, with dots and digits; the letter pi is one of its own.
fn word_of(text: &str) -> &str {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    match text.strip_prefix('\u{3c0}') {
        Some(rest) => &text[..text.len() - rest.len()],
        None => &text[..text.find(|c: char| !is_part(c)).unwrap_or(text.len())],
    }
}

/// A name without the module that it comes from.
fn unqualified(word: &str) -> &str {
    let name = ["np.", "numpy.", "math."].iter().find_map(|module| word.strip_prefix(module)).unwrap_or(word);
    name.strip_prefix("linalg.").unwrap_or(name)
}

/// What a word stands for that is no function: a coordinate, the point, some of its coordinates, a constant.
fn constant(word: &str) -> Option<Part> {
    let axis = |letter: char| "xyz".find(letter).map(Node::Axis);
    Some(match unqualified(word) {
        "x" => Part::Number(Node::Axis(0)),
        "y" => Part::Number(Node::Axis(1)),
        "z" => Part::Number(Node::Axis(2)),
        "p" => Part::Point([0, 1, 2].map(Node::Axis).into()),
        "pi" | "\u{3c0}" => Part::Number(Node::Constant(std::f64::consts::PI)),
        "e" => Part::Number(Node::Constant(std::f64::consts::E)),
        name => {
            let mut axes = name.strip_prefix("p.")?.chars().map(axis).collect::<Option<Vec<Node>>>()?;
            if axes.len() == 1 { Part::Number(axes.remove(0)) } else { point_of(axes.into_iter()).ok()? }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(formula: &str, at: [f64; 3]) -> f64 {
        Formula::parse(formula).unwrap_or_else(|error| panic!("{error}")).at(DVec3::from(at))
    }

    #[test]
    fn fields_are_evaluated_as_they_are_written() {
        let of = |formula: &str, expected: &dyn Fn(DVec3) -> f64| {
            for at in [[0.3, -0.45, 0.2], [0.0, 0.0, 0.0], [-0.61, 0.7, -1.3], [1.0, 1.0, 1.0]] {
                let error = (value(formula, at) - expected(DVec3::from(at))).abs();
                assert!(error < 1e-14, "{formula} at {at:?}: {error}");
            }
        };
        let ball = |p: DVec3, x: f64, radius: f64| (p - DVec3::new(x, 0.0, 0.0)).length() - radius;
        // those of the committed set
        of("|p-(0.013,-0.021,0.007)|-0.7", &|p| (p - DVec3::new(0.013, -0.021, 0.007)).length() - 0.7);
        of("hypot(hypot(x,y)-0.55,z)-0.22", &|p| (p.x.hypot(p.y) - 0.55).hypot(p.z) - 0.22);
        of("|p|-0.5, level 0.1", &|p| p.length() - 0.5);
        // and others
        of("min(|p-(.2,0,0)|-.4,|p-(-.2,0,0)|-.35)", &|p| ball(p, 0.2, 0.4).min(ball(p, -0.2, 0.35)));
        of("max(max(abs(x)-.4,abs(y)-.3),abs(z)-.5)", &|p| (p.x.abs() - 0.4).max(p.y.abs() - 0.3).max(p.z.abs() - 0.5));
        of("np.maximum(|x|-.4, |y|-.3, |z|-.5), a box (three sides)", &|p| {
            (p.x.abs() - 0.4).max(p.y.abs() - 0.3).max(p.z.abs() - 0.5)
        });
        of("sin(5*x)*cos(5*y) + sin(5*y)*cos(5*z) + sin(5*z)*cos(5*x)", &|p| {
            let part = |a: f64, b: f64| (5.0 * a).sin() * (5.0 * b).cos();
            part(p.x, p.y) + part(p.y, p.z) + part(p.z, p.x)
        });
        of("hypot(hypot(x,y)-0.55,z)-0.22-0.03*sin(7*x)", &|p| {
            (p.x.hypot(p.y) - 0.55).hypot(p.z) - 0.22 - 0.03 * (7.0 * p.x).sin()
        });
        of("||p|-0.5|-1e-1", &|p| (p.length() - 0.5).abs() - 0.1);
        of("|2*(p-(0,0,1))/4|-exp(-1.5E+0)", &|p| (2.0 * (p - DVec3::Z) / 4.0).length() - (-1.5f64).exp());
        of("sqrt(x*x+y*y)-tanh(pi)+log(2)-tan(z)", &|p| {
            (p.x * p.x + p.y * p.y).sqrt() - std::f64::consts::PI.tanh() + 2.0f64.ln() - p.z.tan()
        });
    }

    #[test]
    fn other_spellings_mean_the_same() {
        for (written, plain) in [
            ("|p/(0.6,0.5,0.4)|-1", "sqrt((x/0.6)^2+(y/0.5)^2+(z/0.4)^2)-1"),
            ("|p*(1,2,1)|-0.7", "hypot(x,2*y,z)-0.7"),
            ("|(2,1,3)*p*0.5|", "hypot(x,y/2,1.5*z)"),
            ("norm(p)-0.7", "|p|-0.7"),
            ("length(p - vec3(0.1,0,0))-0.7", "|p-(0.1,0,0)|-0.7"),
            ("np.linalg.norm(p-np.array([0.1,0,0]), axis=-1)-0.7", "|p-(0.1,0,0)|-0.7"),
            ("dot(p,p)-0.5", "x*x+y*y+z*z-0.5"),
            ("sqrt(x\u{b2}+y\u{b2}+z\u{b2})-0.7", "|p|-0.7"),
            ("\u{221a}(x\u{b2}+y\u{b2})-|z|\u{b3}", "hypot(x,y)-|z|^3"),
            ("0.3x-0.1", "0.3*x-0.1"),
            ("-2x\u{b2}y + 3(x+1)(y-2) - 0.5|z-2|", "-2*x^2*y+3*(x+1)*(y-2)-0.5*|z-2|"),
            ("|x-2|+1.5 y", "|x-2|+1.5*y"),
            ("sin(5x)cos(5y) + 2 sin(\u{3c0}z)", "sin(5*x)*cos(5*y)+2*sin(pi*z)"),
            ("x/2.*|2-x| \u{2212} y\u{b7}z", "x/2*|2-x|-y*z"),
            ("hypot(|(x,y)|-0.5,z)-0.2", "hypot(hypot(x,y)-0.5,z)-0.2"),
            ("length(vec2(length(p.xz)-0.5,p.y))-0.2", "hypot(hypot(x,z)-0.5,y)-0.2"),
            ("clip(x,-0.2,0.4)", "min(max(x,-0.2),0.4)"),
            ("mod(x,0.5)+y%0.5-z % -0.7", "x-0.5*floor(x/0.5)+y-0.5*floor(y/.5)-(z+.7*floor(z/-.7))"),
            ("|p|-0.5+0.1*cos(3*atan2(y,x))", "|p|-0.5+0.1*np.cos(3*np.arctan2(y,x))"),
            ("tanh(x)", "sinh(x)/cosh(x)"),
            ("p.x-p.z", "x-z"),
            ("e^(2x)-arctan(y)", "exp(2*x)-atan2(y,1)"),
            (
                "max(abs(p))+min(x,|y|,z)-|max(p,0)|",
                "max(|x|,|y|,|z|)+min(min(x,|y|),z)-hypot(max(x,0),max(y,0),max(z,0))",
            ),
            ("|p|-0.7; a sphere (of radius 0.7)", "|p|-0.7"),
            ("|p|-0.7 (a sphere, level 0)", "|p|-0.7"),
        ] {
            for at in [[0.3, -0.45, 0.2], [-0.61, 0.7, -1.3], [1.1, 1.2, 0.9]] {
                let error = (value(written, at) - value(plain, at)).abs();
                assert!(error < 1e-14, "{written} at {at:?}: {error}");
            }
        }
        assert!((value("mod(x,0.5)", [-0.2, 0.0, 0.0]) - 0.3).abs() < 1e-15);
        assert!((value("dot(p,(1,2,3))", [4.0, 5.0, 6.0]) - 32.0).abs() < 1e-15);
        assert!((value("atan2(y,x)", [0.0, 1.0, 0.0]) - std::f64::consts::FRAC_PI_2).abs() < 1e-15);
        assert!((value("sinh(x)+cosh(x)", [1.0, 0.0, 0.0]) - std::f64::consts::E).abs() < 1e-14);
    }

    #[test]
    fn operators_bind_as_usual() {
        for (formula, expected) in [
            ("7-4-2", 1.0),
            ("16/4/2*3", 6.0),
            ("2+3*4", 14.0),
            ("2^3^2", 512.0),
            ("2**3**2", 512.0),
            ("-2^2", -4.0),
            ("(-2)^2", 4.0),
            ("2^-1", 0.5),
            ("3*-2", -6.0),
            ("1--+-1", 0.0),
            ("-(1,2,2)*(x+x)/2 * 0 + p - p", f64::NAN),
            ("|-(1,2,2)|", 3.0),
            ("hypot(2,3,6)", 7.0),
        ] {
            match expected.is_nan() {
                true => assert!(Formula::parse(formula).is_err_and(|error| error.to_string().contains("point"))),
                false => assert!((value(formula, [1.0, 1.0, 1.0]) - expected).abs() < 1e-12, "{formula}"),
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_told_with_its_place() {
        for (formula, place, words) in [
            ("", 1, "not its end"),
            ("box", 1, "`box` is neither"),
            ("|p|-0.5 level", 9, "an operator is expected, not `l`"),
            ("|p-(0,0)|-1", 9, "2 coordinates"),
            ("|p-0.1|", 7, "a point and a number"),
            ("2*(x+", 6, "not its end"),
            ("2*(x+)", 6, "not `)`"),
            ("min(x)-1", 7, "min does not take"),
            ("abs(x,y)", 9, "abs does not take"),
            ("sqrt x", 6, "`(` is expected"),
            ("1.2.3", 1, "`1.2.3` is no number"),
            ("\u{b2}", 1, "not `\u{b2}`"),
            ("x + \u{b2}", 5, "not `\u{b2}`"),
            ("|x", 3, "`|` is expected"),
            ("2q", 2, "`q` is neither"),
            ("|x-2|x|", 7, "an operator is expected"),
            ("1/2x", 4, "two ways"),
            ("x^2y", 4, "two ways"),
            ("|p|-2 (x+1)-y", 7, "an operator is expected, not `(`"),
            ("|p|-2 (x+1)", 7, "an operator is expected, not `(`"),
            ("|p/(1,2)|-1", 9, "3 coordinates meets one of 2 coordinates"),
            ("dot(p,2)", 9, "of two points"),
            ("clip(x,1)", 10, "does not take"),
            ("norm(p,2)", 10, "does not take"),
            ("(x,y,z,1)", 10, "4 coordinates"),
            ("p^2", 4, "power"),
            ("1/p", 4, "divisor"),
        ] {
            let error = match Formula::parse(formula) {
                Ok(_) => panic!("{formula} is understood"),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(&format!("at character {place}: ")) && error.contains(words), "{formula}: {error}");
        }
        assert!(Formula::parse("p-(0,0,1), a point").is_err());
    }
}
