//! How large a transaction may be. What is over a limit is refused or cut at the edge, counted, and never reaches the store.

/// Longest transaction identifier, bytes.
pub const ID_BYTES: usize = 128;
/// Longest path and longest query that is kept, bytes; the rest is cut and counted.
pub const PATH_BYTES: usize = 8 * 1024;
/// Most headers that are kept; the rest is cut and counted.
pub const HEADERS: usize = 128;
/// Longest header value that is kept, bytes.
pub const HEADER_BYTES: usize = 8 * 1024;
/// Largest body sample, bytes.
pub const BODY_BYTES: usize = 64 * 1024;
/// Most attributes; more are refused.
pub const ATTRIBUTES: usize = 64;
/// Most customer-named identity fields; more are refused.
pub const IDENTITY_FIELDS: usize = 32;
/// Longest identifier or text attribute, bytes; a longer one is refused.
pub const TEXT_BYTES: usize = 1024;
