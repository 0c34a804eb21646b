/* What has no connection: UDP, ICMP, SCTP, and raw TCP. The first packet sets the direction.
 * A connected UDP socket may still send elsewhere, so every packet is read.
 */

/* Seconds after the start in which the first packet may be the answer to one nobody saw. */
#define PF_WARM_UP_NS 2000000000ULL

static __always_inline u8 first_direction(struct pf_config *c, u64 cgroup, struct pf_packet *p,
					  u32 egress, u64 now)
{
	struct pf_listener_key key = {
		.cgroup = cgroup, .port = p->local_port, .protocol = p->protocol};
	struct pf_listener *known;

	if (!egress)
		return PF_INGRESS;
	if (p->protocol != IPPROTO_UDP || now - c->attached_ns > PF_WARM_UP_NS)
		return PF_EGRESS;
	/* Whoever bound its port since was asked since, and that was seen. */
	known = listeners.lookup(&key);
	return known && known->snapshot ? PF_INGRESS : PF_EGRESS;
}

static __always_inline int judge_datagram(struct __sk_buff *skb, struct bpf_sock *sk, u64 cgroup,
					  struct pf_config *c, u32 egress)
{
	struct pf_packet p = {};
	struct pf_question q = {};
	struct pf_conversation *known;
	struct pf_event event = {};
	u64 now = bpf_ktime_get_boot_ns();
	u32 generation = c->generation;
	u8 denied_before = 0, raw = sk->protocol != IPPROTO_UDP;

	if (read_packet(skb, &p, egress) < 0) {
		lose(PF_LOSS_UNPARSED, 1);
		return 1;
	}
	/* A raw socket hears copies of what others receive: only ICMP and SCTP have no other owner. */
	if (raw && !egress && p.protocol != IPPROTO_ICMP && p.protocol != IPPROTO_SCTP)
		return 1;
	if (p.protocol != IPPROTO_UDP && p.protocol != IPPROTO_ICMP &&
	    p.protocol != IPPROTO_SCTP && p.protocol != IPPROTO_TCP)
		return 1;

	struct pf_conversation_key key = {
		.cgroup = cgroup, .peer = p.peer, .remote_port = p.remote_port,
		.local_port = p.local_port, .protocol = p.protocol};
	q.cgroup = cgroup;
	q.peer = p.peer;
	q.protocol = p.protocol;
	q.scope = skb->ifindex == 1 ? PF_LOOPBACK : PF_REMOTE;
	known = conversations.lookup(&key);
	if (known && known->generation == generation) {
		q.direction = known->direction;
		q.verdict = known->verdict;
		q.policy = known->policy;
		q.rule = known->rule;
		if (now - known->last_ns > PF_SAME_ATTEMPT_NS)
			event.connections = 1;
		known->last_ns = now;
		q.port = q.direction == PF_EGRESS ? p.remote_port : p.local_port;
	} else {
		u8 before = known ? known->verdict : PF_ALLOWED;
		q.direction = known ? known->direction : first_direction(c, cgroup, &p, egress, now);
		q.port = q.direction == PF_EGRESS ? p.remote_port : p.local_port;
		if (p.protocol == IPPROTO_UDP || p.protocol == IPPROTO_TCP)
			judge(&q);
		if (known && q.keep && before != PF_DENIED &&
		    now - known->last_ns <= PF_SAME_ATTEMPT_NS) {
			known->generation = generation;
			known->last_ns = now;
			q.verdict = before;
			q.policy = known->policy;
			q.rule = known->rule;
		} else {
			struct pf_conversation fresh = {
				.last_ns = now, .generation = generation, .policy = q.policy,
				.rule = q.rule, .direction = q.direction, .verdict = q.verdict};
			if (!known || q.verdict != before)
				event.connections = 1;
			conversations.update(&key, &fresh);
		}
	}
	if (q.verdict == PF_DENIED) {
		if (!event.connections)
			return 0;
	} else {
		u64 payload = skb->len > p.header_bytes ? skb->len - p.header_bytes : 0;
		if (egress)
			event.sent = payload;
		else
			event.received = payload;
		/* Seen from who asked, the port is the resolver's. */
		if (q.port == PF_DNS_PORT && !egress && q.direction == PF_EGRESS &&
		    p.protocol == IPPROTO_UDP)
			copy_answer(skb, cgroup, p.header_bytes, now);
		/* Nothing says whether a hand-made TCP packet was answered: count it only when judged. */
		if (p.protocol == IPPROTO_TCP && q.verdict == PF_ALLOWED)
			return 1;
	}
	event.policy = q.policy;
	event.rule = q.rule;
	struct pf_flow_key flow = {
		.cgroup = cgroup, .peer = p.peer, .port = q.port, .protocol = p.protocol,
		.direction = q.direction, .verdict = q.verdict, .scope = q.scope};
	record(&flow, &event);
	return q.verdict != PF_DENIED;
}
