/* What only the kernel's own tracepoints say: pods that come and go, attempts on closed ports.
 * Offsets (PF_OFF_*) and the drop reason come from the running kernel's BTF, by the loader.
 */

static __always_inline u64 read_u64(void *base, u32 offset)
{
	u64 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), base + offset);
	return value;
}

static __always_inline u64 id_of_ancestor(void *cgroup, u32 level)
{
	void *above = (void *)read_u64(cgroup, PF_OFF_CGROUP_ANCESTORS + 8 * level);
	void *node = above ? (void *)read_u64(above, PF_OFF_CGROUP_KN) : 0;

	return node ? read_u64(node, PF_OFF_KN_ID) : 0;
}

/* Where the kubelet's names have the pod's UID: pod<uid>, or …-pod<uid>.slice with _ for -.
 * 0 where they have none. ``length`` without the zero at its end.
 */
static __always_inline int find_uid(void *name, u32 length, struct pf_uid *uid)
{
	char head[3] = {}, tail[6] = {};
	u32 start = 3, end = length;

	if (length < 35 || length >= PF_NAME_LENGTH)
		return 0;
	bpf_probe_read_kernel(tail, sizeof(tail), name + length - 6);
	if (tail[0] == '.' && tail[1] == 's' && tail[2] == 'l' && tail[3] == 'i' &&
	    tail[4] == 'c' && tail[5] == 'e')
		end -= 6;
	/* The longer form first; in the shorter one this place is before the name or no "pod". */
	start = end - 36;
	if (end >= 39)
		bpf_probe_read_kernel(head, sizeof(head), name + start - 3);
	if (head[0] != 'p' || head[1] != 'o' || head[2] != 'd') {
		start = end - 32;
		if (end >= 35)
			bpf_probe_read_kernel(head, sizeof(head), name + start - 3);
		if (head[0] != 'p' || head[1] != 'o' || head[2] != 'd')
			return 0;
	}
	if (start > 3) {
		bpf_probe_read_kernel(tail, 1, name + start - 4);
		if (tail[0] != '-')
			return 0;
	}
	if (end - start == 32) {
		bpf_probe_read_kernel(uid->text, 32, name + start);
		return 1;
	}
	bpf_probe_read_kernel(uid->text, 36, name + start);
	if (uid->text[8] != '-' && uid->text[8] != '_')
		return 0;
	uid->text[8] = '-';
	uid->text[13] = '-';
	uid->text[18] = '-';
	uid->text[23] = '-';
	return 1;
}

/* Is this cgroup a pod of this node? One or two below kubepods, and the UID of one in its name. */
static __always_inline int is_pod(struct pf_config *c, void *cgroup, struct pf_pod_name *pod, u64 *id,
				  struct pf_uid *uid)
{
	u32 level = 0;
	int length;
	void *node, *name;

	/* A cgroup v1 tree has ids of its own, which may be the same. */
	node = (void *)read_u64(cgroup, PF_OFF_CGROUP_ROOT);
	bpf_probe_read_kernel(&level, sizeof(level), node + PF_OFF_ROOT_HIERARCHY);
	if (level)
		return 0;
	bpf_probe_read_kernel(&level, sizeof(level), cgroup + PF_OFF_CGROUP_LEVEL);
	if (c->kubepods_level == PF_LEVEL_UNKNOWN) {
		if (!level || id_of_ancestor(cgroup, level - 1) != c->kubepods)
			return 0;
		c->kubepods_level = level - 1;
	}
	if (level != c->kubepods_level + 1 && level != c->kubepods_level + 2)
		return 0;
	if (id_of_ancestor(cgroup, c->kubepods_level) != c->kubepods)
		return 0;
	node = (void *)read_u64(cgroup, PF_OFF_CGROUP_KN);
	*id = read_u64(node, PF_OFF_KN_ID);
	name = (void *)read_u64(node, PF_OFF_KN_NAME);
	length = bpf_probe_read_kernel_str(pod->name, sizeof(pod->name), name);
	return length > 0 && find_uid(name, length - 1, uid);
}

