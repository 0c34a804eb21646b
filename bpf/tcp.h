/* TCP: the life of a connection from sock_ops (nothing per packet), the verdict from cgroup_skb. */

#define PF_SYN_SENT 2
#define PF_LISTEN 10
#define PF_CLOSE 7

static __always_inline void opened(struct bpf_sock_ops *ctx, struct pf_socket *s)
{
	struct pf_event event = {.connections = 1, .rtt_us = ctx->srtt_us >> 3};
	s->flags |= PF_OPEN;
	s->acked = ctx->bytes_acked;
	s->received = ctx->bytes_received;
	s->flushed = bpf_ktime_get_coarse_ns();
	record_socket(s, s->verdict, &event);
}

static __always_inline void accepted(struct bpf_sock_ops *ctx, struct pf_socket *s,
				     struct pf_config *c)
{
	struct pf_question q = {};
	u32 family = ctx->family, generation = c->generation;

	if (family == 2) {
		u32 ip = ctx->remote_ip4;
		asm volatile("" : "+r"(ip));
		address_of_ip4(&s->peer, ip);
	} else {
		u32 *word = (u32 *)s->peer.bytes;
		word[0] = ctx->remote_ip6[0];
		word[1] = ctx->remote_ip6[1];
		word[2] = ctx->remote_ip6[2];
		word[3] = ctx->remote_ip6[3];
	}
	s->port = ctx->local_port;
	s->protocol = IPPROTO_TCP;
	s->direction = PF_INGRESS;
	s->scope = scope_of(s->cgroup, &s->peer);
	s->flags = PF_KNOWN;
	s->fin_acked = 0;
	s->fin_received = 0;
	s->fin_end = 0;
	s->retransmits = 0;
	ask(&q, s);
	keep_answer(s, &q, generation);
	opened(ctx, s);
}

static __always_inline void state_changed(struct bpf_sock_ops *ctx, struct pf_socket *s)
{
	u32 from = ctx->args[0], to = ctx->args[1];

	if (from == PF_LISTEN) {
		if (s->flags & PF_LISTENS)
			listener_ends(s->cgroup, IPPROTO_TCP, s->listen_port, s->listen_scope);
		s->flags &= ~PF_LISTENS;
		return;
	}
	if (!(s->flags & PF_KNOWN))
		return;
	if (from == PF_SYN_SENT && to == PF_CLOSE) {
		struct pf_event event = {.connections = 1};
		record_socket(s, s->flags & PF_RESET ? PF_REFUSED : PF_FAILED, &event);
		return;
	}
	/* FIN counts as a byte in the kernel's sums (RFC 9293, 3.4: it takes a sequence number). */
	if (from == BPF_TCP_FIN_WAIT1 && to == BPF_TCP_FIN_WAIT2)
		s->fin_acked = 1;
	/* The end of these may also be a reset, with the FIN unanswered. */
	if ((from == BPF_TCP_CLOSING || from == BPF_TCP_LAST_ACK) && ctx->snd_una == ctx->snd_nxt)
		s->fin_acked = 1;
	/* Where we closed first and wait for the peer's, judge_tcp looks for it. */
	if (to == BPF_TCP_CLOSE_WAIT || to == BPF_TCP_CLOSING)
		s->fin_received = 1;
	if (to == PF_CLOSE && s->flags & PF_OPEN)
		flush(s, ctx->bytes_acked, ctx->bytes_received, ctx->rcv_nxt, ctx->srtt_us,
		      ctx->total_retrans);
}

