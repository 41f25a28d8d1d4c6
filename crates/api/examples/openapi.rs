//! Prints the OpenAPI document: `cargo run -p kiln-api --example openapi > schema/api.openapi.json`.
fn main() -> Result<(), serde_json::Error> {
    println!("{}", kiln_api::openapi().to_pretty_json()?);
    Ok(())
}
