//! Asks the metadata service as programs on EC2 do, with the AWS SDK for Rust, and prints what it said as JSON.

use aws_config::{
    imds::{Client, client::error::ImdsError, region::ImdsRegionProvider},
    provider_config::ProviderConfig,
};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), ImdsError> {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = ProviderConfig::without_region().with_http_client(http);
    let client = Client::builder().configure(&config).build();
    let get = async |path: &str| client.get(path).await.map(String::from);
    let region = ImdsRegionProvider::builder().configure(&config).build().region().await;
    let document = get("/latest/dynamic/instance-identity/document").await?;
    let said = json!({
        "region": region.map(|region| region.to_string()),
        "zone": get("/latest/meta-data/placement/availability-zone").await?,
        "instance_id": get("/latest/meta-data/instance-id").await?,
        "local_ipv4": get("/latest/meta-data/local-ipv4").await?,
        "user_data": get("/latest/user-data").await?,
        "document": serde_json::from_str::<Value>(&document).unwrap_or(Value::Null),
        "absent": status(get("/latest/meta-data/no-such-thing").await),
    });
    println!("{said}");
    Ok(())
}

/// The HTTP status of a refusal, as the SDK tells it.
fn status(result: Result<String, ImdsError>) -> Value {
    match result {
        Ok(text) => json!(text),
        Err(ImdsError::ErrorResponse(refused)) => json!(refused.response().status().as_u16()),
        Err(error) => json!(error.to_string()),
    }
}
