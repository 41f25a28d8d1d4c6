//! Writes the JSON Schemas into a directory: `cargo run -p kiln-model --example schemas -- schema`.

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).unwrap_or_else(|| "schema".into());
    for file in kiln_model::schema::files() {
        std::fs::write(std::path::Path::new(&directory).join(file.name), file.text)?;
    }
    Ok(())
}
