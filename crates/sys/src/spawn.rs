//! Starting a program in namespaces and control groups of its own, at a cost that does not grow with the caller.
//!
//! Two short-lived steps share the caller's memory (`CLONE_VM | CLONE_VFORK`, so no page table is copied and the calling
//! thread is suspended meanwhile):
//!
//! 1. The *usher* enters the control groups (v1 has no other way than to move a process that then forks) and the given
//!    namespaces, becomes id 0 of the given user namespace, and makes
//! 2. the *program's process*, a child of the caller and not of the usher (`CLONE_PARENT`), in the new namespaces. It sets
//!    up its descriptors and executes the program by descriptor.
//!
//! Both run only raw system calls on data prepared before: no allocation, no lock, no panic. Signals are blocked
//! throughout, so no handler of the caller can run in them.

use std::{
    ffi::{CStr, c_char, c_void},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicI32, AtomicU32, Ordering},
};

use rustix::{
    fs::{Mode, OFlags},
    thread::LinkNameSpaceType,
};

use crate::{
    confine::{self, Confinement},
    error::{Attempt as _, Outcome, Result, SysError},
    oom, pidfd,
};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("kiln-sys starts processes with x86-64 instructions; other processors are not supported yet");

/// From linux/sched.h; libc has it in a type it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Namespaces to make for a program. Combine with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewNamespaces(u64);

impl NewNamespaces {
    /// None.
    pub const NONE: Self = Self(0);
    /// Mounts: a private copy of those of the namespace it is started from.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// Process numbers: the program is process 1.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// Network: loopback only, and down.
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET as u64);
    /// System V and POSIX message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// Host name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// The control group it is in becomes the root it sees.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// All of the above.
    pub const ALL: Self =
        Self(Self::MOUNT.0 | Self::PID.0 | Self::NETWORK.0 | Self::IPC.0 | Self::UTS.0 | Self::CGROUP.0);
}
impl std::ops::BitOr for NewNamespaces {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A program to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program, open for reading or as a path.
    pub program: BorrowedFd<'a>,
    /// `argv`, with the program's name first.
    pub arguments: &'a [&'a CStr],
    /// The whole environment, `NAME=value` each.
    pub environment: &'a [&'a CStr],
    /// Descriptor n of the program is `fds[n]`; it gets no other.
    pub fds: &'a [BorrowedFd<'a>],
    /// Directory of a version 2 control group to start in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Open `cgroup.procs` files of version 1 control groups to start in.
    pub cgroup_v1: &'a [BorrowedFd<'a>],
    /// Mount namespace to enter first; its root becomes root and working directory.
    pub mounts: Option<BorrowedFd<'a>>,
    /// User namespace to enter, as its id 0; the new namespaces belong to it.
    pub users: Option<BorrowedFd<'a>>,
    /// Network namespace to enter.
    pub network: Option<BorrowedFd<'a>>,
    /// Namespaces to make.
    pub new: NewNamespaces,
}

/// A started process, a child of this one. Dropping it does not end it.
#[derive(Debug)]
pub struct Spawned {
    /// Its number in our pid namespace.
    pub pid: u32,
    /// The process.
    pub pidfd: OwnedFd,
}

/// Steps of a start, for messages; the number goes through memory shared with the child.
const STEPS: [&str; 12] = [
    "clone the usher",
    "give up the protection from a lack of memory",
    "enter the control group",
    "enter the mount namespace",
    "enter the network namespace",
    "enter the user namespace",
    "become root of the user namespace",
    "clone the process into its namespaces",
    "start a session",
    "set up descriptors",
    "reset signals",
    "execute the program",
];

/// Everything the two steps need, prepared before they start; they write only through the atomics and `scratch`.
struct Job<'a> {
    spawn: &'a Spawn<'a>,
    confinement: Option<&'a Confinement<'a>>,
    /// What `oom_score_adj` becomes.
    ordinary: Option<Vec<u8>>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    scratch: Vec<AtomicI32>,
    failed_step: AtomicU32,
    errno: AtomicI32,
    pid: AtomicI32,
}

