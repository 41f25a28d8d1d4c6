//! The template language: minijinja's, with every name defined or an error, nothing escaped, and lines of nothing but a
//! block left out.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
};

use kiln_boot::render::{MAX_OUTPUT, MAX_STEPS, Rendering, TemplateFailure};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Serde, ValueKind},
};

/// Renders every template into its file.
pub(super) fn render(rendering: &Rendering, targets: Vec<OwnedFd>) -> Result<(), TemplateFailure> {
    let environment = environment();
    let context = Value::from(Serde(&rendering.context));
    for (number, (template, target)) in rendering.templates.iter().zip(targets).enumerate() {
        let mut writer = Bounded { file: File::from(target), left: MAX_OUTPUT, full: false, text: Vec::new() };
        let rendered = environment
            .template_from_named_str(&template.name, &template.content)
            .and_then(|compiled| compiled.render_captured_to(context.clone(), &mut writer).map(drop));
        rendered.map_err(|error| failure(number, &template.content, &error, writer.full))?;
        writer.finish().map_err(|error| plain(number, format!("its file could not be written: {error}")))?;
    }
    Ok(())
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters differ from each other"));
    environment.set_formatter(|output, state, value| match bool::try_from(value.clone()) {
        // As configuration files want them; the language would write `True`.
        Ok(truth) if value.kind() == ValueKind::Bool => Ok(write!(output, "{truth}")?),
        _ => minijinja::escape_formatter(output, state, value),
    });
    environment.set_fuel(Some(MAX_STEPS));
    environment.add_filter("seconds", seconds);
    environment.add_filter("milliseconds", milliseconds);
    environment.add_filter("bytes", bytes);
    environment
}

const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

fn seconds(text: &str) -> Result<Value, Error> {
    let ms = milliseconds(text)?;
    Ok(if ms.is_multiple_of(1000) { Value::from(ms / 1000) } else { Value::from(ms as f64 / 1000.0) })
}

fn milliseconds(text: &str) -> Result<u64, Error> {
    measure(text, &DURATIONS, "the value is not a duration such as `30s`")
}

fn bytes(text: &str) -> Result<u64, Error> {
    measure(text, &SIZES, "the value is not a size such as `64MiB`")
}

/// A whole number and a unit, as values of the configuration are normalised to.
fn measure(text: &str, units: &[(&str, u64)], wrong: &'static str) -> Result<u64, Error> {
    let read = || {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
        number.parse::<u64>().ok()?.checked_mul(*factor)
    };
    read().ok_or_else(|| Error::new(ErrorKind::InvalidOperation, wrong))
}

fn failure(template: usize, content: &str, error: &Error, full: bool) -> TemplateFailure {
    let message = match error.kind() {
        _ if full => format!("the file is larger than {} KiB", MAX_OUTPUT >> 10),
        ErrorKind::OutOfFuel => format!("it takes more than {MAX_STEPS} steps; is there a loop without end?"),
        ErrorKind::UndefinedError => {
            let line = error.line().and_then(|line| content.lines().nth(line.saturating_sub(1)));
            format!("a name has no value in `{}`", line.unwrap_or_default().trim())
        }
        kind => error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    TemplateFailure { template, line: error.line(), message: message.chars().take(500).collect() }
}

fn plain(template: usize, message: String) -> TemplateFailure {
    TemplateFailure { template, line: None, message }
}

/// Counts what is written, and gathers it into pieces for the file.
struct Bounded {
    file: File,
    left: usize,
    full: bool,
    text: Vec<u8>,
}

impl Bounded {
    const PIECE: usize = 64 << 10;

    fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&self.text)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.left -= bytes.len();
        self.text.extend_from_slice(bytes);
        if self.text.len() >= Self::PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, milliseconds, seconds};

    #[test]
    fn unit_measures_are_those_of_the_model() {
        assert_eq!(seconds("2m").unwrap().to_string(), "120");
        assert_eq!(seconds("1500ms").unwrap().to_string(), "1.5");
        assert_eq!(milliseconds("7d").unwrap(), 604_800_000);
        assert_eq!(bytes("64MiB").unwrap(), 64 << 20);
        for wrong in ["", "64", "s", "-1s", "1.5h", "1 s", "99999999999999999d"] {
            assert!(milliseconds(wrong).is_err(), "{wrong}");
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
