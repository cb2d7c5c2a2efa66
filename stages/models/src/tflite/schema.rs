//! The part of TensorFlow Lite's flatbuffer schema (version 3) that networks of convolutions use.
//!
//! What flatc would generate, for the fields that are read: each table says its fields by slot, and the verifier of the
//! `flatbuffers` crate has walked all of them before one is taken. Does not know what the operations mean.

use super::Problem;
use flatbuffers::{Follow, ForwardsUOffset, InvalidFlatbuffer, Table, Vector, Verifiable, Verifier};

/// Codes of operations.
pub const ADD: i32 = 0;
/// Joins tensors along an axis.
pub const CONCATENATION: i32 = 2;
/// Convolution.
pub const CONV_2D: i32 = 3;
/// Convolution of every channel by itself.
pub const DEPTHWISE_CONV_2D: i32 = 4;
/// From f16 to f32, of constants.
pub const DEQUANTIZE: i32 = 6;
/// Largest value of a window.
pub const MAX_POOL_2D: i32 = 17;
/// max(0, x).
pub const RELU: i32 = 19;
/// Another shape of the same values.
pub const RESHAPE: i32 = 22;
/// Zeros around.
pub const PAD: i32 = 34;
/// x, or a slope times x where that is negative.
pub const PRELU: i32 = 54;

/// Codes of element types.
pub const FLOAT32: i8 = 0;
/// Half precision.
pub const FLOAT16: i8 = 1;
/// Whole numbers.
pub const INT32: i8 = 2;

/// Declares a table: fields by slot, each with the type it is verified and read as.
macro_rules! table {
    ($name:ident<$a:lifetime> { $($field:ident @ $slot:literal: $type:ty),* $(,)? }) => {
        #[derive(Clone, Copy)]
        struct $name<$a>(Table<$a>);

        impl<$a> Follow<$a> for $name<$a> {
            type Inner = $name<$a>;
            unsafe fn follow(buffer: &$a [u8], at: usize) -> Self::Inner {
                // SAFETY: the caller vouches for a verified table at this place
                $name(unsafe { Table::new(buffer, at) })
            }
        }

        impl<$a> Verifiable for $name<$a> {
            fn run_verifier(verifier: &mut Verifier<'_, '_>, at: usize) -> Result<(), InvalidFlatbuffer> {
                verifier.visit_table(at)?
                    $(.visit_field::<$type>(stringify!($field), 4 + 2 * $slot, false)?)*
                    .finish();
                Ok(())
            }
        }

        impl<$a> $name<$a> {
            $(fn $field(&self) -> Option<<$type as Follow<$a>>::Inner> {
                // SAFETY: tables come from a verified root alone, and the verifier saw this slot as this type
                unsafe { self.0.get::<$type>(4 + 2 * $slot, None) }
            })*
        }
    };
}

type List<'a, T> = ForwardsUOffset<Vector<'a, T>>;
type Tables<'a, T> = ForwardsUOffset<Vector<'a, ForwardsUOffset<T>>>;

table!(Model<'a> {
    version @ 0: u32,
    operator_codes @ 1: Tables<'a, OperatorCode<'a>>,
    subgraphs @ 2: Tables<'a, SubGraph<'a>>,
    buffers @ 4: Tables<'a, Buffer<'a>>,
});
table!(OperatorCode<'a> { short @ 0: i8, code @ 3: i32 });
table!(SubGraph<'a> {
    tensors @ 0: Tables<'a, TensorTable<'a>>,
    inputs @ 1: List<'a, i32>,
    outputs @ 2: List<'a, i32>,
    operators @ 3: Tables<'a, OperatorTable<'a>>,
});
table!(TensorTable<'a> { shape @ 0: List<'a, i32>, kind @ 1: i8, buffer @ 2: u32 });
table!(Buffer<'a> { data @ 0: List<'a, u8> });
table!(ConvOptions<'a> {
    padding @ 0: i8,
    stride_w @ 1: i32,
    stride_h @ 2: i32,
    activation @ 3: i8,
    dilation_w @ 4: i32,
    dilation_h @ 5: i32,
});
table!(DepthwiseOptions<'a> {
    padding @ 0: i8,
    stride_w @ 1: i32,
    stride_h @ 2: i32,
    activation @ 4: i8,
    dilation_w @ 5: i32,
    dilation_h @ 6: i32,
});
table!(PoolOptions<'a> {
    padding @ 0: i8,
    stride_w @ 1: i32,
    stride_h @ 2: i32,
    width @ 3: i32,
    height @ 4: i32,
    activation @ 5: i8,
});
table!(ConcatOptions<'a> { axis @ 0: i32, activation @ 1: i8 });
table!(AddOptions<'a> { activation @ 0: i8 });

/// Members of the union of options.
const CONV: u8 = 1;
const DEPTHWISE: u8 = 2;
const POOL: u8 = 5;
const CONCAT: u8 = 10;
const SUM: u8 = 11;

/// An operator, whose options are a union: the only table that the macro cannot declare.
#[derive(Clone, Copy)]
struct OperatorTable<'a>(Table<'a>);

impl<'a> Follow<'a> for OperatorTable<'a> {
    type Inner = OperatorTable<'a>;
    unsafe fn follow(buffer: &'a [u8], at: usize) -> Self::Inner {
        // SAFETY: the caller vouches for a verified table at this place
        OperatorTable(unsafe { Table::new(buffer, at) })
    }
}