impl Job<'_> {
    fn attempt<T>(&self, step: u32, result: rustix::io::Result<T>) -> T {
        match result {
            Ok(value) => value,
            Err(errno) => {
                self.failed_step.store(step, Ordering::Relaxed);
                self.errno.store(errno.raw_os_error(), Ordering::Relaxed);
                exit(127)
            }
        }
    }
    fn check(&self, step: u32, result: libc::c_long) {
        let result = if result < 0 { Err(crate::mount::last_errno()) } else { Ok(()) };
        self.attempt(step, result);
    }
}

/// Starts a program.
pub fn spawn(spawn: &Spawn<'_>) -> Result<Spawned> {
    start(spawn, None)
}

/// Starts a program that its process confines itself for; it is executed by its path in the new root, and
/// [`Spawn::program`] has no meaning.
pub fn spawn_confined(spawn: &Spawn<'_>, confinement: &Confinement<'_>) -> Result<Spawned> {
    start(spawn, Some(confinement))
}

fn start(spawn: &Spawn<'_>, confinement: Option<&Confinement<'_>>) -> Result<Spawned> {
    let terminated = |strings: &[&CStr]| {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<*const c_char>>()
    };
    let job = Job {
        spawn,
        confinement,
        ordinary: oom::ordinary().map(|ordinary| ordinary.to_string().into_bytes()),
        argv: terminated(spawn.arguments),
        envp: terminated(spawn.environment),
        scratch: (0..=spawn.fds.len()).map(|_| AtomicI32::new(-1)).collect(),
        failed_step: AtomicU32::new(0),
        errno: AtomicI32::new(0),
        pid: AtomicI32::new(0),
    };
    run_usher(&job)?;
    let pid = job.pid.load(Ordering::Relaxed);
    let errno = job.errno.load(Ordering::Relaxed);
    if errno != 0 || pid <= 0 {
        if pid > 0 {
            wait_for(pid)?;
        }
        let step = step_name(job.failed_step.load(Ordering::Relaxed) as usize);
        return Err(SysError {
            action: format!("start a program: {step}"),
            outcome: if errno == 0 { Outcome::Gone } else { Outcome::from_errno(errno) },
        });
    }
    Ok(Spawned { pid: pid as u32, pidfd: pidfd::open(pid as u32)? })
}

fn step_name(step: usize) -> &'static str {
    let confinement = step.checked_sub(STEPS.len()).and_then(|step| confine::STEPS.get(step));
    STEPS.get(step).or(confinement).copied().unwrap_or("start")
}

fn run_usher(job: &Job<'_>) -> Result<()> {
    let mut args = clone_args((libc::CLONE_VM | libc::CLONE_VFORK) as u64);
    if let Some(directory) = job.spawn.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory.as_raw_fd() as u64;
    }
    let signals = BlockedSignals::new();
    // SAFETY: `usher` makes only raw system calls on `job`, which outlives it: this thread is suspended until the usher
    // has exited, because of CLONE_VFORK.
    let usher = unsafe { clone_and_run(&mut args, usher, (&raw const *job).cast()) };
    drop(signals);
    if usher < 0 {
        return Err(rustix::io::Errno::from_raw_os_error(-usher as i32))
            .attempt(|| format!("start a program: {}", STEPS[0]));
    }
    wait_for(usher as i32)
}

fn wait_for(pid: i32) -> Result<()> {
    let action = || "wait for a starting process".to_owned();
    let pid =
        rustix::process::Pid::from_raw(pid).ok_or_else(|| SysError { action: action(), outcome: Outcome::Gone })?;
    rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()))
        .attempt(action)
        .map(|_| ())
}

fn clone_args(flags: u64) -> libc::clone_args {
    // SAFETY: all-zero is a valid value of this structure of integers: every feature is off.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.exit_signal = if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 };
    args
}

