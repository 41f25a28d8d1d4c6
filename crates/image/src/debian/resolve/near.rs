//! Names that look like one that does not exist.

/// At most this many.
const MOST: usize = 4;

/// The names closest to `wanted`, best first: few edits, or one containing the other.
pub fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let limit = if wanted.len() < 4 { 1 } else { 2 };
    let mut found: Vec<(usize, &str)> =
        names.filter_map(|name| Some((closeness(wanted, name, limit)?, name))).collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
}

/// The end of an error's sentence.
pub fn suggest(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

fn closeness(wanted: &str, name: &str, limit: usize) -> Option<usize> {
    let contained = wanted.len() >= 3 && (name.starts_with(wanted) || wanted.starts_with(name) && name.len() >= 3);
    match distance(wanted.as_bytes(), name.as_bytes(), limit) {
        Some(edits) => Some(edits),
        None if contained => Some(limit + name.len().abs_diff(wanted.len())),
        None => None,
    }
}

/// Insertions, deletions and replacements between two texts; none above the limit.
fn distance(a: &[u8], b: &[u8], limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
        if row.iter().all(|edits| *edits > limit) {
            return None;
        }
    }
    row.last().copied().filter(|edits| *edits <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_beginnings_are_found() {
        let names = ["nginx", "nginx-light", "nginx-core", "apache2", "redis-server"];
        assert_eq!(near("ngnix", names.into_iter())[0], "nginx");
        assert_eq!(near("redis", names.into_iter()), ["redis-server"]);
        assert_eq!(near("zzzzzz", names.into_iter()), [""; 0]);
    }
}
