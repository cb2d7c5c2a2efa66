//! numpy's arrays in a pickle, and what is made of them: chumpy's arrays and SciPy's sparse matrices. Knows no files.

use super::{Global, Machine, Node, Pickle, PickleError, Value, items};

/// An array as it lies in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Array<'a> {
    /// Number type as numpy names it: `f4`, `u1`, `i8`.
    pub dtype: &'a str,
    /// Whether numbers of several bytes begin with the lowest.
    pub little: bool,
    /// Sizes of its axes.
    pub shape: Vec<usize>,
    /// Whether the first axis lies closest.
    pub fortran: bool,
    data: Data<'a>,
}

/// Where an array's bytes are.
#[derive(Debug, Clone, PartialEq)]
enum Data<'a> {
    InFile(&'a [u8]),
    Node(usize),
}

/// An array's numbers, whatever their type, the last axis lying closest.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// Sizes of its axes.
    pub shape: Vec<usize>,
    /// As many values as these multiply to.
    pub values: Vec<f64>,
}

/// Numbers of the largest matrix that is made dense.
const LARGEST_MATRIX: usize = 1 << 24;

/// A short text of numpy's, as either Python wrote it.
pub(super) fn dtype_name(value: Value<'_>) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn bytes_per_number(dtype: &str) -> Option<usize> {
    match dtype {
        "f8" | "i8" | "u8" => Some(8),
        "f4" | "i4" | "u4" => Some(4),
        "f2" | "i2" | "u2" => Some(2),
        "i1" | "u1" | "b1" => Some(1),
        _ => None,
    }
}

