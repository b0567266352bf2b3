//! One transaction as a row of named values: what filters and rules read.

/// Request-phase field values in the order of [`super::Schema::scope`]'s event fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields<'a> {
    /// Numbers; NaN stands for missing.
    pub numbers: Vec<f64>,
    /// Texts; empty stands for missing.
    pub texts: Vec<&'a str>,
    /// Truth values.
    pub flags: Vec<bool>,
}

/// Room for a row: reused between transactions.
#[derive(Clone, Debug, Default)]
pub struct RowBuffers {
    /// Event numbers, then one a feature; whoever extends the scope appends here in the order of its own names.
    pub numbers: Vec<f64>,
    /// Event flags; whoever extends the scope appends here.
    pub flags: Vec<bool>,
}
