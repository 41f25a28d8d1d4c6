//! The bytes of a netlink message: a 16-byte header, a fixed body, then attributes (length, kind, value, padded to
//! four bytes), which may hold attributes themselves. `man 7 netlink`, `include/uapi/linux/netlink.h`.

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = !(NLA_F_NESTED | 1 << 14);

/// One request under construction.
#[derive(Debug)]
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    bytes: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        Self { kind, flags, bytes: Vec::with_capacity(256) }
    }

    /// The fixed part that comes before the attributes.
    pub(crate) fn body(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).expect("a netlink attribute is shorter than 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn flag(self, kind: u16, on: bool) -> Self {
        self.attribute(kind, &[u8::from(on)])
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// nfnetlink's numbers are in network byte order.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// A string with its final zero byte.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// An attribute made of attributes.
    pub(crate) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        let mut filled = fill(self);
        let length =
            u16::try_from(filled.bytes.len() - start).expect("a nested netlink attribute is shorter than 64 KiB");
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled.bytes[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        filled
    }

    /// Appends the finished message to a batch.
    pub(crate) fn finish(self, sequence: u32, acknowledged: bool, batch: &mut Vec<u8>) {
        let flags = self.flags | NLM_F_REQUEST | if acknowledged { NLM_F_ACK } else { 0 };
        let length = u32::try_from(self.bytes.len() + 16).expect("a netlink message is shorter than 4 GiB");
        batch.extend_from_slice(&length.to_ne_bytes());
        batch.extend_from_slice(&self.kind.to_ne_bytes());
        batch.extend_from_slice(&flags.to_ne_bytes());
        batch.extend_from_slice(&sequence.to_ne_bytes());
        batch.extend_from_slice(&0u32.to_ne_bytes());
        batch.extend_from_slice(&self.bytes);
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Walks over the attributes in an answer; stops at the first that does not fit.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The value of the first attribute of this kind.
    pub(crate) fn value(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        self.value(kind)?.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
    }

    pub(crate) fn be32(&self, kind: u16) -> Option<u32> {
        self.value(kind)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(crate) fn text(&self, kind: u16) -> Option<String> {
        let text = String::from_utf8_lossy(self.value(kind)?);
        Some(text.trim_end_matches('\0').to_owned())
    }

    pub(crate) fn ipv4(&self, kind: u16) -> Option<std::net::Ipv4Addr> {
        let bytes: [u8; 4] = self.value(kind)?.try_into().ok()?;
        Some(bytes.into())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_written() {
        let message = Message::new(16, 0).text(3, "eth0").nested(18, |inner| inner.u32(1, 7).flag(2, true)).be32(4, 9);
        let attributes = Attributes::new(&message.bytes);
        assert_eq!(attributes.text(3).as_deref(), Some("eth0"));
        assert_eq!(attributes.be32(4), Some(9));
        let inner = Attributes::new(attributes.value(18).unwrap());
        assert_eq!(inner.u32(1), Some(7));
        assert_eq!(inner.value(2), Some([1].as_slice()));
    }

    #[test]
    fn an_attribute_that_lies_about_its_length_ends_the_walk() {
        assert_eq!(Attributes::new(&[200, 0, 1, 0, 9]).count(), 0);
        assert_eq!(Attributes::new(&[0, 0, 1, 0, 9]).count(), 0);
    }
}