impl Verifiable for OperatorTable<'_> {
    fn run_verifier(verifier: &mut Verifier<'_, '_>, at: usize) -> Result<(), InvalidFlatbuffer> {
        verifier
            .visit_table(at)?
            .visit_field::<u32>("opcode_index", 4, false)?
            .visit_field::<List<'_, i32>>("inputs", 6, false)?
            .visit_field::<List<'_, i32>>("outputs", 8, false)?
            .visit_union::<u8, _>("options_type", 10, "options", 12, false, |member, v, at| match member {
                CONV => v.verify_union_variant::<ForwardsUOffset<ConvOptions<'_>>>("Conv2DOptions", at),
                DEPTHWISE => {
                    v.verify_union_variant::<ForwardsUOffset<DepthwiseOptions<'_>>>("DepthwiseConv2DOptions", at)
                }
                POOL => v.verify_union_variant::<ForwardsUOffset<PoolOptions<'_>>>("Pool2DOptions", at),
                CONCAT => v.verify_union_variant::<ForwardsUOffset<ConcatOptions<'_>>>("ConcatenationOptions", at),
                SUM => v.verify_union_variant::<ForwardsUOffset<AddOptions<'_>>>("AddOptions", at),
                _ => Ok(()),
            })?
            .finish();
        Ok(())
    }
}

impl<'a> OperatorTable<'a> {
    /// A field by slot.
    fn get<T: Follow<'a> + 'a>(&self, slot: u16) -> Option<T::Inner> {
        // SAFETY: private; below, each slot is asked for the type it was verified as, and options by their member
        unsafe { self.0.get::<T>(4 + 2 * slot, None) }
    }

    fn options(&self) -> Result<Options, Problem> {
        let positive = |name: &str, value: Option<i32>, default: i32| match value.unwrap_or(default) {
            n if n > 0 => Ok(i64::from(n)),
            n => Err(Problem::Damaged(format!("{name} is {n}"))),
        };
        let is_same = |padding: Option<i8>| match padding.unwrap_or(0) {
            0 => Ok(true),
            1 => Ok(false),
            other => Err(Problem::Damaged(format!("padding is {other}, neither SAME (0) nor VALID (1)"))),
        };
        macro_rules! conv {
            ($o:expr) => {
                Options::Conv(Conv {
                    same: is_same($o.padding())?,
                    stride: [positive("stride_h", $o.stride_h(), 0)?, positive("stride_w", $o.stride_w(), 0)?],
                    dilation: [
                        positive("dilation_h", $o.dilation_h(), 1)?,
                        positive("dilation_w", $o.dilation_w(), 1)?,
                    ],
                    activation: $o.activation().unwrap_or(0),
                })
            };
        }
        let member = self.get::<u8>(3).unwrap_or(0);
        Ok(match member {
            CONV => self.get::<ForwardsUOffset<ConvOptions<'_>>>(4).map_or(Ok(Options::None), |o| Ok(conv!(o)))?,
            DEPTHWISE => {
                self.get::<ForwardsUOffset<DepthwiseOptions<'_>>>(4).map_or(Ok(Options::None), |o| Ok(conv!(o)))?
            }
            POOL => match self.get::<ForwardsUOffset<PoolOptions<'_>>>(4) {
                None => Options::None,
                Some(o) => Options::Pool(Pool {
                    same: is_same(o.padding())?,
                    stride: [positive("stride_h", o.stride_h(), 0)?, positive("stride_w", o.stride_w(), 0)?],
                    size: [positive("filter_height", o.height(), 0)?, positive("filter_width", o.width(), 0)?],
                    activation: o.activation().unwrap_or(0),
                }),
            },
            CONCAT => self.get::<ForwardsUOffset<ConcatOptions<'_>>>(4).map_or(Options::None, |o| Options::Concat {
                axis: o.axis().unwrap_or(0),
                activation: o.activation().unwrap_or(0),
            }),
            SUM => {
                let options = self.get::<ForwardsUOffset<AddOptions<'_>>>(4);
                Options::Add(options.and_then(|o| o.activation()).unwrap_or(0))
            }
            _ => Options::None,
        })
    }
}

/// Options of a convolution; pairs are height, width.
pub struct Conv {
    /// Padding SAME, else VALID.
    pub same: bool,
    /// Steps.
    pub stride: [i64; 2],
    /// Spread of the kernel.
    pub dilation: [i64; 2],
    /// Code of what follows.
    pub activation: i8,
}

