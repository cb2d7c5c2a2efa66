//! Pickles as data: the files in which Python programs leave arrays and tensors.
//!
//! A pickle is a program; this is an interpreter of the few instructions that such files need. Each kind of file may
//! name what its [`Dialect`] lists (numpy's arrays, PyTorch's tensors, the arrays of published body models) and nothing
//! else; such a name becomes a mark in the result. Nothing is imported, called or executed. Text and arrays stay where
//! they lie in the file, values refer to each other by index, so what can be built is bounded by the file's length,
//! however it is nested. Source: the instruction list in CPython's `pickletools`. Knows no files and no tensors of
//! ours.

use std::collections::BTreeMap;
use std::fmt;

mod arrays;
mod names;

pub(crate) use arrays::last_axis_closest;
pub use arrays::{Array, Numbers};
pub use names::{Dialect, Element};
use names::{Global, global, instruction};

/// Values of the largest pickle that is read. The optimiser's state of a large network has some ten thousand.
const LARGEST: usize = 1 << 22;
/// Axes of an array: more than numpy or PyTorch allow.
const AXES: usize = 64;
/// Arguments of a call.
const ARGUMENTS: usize = 16;

/// What is wrong with a pickle, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickleError {
    /// Byte of the instruction; the file's length where the result as a whole is meant.
    pub offset: usize,
    /// A sentence.
    pub reason: String,
}

impl fmt::Display for PickleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.offset, self.reason)
    }
}

impl std::error::Error for PickleError {}

/// A value; what has parts is a node of its pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number of at most 64 bits.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// Bytes; text too, in what Python 2 wrote.
    Bytes(&'a [u8]),
    /// Index of a node.
    Node(usize),
    /// A name of the dialect.
    Global(Global),
}

