//! What formulas are made of: numbers and points that depend on x, y and z, and the functions that a formula may name.
//! Knows no text.

use glam::DVec3;

/// A number that depends on the point.
#[derive(Clone)]
pub enum Node {
    Constant(f64),
    /// A coordinate of the point.
    Axis(usize),
    Map(fn(f64) -> f64, Box<Node>),
    /// From the left, over one part or more.
    Fold(fn(f64, f64) -> f64, Vec<Node>),
}

impl Node {
    pub fn at(&self, point: DVec3) -> f64 {
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

fn fold(function: fn(f64, f64) -> f64, left: Node, right: Node) -> Node {
    Node::Fold(function, vec![left, right])
}

/// What a piece of a formula stands for.
pub enum Part {
    Number(Node),
    /// Two coordinates or three.
    Point(Vec<Node>),
}

impl Part {
    /// A function of each coordinate.
    pub fn map(self, function: fn(f64) -> f64) -> Self {
        let mapped = |node: Node| Node::Map(function, Box::new(node));
        match self {
            Self::Number(node) => Self::Number(mapped(node)),
            Self::Point(point) => Self::Point(point.into_iter().map(mapped).collect()),
        }
    }

    /// A function of two parts, coordinate by coordinate; a number goes with each coordinate of a point.
    pub fn with(self, function: fn(f64, f64) -> f64, other: Self) -> Result<Self, String> {
        Ok(match (self, other) {
            (Self::Number(a), Self::Number(b)) => Self::Number(fold(function, a, b)),
            (Self::Point(a), Self::Number(b)) => {
                Self::Point(a.into_iter().map(|a| fold(function, a, b.clone())).collect())
            }
            (Self::Number(a), Self::Point(b)) => {
                Self::Point(b.into_iter().map(|b| fold(function, a.clone(), b)).collect())
            }
            (Self::Point(a), Self::Point(b)) if a.len() == b.len() => {
                Self::Point(a.into_iter().zip(b).map(|(a, b)| fold(function, a, b)).collect())
            }
            (Self::Point(a), Self::Point(b)) => {
                return Err(format!("a point of {} coordinates meets one of {} coordinates", a.len(), b.len()));
            }
        })
    }

    /// The absolute value of a number, the length of a point's way from the origin.
    pub fn length(self) -> Node {
        match self {
            Self::Number(node) => Node::Map(f64::abs, Box::new(node)),
            Self::Point(point) => {
                let squares = point.into_iter().map(|node| Node::Map(|value| value * value, Box::new(node)));
                Node::Map(f64::sqrt, Box::new(Node::Fold(|a, b| a + b, squares.collect())))
            }
        }
    }
}

/// A function that a formula may name.
#[derive(Clone, Copy)]
pub enum Function {
    /// Of one number, or of each coordinate of a point.
    OfOne(fn(f64) -> f64),
    OfTwo(fn(f64, f64) -> f64),
    /// Of two or more, from the left, or of the coordinates of one point.
    OfSeveral(fn(f64, f64) -> f64),
    /// Of a value, its lower and its upper end.
    Clip,
    Length,
    Dot,
    /// The point of these coordinates, of which some may come as points.
    Point,
}

impl Function {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sqrt" => Self::OfOne(f64::sqrt),
            "abs" | "fabs" => Self::OfOne(f64::abs),
            "sin" => Self::OfOne(f64::sin),
            "cos" => Self::OfOne(f64::cos),
            "tan" => Self::OfOne(f64::tan),
            "sinh" => Self::OfOne(f64::sinh),
            "cosh" => Self::OfOne(f64::cosh),
            "tanh" => Self::OfOne(f64::tanh),
            "asin" | "arcsin" => Self::OfOne(f64::asin),
            "acos" | "arccos" => Self::OfOne(f64::acos),
            "atan" | "arctan" => Self::OfOne(f64::atan),
            "exp" => Self::OfOne(f64::exp),
            "log" | "ln" => Self::OfOne(f64::ln),
            "square" => Self::OfOne(|value| value * value),
            "floor" => Self::OfOne(f64::floor),
            "ceil" => Self::OfOne(f64::ceil),
            "atan2" | "arctan2" => Self::OfTwo(f64::atan2),
            "mod" | "remainder" => Self::OfTwo(modulo),
            "pow" | "power" => Self::OfTwo(f64::powf),
            "hypot" => Self::OfSeveral(f64::hypot),
            "min" | "minimum" => Self::OfSeveral(f64::min),
            "max" | "maximum" => Self::OfSeveral(f64::max),
            "clip" | "clamp" => Self::Clip,
            "norm" | "length" => Self::Length,
            "dot" => Self::Dot,
            "array" | "vec2" | "vec3" => Self::Point,
            _ => return None,
        })
    }

    /// The function of these parts, or why it has none.
    pub fn of(self, name: &str, parts: Vec<Part>) -> Result<Part, String> {
        let count = parts.len();
        let mut parts = parts.into_iter();
        match (self, parts.next(), parts.next(), parts.next()) {
            (Self::OfOne(function), Some(part), None, _) => Ok(part.map(function)),
            (Self::OfTwo(function), Some(a), Some(b), None) => a.with(function, b),
            (Self::OfSeveral(function), Some(Part::Point(point)), None, _) => {
                Ok(Part::Number(Node::Fold(function, point)))
            }
            (Self::OfSeveral(function), Some(a), Some(b), third) => third
                .into_iter()
                .chain(parts)
                .try_fold(a.with(function, b)?, |so_far, part| so_far.with(function, part)),
            (Self::Clip, Some(value), Some(low), Some(high)) if count == 3 => {
                value.with(f64::max, low)?.with(f64::min, high)
            }
            (Self::Length, Some(part), None, _) => Ok(Part::Number(part.length())),
            (Self::Dot, Some(Part::Point(a)), Some(Part::Point(b)), None) => {
                match Part::Point(a).with(|a, b| a * b, Part::Point(b))? {
                    Part::Point(products) => Ok(Part::Number(Node::Fold(|a, b| a + b, products))),
                    number @ Part::Number(_) => Ok(number),
                }
            }
            (Self::Dot, _, _, _) => Err(format!("{name} is of two points")),
            (Self::Point, first, second, third) => {
                let parts = [first, second, third].into_iter().flatten().chain(parts);
                point_of(parts.flat_map(|part| match part {
                    Part::Number(node) => vec![node],
                    Part::Point(point) => point,
                }))
            }
            _ => Err(format!("{name} does not take as many numbers as {count}")),
        }
    }
}

/// The remainder that has the divisor's sign, as Python and NumPy have it.
pub fn modulo(a: f64, b: f64) -> f64 {
    a - b * (a / b).floor()
}

/// A point of these coordinates.
pub fn point_of(coordinates: impl Iterator<Item = Node>) -> Result<Part, String> {
    let point: Vec<Node> = coordinates.collect();
    match point.len() {
        2 | 3 => Ok(Part::Point(point)),
        count => Err(format!("the point before it has {count} coordinates, not 2 or 3")),
    }
}
