//! JSON read without serde's general machinery: a scanner for a subset, records of one shape, and an object as an ordered list. Knows nothing of the
//! documents.
pub(crate) mod json_scan;
pub(crate) mod ordered_members;
pub(crate) mod template;
