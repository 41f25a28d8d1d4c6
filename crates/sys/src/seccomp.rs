//! The filter of system calls that servers live under: built and compiled once, installed by PID 1.
//!
//! An allow-list close to Docker's default profile for a process without capabilities beyond the small set. What it
//! refuses answers EPERM; `clone3` answers ENOSYS, because its flags are behind a pointer that a filter cannot see, and C
//! libraries then fall back to `clone`, whose flags it can.

use std::sync::OnceLock;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule, TargetArch,
};

mod allowed;

/// Namespace flags of `clone` and `unshare`, without CLONE_NEWTIME, which shares its bit with the exit signal.
const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// `struct sock_filter` as bytes, each program ready for `seccomp(SECCOMP_SET_MODE_FILTER)`; install in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// 8 bytes per instruction: code (u16), jt (u8), jf (u8), k (u32), all in native order.
    pub programs: Vec<Vec<u8>>,
}

/// The filter for servers.
pub fn server_filter() -> &'static Filter {
    static FILTER: OnceLock<Filter> = OnceLock::new();
    FILTER.get_or_init(|| Filter { programs: vec![bytes(&allow_list(&[])), bytes(&no_clone3())] })
}

/// The filter for build steps: that of servers, and `chroot`, which package managers use below their own root.
pub fn build_filter() -> &'static Filter {
    static FILTER: OnceLock<Filter> = OnceLock::new();
    FILTER.get_or_init(|| Filter { programs: vec![bytes(&allow_list(&[libc::SYS_chroot])), bytes(&no_clone3())] })
}

fn allow_list(more: &[i64]) -> BpfProgram {
    let mut rules: std::collections::BTreeMap<i64, Vec<Rule>> =
        allowed::ALLOWED.iter().chain(more).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![only(&[(0, Op::MaskedEq(NEW_NAMESPACES), 0)])]);
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_socket, sockets());
    rules.insert(libc::SYS_personality, personalities());
    rules.insert(libc::SYS_ioctl, vec![only(&[(1, Op::Ne, u64::from(libc::TIOCSTI as u32))])]);
    compile(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
}

/// The families servers use. Not VSOCK, which reaches the hypervisor past the network namespace, and not the many
/// others that are attack surface and nothing else.
fn sockets() -> Vec<Rule> {
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]
        .iter()
        .map(|family| only(&[(0, Op::Eq, *family as u64)]))
        .collect()
}

/// The persona of Linux, and asking for the current one.
fn personalities() -> Vec<Rule> {
    [0, 8, 0x20000, 0x20008, 0xffff_ffff].iter().map(|persona| only(&[(0, Op::Eq, *persona)])).collect()
}

fn no_clone3() -> BpfProgram {
    let rules = [(libc::SYS_clone3, Vec::new())].into();
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

fn only(conditions: &[(u8, Op, u64)]) -> Rule {
    let conditions = conditions
        .iter()
        .map(|(argument, op, value)| Condition::new(*argument, Len::Dword, op.clone(), *value))
        .collect::<Result<Vec<_>, _>>()
        .expect("arguments 0 to 5 are always accepted");
    Rule::new(conditions).expect("no rule here is empty")
}

fn compile(
    rules: std::collections::BTreeMap<i64, Vec<Rule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> BpfProgram {
    SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)
        .and_then(TryInto::try_into)
        .expect("the rules are constants that a test compiles")
}

fn bytes(program: &BpfProgram) -> Vec<u8> {
    let instruction = |i: &seccompiler::sock_filter| {
        let (code, k) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
        [code[0], code[1], i.jt, i.jf, k[0], k[1], k[2], k[3]]
    };
    program.iter().flat_map(instruction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_fits_the_kernels_limit() {
        for program in server_filter().programs.iter().chain(&build_filter().programs) {
            assert_eq!(program.len() % 8, 0);
            assert!((1..=4096).contains(&(program.len() / 8)), "{} instructions", program.len() / 8);
        }
    }
}
