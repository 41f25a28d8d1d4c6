//! nftables through nfnetlink, without the `nft` program: whole tables replaced in one transaction, and a listing.
//!
//! A [`Table`] is a plain value: sets, chains and rules. [`replace`] sends it between a batch's begin and end, together
//! with the removal of the table it replaces, so that the kernel switches from the old rules to the new ones at one
//! instant or refuses all of it. `include/uapi/linux/netfilter/nf_tables.h`; what the kernel makes of each expression
//! is in `net/netfilter/nft_*.c`.

use crate::netlink::{
    Connection, NetlinkError, Request,
    message::{Attributes, Message},
};

pub mod rule;

pub use rule::{Field, Rule};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const NLM_F_APPEND: u16 = 0x800;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;

/// The families of packets that tables are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// Every family; only to list.
    Any = 0,
    /// IPv4 and IPv6 packets that the host routes, sends or receives.
    Inet = 1,
    /// Ethernet frames that pass a bridge.
    Bridge = 7,
}

/// Where in a packet's way a base chain is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hook {
    /// On arrival, before routing or forwarding is decided.
    Prerouting = 0,
    /// For the host itself.
    Input = 1,
    /// From one interface to another.
    Forward = 2,
    /// About to leave.
    Postrouting = 4,
}

/// What a chain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Only reached from other chains.
    Regular,
    /// Lets packets pass or drops them; chains of lower priority are asked first.
    Filter(Hook, i32),
    /// Changes addresses of a connection's first packet.
    Nat(Hook, i32),
}

/// A chain and its rules.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Name within the table.
    pub name: &'static str,
    /// Where it is asked.
    pub kind: ChainKind,
    /// Its rules in order. What no rule decides goes on.
    pub rules: Vec<Rule>,
}

/// A named set of keys, all of the same fields.
#[derive(Debug, Clone)]
pub struct Set {
    /// Name within the table.
    pub name: &'static str,
    /// The fields a key is made of.
    pub fields: Vec<Field>,
    /// The keys; each as long as its fields, each field padded to four bytes.
    pub keys: Vec<Vec<u8>>,
}

/// A table with all it holds.
#[derive(Debug, Clone)]
pub struct Table {
    /// Which packets.
    pub family: Family,
    /// Name: letters, digits and `_`.
    pub name: String,
    /// Sets that the rules look keys up in.
    pub sets: Vec<Set>,
    /// Chains; a chain stands after those it jumps to.
    pub chains: Vec<Chain>,
}

fn general(family: Family, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family as u8, 0, high, low]
}

fn message(kind: u16, flags: u16, family: Family) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags).body(&general(family, 0))
}

fn boundary(kind: u16) -> Request {
    let message = Message::new(kind, 0).body(&general(Family::Any, SUBSYSTEM));
    Request::unacknowledged("start or end a batch of nftables changes", message)
}

fn create_table(family: Family, name: &str) -> Request {
    Request::new("create an nftables table", message(NEWTABLE, NLM_F_CREATE, family).text(1, name))
}

fn delete_table(family: Family, name: &str) -> Request {
    Request::new("delete an nftables table", message(DELTABLE, 0, family).text(1, name))
}

impl Set {
    fn requests(&self, table: &Table, id: u32) -> Vec<Request> {
        let key_type = self.fields.iter().fold(0, |kind, field| kind << 6 | field.type_id());
        let key_length: u32 = self.fields.iter().map(|field| field.padded_length()).sum();
        let length = if self.fields.len() == 1 { self.fields[0].length() } else { key_length };
        let create = message(NEWSET, NLM_F_CREATE, table.family)
            .text(1, &table.name)
            .text(2, self.name)
            .be32(3, 0)
            .be32(4, key_type)
            .be32(5, length)
            .be32(10, id);
        let mut requests = vec![Request::new("create an nftables set", create)];
        if !self.keys.is_empty() {
            requests.push(self.fill(table, id));
        }
        requests
    }

    fn fill(&self, table: &Table, id: u32) -> Request {
        let elements = |list: Message| {
            self.keys
                .iter()
                .fold(list, |list, key| list.nested(1, |element| element.nested(1, |data| data.attribute(1, key))))
        };
        let fill = message(NEWSETELEM, NLM_F_CREATE, table.family)
            .text(1, &table.name)
            .text(2, self.name)
            .nested(3, elements)
            .be32(4, id);
        Request::new("fill an nftables set", fill)
    }
}