/// Makes a process that shares our memory and stack and runs `entry`; answers its number, or a negative errno.
///
/// # Safety
///
/// `args` must hold CLONE_VM and CLONE_VFORK and no stack, and `entry` must never return or unwind and may touch only
/// what `data` points to, which must be valid for it.
unsafe fn clone_and_run(
    args: &mut libc::clone_args,
    entry: extern "C" fn(*const c_void) -> !,
    data: *const c_void,
) -> libc::c_long {
    let result: libc::c_long;
    // SAFETY: the child runs `entry` below our stack pointer while we are suspended (CLONE_VFORK); this block is allowed
    // to push, so nothing of ours lies there. The child never leaves the block. The kernel clobbers rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "and rsp, -16",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw mut *args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") data,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

extern "C" fn usher(data: *const c_void) -> ! {
    // SAFETY: `run_usher` passes a Job that outlives this process.
    let job = unsafe { &*data.cast::<Job<'_>>() };
    // Before the user namespace: with the right to lower the figure goes that to set how low others may.
    if let Some(ordinary) = &job.ordinary {
        let file = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let file = job.attempt(1, file);
        job.attempt(1, rustix::io::write(&file, ordinary));
    }
    for procs in job.spawn.cgroup_v1 {
        job.attempt(2, rustix::io::write(procs, b"0"));
    }
    // The mount namespace comes before the user namespace: entering it needs rights over its owner, the host.
    if let Some(mounts) = job.spawn.mounts {
        job.attempt(3, rustix::thread::move_into_link_name_space(mounts, Some(LinkNameSpaceType::Mount)));
    }
    if let Some(network) = job.spawn.network {
        job.attempt(4, rustix::thread::move_into_link_name_space(network, Some(LinkNameSpaceType::Network)));
    }
    if let Some(users) = job.spawn.users {
        job.attempt(5, rustix::thread::move_into_link_name_space(users, Some(LinkNameSpaceType::User)));
        become_root(job);
    }
    let mut args = clone_args(job.spawn.new.0 | (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT) as u64);
    // SAFETY: `program` makes only raw system calls on `data`, which outlives it: the usher is suspended until it has
    // executed or exited, and the caller until the usher has exited.
    let pid = unsafe { clone_and_run(&mut args, program, data) };
    if pid < 0 {
        job.attempt(7, Err::<(), _>(rustix::io::Errno::from_raw_os_error(-pid as i32)));
    }
    job.pid.store(pid as i32, Ordering::Relaxed);
    exit(0)
}

fn become_root(job: &Job<'_>) {
    let (gid, uid) = (rustix::thread::Gid::ROOT, rustix::thread::Uid::ROOT);
    job.attempt(6, rustix::thread::set_thread_groups(&[]));
    job.attempt(6, rustix::thread::set_thread_res_gid(gid, gid, gid));
    job.attempt(6, rustix::thread::set_thread_res_uid(uid, uid, uid));
}

extern "C" fn program(data: *const c_void) -> ! {
    // SAFETY: as in `usher`; the usher passes its own argument on.
    let job = unsafe { &*data.cast::<Job<'_>>() };
    job.attempt(8, rustix::process::setsid());
    let executable = place_descriptors(job);
    reset_signals(job);
    if let Some(confinement) = job.confinement {
        if let Err((step, errno)) = confine::confine(confinement) {
            job.attempt(STEPS.len() as u32 + step, Err::<(), _>(errno));
        }
        let errno = confine::execute(confinement.program, job.argv.as_ptr(), job.envp.as_ptr());
        job.attempt(11, Err::<(), _>(errno));
    }
    // SAFETY: both vectors end with a null pointer and point to C strings that outlive this call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            executable,
            c"".as_ptr(),
            job.argv.as_ptr(),
            job.envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    job.check(11, result);
    exit(127)
}

/// Puts `fds[n]` at n and marks everything else close-on-exec. First all are copied high up, so that none is
/// overwritten before it is placed.
fn place_descriptors(job: &Job<'_>) -> RawFd {
    let count = job.spawn.fds.len();
    let copy = |fd: RawFd, slot: &AtomicI32| {
        // SAFETY: F_DUPFD touches no memory.
        let high = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, count as libc::c_int) };
        job.check(9, high.into());
        slot.store(high, Ordering::Relaxed);
        high
    };
    for (slot, fd) in job.scratch.iter().zip(job.spawn.fds) {
        copy(fd.as_raw_fd(), slot);
    }
    let executable = copy(job.spawn.program.as_raw_fd(), &job.scratch[count]);
    for (target, slot) in job.scratch[..count].iter().enumerate() {
        // SAFETY: dup3 touches no memory; the descriptor it replaces is this process's own copy.
        let result = unsafe { libc::syscall(libc::SYS_dup3, slot.load(Ordering::Relaxed), target as libc::c_int, 0) };
        job.check(9, result);
    }
    // SAFETY: close_range touches no memory; the descriptor table is this process's own.
    let result = unsafe { libc::syscall(libc::SYS_close_range, count as u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    job.check(9, result);
    executable
}

/// Back to the defaults, also for signals our caller ignores, and none blocked.
fn reset_signals(job: &Job<'_>) {
    // SAFETY: all-zero is SIG_DFL without flags; the table of handlers is this process's own (no CLONE_SIGHAND).
    let default: libc::sigaction = unsafe { std::mem::zeroed() };
    for signal in 1..32 {
        if signal != libc::SIGKILL && signal != libc::SIGSTOP {
            // SAFETY: `default` outlives the call, and no old action is asked for.
            job.check(10, unsafe { libc::sigaction(signal, &raw const default, std::ptr::null_mut()) }.into());
        }
    }
    // SAFETY: all-zero is the empty set in the kernel's layout of 8 bytes.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const EMPTY_SET, std::ptr::null::<u64>(), 8)
    };
    job.check(10, result);
}

static EMPTY_SET: u64 = 0;

fn exit(code: i32) -> ! {
    // SAFETY: ends this process at once, without running anything registered by the process whose memory it shares.
    unsafe { libc::_exit(code) }
}

/// Blocks all signals of this thread while it lives.
struct BlockedSignals(u64);

impl BlockedSignals {
    fn new() -> Self {
        let (all, mut before) = (u64::MAX, 0_u64);
        // SAFETY: both sets are 8 bytes, the kernel's size, and live through the call, which cannot fail with them.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, &raw mut before, 8) };
        Self(before)
    }
}
impl Drop for BlockedSignals {
    fn drop(&mut self) {
        let before = self.0;
        // SAFETY: as in `new`.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                &raw const before,
                std::ptr::null_mut::<u64>(),
                8,
            )
        };
    }
}

