"""Numbers of the system calls that the filter speaks of, for x86-64 and the arm64 table. Source: Linux
`arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`.
"""

from __future__ import annotations

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000

CLONE = {"x86_64": 56, "aarch64": 220}
SOCKET = {"x86_64": 41, "aarch64": 198}
IOCTL = {"x86_64": 16, "aarch64": 29}
SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
CLONE3 = 435
SECCOMP = {"x86_64": 317, "aarch64": 277}
SENDTO = {"x86_64": 44, "aarch64": 206}

CLONE_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x80
"""NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME."""
SOCKET_FAMILIES = (2, 10)
"""AF_INET and AF_INET6: their network namespace is empty but for its own loopback."""
SOCKETPAIR_DATAGRAM = 2
"""Set in SOCK_DGRAM and SOCK_RAW, not in SOCK_STREAM and SOCK_SEQPACKET. A half of a datagram pair can send to any
socket that has a path in the view, as if it had been made by `socket`."""
ABOUT_A_PROCESS = {
    "x86_64": {"sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203, "prlimit64": 302}
    | {"sched_setattr": 314},
    "aarch64": {"sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122, "prlimit64": 261}
    | {"sched_setattr": 274},
}
"""Their first argument is a process; 0 is the caller. They ask for nothing but the same user, so any program of the
agent could take limits and processor time from its own process 1, which has to stop and kill it."""
PRIORITIES = {"x86_64": {"setpriority": 141, "ioprio_set": 251}, "aarch64": {"setpriority": 140, "ioprio_set": 30}}
"""The same, with the process second. First: what it means, where 2 is set for all that the user has."""
PRIORITY_OF_USER = 2
IOCTL_REFUSED = (0x5412, 0x541C, 0x541D)
"""TIOCSTI (typing into a terminal), TIOCLINUX, TIOCCONS."""

MODE_SET_ID = 0o6000
"""S_ISUID and S_ISGID: a program that an agent left would run with its owner's rights for whoever starts it."""
MODES = {
    # The number of the argument that is a mode, by call; 452 is fchmodat2.
    "x86_64": {90: 1, 91: 1, 85: 1, 133: 1, 83: 1, 268: 2, 452: 2, 259: 2, 258: 2},
    "aarch64": {52: 1, 53: 2, 452: 2, 33: 2, 34: 2},
}
"""chmod, fchmod, creat, mknod, mkdir, fchmodat, fchmodat2, mknodat, mkdirat; arm64 has only those with a descriptor."""
OPENS = {"x86_64": {2: (1, 2), 257: (2, 3)}, "aarch64": {56: (2, 3)}}
"""open and openat: the numbers of the arguments that are flags and mode."""
OPEN_MAKES = 0o100 | 0o20000000
"""O_CREAT, and what O_TMPFILE has beside O_DIRECTORY: only then the mode means anything."""
OPENAT2 = 437
"""Its mode lies in memory, where no filter can look."""

_COMMON = {
    # Numbers from 424 on are the same on every architecture.
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "memfd_secret": 447,
    "open_tree_attr": 467,
}

FORBIDDEN_NAMES: dict[str, dict[str, int]] = {
    "x86_64": {
        "ptrace": 101,
        "syslog": 103,
        "uselib": 134,
        "personality": 135,
        "ustat": 136,
        "sysfs": 139,
        "vhangup": 153,
        "modify_ldt": 154,
        "pivot_root": 155,
        "adjtimex": 159,
        "chroot": 161,
        "acct": 163,
        "settimeofday": 164,
        "mount": 165,
        "umount2": 166,
        "swapon": 167,
        "swapoff": 168,
        "reboot": 169,
        "sethostname": 170,
        "setdomainname": 171,
        "iopl": 172,
        "ioperm": 173,
        "init_module": 175,
        "delete_module": 176,
        "quotactl": 179,
        "lookup_dcookie": 212,
        "clock_settime": 227,
        "mbind": 237,
        "set_mempolicy": 238,
        "kexec_load": 246,
        "add_key": 248,
        "request_key": 249,
        "keyctl": 250,
        "migrate_pages": 256,
        "unshare": 272,
        "move_pages": 279,
        "perf_event_open": 298,
        "fanotify_init": 300,
        "name_to_handle_at": 303,
        "open_by_handle_at": 304,
        "clock_adjtime": 305,
        "setns": 308,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "kcmp": 312,
        "finit_module": 313,
        "kexec_file_load": 320,
        "bpf": 321,
        "userfaultfd": 323,
    },
    "aarch64": {
        "lookup_dcookie": 18,
        "umount2": 39,
        "mount": 40,
        "pivot_root": 41,
        "chroot": 51,
        "vhangup": 58,
        "quotactl": 60,
        "acct": 89,
        "personality": 92,
        "unshare": 97,
        "kexec_load": 104,
        "init_module": 105,
        "delete_module": 106,
        "clock_settime": 112,
        "syslog": 116,
        "ptrace": 117,
        "reboot": 142,
        "sethostname": 161,
        "setdomainname": 162,
        "settimeofday": 170,
        "adjtimex": 171,
        "add_key": 217,
        "request_key": 218,
        "keyctl": 219,
        "swapon": 224,
        "swapoff": 225,
        "mbind": 235,
        "set_mempolicy": 237,
        "migrate_pages": 238,
        "move_pages": 239,
        "perf_event_open": 241,
        "fanotify_init": 262,
        "name_to_handle_at": 264,
        "open_by_handle_at": 265,
        "clock_adjtime": 266,
        "setns": 268,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "kcmp": 272,
        "finit_module": 273,
        "bpf": 280,
        "userfaultfd": 282,
        "kexec_file_load": 294,
    },
}

FORBIDDEN = {machine: tuple(sorted((*names.values(), *_COMMON.values()))) for machine, names in FORBIDDEN_NAMES.items()}
