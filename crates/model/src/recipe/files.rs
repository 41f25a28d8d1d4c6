//! The files beside a recipe, as far as validation needs them.

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a device, a socket, a pipe.
    Other,
}

/// Why a file of the recipe cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// It leads out of the recipe's directory, through a symbolic link.
    #[error("it leads out of the recipe's directory")]
    Outside,
    /// It is longer than asked for.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// The host refused.
    #[error("it cannot be read: {reason}")]
    Unreadable {
        /// The host's words.
        reason: String,
    },
}

/// Answers for the files of a recipe's directory. Paths are relative to it and have been checked: no `..`, not absolute.
/// Symbolic links are followed, but not out of the directory.
pub trait RecipeFiles {
    /// What is at this path; none if nothing is.
    fn kind(&self, path: &str) -> Result<Option<FileKind>, FileProblem>;
    /// The file's bytes, if there are at most `limit`.
    fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, FileProblem>;
    /// The names in a directory, sorted, at most 10 000 of them; none if it is not there. `""` is the recipe's own directory.
    fn list(&self, path: &str) -> Result<Vec<String>, FileProblem>;
}
