//! The problems of a request's fields, collected until all fields are checked.

use crate::http::errors::{FieldProblem, Problem};

/// The problems found so far.
#[derive(Debug, Default)]
pub struct FieldProblems(Vec<FieldProblem>);

impl FieldProblems {
    /// Reports one bad field.
    pub fn add(&mut self, field: impl Into<String>, problem: Problem) {
        self.0.push(FieldProblem {
            field: field.into(),
            problem,
        });
    }

    /// Whether nothing was reported.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this field was reported as missing.
    pub fn lacks(&self, field: &str) -> bool {
        self.0
            .iter()
            .any(|problem| problem.field == field && problem.problem == Problem::Required)
    }

    /// The reports, in the order in which they were made.
    pub fn into_details(self) -> Vec<FieldProblem> {
        self.0
    }
}
