//! Lists that a registry gives in pages: `Link: <ADDRESS>; rel="next"` (distribution-spec 1.1, "Listing Referrers"; RFC 8288).
//!
//! The address of the next page is the registry's word, so it leads nowhere but to the registry itself: another host, and plain
//! HTTP in place of TLS, are refused before anything is asked there. Pages end at a number and at a size, whatever is said.

use ureq::http::HeaderMap;

use super::{RegistryError, client::Repository};
use crate::oci::foreign::MAX_DOCUMENT;

/// So many pages of one list are read.
pub(super) const MAX_PAGES: usize = 100;
/// And so many bytes of all of them.
const MAX_BYTES: u64 = 4 * MAX_DOCUMENT;

impl Repository {
    /// The pages of a list; none if there is no such list. What is beyond the limits is left out.
    pub(super) fn pages(&self, rest: &str, media_type: &str) -> Result<Option<Vec<Vec<u8>>>, RegistryError> {
        let (mut pages, mut bytes) = (Vec::new(), 0);
        let mut url = self.url(rest);
        loop {
            let (page, next) = match self.whole(&url, media_type, MAX_DOCUMENT) {
                Ok((page, headers)) => (page, next(&headers)),
                Err(RegistryError::NotFound { .. }) if pages.is_empty() => return Ok(None),
                Err(error) => return Err(error),
            };
            bytes += page.len() as u64;
            pages.push(page);
            let Some(next) = next else { return Ok(Some(pages)) };
            if pages.len() >= MAX_PAGES || bytes > MAX_BYTES {
                tracing::warn!(%url, pages = pages.len(), bytes, "the list goes on: the rest of it is not read");
                return Ok(Some(pages));
            }
            url = self.next_page(&url, &next)?;
        }
    }

    fn next_page(&self, url: &str, next: &str) -> Result<String, RegistryError> {
        let target = self.resolve(url, next)?;
        match self.is_ours(&target) {
            true => Ok(target),
            false => {
                let reason = "the next page of a list is at another host";
                Err(RegistryError::Redirect { url: url.to_owned(), target, reason })
            }
        }
    }
}

fn next(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all("link").iter().filter_map(|value| value.to_str().ok());
    values.filter_map(next_in).next().map(str::to_owned)
}

/// The address that a `Link` says is next.
pub(super) fn next_in(value: &str) -> Option<&str> {
    let mut rest = value;
    while let Some((_, link)) = rest.split_once('<') {
        let (target, after) = link.split_once('>')?;
        let (parameters, others) = after.split_once(',').unwrap_or((after, ""));
        if parameters.split(';').any(is_next) {
            return Some(target);
        }
        rest = others;
    }
    None
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let kinds = value.trim().trim_matches('"').split(' ');
    name.trim().eq_ignore_ascii_case("rel") && kinds.into_iter().any(|kind| kind.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::next_in;

    #[test]
    fn unit_the_next_page_is_found_among_links() {
        assert_eq!(next_in("</v2/a/referrers/x?n=1>; rel=\"next\""), Some("/v2/a/referrers/x?n=1"));
        assert_eq!(next_in("</a>; rel=prev, </b>; title=\"b\"; REL=\"last Next\""), Some("/b"));
        assert_eq!(next_in("<https://reg.example/b?last=a,b>;rel=next"), Some("https://reg.example/b?last=a,b"));
        for none in ["", "</a>", "</a>; rel=\"prev\"", "</a; rel=\"next\"", "/a; rel=\"next\"", "</a>; rel=\"nextest\""]
        {
            assert_eq!(next_in(none), None, "{none}");
        }
    }
}