int follow_tcp(struct bpf_sock_ops *ctx)
{
	struct pf_config *c = configuration();
	struct bpf_sock *sk = ctx->sk;
	struct pf_socket *s;

	if (!c || !sk)
		return 1;
	s = sockets.sk_storage_get(sk, 0, 0);
	if (!s)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB: {
		u32 ip = ctx->family == 2 ? ctx->local_ip4 : 0;
		s->listen_port = ctx->local_port;
		s->listen_scope = (bpf_ntohl(ip) >> 24) == 127;
		if (ctx->family == 10) {
			u32 a = ctx->local_ip6[0], b = ctx->local_ip6[1];
			u32 d = ctx->local_ip6[2], e = ctx->local_ip6[3];
			if (!a && !b && ((!d && e == bpf_htonl(1)) ||
					 (d == bpf_htonl(0xffff) && (bpf_ntohl(e) >> 24) == 127)))
				s->listen_scope = 1;
		}
		s->flags |= PF_LISTENS;
		listener_begins(s->cgroup, IPPROTO_TCP, s->listen_port, s->listen_scope);
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	}
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		if (s->flags & PF_KNOWN)
			opened(ctx, s);
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		accepted(ctx, s, c);
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		state_changed(ctx, s);
		break;
	}
	return 1;
}

/* An incoming SYN, or the ACK that ends its handshake, on a listener. The accepted socket inherits
 * what is stored here, so the pod is known when sock_ops sees it.
 */
static __always_inline int judge_opening(struct __sk_buff *skb, struct bpf_sock *sk,
					 struct pf_socket *s, struct pf_config *c)
{
	struct pf_packet p = {};
	struct pf_question q = {};
	struct pf_conversation *known;
	u64 now;

	if (read_packet(skb, &p, 0) < 0) {
		lose(PF_LOSS_UNPARSED, 1);
		return 1;
	}
	q.cgroup = s->cgroup;
	q.peer = p.peer;
	q.port = p.local_port;
	q.protocol = IPPROTO_TCP;
	q.direction = PF_INGRESS;
	q.scope = skb->ifindex == 1 ? PF_LOOPBACK : PF_REMOTE;
	judge(&q);
	if (q.verdict != PF_DENIED)
		return 1;
	if (!(p.tcp_flags & PF_TCP_SYN))
		return 0;
	/* A SYN sent again is the same attempt. */
	struct pf_conversation_key key = {
		.cgroup = s->cgroup, .peer = p.peer, .remote_port = p.remote_port,
		.local_port = p.local_port, .protocol = IPPROTO_TCP};
	now = bpf_ktime_get_boot_ns();
	known = conversations.lookup(&key);
	if (known && now - known->last_ns < PF_SAME_ATTEMPT_NS) {
		known->last_ns = now;
		return 0;
	}
	struct pf_conversation fresh = {.last_ns = now, .verdict = PF_DENIED};
	conversations.update(&key, &fresh);
	struct pf_flow_key flow = {
		.cgroup = s->cgroup, .peer = p.peer, .port = p.local_port,
		.protocol = IPPROTO_TCP, .direction = PF_INGRESS, .verdict = PF_DENIED};
	struct pf_event event = {.connections = 1, .policy = q.policy, .rule = q.rule};
	record(&flow, &event);
	return 0;
}

/* We are opening and no connect() was seen: it was before the programs, or inside the kernel. */
static __always_inline int meet_opening(struct __sk_buff *skb, struct pf_socket *s, u32 egress)
{
	struct pf_packet p = {};

	if (read_packet(skb, &p, egress) < 0)
		return -1;
	s->peer = p.peer;
	s->port = p.remote_port;
	s->protocol = IPPROTO_TCP;
	s->direction = PF_EGRESS;
	s->scope = skb->ifindex == 1 ? PF_LOOPBACK : PF_REMOTE;
	s->flags |= PF_KNOWN;
	return 0;
}

/* A connection that was open before the programs. Who opened it: the peer, where our port is one
 * that somebody listens on; else we.
 */
static __always_inline int meet_old(struct __sk_buff *skb, struct bpf_sock *sk, struct pf_socket *s,
				    u32 egress)
{
	struct pf_packet p = {};
	struct pf_listener_key key = {.cgroup = s->cgroup, .protocol = IPPROTO_TCP};
	struct pf_event event = {};
	struct bpf_tcp_sock *tp;

	if (read_packet(skb, &p, egress) < 0)
		return -1;
	s->peer = p.peer;
	s->protocol = IPPROTO_TCP;
	s->scope = skb->ifindex == 1 ? PF_LOOPBACK : PF_REMOTE;
	key.port = p.local_port;
	s->direction = PF_EGRESS;
	s->port = p.remote_port;
	if (listeners.lookup(&key)) {
		s->direction = PF_INGRESS;
		s->port = p.local_port;
	} else {
		key.scope = PF_LOOPBACK;
		if (listeners.lookup(&key)) {
			s->direction = PF_INGRESS;
			s->port = p.local_port;
		}
	}
	tp = bpf_tcp_sock(sk);
	if (tp) {
		s->acked = tp->bytes_acked;
		s->received = tp->bytes_received;
		s->retransmits = tp->total_retrans;
	}
	s->flushed = bpf_ktime_get_coarse_ns();
	s->flags |= PF_KNOWN | PF_OLD | PF_OPEN;
	record_socket(s, PF_ALLOWED, &event);
	return 0;
}

