//! Debian versions, compared as Debian Policy 5.6.12 says: epoch, upstream version, revision; `~` sorts before the end.
//!
//! Works on the text itself: an index holds 63 000 versions, and most are never compared.

use std::cmp::Ordering;

/// Orders two versions.
pub fn compare(a: &str, b: &str) -> Ordering {
    let ((ea, ua, ra), (eb, ub, rb)) = (split(a), split(b));
    compare_digits(ea, eb).then_with(|| compare_part(ua, ub)).then_with(|| compare_part(ra, rb))
}

/// Epoch, upstream version, revision; missing ones are empty, which compares equal to `0`.
fn split(version: &str) -> (&[u8], &[u8], &[u8]) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.as_bytes(), upstream.as_bytes(), revision.as_bytes())
}

fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, rest_a) = split_while(a, |byte| !byte.is_ascii_digit());
        let (text_b, rest_b) = split_while(b, |byte| !byte.is_ascii_digit());
        let (digits_a, next_a) = split_while(rest_a, |byte| byte.is_ascii_digit());
        let (digits_b, next_b) = split_while(rest_b, |byte| byte.is_ascii_digit());
        let order = compare_text(text_a, text_b).then_with(|| compare_digits(digits_a, digits_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (next_a, next_b);
    }
    Ordering::Equal
}

/// Letters before other signs, `~` before the end of the text.
fn compare_text(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |text: &[u8], at: usize| match text.get(at) {
        None => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    (0..a.len().max(b.len())).map(|at| rank(a, at).cmp(&rank(b, at))).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

/// Numbers of any length.
fn compare_digits(a: &[u8], b: &[u8]) -> Ordering {
    let (_, a) = split_while(a, |byte| byte == b'0');
    let (_, b) = split_while(b, |byte| byte == b'0');
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn split_while(text: &[u8], keep: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !keep(*byte)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_is_the_policys() {
        let ascending = [
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0",
            "1.0-0.1",
            "1.0-1~bpo12+1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1+deb12u2",
            "1.0-1+deb12u10",
            "1.0a",
            "1.0+dfsg",
            "1.0.1",
            "1.2",
            "1.10",
            "9999",
            "1:0.1",
            "2:0",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn zeroes_and_missing_parts_are_equal() {
        for (a, b) in [("1.0", "1.0-0"), ("0:1", "1"), ("1.01", "1.1"), ("1.0-00", "1.0")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_dpkgs_as_another_library_knows_it(
            a in "([0-9]:)?[0-9][0-9a-zA-Z.+~]{0,8}(-[0-9a-z.+~]{1,4})?",
            b in "([0-9]:)?[0-9][0-9a-zA-Z.+~]{0,8}(-[0-9a-z.+~]{1,4})?",
        ) {
            let (pa, pb): (debversion::Version, debversion::Version) = (a.parse().unwrap(), b.parse().unwrap());
            prop_assert_eq!(compare(&a, &b), pa.cmp(&pb));
        }

        #[test]
        fn any_text_has_a_place(a in ".*", b in ".*") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        }
    }
}
