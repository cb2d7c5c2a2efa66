//! Networks in TensorFlow Lite's file format, executed on libtorch: the few operations that the face networks use.
//!
//! A file is a flatbuffer (schema version 3), which is verified as a whole before anything is read of it. Weights may
//! be f32 or f16. TFLite's tensors are `[B, H, W, C]`; inside, those of rank 4 are `[B, C, H, W]`. Padding SAME puts an
//! odd pixel at the right and the bottom, unlike torch's. Quantised integers, control flow and any other operation are
//! refused by name. Does not know what a network is for.

use tch::{Kind, TchError, Tensor};

mod schema;

/// Why a file cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum TfliteError {
    /// It is no flatbuffer of this schema, or names what it does not hold.
    #[error(
        "{name} is no TensorFlow Lite network: {reason}\nhint: is the file whole, and is it the one that the package should hold?"
    )]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// It is a network, but of another kind.
    #[error("{name}: {what} is not supported\nhint: a network of convolutions with f32 or f16 weights is expected")]
    Unsupported {
        /// The file.
        name: String,
        /// What it asks for.
        what: String,
    },
    /// An operation refused its operands.
    #[error("{name}: {source}")]
    Run {
        /// The file.
        name: String,
        /// What libtorch said.
        source: TchError,
    },
}

/// What follows an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Activation {
    None,
    Relu,
    Relu6,
}

/// Pixels added `[left, right, top, bottom]`.
type Margins = [i64; 4];

/// An operation with its constants.
enum Op {
    Conv {
        weight: Tensor,
        bias: Option<Tensor>,
        stride: [i64; 2],
        dilation: [i64; 2],
        margins: Margins,
        groups: i64,
    },
    MaxPool {
        size: [i64; 2],
        stride: [i64; 2],
    },
    Prelu {
        slope: Tensor,
    },
    /// Amounts in torch's order, from the last dimension on.
    Pad {
        amounts: Vec<i64>,
    },
    Add,
    Relu,
    Reshape {
        shape: Vec<i64>,
    },
    Concat {
        axis: i64,
    },
}

struct Step {
    op: Op,
    activation: Activation,
    inputs: Vec<usize>,
    output: usize,
}

/// A network, ready to run.
pub struct Network {
    name: String,
    steps: Vec<Step>,
    tensors: usize,
    input: usize,
    outputs: Vec<usize>,
    /// Shape of the input, `[B, H, W, C]`.
    pub input_shape: Vec<i64>,
}

impl Network {
    /// Reads a network; `name` is said in errors.
    ///
    /// # Errors
    /// If the bytes are damaged, or ask for what is not known here.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Network, TfliteError> {
        schema::read(bytes).and_then(|model| Builder::new(&model).build(name)).map_err(|problem| match problem {
            Problem::Damaged(reason) => TfliteError::Damaged { name: name.into(), reason },
            Problem::Unsupported(what) => TfliteError::Unsupported { name: name.into(), what },
        })
    }

    /// The outputs, in the file's order and layout, for an input of [`Network::input_shape`] (f32).
    ///
    /// # Errors
    /// If the input has another shape, or the network's own shapes do not agree.
    pub fn run(&self, input: &Tensor) -> Result<Vec<Tensor>, TfliteError> {
        let failed = |source| TfliteError::Run { name: self.name.clone(), source };
        if input.size() != self.input_shape {
            let said = format!("the input is {:?}, expected {:?}", input.size(), self.input_shape);
            return Err(failed(TchError::Shape(said)));
        }
        tch::no_grad(|| self.execute(input)).map_err(failed)
    }

    fn execute(&self, input: &Tensor) -> Result<Vec<Tensor>, TchError> {
        let mut values: Vec<Option<Tensor>> = (0..self.tensors).map(|_| None).collect();
        values[self.input] = Some(inward(input)?);
        for step in &self.steps {
            let get = |i: usize| {
                let value = step.inputs.get(i).and_then(|&tensor| values[tensor].as_ref());
                value.ok_or_else(|| {
                    TchError::Shape(format!("tensor {:?} is used before it is made", step.inputs.get(i)))
                })
            };
            let x = get(0)?;
            let y = match &step.op {
                Op::Conv { weight, bias, stride, dilation, margins, groups } => {
                    let (x, padding) = pad(x, *margins)?;
                    x.f_conv2d(weight, bias.as_ref(), stride, padding, dilation, *groups)?
                }
                Op::MaxPool { size, stride } => x.f_max_pool2d(size, stride, [0, 0], [1, 1], false)?,
                Op::Prelu { slope } => x.f_prelu(slope)?,
                Op::Pad { amounts } => x.f_constant_pad_nd(amounts.as_slice())?,
                Op::Add => x.f_add(get(1)?)?,
                Op::Relu => x.f_relu()?,
                Op::Reshape { shape } => inward(&outward(x)?.f_reshape(shape.as_slice())?)?,
                Op::Concat { axis } => {
                    let all = (0..step.inputs.len()).map(get).collect::<Result<Vec<_>, _>>()?;
                    Tensor::f_cat(&all, *axis)?
                }
            };
            values[step.output] = Some(match step.activation {
                Activation::None => y,
                Activation::Relu => y.f_relu()?,
                Activation::Relu6 => y.f_clamp(0.0, 6.0)?,
            });
        }
        let output = |&tensor: &usize| match &values[tensor] {
            Some(value) => outward(value),
            None => Err(TchError::Shape(format!("output {tensor} is never made"))),
        };
        self.outputs.iter().map(output).collect()
    }
}

