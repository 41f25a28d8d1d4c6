//! Classic BPF programs for seccomp (seccomp(2), linux/seccomp.h, linux/bpf_common.h).

use std::collections::BTreeMap;

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`. Arguments are 64 bits; where one is looked at, the kernel uses its low half.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const X86_64: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// What becomes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Refuse(u16),
    /// Allowed or refused with EPERM by one of its arguments.
    Argument {
        index: u32,
        check: Check,
    },
    /// A call that opens: refused with EPERM if by its flags it makes a file and its mode has one of the bits.
    Open {
        flags: u32,
        mode: u32,
        bits: u32,
    },
}

/// With one of them, opening makes a file (the bit of O_TMPFILE that is not O_DIRECTORY).
const MAKES: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;

/// When an argument is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    OneOf(&'static [u32]),
    NoneOf(&'static [u32]),
    NoneOfBits(u32),
}

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u16,
    /// Instructions to skip where the comparison holds.
    holds: u8,
    /// And where it does not.
    fails: u8,
    k: u32,
}

const fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, holds: 0, fails: 0, k }
}

pub(super) const REFUSED: Verdict = Verdict::Refuse(libc::EPERM as u16);

/// A program that gives each number its verdict, and another one to all others, those of the x32 and future interfaces
/// included. Another architecture's calls kill: their numbers mean something else.
pub(super) fn compile(verdicts: &BTreeMap<u32, Verdict>, others: Verdict) -> Vec<Instruction> {
    let mut program = vec![
        plain(LOAD, ARCHITECTURE),
        Instruction { code: JUMP_EQUAL, holds: 1, fails: 0, k: X86_64 },
        plain(RETURN, KILL_PROCESS),
        plain(LOAD, NUMBER),
    ];
    program.extend(search(&ranges(verdicts, others)));
    program
}

/// Where a verdict begins to hold, in order, from 0.
fn ranges(verdicts: &BTreeMap<u32, Verdict>, others: Verdict) -> Vec<(u32, Verdict)> {
    let mut ranges = vec![(0, others)];
    let mut begin = |number, verdict| {
        ranges.retain(|(start, _)| *start != number);
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
    };
    for (number, verdict) in verdicts {
        begin(*number, *verdict);
        if !verdicts.contains_key(&(number + 1)) {
            begin(number + 1, others);
        }
    }
    ranges
}

fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    if let [(_, verdict)] = ranges {
        return leaf(*verdict);
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let below = search(lower);
    let skip = u8::try_from(below.len()).expect("half of the ranges fit one jump; a test compiles them");
    let mut program = vec![Instruction { code: JUMP_AT_LEAST, holds: skip, fails: 0, k: upper[0].0 }];
    program.extend(below);
    program.extend(search(upper));
    program
}

fn leaf(verdict: Verdict) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![plain(RETURN, ALLOW)],
        Verdict::Refuse(errno) => vec![plain(RETURN, ERRNO | u32::from(errno))],
        Verdict::Argument { index, check } => argument(index, check),
        Verdict::Open { flags, mode, bits } => vec![
            plain(LOAD, ARGUMENTS + 8 * flags),
            Instruction { code: JUMP_ANY_BIT, holds: 0, fails: 3, k: MAKES },
            plain(LOAD, ARGUMENTS + 8 * mode),
            Instruction { code: JUMP_ANY_BIT, holds: 0, fails: 1, k: bits },
            plain(RETURN, ERRNO | libc::EPERM as u32),
            plain(RETURN, ALLOW),
        ],
    }
}

/// The comparisons jump to the last instruction where one holds, and reach the one before where none does.
fn argument(index: u32, check: Check) -> Vec<Instruction> {
    let refuse = ERRNO | libc::EPERM as u32;
    let (code, values, (none, any)) = match check {
        Check::OneOf(values) => (JUMP_EQUAL, values.to_vec(), (refuse, ALLOW)),
        Check::NoneOf(values) => (JUMP_EQUAL, values.to_vec(), (ALLOW, refuse)),
        Check::NoneOfBits(bits) => (JUMP_ANY_BIT, vec![bits], (ALLOW, refuse)),
    };
    let mut program = vec![plain(LOAD, ARGUMENTS + 8 * index)];
    let count = values.len() as u8;
    let compare = |(at, k): (usize, u32)| Instruction { code, holds: count - at as u8, fails: 0, k };
    program.extend(values.into_iter().enumerate().map(compare));
    program.extend([plain(RETURN, none), plain(RETURN, any)]);
    program
}

/// As the kernel takes it.
pub(super) fn bytes(program: &[Instruction]) -> Vec<u8> {
    let instruction = |i: &Instruction| {
        let (code, k) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
        [code[0], code[1], i.holds, i.fails, k[0], k[1], k[2], k[3]]
    };
    program.iter().flat_map(instruction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u32; 4]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let Instruction { code, holds, fails, k } = program[at];
            let compared = match code {
                LOAD => {
                    value = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        other => arguments[(other - ARGUMENTS) as usize / 8],
                    };
                    at += 1;
                    continue;
                }
                RETURN => return k,
                JUMP_EQUAL => value == k,
                JUMP_AT_LEAST => value >= k,
                _ => value & k != 0,
            };
            at += 1 + usize::from(if compared { holds } else { fails });
        }
    }

    #[test]
    fn every_call_gets_its_verdict() {
        let verdicts = super::super::verdicts();
        let program = compile(&verdicts, REFUSED);
        assert!(program.len() < 300, "{} instructions", program.len());
        let eperm = ERRNO | 1;
        for number in (0..1000).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            let expected = match verdicts.get(&number) {
                None => eperm,
                Some(Verdict::Allow) => ALLOW,
                Some(Verdict::Refuse(errno)) => ERRNO | u32::from(*errno),
                Some(Verdict::Argument { .. } | Verdict::Open { .. }) => continue,
            };
            assert_eq!(run(&program, X86_64, number, [0; 4]), expected, "call {number}");
            assert_eq!(run(&program, 0x4000_0003, number, [0; 4]), KILL_PROCESS);
        }
    }

    #[test]
    fn build_steps_never_wait_for_the_disk_and_servers_do() {
        let (build, server) =
            (compile(&super::super::build_verdicts(), REFUSED), compile(&super::super::verdicts(), REFUSED));
        for call in [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs] {
            assert_eq!(run(&build, X86_64, call as u32, [0; 4]), ERRNO, "call {call}");
            assert_eq!(run(&server, X86_64, call as u32, [0; 4]), ALLOW, "call {call}");
        }
    }

    #[test]
    fn arguments_decide() {
        let program = compile(&super::super::verdicts(), REFUSED);
        let eperm = ERRNO | 1;
        let cases = [
            (libc::SYS_clone, [libc::SIGCHLD as u32, 0], ALLOW),
            (libc::SYS_clone, [libc::CLONE_NEWUSER as u32, 0], eperm),
            (libc::SYS_socket, [libc::AF_INET as u32, 0], ALLOW),
            (libc::SYS_socket, [libc::AF_NETLINK as u32, 0], ALLOW),
            (libc::SYS_socket, [libc::AF_VSOCK as u32, 0], eperm),
            (libc::SYS_personality, [0xffff_ffff, 0], ALLOW),
            (libc::SYS_personality, [0x40000, 0], eperm),
            (libc::SYS_ioctl, [0, libc::TCGETS as u32], ALLOW),
            (libc::SYS_ioctl, [0, libc::TIOCSTI as u32], eperm),
        ];
        for (call, arguments, expected) in cases {
            let [first, second] = arguments;
            let seen = run(&program, X86_64, call as u32, [first, second, 0, 0]);
            assert_eq!(seen, expected, "call {call} {arguments:?}");
        }
    }

    #[test]
    fn no_call_makes_a_file_that_runs_as_another() {
        let program = compile(&super::super::marks(), Verdict::Allow);
        let (create, nothing, temporary) = (libc::O_CREAT as u32, libc::O_RDWR as u32, libc::O_TMPFILE as u32);
        let (eperm, enosys) = (ERRNO | 1, ERRNO | libc::ENOSYS as u32);
        let cases = [
            (libc::SYS_chmod, [0, 0o755, 0, 0], ALLOW),
            (libc::SYS_chmod, [0, 0o4755, 0, 0], eperm),
            (libc::SYS_fchmod, [0, 0o2755, 0, 0], eperm),
            (libc::SYS_fchmod, [0, 0o1777, 0, 0], ALLOW),
            (libc::SYS_fchmodat, [0, 0, 0o4711, 0], eperm),
            (libc::SYS_fchmodat2, [0, 0, 0o4711, 0], eperm),
            (libc::SYS_creat, [0, 0o4777, 0, 0], eperm),
            (libc::SYS_mknod, [0, 0o104_777, 0, 0], eperm),
            (libc::SYS_mknodat, [0, 0, 0o102_777, 0], eperm),
            (libc::SYS_open, [0, create, 0o4755, 0], eperm),
            (libc::SYS_open, [0, create, 0o755, 0], ALLOW),
            (libc::SYS_open, [0, nothing, 0o4755, 0], ALLOW),
            (libc::SYS_openat, [0, 0, create, 0o2755], eperm),
            (libc::SYS_openat, [0, 0, temporary, 0o4755], eperm),
            (libc::SYS_openat, [0, 0, libc::O_DIRECTORY as u32, 0o4755], ALLOW),
            (libc::SYS_openat2, [0; 4], enosys),
            (libc::SYS_read, [0, 0o4755, 0o4755, 0o4755], ALLOW),
        ];
        for (call, arguments, expected) in cases {
            assert_eq!(run(&program, X86_64, call as u32, arguments), expected, "call {call} {arguments:?}");
        }
    }
}
