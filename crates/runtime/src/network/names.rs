//! Names of everything on the host's network that belongs to one state directory.

use super::NetworkError;

/// Names derived from the state directory's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Eight lower-case hexadecimal digits.
    pub id: String,
    /// The bridge: `kiln-` and the id, 13 bytes.
    pub bridge: String,
    /// How the names of its ports start: `k`, the id and `-`; the slot follows, at most 14 bytes together.
    pub port_prefix: String,
    /// The nftables tables.
    pub table: String,
}

impl Names {
    /// How the names of all of Kiln's bridges start.
    pub(super) const BRIDGE_PREFIX: &str = "kiln-";

    /// Names for an id of eight lower-case hexadecimal digits.
    pub fn new(id: &str) -> Result<Self, NetworkError> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if id.len() != 8 || !id.bytes().all(digits) {
            return Err(NetworkError::Id(id.to_owned()));
        }
        Ok(Self {
            id: id.to_owned(),
            bridge: format!("{}{id}", Self::BRIDGE_PREFIX),
            port_prefix: format!("k{id}-"),
            table: format!("kiln_{id}"),
        })
    }

    /// The host's end of a slot's veth pair.
    pub fn port(&self, slot: u16) -> String {
        format!("{}{slot}", self.port_prefix)
    }

    /// The slot of a port of that name.
    pub(super) fn slot(&self, port: &str) -> Option<u16> {
        port.strip_prefix(&self.port_prefix)?.parse().ok()
    }

    /// A number that differs from one state directory to the next.
    pub(super) fn seed(&self) -> u32 {
        self.id.bytes().fold(0, |seed: u32, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernels_fifteen_bytes() {
        let names = Names::new("0123abcd").unwrap();
        assert_eq!(names.bridge, "kiln-0123abcd");
        assert_eq!(names.port(1022), "k0123abcd-1022");
        assert!(names.port(1022).len() <= 15);
        assert_eq!(names.slot("k0123abcd-1022"), Some(1022));
        assert_eq!(names.slot("kffffffff-1"), None);
    }

    #[test]
    fn an_id_is_eight_hexadecimal_digits() {
        for id in ["", "0123ABCD", "0123abc", "0123abcde", "../../et"] {
            assert!(Names::new(id).is_err(), "{id}");
        }
    }
}
