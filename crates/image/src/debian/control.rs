//! Paragraphs of `Field: value` lines: a package's `control`, dpkg's `status`.

/// One paragraph: fields in their order, values as written, continuation lines included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paragraph(Vec<(String, String)>);

impl Paragraph {
    /// The value of a field, without space at its end; names are compared without case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim_end())
    }
    /// The value of a field, or nothing.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }
    /// Sets a field, in its place or at the end.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        match self.0.iter_mut().find(|(field, _)| field.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value.into(),
            None => self.0.push((name.to_owned(), value.into())),
        }
    }
    /// Puts a field right after another one.
    pub fn insert_after(&mut self, after: &str, name: &str, value: impl Into<String>) {
        let at =
            self.0.iter().position(|(field, _)| field.eq_ignore_ascii_case(after)).map_or(self.0.len(), |at| at + 1);
        self.0.insert(at, (name.to_owned(), value.into()));
    }
    /// Reads every paragraph of a text. Lines that are neither fields nor continuations are left out.
    pub fn read_all(text: &str) -> Vec<Self> {
        let mut paragraphs = vec![Self::default()];
        for line in text.split('\n') {
            if line.trim().is_empty() {
                paragraphs.push(Self::default());
            } else if let Some(paragraph) = paragraphs.last_mut() {
                paragraph.line(line);
            }
        }
        paragraphs.retain(|paragraph| !paragraph.0.is_empty());
        paragraphs
    }

    fn line(&mut self, line: &str) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = self.0.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            self.0.push((name.to_owned(), value.trim_start().to_owned()));
        }
    }
}

impl std::fmt::Display for Paragraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.0 {
            let space = if value.is_empty() || value.starts_with('\n') { "" } else { " " };
            writeln!(f, "{name}:{space}{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paragraphs_come_back_as_they_were() {
        let text = "Package: a\nStatus: install ok installed\nConffiles:\n /etc/a 00\n /etc/b 11\nDescription: x\n y\n";
        let read = Paragraph::read_all(&format!("\n{text}\n\n{text}"));
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].to_string(), text);
        assert_eq!(read[0].get("package"), Some("a"));
        assert_eq!(read[0].text("Conffiles"), "\n /etc/a 00\n /etc/b 11");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*\n?.*\n?.*") {
            let once: String = Paragraph::read_all(&text).iter().map(|p| format!("{p}\n")).collect();
            let twice: String = Paragraph::read_all(&once).iter().map(|p| format!("{p}\n")).collect();
            prop_assert_eq!(once, twice);
        }
    }
}
