//! Scalar fields written as formulas, such as `|p-(0.1,0,0)|-0.4` or `hypot(hypot(x,y)-0.55,z)-0.22, a torus`: a parser by
//! recursive descent, and evaluation in f64. Knows no grids.

use anyhow::{Error, Result, anyhow, bail};
use glam::DVec3;

/// A scalar field of x, y and z, or of the point p that they make up.
///
/// It may use numbers, `pi`, `+ - * /`, powers (`^` or `**`), parentheses, `hypot`, `min` and `max` of two or more numbers, `sqrt`,
/// `abs`, `sin`, `cos`, `tan`, `tanh`, `exp` and `log` of one, points `(a,b,c)`, and bars for lengths and absolute values.
pub struct Formula(Node);

impl Formula {
    /// Reads a formula. What follows a comma and a blank outside of parentheses is a remark.
    ///
    /// # Errors
    /// If it is not understood; the place is counted in characters from 1.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { text: without_remark(text), at: 0 };
        let whole = parser.sum()?;
        parser.skip_blanks();
        if !parser.rest().is_empty() {
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

fn without_remark(text: &str) -> &str {
    let mut depth = 0;
    for (at, symbol) in text.char_indices() {
        match symbol {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 && text[at + 1..].starts_with(' ') => return &text[..at],
            _ => {}
        }
    }
    text
}

/// A number that depends on the point.
#[derive(Clone)]
enum Node {
    Constant(f64),
    /// A coordinate of the point.
    Axis(usize),
    Map(fn(f64) -> f64, Box<Node>),
    /// From the left, over one part or more.
    Fold(fn(f64, f64) -> f64, Vec<Node>),
}

impl Node {
    fn at(&self, point: DVec3) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Axis(axis) => point[*axis],
            Self::Map(function, part) => function(part.at(point)),
            Self::Fold(function, parts) => {
                let rest = parts.iter().skip(1);
                rest.fold(parts[0].at(point), |so_far, part| function(so_far, part.at(point)))
            }
        }
    }
}

fn map(function: fn(f64) -> f64, part: Node) -> Node {
    Node::Map(function, Box::new(part))
}

fn fold(function: fn(f64, f64) -> f64, left: Node, right: Node) -> Node {
    Node::Fold(function, vec![left, right])
}

/// What a piece of a formula stands for.
enum Part {
    Number(Node),
    Point([Node; 3]),
}

/// A function that a formula may name.
enum Function {
    OfOne(fn(f64) -> f64),
    /// Of two numbers or more, from the left.
    OfSeveral(fn(f64, f64) -> f64),
}