/// Options of pooling; pairs are height, width.
pub struct Pool {
    /// Padding SAME, else VALID.
    pub same: bool,
    /// Steps.
    pub stride: [i64; 2],
    /// The window.
    pub size: [i64; 2],
    /// Code of what follows.
    pub activation: i8,
}

/// Options of an operation.
pub enum Options {
    /// None, or of no interest.
    None,
    /// Of both kinds of convolution.
    Conv(Conv),
    /// Of pooling.
    Pool(Pool),
    /// Of joining: the axis, and the code of what follows.
    Concat {
        /// In the file's layout; negative counts from the end.
        axis: i32,
        /// Code of what follows.
        activation: i8,
    },
    /// Of a sum: the code of what follows.
    Add(i8),
}

/// A tensor: its value if the file holds it.
pub struct TensorInfo<'a> {
    /// In the file's layout.
    pub shape: Vec<i64>,
    /// Code of the element type.
    pub kind: i8,
    /// Little-endian values.
    pub data: Option<&'a [u8]>,
}

impl TensorInfo<'_> {
    /// The values of an integer constant.
    pub fn integers(&self) -> Option<Vec<i32>> {
        let bytes = self.data.filter(|_| self.kind == INT32)?;
        Some(bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

/// An operation; operands are indices of tensors, and in range.
pub struct Operator {
    /// Which.
    pub code: i32,
    /// Operands that are there; an optional one that is left out is not.
    pub inputs: Vec<usize>,
    /// Results.
    pub outputs: Vec<usize>,
    /// Its options.
    pub options: Options,
}

/// The only graph of a file.
pub struct Contents<'a> {
    /// All tensors.
    pub tensors: Vec<TensorInfo<'a>>,
    /// Indices of the inputs.
    pub inputs: Vec<usize>,
    /// Indices of the outputs.
    pub outputs: Vec<usize>,
    /// In order of execution.
    pub operators: Vec<Operator>,
}

/// Verifies a file and takes it apart.
pub fn read(bytes: &[u8]) -> Result<Contents<'_>, Problem> {
    let damaged = |reason: &str| Problem::Damaged(reason.into());
    if bytes.len() < 8 || !flatbuffers::buffer_has_identifier(bytes, "TFL3", false) {
        return Err(damaged("it does not have the mark TFL3"));
    }
    let model = flatbuffers::root::<Model<'_>>(bytes).map_err(|e| Problem::Damaged(e.to_string()))?;
    if model.version() != Some(3) {
        return Err(Problem::Unsupported(format!("schema version {:?}", model.version())));
    }
    let buffers = model.buffers().ok_or_else(|| damaged("it has no buffers"))?;
    let codes: Vec<i32> = model.operator_codes().into_iter().flatten().map(code_of).collect();
    let graphs = model.subgraphs().ok_or_else(|| damaged("it has no graph"))?;
    if graphs.len() != 1 {
        return Err(Problem::Unsupported(format!("a file of {} graphs", graphs.len())));
    }
    let graph = graphs.get(0);
    let mut tensors = Vec::new();
    for tensor in graph.tensors().into_iter().flatten() {
        let buffer = tensor.buffer().unwrap_or(0) as usize;
        if buffer >= buffers.len() {
            return Err(Problem::Damaged(format!("buffer {buffer} of {} is asked for", buffers.len())));
        }
        let data = buffers.get(buffer).data().map(|data| data.bytes()).filter(|data| !data.is_empty());
        let shape = tensor.shape().into_iter().flatten().map(i64::from).collect();
        tensors.push(TensorInfo { shape, kind: tensor.kind().unwrap_or(0), data });
    }
    let indices = |list: Option<Vector<'_, i32>>| -> Result<Vec<usize>, Problem> {
        let list = list.into_iter().flatten().filter(|&i| i != -1);
        let index = |i: i32| usize::try_from(i).ok().filter(|i| *i < tensors.len());
        list.map(|i| index(i).ok_or_else(|| Problem::Damaged(format!("tensor {i} of {} is asked for", tensors.len()))))
            .collect()
    };
    let mut operators = Vec::new();
    for operator in graph.operators().into_iter().flatten() {
        let index = operator.get::<u32>(0).unwrap_or(0) as usize;
        operators.push(Operator {
            code: *codes.get(index).ok_or_else(|| damaged("an operation has no code"))?,
            inputs: indices(operator.get::<List<'_, i32>>(1))?,
            outputs: indices(operator.get::<List<'_, i32>>(2))?,
            options: operator.options()?,
        });
    }
    let (inputs, outputs) = (indices(graph.inputs())?, indices(graph.outputs())?);
    Ok(Contents { tensors, inputs, outputs, operators })
}

/// Files of old have the code in a byte, new ones beside it.
fn code_of(code: OperatorCode<'_>) -> i32 {
    code.code().unwrap_or(0).max(i32::from(code.short().unwrap_or(0)))
}
