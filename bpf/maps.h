/* Every map. Sizes come from the loader as -D; names are those of portforge/apply/layout.py.
 * flows_0/ports_0 and flows_1/ports_1 are two pairs: the kernel writes one while the recorder
 * reads the other, so that no count is lost between a read and a delete.
 */

/* A bit of pf_config.active: another version has taken over the counting. */
#define PF_HALTED 2

/* What the kernel remembers of a socket. Accepted sockets inherit it from their listener. */
#define PF_KNOWN 1		/* direction, port and peer are set */
#define PF_OLD 2		/* it was open before the programs */
#define PF_RESET 4		/* the peer answered our SYN with a reset */
#define PF_OPEN 8		/* the handshake is complete */
#define PF_BOUND 16		/* bound to a port somebody chose, not to one the kernel picked */
#define PF_LISTENS 32		/* counted in the listeners map */
struct pf_socket {
	__u64 cgroup;
	struct pf_address peer;
	__u64 acked;		/* as recorded so far */
	__u64 received;
	__u64 flushed;		/* CLOCK_MONOTONIC_COARSE */
	__u32 retransmits;
	__u32 generation;	/* of the verdict; 0: not judged yet */
	__u32 policy;
	__u32 rule;
	__u32 fin_end;		/* sequence number after the peer's FIN, 0: none came; see judge_tcp */
	__u16 port;
	__u16 listen_port;
	__u8 protocol;
	__u8 direction;
	__u8 verdict;
	__u8 scope;
	__u8 flags;
	__u8 fin_acked;
	__u8 fin_received;
	__u8 listen_scope;
	__u8 unused[4];
};

/* A conversation without a connection: UDP, ICMP, SCTP, and refused openings of TCP. */
struct pf_conversation_key {
	__u64 cgroup;
	struct pf_address peer;
	__u16 remote_port;
	__u16 local_port;
	__u8 protocol;
	__u8 unused[3];
};
struct pf_conversation {
	__u64 last_ns;
	__u32 generation;
	__u32 policy;
	__u32 rule;
	__u8 direction;
	__u8 verdict;
	__u16 unused;
};

BPF_ARRAY(config, struct pf_config, 1);
BPF_ARRAY(losses, u64, PF_LOSS_REASONS);
/* DNS answers, read several times a second; how many found it full; where one is put together.
 * A lost answer is a name that a row lacks, never a row: it is no loss of the record.
 */
BPF_RINGBUF_OUTPUT(answers, PF_ANSWER_PAGES);
BPF_ARRAY(answers_dropped, u64, 1);
BPF_PERCPU_ARRAY(answer_draft, struct pf_answer, 1);
BPF_TABLE("hash", struct pf_flow_key, struct pf_flow, flows_0, PF_FLOWS);
BPF_TABLE("hash", struct pf_flow_key, struct pf_flow, flows_1, PF_FLOWS);
BPF_TABLE("hash", struct pf_flow_key, struct pf_flow, ports_0, PF_PORTS);
BPF_TABLE("hash", struct pf_flow_key, struct pf_flow, ports_1, PF_PORTS);
BPF_TABLE("hash", u64, struct pf_pod, pods, PF_PODS);
BPF_TABLE("hash", u64, struct pf_pod_name, pod_names, PF_PODS);
BPF_TABLE("hash", u64, u64, namespaces, PF_PODS);
/* What a pod gets when its cgroup is made. */
BPF_TABLE("hash", struct pf_uid, struct pf_pod, expected, PF_PODS);
BPF_TABLE("hash", struct pf_address, u64, addresses, PF_ADDRESSES);
BPF_TABLE("hash", struct pf_listener_key, struct pf_listener, listeners, PF_LISTENERS);
BPF_F_TABLE("lpm_trie", struct pf_rule_key, struct pf_rule, rules, PF_RULES, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct pf_peer_key, struct pf_peer, peers, PF_PEERS, BPF_F_NO_PREALLOC);
BPF_TABLE("lru_hash", struct pf_conversation_key, struct pf_conversation, conversations,
	  PF_CONVERSATIONS);
BPF_F_TABLE("sk_storage", int, struct pf_socket, sockets, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE);
