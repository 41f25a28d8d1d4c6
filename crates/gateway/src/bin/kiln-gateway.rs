//! The gateway alone, for tests and measurements: `kiln-gateway STATE_DIR [--inherit] [--workers N]`.
#![forbid(unsafe_code)]

use std::{error::Error, process::ExitCode};

use kiln_gateway::{GatewayOptions, run};

fn main() -> ExitCode {
    match options().and_then(|options| Ok(run(options)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<GatewayOptions, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut options = GatewayOptions::new(arguments.next().ok_or("which state directory?")?);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--inherit" => options.inherit = true,
            "--workers" => options.workers = Some(arguments.next().ok_or("how many workers?")?.parse()?),
            other => return Err(format!("`{other}` is not an option").into()),
        }
    }
    Ok(options)
}
