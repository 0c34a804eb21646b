/* Contract 3: what lies in the maps. portforge/apply/layout.py says the same in Python;
 * tests/kernel/test_layout.py compares the two through the BTF of the loaded maps.
 * Only types of the user API: the kernel headers it is compiled against need not match
 * the running kernel.
 *
 * Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d. Ports are in host order unless said.
 */
#ifndef PORTFORGE_LAYOUT_H
#define PORTFORGE_LAYOUT_H

#define PF_INGRESS 0
#define PF_EGRESS 1

#define PF_ALLOWED 0
#define PF_DENIED 1
#define PF_AUDITED 2
#define PF_REFUSED 3
#define PF_FAILED 4

#define PF_RECORD 0
#define PF_AUDIT 1
#define PF_ENFORCE 2

#define PF_REJUDGE 0
#define PF_KEEP 1

/* Bits of pf_pod.restricted: which directions a policy speaks of. */
#define PF_RESTRICT_INGRESS 1
#define PF_RESTRICT_EGRESS 2

/* Values of pf_flow_key.scope and pf_listener_key.scope. */
#define PF_REMOTE 0
#define PF_LOOPBACK 1

/* Indices of the losses array; portforge.schema.LossReason has the meanings. */
#define PF_LOSS_PEERS 0
#define PF_LOSS_FLOWS 1
#define PF_LOSS_SOCKET_STORAGE 2
#define PF_LOSS_UNPARSED 3
#define PF_LOSS_PODS 4
#define PF_LOSS_LISTENERS 5
#define PF_LOSS_UNPLACED 6
#define PF_LOSS_REASONS 8

struct pf_address {
	__u8 bytes[16];
};

struct pf_flow_key {
	__u64 cgroup;		/* of the pod; of the container while the pod is not registered */
	struct pf_address peer;	/* zero in the flows without peer */
	__u16 port;		/* service side */
	__u8 protocol;		/* IPPROTO_* */
	__u8 direction;
	__u8 verdict;
	__u8 scope;
	__u16 unused;
};

struct pf_flow {
	__u64 connections;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 first_ns;		/* CLOCK_BOOTTIME */
	__u64 last_ns;
	__u32 rtt_us;
	__u32 retransmits;
	__u32 policy;		/* that decided, 0: none */
	__u32 rule;		/* its number in the policy, counted from 1; 0: no rule matched */
};

struct pf_pod {
	__u32 policy;		/* 0: none */
	__u8 mode;
	__u8 established;
	__u8 restricted;
	__u8 unknown;		/* 1: nobody has said yet whether it has a policy; it is denied */
};

/* As in the API: 36 characters with dashes; 32 and zeroes for a static pod. */
struct pf_uid {
	char text[36];
};

#define PF_NAME_LENGTH 128
struct pf_pod_name {
	char name[PF_NAME_LENGTH];	/* last component of the cgroup's path */
	__u64 born_ns;			/* 0: it was there before the programs */
	__u64 died_ns;			/* 0: alive */
};

struct pf_rule_key {
	__u32 prefixlen;	/* bits of what follows: 48 + bits of the port */
	__u32 policy;
	__u8 direction;
	__u8 protocol;
	__u8 port[2];		/* network order: a range is a set of prefixes */
};

struct pf_rule {
	__u32 peer_set;		/* 0: any peer */
	__u32 rule;
};

struct pf_peer_key {
	__u32 prefixlen;	/* bits of what follows: 32 + bits of the address */
	__u32 peer_set;
	struct pf_address address;
};

struct pf_peer {
	__u32 allowed;		/* 0: a hole in a wider prefix */
};

struct pf_listener_key {
	__u64 cgroup;
	__u16 port;
	__u8 protocol;
	__u8 scope;
	__u32 unused;
};

struct pf_listener {
	__u32 live;		/* sockets seen to begin listening and not yet to end */
	__u32 snapshot;		/* 1: found by the snapshot, its end will not be seen */
	__u64 since_ns;
};

/* A DNS answer over UDP to a pod that asked. What DNS lets pass unfragmented (DNS flag day 2020) is
 * 1232 bytes; of a longer one the beginning, where the addresses are.
 */
#define PF_ANSWER_LENGTH 1232
struct pf_answer {
	__u64 time_ns;		/* CLOCK_BOOTTIME */
	__u64 cgroup;
	__u32 length;		/* of payload; the record in the ring ends with it */
	__u8 payload[PF_ANSWER_LENGTH];
	__u32 unused;
};

/* A value of pf_config.kubepods_level: the next cgroup made right below kubepods shows it. */
#define PF_LEVEL_UNKNOWN 4294967295U

struct pf_config {
	__u64 kubepods;		/* cgroup id the programs are attached to */
	__u64 flush_ns;		/* a long connection is recorded at least this often */
	__u64 attached_ns;	/* CLOCK_BOOTTIME when the programs were attached */
	__u32 kubepods_level;	/* its depth in the cgroup tree; pods are one or two below */
	__u32 generation;	/* raised by every change of a policy: cached verdicts are void */
	__u32 active;		/* which pair of flow maps is written: 0 or 1 */
	__u32 ready;		/* 1: the snapshot of listeners is complete */
	__u32 epoch;		/* raised by every swap of the flow maps */
	__u32 next_policy;	/* the next unused policy or peer set id */
	__u32 closed;		/* 1: a new pod that is not expected is denied until it is known */
	__u32 unused;
};

#endif
