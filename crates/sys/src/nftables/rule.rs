//! One rule: conditions, then a verdict, as the kernel's register machine wants them.
//!
//! A condition loads a field into a register and compares it; a lookup loads several fields side by side and looks the
//! whole up in a set. Numbers of registers, keys and attributes: `include/uapi/linux/netfilter/nf_tables.h`.

use std::net::Ipv4Addr;

use crate::netlink::message::Message;

pub(crate) const DROP: i32 = 0;
pub(crate) const ACCEPT: i32 = 1;
const GOTO: i32 = -4;
/// First of the sixteen four-byte registers.
const FIRST_REGISTER: u32 = 8;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

/// A part of a packet, or something known about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Name of the interface it came in through, 16 bytes.
    InputName,
    /// Name of the interface it goes out through, 16 bytes.
    OutputName,
    /// Group of the interface it came in through, in the host's byte order.
    InputGroup,
    /// Group of the interface it goes out through, in the host's byte order.
    OutputGroup,
    /// EtherType.
    EtherType,
    /// IPv4 (2) or IPv6 (10), one byte.
    Family,
    /// Protocol inside IP, one byte.
    Protocol,
    /// Sender's Ethernet address.
    EtherSource,
    /// Sender's IPv4 address.
    Source,
    /// Receiver's IPv4 address.
    Destination,
    /// Sender's Ethernet address inside an ARP message.
    ArpEther,
    /// Sender's IPv4 address inside an ARP message.
    ArpSource,
    /// Receiver's TCP or UDP port, in network byte order.
    DestinationPort,
    /// State of the connection: a bit mask in the host's byte order.
    ConnectionState,
    /// What was done to the connection: a bit mask in the host's byte order.
    ConnectionStatus,
}

enum Origin {
    Meta(u32),
    Payload { base: u32, offset: u32 },
    Connection(u32),
}

impl Field {
    fn origin(self) -> Origin {
        match self {
            Self::EtherType => Origin::Meta(1),
            Self::InputName => Origin::Meta(6),
            Self::OutputName => Origin::Meta(7),
            Self::Family => Origin::Meta(15),
            Self::Protocol => Origin::Meta(16),
            Self::InputGroup => Origin::Meta(21),
            Self::OutputGroup => Origin::Meta(22),
            Self::EtherSource => Origin::Payload { base: 0, offset: 6 },
            Self::Source => Origin::Payload { base: 1, offset: 12 },
            Self::Destination => Origin::Payload { base: 1, offset: 16 },
            Self::ArpEther => Origin::Payload { base: 1, offset: 8 },
            Self::ArpSource => Origin::Payload { base: 1, offset: 14 },
            Self::DestinationPort => Origin::Payload { base: 2, offset: 2 },
            Self::ConnectionState => Origin::Connection(0),
            Self::ConnectionStatus => Origin::Connection(2),
        }
    }

    /// Bytes of the field.
    pub(crate) fn length(self) -> u32 {
        match self {
            Self::InputName | Self::OutputName => 16,
            Self::EtherSource | Self::ArpEther => 6,
            Self::EtherType | Self::DestinationPort => 2,
            Self::Family | Self::Protocol => 1,
            Self::InputGroup | Self::OutputGroup => 4,
            Self::Source | Self::Destination | Self::ArpSource => 4,
            Self::ConnectionState | Self::ConnectionStatus => 4,
        }
    }

    /// Bytes of the registers it takes.
    pub(crate) fn padded_length(self) -> u32 {
        self.length().next_multiple_of(4)
    }

    /// What `nft` calls the type (`datatype.h`); the kernel only hands it back, for listings.
    pub(crate) fn type_id(self) -> u32 {
        match self {
            Self::InputName | Self::OutputName => 41,
            Self::EtherSource | Self::ArpEther => 9,
            Self::Source | Self::Destination | Self::ArpSource => 7,
            Self::DestinationPort => 13,
            _ => 0,
        }
    }

    fn load(self, list: Message, register: u32) -> Message {
        match self.origin() {
            Origin::Meta(key) => expression(list, "meta", |data| data.be32(1, register).be32(2, key)),
            Origin::Connection(key) => expression(list, "ct", |data| data.be32(1, register).be32(2, key)),
            Origin::Payload { base, offset } => expression(list, "payload", |data| {
                data.be32(1, register).be32(2, base).be32(3, offset).be32(4, self.length())
            }),
        }
    }
}

fn expression(list: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    list.nested(1, |element| element.text(1, name).nested(2, fill))
}

#[derive(Debug, Clone)]
enum Part {
    Compare { field: Field, operator: u32, value: Vec<u8> },
    Masked { field: Field, mask: Vec<u8>, operator: u32, value: Vec<u8> },
    Lookup { fields: Vec<Field>, set: &'static str },
    Masquerade,
    Redirect { address: Ipv4Addr, port: u16 },
    Verdict { code: i32, chain: Option<&'static str> },
}

/// A rule under construction: conditions first, one verdict last.
#[derive(Debug, Clone, Default)]
pub struct Rule(Vec<Part>);

impl Rule {
    /// A rule without conditions.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, part: Part) -> Self {
        self.0.push(part);
        self
    }

    /// The field has exactly this value.
    pub fn is(self, field: Field, value: &[u8]) -> Self {
        self.with(Part::Compare { field, operator: EQUAL, value: value.to_vec() })
    }

    /// The field has any other value.
    pub fn is_not(self, field: Field, value: &[u8]) -> Self {
        self.with(Part::Compare { field, operator: NOT_EQUAL, value: value.to_vec() })
    }

    /// The interface has exactly this name.
    pub fn named(self, field: Field, name: &str) -> Self {
        self.is(field, &interface_name(name))
    }

    /// The interface has any other name.
    pub fn not_named(self, field: Field, name: &str) -> Self {
        self.is_not(field, &interface_name(name))
    }

    /// The interface's name starts like this.
    pub fn name_starts(self, field: Field, prefix: &str) -> Self {
        self.is(field, prefix.as_bytes())
    }

    /// The interface's name starts in another way.
    pub fn name_starts_not(self, field: Field, prefix: &str) -> Self {
        self.is_not(field, prefix.as_bytes())
    }

    /// The address lies in this network.
    pub fn in_network(self, field: Field, network: Ipv4Addr, prefix: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0).to_be_bytes().to_vec();
        self.with(Part::Masked { field, mask, operator: EQUAL, value: network.octets().to_vec() })
    }