/// Makes a process in a user namespace of its own that does nothing but wait to be killed, or for our death: it holds what we
/// hold, a lock on a state directory for example. It shares our memory but never touches it.
pub(crate) fn parked_in_new_user_namespace() -> Result<Spawned> {
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD | libc::CLONE_NEWUSER;
    let mut args = clone_args(flags as u64);
    let mut pidfd: RawFd = -1;
    args.pidfd = &raw mut pidfd as u64;
    let signals = BlockedSignals::new();
    let result: libc::c_long;
    // SAFETY: the child asks to be killed with us, ends if we are gone already, loops on pause(2) inside this block and touches
    // no memory, so it may share our stack; with all signals blocked only SIGKILL ends it. The kernel clobbers rcx and r11 and
    // writes the pidfd before it returns.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov edi, {pdeathsig}",
            "mov esi, {sigkill}",
            "mov eax, {prctl}",
            "syscall",
            "mov eax, {getppid}",
            "syscall",
            "cmp eax, r12d",
            "jne 4f",
            "3:",
            "mov eax, {pause}",
            "syscall",
            "jmp 3b",
            "4:",
            "mov edi, 1",
            "mov eax, {exit}",
            "syscall",
            "2:",
            pdeathsig = const libc::PR_SET_PDEATHSIG,
            sigkill = const libc::SIGKILL,
            prctl = const libc::SYS_prctl,
            getppid = const libc::SYS_getppid,
            pause = const libc::SYS_pause,
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw mut args,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") std::process::id(),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    drop(signals);
    if result < 0 {
        let errno = rustix::io::Errno::from_raw_os_error(-result as i32);
        return Err(errno).attempt(|| "make a user namespace".into());
    }
    // SAFETY: the kernel put a new descriptor there, which nothing else owns.
    Ok(Spawned { pid: result as u32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}