/// What has parts.
#[derive(Debug, Clone, PartialEq)]
enum Node<'a> {
    Tuple(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// Bytes that did not lie in the file as they are.
    Owned(Vec<u8>),
    /// A number type as numpy names it (`f4`), and whether it is little-endian.
    Dtype(&'a str, bool),
    Array(Option<Array<'a>>),
    /// Numbers of a tensor: type, name of the file that holds them, count.
    Storage(Element, &'a str, usize),
    Tensor(TensorAt<'a>),
    /// An object of a published model: its class and its attributes.
    Object(Global, Value<'a>),
}

/// Where a tensor's numbers lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorAt<'a> {
    /// Number type.
    pub element: Element,
    /// Name of the storage.
    pub storage: &'a str,
    /// Numbers in the storage.
    pub count: usize,
    /// First number of the tensor.
    pub offset: i64,
    /// Sizes of its axes.
    pub shape: Vec<i64>,
    /// Steps along its axes, in numbers.
    pub strides: Vec<i64>,
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle<'a> {
    length: usize,
    nodes: Vec<Node<'a>>,
    root: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// Reads a pickle.
    ///
    /// # Errors
    /// If it is cut or damaged, names anything that is not in its dialect, or needs an instruction that no such file
    /// has.
    pub fn read(bytes: &'a [u8], dialect: Dialect) -> Result<Self, PickleError> {
        let mut machine =
            Machine { bytes, at: 0, dialect, stack: Vec::new(), nodes: Vec::new(), memo: BTreeMap::new(), copied: 0 };
        let root = loop {
            let start = machine.at;
            if let Some(root) = machine.step().map_err(|reason| PickleError { offset: start, reason })? {
                break root;
            }
        };
        Ok(Self { length: bytes.len(), nodes: machine.nodes, root })
    }

    /// The whole.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// Entries of a dictionary in their order; `None` of anything else.
    pub fn entries(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The last entry of this name in a dictionary.
    pub fn get(&self, value: Value<'a>, name: &str) -> Option<Value<'a>> {
        self.entries(value)?.iter().rev().find(|(key, _)| self.text(*key) == Some(name)).map(|(_, value)| *value)
    }

    /// Text, as either Python wrote it.
    pub fn text(&self, value: Value<'a>) -> Option<&'a str> {
        match value {
            Value::Text(text) => Some(text),
            Value::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Items of a tuple or a list.
    pub fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        items(&self.nodes, value)
    }

    /// The tensor that a value is.
    pub fn tensor(&self, value: Value<'a>) -> Option<&TensorAt<'a>> {
        match self.node(value)? {
            Node::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// An error about the result as a whole.
    pub fn wrong(&self, reason: impl Into<String>) -> PickleError {
        PickleError { offset: self.length, reason: reason.into() }
    }

    fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(at) => self.nodes.get(at),
            _ => None,
        }
    }
}

fn items<'n, 'a>(nodes: &'n [Node<'a>], value: Value<'a>) -> Option<&'n [Value<'a>]> {
    match value {
        Value::Node(at) => match &nodes[at] {
            Node::Tuple(items) | Node::List(items) => Some(items),
            _ => None,
        },
        _ => None,
    }
}

/// The interpreter. A mark is `None` on the stack.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    dialect: Dialect,
    stack: Vec<Option<Value<'a>>>,
    nodes: Vec<Node<'a>>,
    memo: BTreeMap<u32, Value<'a>>,
    /// Bytes and entries that had to be copied.
    copied: usize,
}

impl<'a> Machine<'a> {
    /// One instruction; the result at the last.
    fn step(&mut self) -> Result<Option<Value<'a>>, String> {
        let code = self.take(1)?[0];
        match code {
            0x80 => {
                let protocol = self.number(1)?;
                if !(2..=5).contains(&protocol) {
                    return Err(format!("pickle protocol {protocol} is not supported"));
                }
            }
            // the length of a frame says nothing that the instructions do not
            0x95 => _ = self.take(8)?,
            b'.' => return self.pop().map(Some),
            b'(' => self.stack.push(None),
            b'0' => _ = self.pop()?,
            b'}' => self.build(Node::Dict(Vec::new()))?,
            // a set is the list of its items
            b']' | 0x8f => self.build(Node::List(Vec::new()))?,
            b')' => self.build(Node::Tuple(Vec::new()))?,
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'K' | b'M' => {
                let value = self.number(if code == b'K' { 1 } else { 2 })? as i64;
                self.push(Value::Int(value))?;
            }
            b'J' => {
                let value = self.number(4)? as u32 as i32;
                self.push(Value::Int(value.into()))?;
            }
            0x8a => {
                let length = self.number(1)? as usize;
                let digits = self.take(length)?;
                if length > 8 {
                    return Err(format!("it holds a whole number of {length} bytes"));
                }
                let mut wide = [if digits.last().is_some_and(|byte| *byte > 127) { 255 } else { 0 }; 8];
                wide[..length].copy_from_slice(digits);
                self.push(Value::Int(i64::from_le_bytes(wide)))?;
            }
            b'G' => {
                let mut value = [0; 8];
                value.copy_from_slice(self.take(8)?);
                self.push(Value::Float(f64::from_be_bytes(value)))?;
            }
            b'X' | 0x8c | 0x8d => {
                let bytes = self.counted(if code == b'X' {
                    4
                } else if code == 0x8c {
                    1
                } else {
                    8
                })?;
                let text = std::str::from_utf8(bytes).map_err(|_| "a string is not UTF-8")?;
                self.push(Value::Text(text))?;
            }
            b'B' | b'T' | b'C' | b'U' | 0x8e | 0x96 => {
                let width = match code {
                    b'B' | b'T' => 4,
                    0x8e | 0x96 => 8,
                    _ => 1,
                };
                let bytes = self.counted(width)?;
                self.push(Value::Bytes(bytes))?;
            }
            b'q' | b'r' | 0x94 => {
                let slot = match code {
                    0x94 => self.memo.len() as u32,
                    _ => self.number(if code == b'q' { 1 } else { 4 })? as u32,
                };
                let top = self.stack.last().copied().flatten().ok_or("it notes a value that is not there")?;
                if self.memo.len() >= LARGEST {
                    return Err(format!("it notes more than {LARGEST} values"));
                }
                self.memo.insert(slot, top);
            }
            b'h' | b'j' => {
                let slot = self.number(if code == b'h' { 1 } else { 4 })? as u32;
                let value = *self.memo.get(&slot).ok_or("it refers to a value that is not there")?;
                self.push(value)?;
            }
            b't' => {
                let items = self.above_mark()?;
                self.build(Node::Tuple(items))?;
            }
            0x85..=0x87 => {
                let items = self.last(usize::from(code) - 0x84)?;
                self.build(Node::Tuple(items))?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(module, name)?;
            }
            0x93 => {
                let [module, name] = self.last(2)?[..] else { unreachable!("two were taken") };
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("a name is not text".into());
                };
                self.name(module, name)?;
            }
            b'R' | 0x81 => {
                let [callee, arguments] = self.last(2)?[..] else { unreachable!("two were taken") };
                let Value::Global(callee) = callee else { return Err("it calls something that is no name".into()) };
                let arguments = items(&self.nodes, arguments).ok_or("a call without arguments")?;
                if arguments.len() > ARGUMENTS {
                    return Err(format!("a call with {} arguments", arguments.len()));
                }
                let arguments = arguments.to_vec();
                let made = self.make(callee, &arguments)?;
                self.push(made)?;
            }
            b'b' => {
                let [target, state] = self.last(2)?[..] else { unreachable!("two were taken") };
                self.fill(target, state)?;
                self.push(target)?;
            }
            b's' | b'u' => {
                let items = if code == b'u' { self.above_mark()? } else { self.last(2)? };
                let target = self.top_node()?;
                let Node::Dict(entries) = target else { return Err("entries without a dictionary".into()) };
                if items.len() % 2 != 0 {
                    return Err("an entry without a value".into());
                }
                entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            b'a' | b'e' | 0x90 => {
                let added = if code != b'a' { self.above_mark()? } else { self.last(1)? };
                let Node::List(list) = self.top_node()? else { return Err("items without a list".into()) };
                list.extend(added);
            }
            b'Q' => {
                let name = self.pop()?;
                self.storage(name)?;
            }
            b'S' | b'V' | b'I' | b'L' | b'F' | b'p' | b'g' | b'd' | b'l' => {
                return Err(format!(
                    "the instruction {} is one of protocol 0 or 1, which are not read: save it anew with `pickle.dump(what, file, protocol=4)`",
                    instruction(code)
                ));
            }
            other => return Err(format!("the instruction {} is not allowed", instruction(other))),
        }
        Ok(None)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let slice = &self.bytes[self.at..end.ok_or("the file ends inside an instruction")?];
        self.at += n;
        Ok(slice)
    }

    fn number(&mut self, n: usize) -> Result<u64, String> {
        Ok(self.take(n)?.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// Bytes behind their count, which has `width` bytes itself.
    fn counted(&mut self, width: usize) -> Result<&'a [u8], String> {
        let count = self.number(width)?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length = self.bytes[self.at..].iter().position(|&b| b == b'\n').ok_or("a name does not end")?;
        let line = std::str::from_utf8(self.take(length)?).map_err(|_| "a name is not text")?;
        self.at += 1;
        Ok(line)
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        if self.stack.len() >= LARGEST {
            return Err(format!("it piles up more than {LARGEST} values"));
        }
        self.stack.push(Some(value));
        Ok(())
    }

    fn build(&mut self, node: Node<'a>) -> Result<(), String> {
        let value = self.node(node)?;
        self.push(value)
    }

    fn node(&mut self, node: Node<'a>) -> Result<Value<'a>, String> {
        if self.nodes.len() >= LARGEST {
            return Err(format!("it has more than {LARGEST} values"));
        }
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() - 1))
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        self.stack.pop().flatten().ok_or_else(|| "an instruction takes more values than there are".into())
    }

    fn last(&mut self, n: usize) -> Result<Vec<Value<'a>>, String> {
        let first = self.stack.len().checked_sub(n).filter(|&first| self.stack[first..].iter().all(Option::is_some));
        let first = first.ok_or("an instruction takes more values than there are")?;
        Ok(self.stack.drain(first..).flatten().collect())
    }

    fn above_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.stack.iter().rposition(Option::is_none).ok_or("it goes back to a mark that is not there")?;
        let items = self.stack.drain(mark..).flatten().collect();
        Ok(items)
    }

    fn top_node(&mut self) -> Result<&mut Node<'a>, String> {
        match self.stack.last() {
            Some(Some(Value::Node(at))) => Ok(&mut self.nodes[*at]),
            _ => Err("it adds to something that has no parts".into()),
        }
    }

    fn name(&mut self, module: &'a str, name: &'a str) -> Result<(), String> {
        let found = global(self.dialect, module, name);
        let known = found.ok_or_else(|| format!("it asks for {module}.{name}, which {}", self.dialect.lacks()))?;
        self.push(Value::Global(known))
    }

    /// Counts what is copied. Each byte of a file is so once at most, unless it means to fill the memory.
    fn copy(&mut self, count: usize) -> Result<(), String> {
        self.copied = self.copied.saturating_add(count);
        match self.copied <= self.bytes.len() {
            true => Ok(()),
            false => Err("it makes more out of its parts than the whole file holds".into()),
        }
    }

    /// What a call of a name gives.
    fn make(&mut self, callee: Global, arguments: &[Value<'a>]) -> Result<Value<'a>, String> {
        let node = match (callee, arguments) {
            (Global::OrderedDict, []) => Node::Dict(Vec::new()),
            // the pairs as one list, as older versions of Python wrote them
            (Global::OrderedDict, [pairs]) => {
                let count = items(&self.nodes, *pairs).map_or(0, <[_]>::len);
                self.copy(count)?;
                let pairs = items(&self.nodes, *pairs).ok_or("an ordered dictionary of something that is no list")?;
                let pair = |pair: &Value<'a>| match items(&self.nodes, *pair) {
                    Some([key, value]) => Ok((*key, *value)),
                    _ => Err("an ordered dictionary of something that is no pair"),
                };
                Node::Dict(pairs.iter().map(pair).collect::<Result<_, _>>()?)
            }
            // what it is a set of does not matter to any reader here
            (Global::Set, [items]) => return Ok(*items),
            (Global::Set, []) => Node::List(Vec::new()),
            (Global::Encode, [Value::Text(text), Value::Text("latin1" | "latin-1")]) => {
                self.copy(text.len())?;
                let bytes = text.chars().map(|c| u8::try_from(u32::from(c))).collect::<Result<Vec<u8>, _>>();
                Node::Owned(bytes.map_err(|_| "bytes that are not in Latin-1")?)
            }
            (Global::NumpyReconstruct, [Value::Global(Global::NumpyArray), ..]) => Node::Array(None),
            (Global::NumpyDtype, [name, ..]) => {
                Node::Dtype(arrays::dtype_name(*name).ok_or("a type without a name")?, true)
            }
            (Global::NumpyBuffer | Global::NumpyScalar, _) => return self.array(callee, arguments),
            (Global::Reconstructor, [Value::Global(class), ..]) if class.is_class() => {
                Node::Object(*class, Value::None)
            }
            (class, _) if class.is_class() => Node::Object(class, Value::None),
            (Global::RebuildParameter, [tensor, ..]) => return Ok(*tensor),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                self.rebuilt(*storage, *offset, *shape, *strides)?
            }
            _ => return Err(format!("it calls {callee:?} with arguments that it does not take")),
        };
        self.node(node)
    }

    /// Gives an object its state.
    fn fill(&mut self, target: Value<'a>, state: Value<'a>) -> Result<(), String> {
        let Value::Node(at) = target else { return Err("it gives a state to something that has none".into()) };
        let filled = match &self.nodes[at] {
            Node::Dtype(name, _) => {
                let state = items(&self.nodes, state).ok_or("a type without a state")?;
                let order = state.get(1).and_then(|order| arrays::dtype_name(*order));
                Node::Dtype(name, matches!(order, Some("<" | "|")))
            }
            Node::Array(_) => Node::Array(Some(self.array_state(state)?)),
            Node::Object(class, _) => Node::Object(*class, state),
            // attributes of an ordered dictionary, PyTorch's `_metadata`, say nothing of its entries
            Node::Dict(_) => return Ok(()),
            _ => return Err("it gives a state to something that has none".into()),
        };
        self.nodes[at] = filled;
        Ok(())
    }

    /// PyTorch's name of a storage: `("storage", type, key, device, count)`.
    fn storage(&mut self, name: Value<'a>) -> Result<(), String> {
        let parts = items(&self.nodes, name).unwrap_or_default();
        let [
            Value::Text("storage"),
            Value::Global(Global::Storage(element)),
            Value::Text(key),
            _,
            Value::Int(count),
            ..,
        ] = parts
        else {
            return Err("it refers to something outside that is no storage of numbers".into());
        };
        let count = usize::try_from(*count).map_err(|_| format!("a storage of {count} numbers"))?;
        self.build(Node::Storage(*element, key, count))
    }

    /// PyTorch's way to say which numbers of a storage a tensor is made of. All must be in the storage.
    fn rebuilt(
        &self,
        storage: Value<'a>,
        offset: Value<'a>,
        shape: Value<'a>,
        strides: Value<'a>,
    ) -> Result<Node<'a>, String> {
        let Value::Node(at) = storage else { return Err("a tensor without a storage".into()) };
        let Node::Storage(element, key, count) = self.nodes[at] else {
            return Err("a tensor without a storage".into());
        };
        let whole = |list: Value<'a>| -> Option<Vec<i64>> {
            let each = |item: &Value<'a>| match item {
                Value::Int(n) if *n >= 0 => Some(*n),
                _ => None,
            };
            items(&self.nodes, list).filter(|list| list.len() <= AXES)?.iter().map(each).collect()
        };
        let (Value::Int(offset), Some(shape), Some(strides)) = (offset, whole(shape), whole(strides)) else {
            return Err("a tensor's shape is not made of whole numbers".into());
        };
        let mut end = usize::try_from(offset).ok();
        for (side, stride) in shape.iter().zip(&strides) {
            let step = (*side - 1).max(0).checked_mul(*stride).and_then(|step| usize::try_from(step).ok());
            end = end.zip(step).and_then(|(end, step)| end.checked_add(step));
        }
        let empty = shape.contains(&0);
        if shape.len() != strides.len() || !(empty || end.is_some_and(|end| end < count)) {
            return Err(format!(
                "a tensor of shape {shape:?}, strides {strides:?} and offset {offset} does not lie within the {count} numbers of storage {key}"
            ));
        }
        Ok(Node::Tensor(TensorAt { element, storage: key, count, offset, shape, strides }))
    }
}

#[cfg(test)]
mod tests;
