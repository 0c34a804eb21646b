/* Which pod a socket belongs to, and what is known of the socket. */

static __always_inline u64 pod_of_current(struct pf_config *c)
{
	u64 id = bpf_get_current_ancestor_cgroup_id(c->kubepods_level + 1);
	if (pods.lookup(&id))
		return id;
	id = bpf_get_current_ancestor_cgroup_id(c->kubepods_level + 2);
	if (pods.lookup(&id))
		return id;
	return bpf_get_current_cgroup_id();
}

static __always_inline u64 pod_of_socket(struct pf_config *c, struct bpf_sock *sk)
{
	u64 id = bpf_sk_ancestor_cgroup_id(sk, c->kubepods_level + 1);
	if (pods.lookup(&id))
		return id;
	id = bpf_sk_ancestor_cgroup_id(sk, c->kubepods_level + 2);
	if (pods.lookup(&id))
		return id;
	return bpf_sk_cgroup_id(sk);
}

static __always_inline void ask(struct pf_question *q, struct pf_socket *s)
{
	q->cgroup = s->cgroup;
	q->peer = s->peer;
	q->port = s->port;
	q->protocol = s->protocol;
	q->direction = s->direction;
	q->scope = s->scope;
	judge(q);
}

static __always_inline void keep_answer(struct pf_socket *s, struct pf_question *q, u32 generation)
{
	s->verdict = q->verdict;
	s->policy = q->policy;
	s->rule = q->rule;
	s->generation = generation;
}

static __always_inline void record_socket(struct pf_socket *s, u8 verdict, struct pf_event *event)
{
	struct pf_flow_key key = {
		.cgroup = s->cgroup, .peer = s->peer, .port = s->port, .protocol = s->protocol,
		.direction = s->direction, .verdict = verdict, .scope = s->scope};
	event->policy = s->policy;
	event->rule = s->rule;
	record(&key, event);
}

/* Bytes since the last record. SYN is left out by the base taken when the connection opened,
 * FIN by the state changes. Called with the socket locked only: egress packets and sock_ops.
 * What a connection carried before it was denied was allowed.
 */
static __always_inline void flush(struct pf_socket *s, u64 acked, u64 received, u32 received_end,
				  u32 srtt_us, u32 retransmits)
{
	struct pf_event event = {};
	if (s->fin_end && s->fin_end == received_end)
		s->fin_received = 1;
	u64 acked_data = acked - s->fin_acked, received_data = received - s->fin_received;

	if (acked_data > s->acked)
		event.sent = acked_data - s->acked;
	if (received_data > s->received)
		event.received = received_data - s->received;
	event.rtt_us = srtt_us >> 3;
	event.retransmits = retransmits - s->retransmits;
	s->acked = acked_data;
	s->received = received_data;
	s->retransmits = retransmits;
	s->flushed = bpf_ktime_get_coarse_ns();
	record_socket(s, s->verdict == PF_DENIED ? PF_ALLOWED : s->verdict, &event);
}