/* Where the sequence stands after this FIN. The socket is not locked here and may drop the packet:
 * whether the FIN was taken, and so counted, says the sequence at the end.
 */
static __always_inline u32 end_of_fin(struct __sk_buff *skb, struct pf_packet *p)
{
	u32 sequence;
	u8 words;

	if (bpf_skb_load_bytes(skb, p->header_bytes + 4, &sequence, 4) < 0 ||
	    bpf_skb_load_bytes(skb, p->header_bytes + 12, &words, 1) < 0)
		return 0;
	return bpf_ntohl(sequence) + skb->len - p->header_bytes - (words >> 4) * 4 + 1;
}

static __always_inline int judge_tcp(struct __sk_buff *skb, struct bpf_sock *sk,
				     struct pf_socket *s, struct pf_config *c, u32 egress)
{
	u32 state = sk->state, generation = c->generation;

	if (state == PF_LISTEN)
		return egress ? 1 : judge_opening(skb, sk, s, c);
	if (!(s->flags & PF_KNOWN)) {
		if (state != PF_SYN_SENT && (state != BPF_TCP_ESTABLISHED || !c->ready))
			return 1;	/* met again with the next packet */
		if ((state == PF_SYN_SENT ? meet_opening(skb, s, egress)
					  : meet_old(skb, sk, s, egress)) < 0) {
			lose(PF_LOSS_UNPARSED, 1);
			return 1;
		}
	}
	if (!egress && state != BPF_TCP_ESTABLISHED && state != BPF_TCP_CLOSE_WAIT) {
		struct pf_packet p = {};
		if (!read_packet(skb, &p, 0)) {
			if (p.tcp_flags & PF_TCP_RST && state == PF_SYN_SENT)
				s->flags |= PF_RESET;
			if (p.tcp_flags & PF_TCP_FIN && state != PF_SYN_SENT)
				s->fin_end = end_of_fin(skb, &p);
		}
	}
	if (s->generation != generation) {
		struct pf_question q = {};
		u8 before = s->verdict;
		u8 fresh = !s->generation && !(s->flags & PF_OLD);
		ask(&q, s);
		if (q.keep && !fresh && s->flags & PF_OPEN && before != PF_DENIED) {
			s->generation = generation;
		} else {
			keep_answer(s, &q, generation);
			if (q.verdict != before && q.verdict != PF_ALLOWED) {
				struct pf_event event = {.connections = 1};
				record_socket(s, q.verdict, &event);
			}
		}
	}
	/* sock_ops says nothing of a connection it did not see open: its FIN is the last occasion. */
	u8 ending = s->flags & PF_OLD && state != BPF_TCP_ESTABLISHED;
	if (ending && state == BPF_TCP_FIN_WAIT2)
		s->fin_acked = 1;
	if (ending && (state == BPF_TCP_CLOSE_WAIT || state == BPF_TCP_LAST_ACK ||
		       state == BPF_TCP_CLOSING))
		s->fin_received = 1;
	if (egress && s->flags & PF_OPEN &&
	    (ending || bpf_ktime_get_coarse_ns() - s->flushed > c->flush_ns)) {
		struct bpf_tcp_sock *tp = bpf_tcp_sock(sk);
		if (tp)
			flush(s, tp->bytes_acked, tp->bytes_received, tp->rcv_nxt, tp->srtt_us,
			      tp->total_retrans);
	}
	return s->verdict != PF_DENIED;
}