impl Function {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sqrt" => Self::OfOne(f64::sqrt),
            "abs" => Self::OfOne(f64::abs),
            "sin" => Self::OfOne(f64::sin),
            "cos" => Self::OfOne(f64::cos),
            "tan" => Self::OfOne(f64::tan),
            "tanh" => Self::OfOne(f64::tanh),
            "exp" => Self::OfOne(f64::exp),
            "log" => Self::OfOne(f64::ln),
            "hypot" => Self::OfSeveral(f64::hypot),
            "min" | "minimum" => Self::OfSeveral(f64::min),
            "max" | "maximum" => Self::OfSeveral(f64::max),
            _ => return None,
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    /// How far it is read, in bytes.
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Reads a symbol if it is what comes next.
    fn eat(&mut self, symbol: &str) -> bool {
        self.skip_blanks();
        let found = self.rest().starts_with(symbol);
        if found {
            self.at += symbol.len();
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<()> {
        if self.eat(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
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
                match (so_far, self.signed()?) {
                    // of two factors, it is the point that is scaled
                    (number @ Part::Number(_), point @ Part::Point(_)) => self.scaled(|a, b| a * b, point, number)?,
                    (left, right) => self.scaled(|a, b| a * b, left, right)?,
                }
            } else if self.eat("/") {
                let right = self.signed()?;
                self.scaled(|a, b| a / b, so_far, right)?
            } else {
                return Ok(so_far);
            };
        }
    }

    /// Two numbers or two points, put together.
    fn added(&self, function: fn(f64, f64) -> f64, left: Part, right: Part) -> Result<Part> {
        match (left, right) {
            (Part::Number(a), Part::Number(b)) => Ok(Part::Number(fold(function, a, b))),
            (Part::Point([ax, ay, az]), Part::Point([bx, by, bz])) => {
                Ok(Part::Point([fold(function, ax, bx), fold(function, ay, by), fold(function, az, bz)]))
            }
            _ => Err(self.mistake("a point and a number cannot be added before it")),
        }
    }

    /// A number or a point by a number.
    fn scaled(&self, function: fn(f64, f64) -> f64, left: Part, right: Part) -> Result<Part> {
        match (left, right) {
            (Part::Number(a), Part::Number(b)) => Ok(Part::Number(fold(function, a, b))),
            (Part::Point(point), Part::Number(b)) => {
                Ok(Part::Point(point.map(|coordinate| fold(function, coordinate, b.clone()))))
            }
            _ => Err(self.mistake("a factor or divisor before it is a point")),
        }
    }

    /// A power with its sign, which counts last: -x^2 is -(x^2).
    fn signed(&mut self) -> Result<Part> {
        if self.eat("+") {
            return self.signed();
        }
        if !self.eat("-") {
            return self.power();
        }
        Ok(match self.signed()? {
            Part::Number(node) => Part::Number(map(|value| -value, node)),
            Part::Point(point) => Part::Point(point.map(|coordinate| map(|value| -value, coordinate))),
        })
    }

    fn power(&mut self) -> Result<Part> {
        let base = self.atom()?;
        if !self.eat("**") && !self.eat("^") {
            return Ok(base);
        }
        match (base, self.signed()?) {
            (Part::Number(base), Part::Number(exponent)) => Ok(Part::Number(fold(f64::powf, base, exponent))),
            _ => Err(self.mistake("a point has no power and is none")),
        }
    }

    fn atom(&mut self) -> Result<Part> {
        self.skip_blanks();
        match self.rest().chars().next() {
            Some('(') => self.group(),
            Some('|') => {
                self.expect("|")?;
                let inside = self.sum()?;
                self.expect("|")?;
                Ok(Part::Number(length(inside)))
            }
            Some('0'..='9' | '.') => self.number(),
            Some('a'..='z' | 'A'..='Z') => self.name(),
            _ => Err(self.unexpected("a number, a coordinate, a function, `(` or `|`")),
        }
    }

    /// Parentheses with one part or more.
    fn list(&mut self) -> Result<Vec<Part>> {
        self.expect("(")?;
        let mut parts = vec![self.sum()?];
        while self.eat(",") {
            parts.push(self.sum()?);
        }
        self.expect(")")?;
        Ok(parts)
    }

    fn numbers(&self, parts: Vec<Part>) -> Result<Vec<Node>> {
        let number = |part| match part {
            Part::Number(node) => Ok(node),
            Part::Point(_) => Err(self.mistake("a point stands in parentheses before it, where a number is expected")),
        };
        parts.into_iter().map(number).collect()
    }

    fn group(&mut self) -> Result<Part> {
        let mut parts = self.list()?;
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        match <[Node; 3]>::try_from(self.numbers(parts)?) {
            Ok(point) => Ok(Part::Point(point)),
            Err(parts) => Err(self.mistake(&format!("the point before it has {} coordinates, not 3", parts.len()))),
        }
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
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let word = &rest[..rest.find(|c: char| !is_part(c)).unwrap_or(rest.len())];
        let name = ["np.", "numpy.", "math."].iter().find_map(|module| word.strip_prefix(module)).unwrap_or(word);
        let part = match name {
            "x" => Part::Number(Node::Axis(0)),
            "y" => Part::Number(Node::Axis(1)),
            "z" => Part::Number(Node::Axis(2)),
            "p" => Part::Point([0, 1, 2].map(Node::Axis)),
            "pi" => Part::Number(Node::Constant(std::f64::consts::PI)),
            _ => match Function::named(name) {
                Some(function) => return self.call(word, &function),
                None => {
                    return Err(self.mistake(&format!("`{word}` is neither a coordinate nor a function that is known")));
                }
            },
        };
        self.at += word.len();
        Ok(part)
    }

    fn call(&mut self, word: &str, function: &Function) -> Result<Part> {
        self.at += word.len();
        let parts = self.list()?;
        let mut parts = self.numbers(parts)?;
        match (function, parts.len()) {
            (Function::OfOne(function), 1) => Ok(Part::Number(map(*function, parts.remove(0)))),
            (Function::OfSeveral(function), 2..) => Ok(Part::Number(Node::Fold(*function, parts))),
            (_, count) => Err(self.mistake(&format!("{word} does not take as many numbers as {count}"))),
        }
    }
}

/// What bars stand for: the absolute value of a number, the length of a point's way from the origin.
fn length(part: Part) -> Node {
    match part {
        Part::Number(node) => map(f64::abs, node),
        Part::Point(point) => {
            let squares = point.map(|coordinate| map(|value| value * value, coordinate));
            map(f64::sqrt, Node::Fold(|a, b| a + b, squares.into()))
        }
    }
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
            ("2x", 2, "an operator is expected"),
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