impl<'a> Machine<'a> {
    /// numpy's array state: version, shape, dtype, Fortran order, bytes.
    pub(super) fn array_state(&self, state: Value<'a>) -> Result<Array<'a>, String> {
        let Some([_, shape, dtype, Value::Bool(fortran), data]) = items(&self.nodes, state) else {
            return Err("an array's state is not (version, shape, dtype, order, bytes)".into());
        };
        self.array_of(*shape, *dtype, *fortran, *data)
    }

    /// An array of given bytes, or a single number.
    pub(super) fn array(&mut self, callee: Global, arguments: &[Value<'a>]) -> Result<Value<'a>, String> {
        let array = match (callee, arguments) {
            (Global::NumpyScalar, [dtype, data]) => {
                let Value::Node(none) = self.node(Node::Tuple(Vec::new()))? else { unreachable!("a node was made") };
                self.array_of(Value::Node(none), *dtype, false, *data)?
            }
            (Global::NumpyBuffer, [data, dtype, shape, order]) => {
                self.array_of(*shape, *dtype, dtype_name(*order) == Some("F"), *data)?
            }
            _ => return Err(format!("it calls {callee:?} with arguments that it does not take")),
        };
        self.node(Node::Array(Some(array)))
    }

    fn array_of(
        &self,
        shape: Value<'a>,
        dtype: Value<'a>,
        fortran: bool,
        data: Value<'a>,
    ) -> Result<Array<'a>, String> {
        let Value::Node(at) = dtype else { return Err("an array without a type".into()) };
        let Node::Dtype(dtype, little) = self.nodes[at] else { return Err("an array without a type".into()) };
        let (data, length) = match data {
            Value::Bytes(bytes) => (Data::InFile(bytes), bytes.len()),
            Value::Node(at) => match &self.nodes[at] {
                Node::Owned(bytes) => (Data::Node(at), bytes.len()),
                _ => return Err(format!("an array of the type {dtype} whose numbers are no bytes")),
            },
            _ => return Err(format!("an array of the type {dtype} whose numbers are no bytes")),
        };
        let side = |side: &Value<'a>| match side {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        };
        let shape: Option<Vec<usize>> = items(&self.nodes, shape)
            .filter(|shape| shape.len() <= super::AXES)
            .and_then(|shape| shape.iter().map(side).collect());
        let shape = shape.ok_or("an array's shape is not made of whole numbers")?;
        let width =
            bytes_per_number(dtype).ok_or_else(|| format!("an array of the type {dtype}, which is no number"))?;
        let count = shape.iter().try_fold(width, |product, &n| product.checked_mul(n));
        if count != Some(length) {
            return Err(format!("an array of shape {shape:?} and type {dtype} comes with {length} bytes"));
        }
        Ok(Array { dtype, little, shape, fortran, data })
    }
}

impl<'a> Pickle<'a> {
    /// The array that a value is, and its bytes.
    pub fn array(&self, value: Value<'a>) -> Option<(&Array<'a>, &[u8])> {
        let Node::Array(Some(array)) = self.node(value)? else { return None };
        match array.data {
            Data::InFile(bytes) => Some((array, bytes)),
            Data::Node(at) => match &self.nodes[at] {
                Node::Owned(bytes) => Some((array, bytes)),
                _ => None,
            },
        }
    }

    /// Numbers of a value: an array, chumpy's array, or a sparse matrix, which is made dense.
    ///
    /// # Errors
    /// If it is none of these, or does not hold together.
    pub fn numbers(&self, value: Value<'a>) -> Result<Numbers, PickleError> {
        // a chumpy array may hold another one, but a file that nests them deeper than this means harm
        let mut value = value;
        for _ in 0..4 {
            match self.node(value) {
                Some(Node::Object(Global::Chumpy, state)) => {
                    value =
                        self.get(*state, "x").ok_or_else(|| self.wrong("a chumpy array without its numbers `x`"))?;
                }
                Some(Node::Object(class, state)) => return self.dense(*class, *state),
                _ => break,
            }
        }
        let (array, bytes) = self.array(value).ok_or_else(|| self.wrong("a value is not an array of numbers"))?;
        if !array.little {
            return Err(self.wrong("an array is not little-endian"));
        }
        macro_rules! read {
            ($ty:ty) => {
                bytes.as_chunks().0.iter().map(|number| <$ty>::from_le_bytes(*number) as f64).collect()
            };
        }
        let values: Vec<f64> = match array.dtype {
            "f8" => read!(f64),
            "f4" => read!(f32),
            "i8" => read!(i64),
            "u8" => read!(u64),
            "i4" => read!(i32),
            "u4" => read!(u32),
            "i2" => read!(i16),
            "u2" => read!(u16),
            "i1" => read!(i8),
            "u1" | "b1" => read!(u8),
            other => return Err(self.wrong(format!("an array is of the type {other}"))),
        };
        let values = if array.fortran { last_axis_closest(&array.shape, &values) } else { values };
        Ok(Numbers { shape: array.shape.clone(), values })
    }

    /// A compressed sparse matrix from its attributes.
    fn dense(&self, class: Global, state: Value<'a>) -> Result<Numbers, PickleError> {
        let part =
            |name: &str| self.get(state, name).ok_or_else(|| self.wrong(format!("a sparse matrix without `{name}`")));
        let shape = self.get(state, "_shape").or_else(|| self.get(state, "shape"));
        let shape = match shape.and_then(|shape| self.items(shape)) {
            Some([Value::Int(rows), Value::Int(columns)]) => {
                usize::try_from(*rows).ok().zip(usize::try_from(*columns).ok())
            }
            _ => None,
        };
        let (rows, columns) = shape.ok_or_else(|| self.wrong("a sparse matrix without a shape"))?;
        let (data, inner, starts) =
            (self.numbers(part("data")?)?, self.numbers(part("indices")?)?, self.numbers(part("indptr")?)?);
        let (outer, width) = if class == Global::SparseColumns { (columns, rows) } else { (rows, columns) };
        let count = rows.checked_mul(columns).filter(|count| *count <= LARGEST_MATRIX);
        let count = count.ok_or_else(|| self.wrong(format!("a sparse matrix of {rows} x {columns}")))?;
        let broken = || self.wrong(format!("a sparse matrix of {rows} x {columns} whose indices do not fit it"));
        let starts: Vec<usize> = starts.values.iter().map(|start| *start as usize).collect();
        let rising = starts.windows(2).all(|pair| pair[0] <= pair[1]);
        if starts.len() != outer + 1
            || !rising
            || starts.last() != Some(&data.values.len())
            || inner.values.len() != data.values.len()
        {
            return Err(broken());
        }
        let mut values = vec![0.0; count];
        for line in 0..outer {
            for k in starts[line]..starts[line + 1] {
                let at = inner.values[k];
                if !(at >= 0.0 && at < width as f64) {
                    return Err(broken());
                }
                let at = at as usize;
                // entries that stand twice add up, as SciPy has it
                values[if class == Global::SparseColumns { at * columns + line } else { line * columns + at }] +=
                    data.values[k];
            }
        }
        Ok(Numbers { shape: vec![rows, columns], values })
    }
}

/// Numbers whose first axis lay closest.
pub(crate) fn last_axis_closest(shape: &[usize], values: &[f64]) -> Vec<f64> {
    let mut strides = vec![1; shape.len()];
    for axis in 1..shape.len() {
        strides[axis] = strides[axis - 1] * shape[axis - 1];
    }
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}
