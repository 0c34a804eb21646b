/* The programs and where they hang. The loader joins the headers in the order below into one text,
 * because bcc rewrites map calls in the main file only:
 * layout.h maps.h record.h judge.h sockets.h packet.h tcp.h answers.h datagrams.h kernel.h, then this
 * file.
 *
 *   kubepods cgroup   on_ingress, on_egress    cgroup_skb   the verdict; UDP bytes
 *                     on_connect4/6            sock_addr    egress refused at once, with EPERM
 *                     follow_tcp (tcp.h)       sock_ops     TCP from opening to close
 *                     on_create, on_bind…      cgroup_sock  whose socket; UDP listeners
 *   the kernel        kernel.h                 raw_tp       pods come and go; closed ports
 */

static __always_inline int on_packet(struct __sk_buff *skb, u32 egress)
{
	struct bpf_sock *sk = skb->sk;
	struct pf_config *c = configuration();
	struct pf_socket *s;

	if (!sk || !c)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	s = sockets.sk_storage_get(sk, 0, 0);
	/* The fast path: an open connection whose verdict is known and which was recorded lately. */
	if (s && s->flags & PF_OPEN && s->generation == c->generation &&
	    sk->state == BPF_TCP_ESTABLISHED &&
	    (!egress || bpf_ktime_get_coarse_ns() - s->flushed <= c->flush_ns))
		return s->verdict != PF_DENIED;
	/* Made before its pod was registered, it would belong to nobody for ever. */
	if (s && !pods.lookup(&s->cgroup))
		s->cgroup = pod_of_socket(c, sk);
	if (sk->type == 1 && sk->protocol == IPPROTO_TCP) {
		if (!s) {
			s = sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
			if (!s) {
				lose(PF_LOSS_SOCKET_STORAGE, 1);
				return 1;
			}
			s->cgroup = pod_of_socket(c, sk);
		}
		return judge_tcp(skb, sk, s, c, egress);
	}
	return judge_datagram(skb, sk, s ? s->cgroup : pod_of_socket(c, sk), c, egress);
}

int on_ingress(struct __sk_buff *skb)
{
	return on_packet(skb, 0);
}

int on_egress(struct __sk_buff *skb)
{
	return on_packet(skb, 1);
}

/* TCP only: a UDP connect sends nothing, its packets are judged one by one. */
static __always_inline int on_connect(struct bpf_sock_addr *ctx, struct pf_address *peer)
{
	struct pf_config *c = configuration();
	struct bpf_sock *sk = ctx->sk;
	struct pf_question q = {};
	struct pf_socket *s;
	u32 generation;

	if (!c || !sk)
		return 1;
	generation = c->generation;
	s = sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!s) {
		lose(PF_LOSS_SOCKET_STORAGE, 1);
		return 1;
	}
	s->cgroup = pod_of_current(c);
	s->peer = *peer;
	s->port = bpf_ntohs((u16)ctx->user_port);
	s->protocol = ctx->protocol;
	s->direction = PF_EGRESS;
	s->scope = scope_of(s->cgroup, &s->peer);
	ask(&q, s);
	if (ctx->protocol == IPPROTO_TCP) {
		s->flags |= PF_KNOWN;
		s->flags &= ~(PF_RESET | PF_OPEN);
		keep_answer(s, &q, generation);
	}
	if (q.verdict != PF_DENIED)
		return 1;
	struct pf_flow_key flow = {
		.cgroup = q.cgroup, .peer = q.peer, .port = q.port, .protocol = q.protocol,
		.direction = PF_EGRESS, .verdict = PF_DENIED, .scope = q.scope};
	struct pf_event event = {.connections = 1, .policy = q.policy, .rule = q.rule};
	record(&flow, &event);
	return 0;
}

int on_connect4(struct bpf_sock_addr *ctx)
{
	struct pf_address peer = {};
	if (ctx->protocol != IPPROTO_TCP)
		return 1;
	address_of_ip4(&peer, ctx->user_ip4);
	return on_connect(ctx, &peer);
}

int on_connect6(struct bpf_sock_addr *ctx)
{
	struct pf_address peer = {};
	u32 *word = (u32 *)peer.bytes;
	if (ctx->protocol != IPPROTO_TCP)
		return 1;
	word[0] = ctx->user_ip6[0];
	word[1] = ctx->user_ip6[1];
	word[2] = ctx->user_ip6[2];
	word[3] = ctx->user_ip6[3];
	return on_connect(ctx, &peer);
}

int on_create(struct bpf_sock *ctx)
{
	struct pf_config *c = configuration();
	struct pf_socket *s;
	u64 cookie, cgroup;

	if (!c)
		return 1;
	cgroup = pod_of_current(c);
	s = sockets.sk_storage_get(ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (s)
		s->cgroup = cgroup;
	else
		lose(PF_LOSS_SOCKET_STORAGE, 1);
	cookie = bpf_get_netns_cookie(ctx);
	if (!namespaces.lookup(&cookie))
		namespaces.insert(&cookie, &cgroup);
	return 1;
}

static __always_inline int on_bind(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct pf_socket *s;
	if (!sk || ctx->protocol != IPPROTO_UDP || !ctx->user_port)
		return 1;
	s = sockets.sk_storage_get(sk, 0, 0);
	if (s)
		s->flags |= PF_BOUND;
	return 1;
}

int on_bind4(struct bpf_sock_addr *ctx)
{
	return on_bind(ctx);
}

int on_bind6(struct bpf_sock_addr *ctx)
{
	return on_bind(ctx);
}

static __always_inline int udp_listens(struct bpf_sock *ctx, u16 port, u8 scope)
{
	struct pf_socket *s;
	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	s = sockets.sk_storage_get(ctx, 0, 0);
	if (!s || !(s->flags & PF_BOUND) || s->flags & PF_LISTENS)
		return 1;
	s->listen_port = port;
	s->listen_scope = scope;
	s->flags |= PF_LISTENS;
	listener_begins(s->cgroup, IPPROTO_UDP, port, scope);
	return 1;
}

int on_bound4(struct bpf_sock *ctx)
{
	u32 ip = ctx->src_ip4;
	return udp_listens(ctx, ctx->src_port, (bpf_ntohl(ip) >> 24) == 127);
}

int on_bound6(struct bpf_sock *ctx)
{
	u32 a = ctx->src_ip6[0], b = ctx->src_ip6[1], d = ctx->src_ip6[2], e = ctx->src_ip6[3];
	return udp_listens(ctx, ctx->src_port, !a && !b && !d && e == bpf_htonl(1));
}

int on_release(struct bpf_sock *ctx)
{
	struct pf_socket *s = sockets.sk_storage_get(ctx, 0, 0);
	if (s && s->flags & PF_LISTENS && s->flags & PF_BOUND)
		listener_ends(s->cgroup, IPPROTO_UDP, s->listen_port, s->listen_scope);
	return 1;
}
