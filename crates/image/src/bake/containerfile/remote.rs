//! `ADD --checksum=… URL`: a file of the Internet that is the same every time.

use std::fs;

use kiln_model::Digest;

use super::files::{Files, Item, What};
use crate::{
    bake::chain::Chain,
    debian::http::{Client, Limits},
    layer::{Content, Meta},
};

/// A file longer than this (bytes) is refused.
const MAX_BYTES: u64 = 1 << 30;

/// An address as everybody may read it: without what a user or a token is in.
pub(super) fn public(address: &str) -> String {
    let address = without_query(address);
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let host = rest.find('/').unwrap_or(rest.len());
    let user = rest[..host].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{}", &rest[user..])
}

fn without_query(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or_default()
}

/// Fetches a file, or takes it from where downloads are kept.
pub(super) fn fetch(chain: &Chain<'_>, address: &str, checksum: Option<Digest>) -> Result<Files, String> {
    let Some(checksum) = checksum else {
        return Err("nothing says what it must be: write `--checksum=sha256:…`".to_owned());
    };
    let path = without_query(address);
    let name = path.rsplit('/').next().filter(|name| !name.is_empty() && path.matches('/').count() > 2);
    let name = name.ok_or("the address ends with no name of a file")?;
    let directory = chain.request.cache.join("added");
    let kept = directory.join(checksum.hex());
    let failed = |error: std::io::Error| format!("{}: {error}", kept.display());
    if fs::read(&kept).map_or(true, |bytes| Digest::of(&bytes) != checksum) {
        if chain.request.offline {
            return Err("it is not kept here, and nothing may be downloaded".to_owned());
        }
        let bytes = Client::new(Limits::default()).get(address, MAX_BYTES).map_err(|error| error.to_string())?;
        let found = Digest::of(&bytes);
        if found != checksum {
            return Err(format!("it should be {checksum} and is {found}"));
        }
        fs::create_dir_all(&directory).map_err(failed)?;
        let part = tempfile::NamedTempFile::new_in(&directory).map_err(failed)?;
        fs::write(part.path(), &bytes).map_err(failed)?;
        part.persist(&kept).map_err(|error| failed(error.error))?;
    }
    let size = fs::metadata(&kept).map_err(failed)?.len();
    let content = Content::Path { path: kept, size, take: false };
    let what = What::File { content, id: checksum.as_bytes().to_vec(), sha256: Some(*checksum.as_bytes()) };
    let item = Item { path: Vec::new(), meta: Meta { mode: 0o600, ..Meta::default() }, what };
    Ok(Files { name: name.as_bytes().to_vec(), items: vec![item] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_an_address_is_told_without_user_and_token() {
        assert_eq!(public("https://me:secret@h.example/a@b/c?token=x#y"), "https://h.example/a@b/c");
        assert_eq!(public("http://h.example:8080"), "http://h.example:8080");
    }
}
