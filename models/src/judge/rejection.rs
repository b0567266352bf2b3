//! Why a foreign model is refused before anything runs it: one class a guard, each with what its author has to change.

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Larger than allowed.
    #[error("the file has {bytes} bytes, allowed are {allowed}: prune the model or use fewer trees")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        allowed: u64,
    },
    /// Another kind of file.
    #[error("the file is {found} and no ONNX model: export the model with skl2onnx, onnxmltools or torch.onnx")]
    Mislabelled {
        /// What it looks like.
        found: &'static str,
    },
    /// Damaged or cut off.
    #[error("the file is damaged or was not copied completely: {what} at byte {at} of its {part}")]
    Broken {
        /// Which message of the file.
        part: &'static str,
        /// Offset in it.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// No graph in it.
    #[error("the model has no {what}: export it again")]
    Empty {
        /// What is missing.
        what: &'static str,
    },
    /// Weights in other files.
    #[error("tensor `{tensor}` has its data in another file (`{location}`): save the model in one file, `save_as_external_data=False`")]
    ExternalData {
        /// The tensor.
        tensor: String,
        /// Where it points to.
        location: String,
    },
    /// Operators that are not part of ONNX.
    #[error("node `{node}` is `{domain}.{op}`: allowed are operators of ai.onnx and ai.onnx.ml; export without custom operators")]
    CustomOperator {
        /// The node.
        node: String,
        /// The domain.
        domain: String,
        /// The operator.
        op: String,
    },
    /// Functions defined in the model.
    #[error("the model defines {count} functions of its own: inline them before the export")]
    Functions {
        /// How many.
        count: usize,
    },
    /// Loops and branches.
    #[error("node `{node}` is `{op}`, which runs a graph of its own: allowed are models without Loop, Scan, If and other subgraphs")]
    ControlFlow {
        /// The node.
        node: String,
        /// The operator.
        op: String,
    },
    /// Too many nodes.
    #[error("the graph has more than {allowed} nodes: export the ensemble as one TreeEnsemble node, or a smaller network")]
    TooManyNodes {
        /// The limit.
        allowed: usize,
    },
    /// Too many initialisers.
    #[error("the graph has more than {allowed} initialisers: store the weights in fewer and larger tensors")]
    TooManyTensors {
        /// The limit.
        allowed: usize,
    },
    /// A tensor of too many dimensions.
    #[error("tensor `{tensor}` has more than {allowed} dimensions: reshape it before the export")]
    TooManyDimensions {
        /// The tensor.
        tensor: String,
        /// The limit.
        allowed: usize,
    },
    /// Too many names of anything.
    #[error("the graph names more than {allowed} inputs, outputs, attributes and values: export a smaller model")]
    TooManyNames {
        /// The limit.
        allowed: usize,
    },
    /// Scores that differ from run to run.
    #[error("node `{node}` is `{op}`: a model must score the same row the same each time; export it in evaluation mode")]
    Random {
        /// The node.
        node: String,
        /// The operator.
        op: String,
    },
    /// A tensor whose shape and data do not fit.
    #[error("tensor `{tensor}` says that it has the shape {shape:?}, and holds {bytes} bytes of data: export the model again")]
    TensorShape {
        /// The tensor.
        tensor: String,
        /// Its dimensions.
        shape: Vec<i64>,
        /// Bytes that are there.
        bytes: u64,
    },
    /// A node that makes a huge tensor out of nothing.
    #[error("node `{node}` is `{op}` and makes a tensor of {elements} elements, allowed are {allowed}")]
    HugeTensor {
        /// The node.
        node: String,
        /// The operator.
        op: String,
        /// Its size.
        elements: u128,
        /// The limit.
        allowed: u64,
    },
    /// Sparse tensors.
    #[error("tensor `{tensor}` is sparse, which can claim any size: store it dense")]
    Sparse {
        /// The tensor.
        tensor: String,
    },
    /// Training graphs.
    #[error("the model brings {count} training graphs: export it for inference")]
    Training {
        /// How many.
        count: usize,
    },
    /// Names that are no names.
    #[error("{what} has the name `{name}`: allowed are 1 to 256 bytes without control characters, `..` or a leading `/`")]
    Name {
        /// Whose.
        what: &'static str,
        /// The name, shortened and made printable.
        name: String,
    },
    /// Inputs that no row of numbers fits.
    #[error("input `{input}` is {found}, allowed are tensors of float or double, [rows, columns] or [rows, 1]")]
    Input {
        /// Which.
        input: String,
        /// What it is.
        found: String,
    },
}

impl Rejection {
    /// Its class, for counting.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::Mislabelled { .. } => "mislabelled",
            Self::Broken { .. } => "broken",
            Self::Empty { .. } => "empty",
            Self::ExternalData { .. } => "external-data",
            Self::CustomOperator { .. } => "custom-operator",
            Self::Functions { .. } => "functions",
            Self::ControlFlow { .. } => "control-flow",
            Self::TooManyNodes { .. } => "too-many-nodes",
            Self::TooManyTensors { .. } => "too-many-tensors",
            Self::TooManyDimensions { .. } => "dimensions",
            Self::TooManyNames { .. } => "too-many-names",
            Self::Random { .. } => "random",
            Self::TensorShape { .. } => "tensor-shape",
            Self::HugeTensor { .. } => "huge-tensor",
            Self::Sparse { .. } => "sparse",
            Self::Training { .. } => "training",
            Self::Name { .. } => "name",
            Self::Input { .. } => "input",
        }
    }
}