    /// The packet belongs to a connection that was allowed before, or to an error about one.
    pub fn established(self) -> Self {
        let mask = 6u32.to_ne_bytes().to_vec();
        self.with(Part::Masked { field: Field::ConnectionState, mask, operator: NOT_EQUAL, value: vec![0; 4] })
    }

    /// The packet belongs to a connection whose destination a rule has changed (`IPS_DST_NAT`).
    pub fn redirected(self) -> Self {
        let mask = 0x20u32.to_ne_bytes().to_vec();
        self.with(Part::Masked { field: Field::ConnectionStatus, mask, operator: NOT_EQUAL, value: vec![0; 4] })
    }

    /// The packet is IPv4 (in a table of family inet).
    pub fn ipv4(self) -> Self {
        self.is(Field::Family, &[2])
    }

    /// The fields, side by side, are a key of the set.
    pub fn in_set(self, fields: &[Field], set: &'static str) -> Self {
        self.with(Part::Lookup { fields: fields.to_vec(), set })
    }

    /// The packet goes on.
    pub fn accept(self) -> Self {
        self.with(Part::Verdict { code: ACCEPT, chain: None })
    }

    /// The packet is gone.
    pub fn drop(self) -> Self {
        self.with(Part::Verdict { code: DROP, chain: None })
    }

    /// Another chain decides, and does not come back here.
    pub fn go_to(self, chain: &'static str) -> Self {
        self.with(Part::Verdict { code: GOTO, chain: Some(chain) })
    }

    /// The packet leaves with the address of the interface it leaves through.
    pub fn masquerade(self) -> Self {
        self.with(Part::Masquerade)
    }

    /// The connection goes to this address and port instead; its answers come from where it was sent to.
    pub fn redirect(self, address: Ipv4Addr, port: u16) -> Self {
        self.with(Part::Redirect { address, port })
    }

    pub(crate) fn encode(&self, list: Message) -> Message {
        self.0.iter().fold(list, |list, part| part.encode(list))
    }
}

fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn compare(list: Message, operator: u32, value: &[u8]) -> Message {
    expression(list, "cmp", |data| {
        data.be32(1, FIRST_REGISTER).be32(2, operator).nested(3, |content| content.attribute(1, value))
    })
}

impl Part {
    fn encode(&self, list: Message) -> Message {
        match self {
            Self::Compare { field, operator, value } => compare(field.load(list, FIRST_REGISTER), *operator, value),
            Self::Masked { field, mask, operator, value } => {
                let loaded = field.load(list, FIRST_REGISTER);
                compare(keep_bits(loaded, mask), *operator, value)
            }
            Self::Lookup { fields, set } => lookup(list, fields, set),
            Self::Masquerade => expression(list, "masq", |data| data),
            Self::Redirect { address, port } => redirect(list, *address, *port),
            Self::Verdict { code, chain } => verdict(list, *code, *chain),
        }
    }
}

fn keep_bits(list: Message, mask: &[u8]) -> Message {
    expression(list, "bitwise", |data| {
        data.be32(1, FIRST_REGISTER)
            .be32(2, FIRST_REGISTER)
            .be32(3, mask.len() as u32)
            .nested(4, |content| content.attribute(1, mask))
            .nested(5, |content| content.attribute(1, &vec![0; mask.len()]))
    })
}

fn lookup(list: Message, fields: &[Field], set: &str) -> Message {
    let mut register = FIRST_REGISTER;
    let mut list = list;
    for field in fields {
        list = field.load(list, register);
        register += field.padded_length() / 4;
    }
    expression(list, "lookup", |data| data.text(1, set).be32(2, FIRST_REGISTER))
}

/// `NFT_NAT_DNAT` of family IPv4, address and port from registers.
fn redirect(list: Message, address: Ipv4Addr, port: u16) -> Message {
    let (address_register, port_register) = (FIRST_REGISTER, FIRST_REGISTER + 1);
    let list = immediate(list, address_register, &address.octets());
    let list = immediate(list, port_register, &port.to_be_bytes());
    expression(list, "nat", |data| data.be32(1, 1).be32(2, 2).be32(3, address_register).be32(5, port_register))
}

fn immediate(list: Message, register: u32, value: &[u8]) -> Message {
    expression(list, "immediate", |data| data.be32(1, register).nested(2, |content| content.attribute(1, value)))
}

fn verdict(list: Message, code: i32, chain: Option<&str>) -> Message {
    expression(list, "immediate", |data| {
        data.be32(1, 0).nested(2, |content| {
            content.nested(2, |verdict| {
                let verdict = verdict.be32(1, code as u32);
                match chain {
                    Some(chain) => verdict.text(2, chain),
                    None => verdict,
                }
            })
        })
    })
}