impl Chain {
    fn request(&self, table: &Table) -> Request {
        let create = message(NEWCHAIN, NLM_F_CREATE, table.family).text(1, &table.name).text(3, self.name);
        let base = |create: Message, hook: Hook, priority: i32, kind: &str| {
            create
                .nested(4, |place| place.be32(1, hook as u32).be32(2, priority as u32))
                .be32(5, rule::ACCEPT as u32)
                .text(7, kind)
        };
        let create = match self.kind {
            ChainKind::Regular => create,
            ChainKind::Filter(hook, priority) => base(create, hook, priority, "filter"),
            ChainKind::Nat(hook, priority) => base(create, hook, priority, "nat"),
        };
        Request::new("create an nftables chain", create)
    }

    fn rule_requests(&self, table: &Table) -> Vec<Request> {
        let request = |rule: &Rule| {
            let create = message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, table.family)
                .text(1, &table.name)
                .text(2, self.name)
                .nested(4, |list| rule.encode(list));
            Request::new("create an nftables rule", create)
        };
        self.rules.iter().map(request).collect()
    }
}

fn table_requests(table: &Table) -> Vec<Request> {
    // Deleting a table that is not there would fail the whole batch, so it is made first in any case.
    let mut requests = vec![
        create_table(table.family, &table.name),
        delete_table(table.family, &table.name),
        create_table(table.family, &table.name),
    ];
    for (id, set) in (1..).zip(&table.sets) {
        requests.extend(set.requests(table, id));
    }
    requests.extend(table.chains.iter().map(|chain| chain.request(table)));
    requests.extend(table.chains.iter().flat_map(|chain| chain.rule_requests(table)));
    requests
}

fn transaction(changes: Vec<Request>) -> Vec<Request> {
    let mut batch = vec![boundary(BATCH_BEGIN)];
    batch.extend(changes);
    batch.push(boundary(BATCH_END));
    batch
}

/// Puts these tables in the place of those of the same name, all at one instant.
pub fn replace(netfilter: &mut Connection, tables: &[Table]) -> Result<(), NetlinkError> {
    netfilter.execute(transaction(tables.iter().flat_map(table_requests).collect()))
}

/// Removes a table. Returns whether there was one.
pub fn delete(netfilter: &mut Connection, family: Family, name: &str) -> Result<bool, NetlinkError> {
    match netfilter.execute(transaction(vec![delete_table(family, name)])) {
        Ok(()) => Ok(true),
        Err(error) if error.not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A base chain of any table on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// Name of its table.
    pub table: String,
    /// Its own name.
    pub name: String,
    /// Number of the hook (see [`Hook`]).
    pub hook: u32,
    /// It drops what none of its rules decides.
    pub drops_by_default: bool,
}

fn parse_base_chain(body: &[u8]) -> Option<BaseChain> {
    let attributes = Attributes::new(body.get(4..)?);
    let place = Attributes::new(attributes.value(4)?);
    Some(BaseChain {
        table: attributes.text(1)?,
        name: attributes.text(3)?,
        hook: place.be32(1)?,
        drops_by_default: attributes.be32(5) == Some(rule::DROP as u32),
    })
}

/// The base chains of every table on the host.
pub fn base_chains(netfilter: &mut Connection) -> Result<Vec<BaseChain>, NetlinkError> {
    let list = Request::new("list the nftables chains", message(GETCHAIN, NLM_F_DUMP, Family::Any));
    let mut chains = Vec::new();
    netfilter.dump(list, |_, body| chains.extend(parse_base_chain(body)))?;
    Ok(chains)
}

/// The names of all tables on the host.
pub fn tables(netfilter: &mut Connection) -> Result<Vec<String>, NetlinkError> {
    let list = Request::new("list the nftables tables", message(GETTABLE, NLM_F_DUMP, Family::Any));
    let mut names = Vec::new();
    netfilter.dump(list, |_, body| names.extend(Attributes::new(&body[4..]).text(1)))?;
    Ok(names)
}

/// Every table, chain and rule on the host as the kernel describes them: to compare two moments byte by byte.
pub fn dump(netfilter: &mut Connection) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let mut all = Vec::new();
    for kind in [GETTABLE, GETCHAIN, GETRULE] {
        let list = Request::new("list the nftables rules", message(kind, NLM_F_DUMP, Family::Any));
        // Bytes 2 and 3 count the changes made so far.
        netfilter.dump(list, |_, body| all.push([&body[..2], &body[4..]].concat()))?;
    }
    Ok(all)
}
