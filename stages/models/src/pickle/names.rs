//! What a pickle may name, by kind of file, and what its instructions are called. Knows no values.

/// A kind of file, by what it may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Dictionaries of numpy arrays.
    Numpy,
    /// PyTorch's checkpoints: tensors, and numpy arrays beside them.
    Torch,
    /// Published body models (SMPL, FLAME): numpy arrays, those of the package chumpy, and SciPy's sparse matrices.
    BodyModel,
}

impl Dialect {
    /// The end of a sentence about a name that is not in it.
    pub(super) fn lacks(self) -> &'static str {
        match self {
            Self::Numpy => "is not a number array",
            Self::Torch => "is neither a tensor nor a number array",
            Self::BodyModel => "is neither a number array nor a sparse matrix",
        }
    }
}

/// Number type of a tensor's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// The upper half of a 32-bit float.
    BF16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// Byte.
    U8,
    /// Truth value, a byte each.
    Bool,
}

/// A name that a pickle may use. None of them does anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `set`.
    Set,
    /// `_codecs.encode`, as protocol 2 writes bytes.
    Encode,
    /// numpy's array constructor.
    NumpyReconstruct,
    /// numpy's array class.
    NumpyArray,
    /// numpy's number type.
    NumpyDtype,
    /// numpy's array of given bytes.
    NumpyBuffer,
    /// numpy's single number.
    NumpyScalar,
    /// `copyreg._reconstructor`.
    Reconstructor,
    /// `object`.
    Object,
    /// chumpy's array, whose numbers are its attribute `x`.
    Chumpy,
    /// SciPy's matrix by columns.
    SparseColumns,
    /// SciPy's matrix by rows.
    SparseRows,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// A class of storages.
    Storage(Element),
}

impl Global {
    /// Whether objects of it have attributes that are read.
    pub(super) fn is_class(self) -> bool {
        matches!(self, Self::Chumpy | Self::SparseColumns | Self::SparseRows)
    }
}

/// The name, if the dialect has it.
pub(super) fn global(dialect: Dialect, module: &str, name: &str) -> Option<Global> {
    let any = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("_codecs", "encode") => Some(Global::Encode),
        ("numpy", "ndarray") => Some(Global::NumpyArray),
        ("numpy", "dtype") => Some(Global::NumpyDtype),
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Some(Global::NumpyReconstruct),
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Some(Global::NumpyScalar),
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Some(Global::NumpyBuffer),
        _ => None,
    };
    any.or(match (dialect, module, name) {
        (Dialect::Torch, "torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        (Dialect::Torch, "torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        (Dialect::Torch, "torch", storage) => Some(Global::Storage(match storage.strip_suffix("Storage")? {
            "Double" => Element::F64,
            "Float" => Element::F32,
            "Half" => Element::F16,
            "BFloat16" => Element::BF16,
            "Long" => Element::I64,
            "Int" => Element::I32,
            "Short" => Element::I16,
            "Char" => Element::I8,
            "Byte" => Element::U8,
            "Bool" => Element::Bool,
            _ => return None,
        })),
        (Dialect::BodyModel, "chumpy.ch" | "chumpy", "Ch") => Some(Global::Chumpy),
        (Dialect::BodyModel, "scipy.sparse.csc" | "scipy.sparse._csc", "csc_matrix" | "csc_array") => {
            Some(Global::SparseColumns)
        }
        (Dialect::BodyModel, "scipy.sparse.csr" | "scipy.sparse._csr", "csr_matrix" | "csr_array") => {
            Some(Global::SparseRows)
        }
        (Dialect::BodyModel, "copy_reg" | "copyreg", "_reconstructor") => Some(Global::Reconstructor),
        (Dialect::BodyModel, "__builtin__" | "builtins", "object") => Some(Global::Object),
        (Dialect::BodyModel, "__builtin__" | "builtins", "set") => Some(Global::Set),
        _ => None,
    })
}

/// An instruction as `pickletools` calls it, with its code.
pub(super) fn instruction(code: u8) -> String {
    let name = match code {
        b'i' => "INST",
        b'o' => "OBJ",
        b'P' => "PERSID",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8b => "LONG4",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'p' => "PUT",
        b'g' => "GET",
        b'd' => "DICT",
        b'l' => "LIST",
        _ => return format!("{code:#04x}"),
    };
    format!("{name} ({code:#04x})")
}
