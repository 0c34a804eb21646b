/* The verdict: may this pod speak with that peer on that port. portforge.policy.judge says the
 * same in Python, and a property test holds the two together.
 */

static __always_inline int is_loopback(struct pf_address *a)
{
	u32 *word = (u32 *)a->bytes;
	if (word[0] || word[1])
		return 0;
	if (word[2] == bpf_htonl(0xffff))
		return a->bytes[12] == 127;
	return word[2] == 0 && word[3] == bpf_htonl(1);
}

static __always_inline void address_of_ip4(struct pf_address *a, u32 ip)
{
	u32 *word = (u32 *)a->bytes;
	word[0] = 0;
	word[1] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = ip;
}

/* 0.0.0.0 and ::, which connect() takes for this very host. */
static __always_inline int is_unspecified(struct pf_address *a)
{
	u32 *word = (u32 *)a->bytes;
	return !word[0] && !word[1] && !word[3] && (!word[2] || word[2] == bpf_htonl(0xffff));
}

/* Traffic that does not leave the pod: to 127.0.0.0/8, ::1, or its own address. */
static __always_inline u8 scope_of(u64 cgroup, struct pf_address *peer)
{
	u64 *owner;
	if (is_loopback(peer) || is_unspecified(peer))
		return PF_LOOPBACK;
	owner = addresses.lookup(peer);
	return owner && *owner && *owner == cgroup ? PF_LOOPBACK : PF_REMOTE;
}

struct pf_question {
	u64 cgroup;
	struct pf_address peer;
	u16 port;
	u8 protocol;
	u8 direction;
	u8 scope;
	/* the answer */
	u8 verdict;
	u8 keep;		/* the policy leaves open connections alone */
	u8 unused;
	u32 policy;
	u32 rule;
};

/* A verdict is cached under the generation that was read before judging, never after: a policy
 * changed in between would else be judged old and marked new.
 */
static __always_inline int judge(struct pf_question *q)
{
	union {
		u64 whole;
		struct pf_pod is;
	} pod;
	u64 *found;
	struct pf_rule *rule;
	u64 *owner;

	if (!q)
		return 0;
	q->verdict = PF_ALLOWED;
	q->policy = 0;
	q->rule = 0;
	q->keep = 0;
	if (q->scope == PF_LOOPBACK)
		return 0;
	found = (u64 *)pods.lookup(&q->cgroup);
	if (!found)
		return 0;
	/* Read once: an entry that was replaced is soon used again, for another pod. */
	pod.whole = *found;
	if (pod.is.unknown) {
		q->verdict = PF_DENIED;
		return 0;
	}
	if (!pod.is.policy || pod.is.mode == PF_RECORD)
		return 0;
	q->keep = pod.is.established == PF_KEEP;
	q->policy = pod.is.policy;
	if (!(pod.is.restricted & (q->direction == PF_INGRESS ? PF_RESTRICT_INGRESS
							    : PF_RESTRICT_EGRESS)))
		return 0;
	struct pf_rule_key key = {
		.prefixlen = 64, .policy = pod.is.policy, .direction = q->direction,
		.protocol = q->protocol, .port = {q->port >> 8, q->port & 0xff}};
	rule = rules.lookup(&key);
	if (rule) {
		struct pf_peer *peer = 0;
		if (rule->peer_set) {
			struct pf_peer_key who = {
				.prefixlen = 160, .peer_set = rule->peer_set, .address = q->peer};
			peer = peers.lookup(&who);
		}
		if (!rule->peer_set || (peer && peer->allowed)) {
			q->rule = rule->rule;
			return 0;
		}
	}
	/* The pod's own node may always come in: kubelet probes. */
	if (q->direction == PF_INGRESS) {
		owner = addresses.lookup(&q->peer);
		if (owner && *owner == 0)
			return 0;
	}
	q->verdict = pod.is.mode == PF_ENFORCE ? PF_DENIED : PF_AUDITED;
	return 0;
}