/// Rank 4 from the file's layout into torch's; others as they are.
fn inward(x: &Tensor) -> Result<Tensor, TchError> {
    if x.dim() == 4 { x.f_permute([0, 3, 1, 2])?.f_contiguous() } else { Ok(x.shallow_clone()) }
}

fn outward(x: &Tensor) -> Result<Tensor, TchError> {
    if x.dim() == 4 { x.f_permute([0, 2, 3, 1])?.f_contiguous() } else { Ok(x.shallow_clone()) }
}

/// The tensor with margins, and what is left for the operation's own symmetric padding.
fn pad(x: &Tensor, margins: Margins) -> Result<(Tensor, [i64; 2]), TchError> {
    let [left, right, top, bottom] = margins;
    if left == right && top == bottom {
        return Ok((x.shallow_clone(), [top, left]));
    }
    Ok((x.f_constant_pad_nd(margins.as_slice())?, [0, 0]))
}

/// What TFLite adds before and after an axis with padding SAME: an odd one comes after.
fn same(input: i64, kernel: i64, stride: i64, dilation: i64) -> [i64; 2] {
    let output = (input + stride - 1) / stride;
    let total = ((output - 1) * stride + (kernel - 1) * dilation + 1 - input).max(0);
    [total / 2, total - total / 2]
}

/// What is wrong with a file, before its name is known.
enum Problem {
    Damaged(String),
    Unsupported(String),
}

struct Builder<'a> {
    model: &'a schema::Contents<'a>,
    /// Constants by tensor, in the file's layout.
    constants: Vec<Option<Tensor>>,
}

impl<'a> Builder<'a> {
    fn new(model: &'a schema::Contents<'a>) -> Self {
        Builder { model, constants: model.tensors.iter().map(|_| None).collect() }
    }

    fn build(mut self, name: &str) -> Result<Network, Problem> {
        for (i, tensor) in self.model.tensors.iter().enumerate() {
            self.constants[i] = constant(tensor)?;
        }
        let mut steps = Vec::new();
        for operator in &self.model.operators {
            if let Some(step) = self.step(operator)? {
                steps.push(step);
            }
        }
        let [input] = self.model.inputs[..] else {
            return Err(Problem::Unsupported(format!("a network of {} inputs", self.model.inputs.len())));
        };
        Ok(Network {
            name: name.into(),
            steps,
            tensors: self.model.tensors.len(),
            input,
            outputs: self.model.outputs.clone(),
            input_shape: self.model.tensors[input].shape.clone(),
        })
    }

