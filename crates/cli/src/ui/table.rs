//! Columns for people.

/// Lines of cells under a heading, each column as wide as its widest cell.
pub(crate) fn render(heading: &[&str], lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column)).map(|cell| visible(cell));
        cells.chain([heading[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let heading: Vec<_> = heading.iter().map(|text| super::dim(text)).collect();
    let all = std::iter::once(&heading).chain(lines);
    all.map(|line| row(line, &widths)).collect()
}

fn row(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| {
        let gap = width.saturating_sub(visible(cell));
        format!("{cell}{}", " ".repeat(gap))
    });
    let line = padded.collect::<Vec<_>>().join("  ");
    format!("{}\n", line.trim_end())
}

/// Characters that take a column: escape sequences do not.
fn visible(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_columns_line_up_whatever_their_colours() {
        let lines = vec![vec![super::super::good(), "a".to_owned()], vec!["longer".to_owned(), String::new()]];
        let text = anstream::adapter::strip_str(&render(&["X", "NAME"], &lines)).to_string();
        assert_eq!(text, "X       NAME\n✓       a\nlonger\n");
    }
}
