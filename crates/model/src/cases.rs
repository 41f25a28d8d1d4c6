//! What a program with tests of its own says of them: TAP and JUnit XML become [`Cases`].

pub mod junit;
pub mod tap;

use std::time::Duration;

use crate::evidence::Verdict;

/// So many cases of one program are taken: a report holds them all.
pub const MAX_CASES: usize = 2000;

/// One test of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The program's own name for it; tests inside of tests behind ` / `.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What the program says about it.
    pub message: Option<String>,
    /// How long it took, where the program says so.
    pub took: Option<Duration>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cases {
    /// In the order told.
    pub cases: Vec<Case>,
    /// What is wrong with the whole: each fails the test, whatever the cases say.
    pub problems: Vec<String>,
}

impl Cases {
    fn of_problem(problem: impl Into<String>) -> Self {
        Self { cases: Vec::new(), problems: vec![problem.into()] }
    }
}