/* Before its first process: a pod that is expected is under its policy from here on. */
int on_cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
	struct pf_config *c = configuration();
	struct pf_pod_name pod = {};
	struct pf_pod fresh = {}, *known;
	struct pf_uid uid = {};
	u64 id = 0;

	if (!c || !is_pod(c, (void *)ctx->args[0], &pod, &id, &uid))
		return 0;
	pod.born_ns = bpf_ktime_get_boot_ns();
	known = expected.lookup(&uid);
	if (known)
		*(u64 *)&fresh = *(u64 *)known;	/* read once */
	else
		fresh.unknown = c->closed;
	if (pods.update(&id, &fresh) < 0 || pod_names.update(&id, &pod) < 0)
		lose(PF_LOSS_PODS, 1);
	return 0;
}

int on_cgroup_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
	void *node = (void *)read_u64((void *)ctx->args[0], PF_OFF_CGROUP_KN);
	u64 id = read_u64(node, PF_OFF_KN_ID);
	struct pf_pod_name *pod = pod_names.lookup(&id);

	if (pod)
		pod->died_ns = bpf_ktime_get_boot_ns();
	return 0;
}

/* A packet for a port nobody has open. It has no socket: it is placed by its network namespace. */
int on_no_socket(struct bpf_raw_tracepoint_args *ctx)
{
	void *skb = (void *)ctx->args[0], *head, *device, *net;
	struct pf_flow_key key = {.direction = PF_INGRESS, .verdict = PF_REFUSED};
	struct pf_event event = {.connections = 1};
	struct pf_conversation_key talk = {};
	struct pf_conversation *known;
	u16 network = 0, transport = 0, protocol = 0;
	u16 ports[2] = {};
	u8 next = 0, tcp_flags = 0;
	u32 ip = 0, index = 0;
	u64 cookie, *cgroup;

	if ((u32)ctx->args[2] != PF_NO_SOCKET)
		return 0;
	device = (void *)read_u64(skb, PF_OFF_SKB_DEV);
	if (!device)
		return 0;
	net = (void *)read_u64(device, PF_OFF_DEV_NET);
	cookie = read_u64(net, PF_OFF_NET_COOKIE);
	cgroup = namespaces.lookup(&cookie);
	if (!cgroup) {
		lose(PF_LOSS_UNPLACED, 1);
		return 0;
	}
	key.cgroup = *cgroup;
	bpf_probe_read_kernel(&index, 4, device + PF_OFF_DEV_IFINDEX);
	key.scope = index == 1 ? PF_LOOPBACK : PF_REMOTE;
	head = (void *)read_u64(skb, PF_OFF_SKB_HEAD);
	bpf_probe_read_kernel(&network, 2, skb + PF_OFF_SKB_NETWORK);
	bpf_probe_read_kernel(&transport, 2, skb + PF_OFF_SKB_TRANSPORT);
	bpf_probe_read_kernel(&protocol, 2, skb + PF_OFF_SKB_PROTOCOL);
	if (protocol == bpf_htons(0x0800)) {
		bpf_probe_read_kernel(&next, 1, head + network + 9);
		bpf_probe_read_kernel(&ip, 4, head + network + 12);
		address_of_ip4(&key.peer, ip);
	} else {
		bpf_probe_read_kernel(&next, 1, head + network + 6);
		bpf_probe_read_kernel(&key.peer, 16, head + network + 8);
		/* behind extension headers: of the two that can end here, only UDP is short of a socket often */
		if (next != IPPROTO_TCP && next != IPPROTO_UDP)
			next = IPPROTO_UDP;
	}
	bpf_probe_read_kernel(ports, 4, head + transport);
	key.port = bpf_ntohs(ports[1]);
	key.protocol = next;
	if (next == IPPROTO_TCP) {
		bpf_probe_read_kernel(&tcp_flags, 1, head + transport + 13);
		if ((tcp_flags & (PF_TCP_SYN | PF_TCP_ACK)) != PF_TCP_SYN)
			return 0;	/* not an opening: a late packet of a closed connection */
	} else if (next != IPPROTO_UDP) {
		return 0;
	}
	/* An answer that came after its asker had closed is no attempt. */
	talk.cgroup = key.cgroup;
	talk.peer = key.peer;
	talk.remote_port = bpf_ntohs(ports[0]);
	talk.local_port = key.port;
	talk.protocol = next;
	known = conversations.lookup(&talk);
	if (known && known->direction == PF_EGRESS)
		return 0;
	record(&key, &event);
	return 0;
}