    fn step(&mut self, operator: &schema::Operator) -> Result<Option<Step>, Problem> {
        use schema::Options;
        let [output] = operator.outputs[..] else {
            return Err(Problem::Unsupported(format!(
                "operation {} with {} outputs",
                operator.code,
                operator.outputs.len()
            )));
        };
        let at = |i: usize| {
            let short = || Problem::Damaged(format!("operation {} lacks operand {i}", operator.code));
            operator.inputs.get(i).copied().ok_or_else(short)
        };
        let shape = |tensor: usize| self.model.tensors[tensor].shape.as_slice();
        let image = |tensor: usize| match *shape(tensor) {
            [_, h, w, _] => Ok([h, w]),
            ref other => Err(Problem::Damaged(format!("tensor {tensor} of shape {other:?} is no image"))),
        };
        let constant = |tensor: usize| {
            let known = self.constants[tensor].as_ref().map(Tensor::shallow_clone);
            known.ok_or_else(|| Problem::Unsupported(format!("operation {} with computed weights", operator.code)))
        };
        let margins = |same_padding: bool, [h, w]: [i64; 2], kernel: [i64; 2], stride: [i64; 2], dilation: [i64; 2]| {
            if !same_padding {
                return [0; 4];
            }
            let [top, bottom] = same(h, kernel[0], stride[0], dilation[0]);
            let [left, right] = same(w, kernel[1], stride[1], dilation[1]);
            [left, right, top, bottom]
        };
        let mut inputs = vec![at(0)?];
        let mut fused = 0;
        let op = match (operator.code, &operator.options) {
            (schema::DEQUANTIZE, _) => {
                self.constants[output] = Some(constant(inputs[0])?);
                return Ok(None);
            }
            (schema::CONV_2D | schema::DEPTHWISE_CONV_2D, Options::Conv(conv)) => {
                fused = conv.activation;
                let weight = constant(at(1)?)?;
                let [a, h, w, b] = weight.size()[..] else {
                    return Err(Problem::Damaged(format!("weights of shape {:?} in a convolution", weight.size())));
                };
                let depthwise = operator.code == schema::DEPTHWISE_CONV_2D;
                // [O, H, W, I]; depthwise [1, H, W, O], each output from one input
                let order = if depthwise { [3, 0, 1, 2] } else { [0, 3, 1, 2] };
                let channels = shape(inputs[0]).last().copied().unwrap_or(0);
                if depthwise && (a != 1 || channels < 1 || b % channels != 0) {
                    return Err(Problem::Damaged(format!(
                        "depthwise weights {:?} on {channels} channels",
                        weight.size()
                    )));
                }
                Op::Conv {
                    weight: weight.permute(order).contiguous(),
                    bias: operator.inputs.get(2).map(|&i| constant(i)).transpose()?,
                    stride: conv.stride,
                    dilation: conv.dilation,
                    margins: margins(conv.same, image(inputs[0])?, [h, w], conv.stride, conv.dilation),
                    groups: if depthwise { channels } else { 1 },
                }
            }
            (schema::MAX_POOL_2D, Options::Pool(pool)) => {
                fused = pool.activation;
                let margins = margins(pool.same, image(inputs[0])?, pool.size, pool.stride, [1, 1]);
                if margins != [0; 4] {
                    return Err(Problem::Unsupported("a maximum over windows that reach over the rim".into()));
                }
                Op::MaxPool { size: pool.size, stride: pool.stride }
            }
            (schema::PRELU, _) => {
                let slope = constant(at(1)?)?;
                // one slope a channel, which is the last axis in the file
                let channels = slope.size().last().copied().unwrap_or(0);
                if slope.numel() as i64 != channels {
                    return Err(Problem::Unsupported("a PRELU whose slopes differ from place to place".into()));
                }
                Op::Prelu { slope: slope.reshape([channels]) }
            }
            (schema::PAD, _) => {
                let amounts = &self.model.tensors[at(1)?];
                let amounts =
                    amounts.integers().ok_or_else(|| Problem::Unsupported("a PAD by computed amounts".into()))?;
                let [n0, n1, h0, h1, w0, w1, c0, c1] = amounts[..] else {
                    return Err(Problem::Unsupported(format!("a PAD by {} amounts", amounts.len())));
                };
                Op::Pad { amounts: [w0, w1, h0, h1, c0, c1, n0, n1].map(i64::from).to_vec() }
            }
            (schema::ADD, options) => {
                if let Options::Add(activation) = options {
                    fused = *activation;
                }
                inputs.push(at(1)?);
                Op::Add
            }
            (schema::RELU, _) => Op::Relu,
            (schema::RESHAPE, _) => Op::Reshape { shape: shape(output).to_vec() },
            (schema::CONCATENATION, Options::Concat { axis, activation }) => {
                fused = *activation;
                inputs = operator.inputs.clone();
                let rank = shape(output).len() as i64;
                let axis = if *axis < 0 { rank + i64::from(*axis) } else { i64::from(*axis) };
                Op::Concat {
                    axis: if rank == 4 { [0, 2, 3, 1].get(axis as usize).copied().unwrap_or(4) } else { axis },
                }
            }
            (code, _) => return Err(Problem::Unsupported(format!("operation {code} of TensorFlow Lite's list"))),
        };
        let activation = match fused {
            0 => Activation::None,
            1 => Activation::Relu,
            3 => Activation::Relu6,
            other => return Err(Problem::Unsupported(format!("activation {other} of TensorFlow Lite's list"))),
        };
        Ok(Some(Step { op, activation, inputs, output }))
    }
}

/// The value of a tensor that the file holds, as f32; none for one that is computed, or that counts pixels.
fn constant(tensor: &schema::TensorInfo<'_>) -> Result<Option<Tensor>, Problem> {
    let Some(bytes) = tensor.data else { return Ok(None) };
    let kind = match tensor.kind {
        schema::FLOAT32 => Kind::Float,
        schema::FLOAT16 => Kind::Half,
        schema::INT32 => return Ok(None),
        other => return Err(Problem::Unsupported(format!("element type {other} of TensorFlow Lite's list"))),
    };
    let value = Tensor::f_from_data_size(bytes, &tensor.shape, kind);
    let value = value.map_err(|e| Problem::Damaged(format!("a constant of shape {:?}: {e}", tensor.shape)))?;
    Ok(Some(value.to_kind(Kind::Float)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_pixel_of_same_padding_comes_after() {
        assert_eq!(same(192, 3, 2, 1), [0, 1]);
        assert_eq!(same(96, 3, 1, 1), [1, 1]);
        assert_eq!(same(128, 5, 2, 1), [1, 2]);
        assert_eq!(same(7, 3, 2, 1), [1, 1]);
        assert_eq!(same(4, 2, 2, 1), [0, 0]);
    }

    #[test]
    fn what_is_no_network_is_an_error() {
        for bytes in [&b""[..], b"TFL3", &[0xFF; 64], &[0; 64]] {
            let error = Network::parse(bytes, "x.tflite").err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains("x.tflite") && error.contains("hint:"), "{error}");
        }
    }
}
