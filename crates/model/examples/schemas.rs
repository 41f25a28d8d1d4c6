//! Writes the JSON Schemas into a directory: `cargo xtask docs` runs it.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "schema".to_owned()));
    kiln_model::schema::files().iter().try_for_each(|file| std::fs::write(directory.join(file.name), &file.text))
}
