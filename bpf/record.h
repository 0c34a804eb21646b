/* Counting: one event into the active pair of flow maps, and what could not be counted. */

static __always_inline struct pf_config *configuration(void)
{
	int zero = 0;
	return config.lookup(&zero);
}

static __always_inline void lose(int reason, u64 events)
{
	u64 *count = losses.lookup(&reason);
	if (count)
		__sync_fetch_and_add(count, events);
}

struct pf_event {
	u64 connections;
	u64 sent;
	u64 received;
	u32 rtt_us;
	u32 retransmits;
	u32 policy;
	u32 rule;
};

static __always_inline void add(struct pf_flow *flow, struct pf_event *event, u64 now)
{
	if (event->connections)
		__sync_fetch_and_add(&flow->connections, event->connections);
	if (event->sent)
		__sync_fetch_and_add(&flow->bytes_sent, event->sent);
	if (event->received)
		__sync_fetch_and_add(&flow->bytes_received, event->received);
	if (event->retransmits)
		__sync_fetch_and_add(&flow->retransmits, event->retransmits);
	if (event->rtt_us > flow->rtt_us)
		flow->rtt_us = event->rtt_us;
	flow->last_ns = now;
	flow->policy = event->policy;
	flow->rule = event->rule;
}

/* Peers are lost before ports, ports before nothing, and nothing silently. */
static __always_inline int record(struct pf_flow_key *key, struct pf_event *event)
{
	struct pf_config *c = configuration();
	struct pf_flow *flow;
	u64 now = bpf_ktime_get_boot_ns();
	u32 active;

	if (!c || !key || !event)
		return 0;
	active = c->active;
	if (active & PF_HALTED)
		return 0;
	flow = active ? flows_1.lookup(key) : flows_0.lookup(key);
	if (!flow) {
		struct pf_flow fresh = {.first_ns = now, .last_ns = now};
		if (active) {
			flows_1.insert(key, &fresh);
			flow = flows_1.lookup(key);
		} else {
			flows_0.insert(key, &fresh);
			flow = flows_0.lookup(key);
		}
	}
	if (flow) {
		add(flow, event, now);
		return 0;
	}

	struct pf_flow_key port = *key;
	struct pf_flow fresh = {.first_ns = now, .last_ns = now};
	__builtin_memset(&port.peer, 0, sizeof(port.peer));
	flow = active ? ports_1.lookup(&port) : ports_0.lookup(&port);
	if (!flow) {
		if (active) {
			ports_1.insert(&port, &fresh);
			flow = ports_1.lookup(&port);
		} else {
			ports_0.insert(&port, &fresh);
			flow = ports_0.lookup(&port);
		}
	}
	if (flow) {
		add(flow, event, now);
		lose(PF_LOSS_PEERS, event->connections);
	} else {
		lose(PF_LOSS_FLOWS, event->connections ? event->connections : 1);
	}
	return 0;
}

static __always_inline void listener_begins(u64 cgroup, u8 protocol, u16 port, u8 scope)
{
	struct pf_listener_key key = {
		.cgroup = cgroup, .port = port, .protocol = protocol, .scope = scope};
	struct pf_listener *known = listeners.lookup(&key);
	if (known) {
		__sync_fetch_and_add(&known->live, 1);
		return;
	}
	struct pf_listener fresh = {.live = 1, .since_ns = bpf_ktime_get_boot_ns()};
	if (listeners.insert(&key, &fresh) < 0)
		lose(PF_LOSS_LISTENERS, 1);
}

static __always_inline void listener_ends(u64 cgroup, u8 protocol, u16 port, u8 scope)
{
	struct pf_listener_key key = {
		.cgroup = cgroup, .port = port, .protocol = protocol, .scope = scope};
	struct pf_listener *known = listeners.lookup(&key);
	if (!known)
		return;
	if (known->live > 1)
		__sync_fetch_and_add(&known->live, -1);
	else if (known->snapshot)
		known->live = 0;
	else
		listeners.delete(&key);
}
