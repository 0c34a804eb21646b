/* What a packet says of itself: addresses, protocol, ports. Read only where no verdict is cached. */

struct pf_packet {
	struct pf_address peer;
	u16 local_port;
	u16 remote_port;
	u8 protocol;		/* ICMPv6 as ICMP */
	u8 tcp_flags;
	u16 header_bytes;	/* before the payload, UDP's own header included */
};

#define PF_TCP_FIN 1
#define PF_TCP_SYN 2
#define PF_TCP_RST 4
#define PF_TCP_ACK 16
#define PF_EXTENSIONS 6		/* IPv6 extension headers followed (RFC 8200, 4.1 names six) */

/* 0, or -1 where the headers cannot be read. */
static __always_inline int read_packet(struct __sk_buff *skb, struct pf_packet *p, u32 egress)
{
	u32 offset;
	u8 next;
	u16 ports[2];

	if (!p)
		return -1;
	if (skb->protocol == bpf_htons(0x0800)) {
		u8 ip[20];
		if (bpf_skb_load_bytes(skb, 0, ip, sizeof(ip)) < 0)
			return -1;
		offset = (ip[0] & 15) * 4;
		next = ip[9];
		address_of_ip4(&p->peer, egress ? *(u32 *)(ip + 16) : *(u32 *)(ip + 12));
	} else if (skb->protocol == bpf_htons(0x86dd)) {
		if (bpf_skb_load_bytes(skb, 6, &next, 1) < 0)
			return -1;
		if (bpf_skb_load_bytes(skb, egress ? 24 : 8, &p->peer, 16) < 0)
			return -1;
		offset = 40;
#pragma unroll
		for (int i = 0; i < PF_EXTENSIONS; i++) {
			u8 ext[2];
			/* hop-by-hop, routing, destination options; fragments are whole here */
			if (next != 0 && next != 43 && next != 60 && next != 44)
				break;
			if (bpf_skb_load_bytes(skb, offset, ext, 2) < 0)
				return -1;
			offset += next == 44 ? 8 : (ext[1] + 1) * 8;
			next = ext[0];
		}
	} else {
		return -1;
	}
	if (next == 0 || next == 43 || next == 60 || next == 44)
		return -1;
	p->protocol = next == 58 ? IPPROTO_ICMP : next;
	p->local_port = 0;
	p->remote_port = 0;
	p->tcp_flags = 0;
	p->header_bytes = offset;
	if (next != IPPROTO_TCP && next != IPPROTO_UDP)
		return 0;
	if (bpf_skb_load_bytes(skb, offset, ports, 4) < 0)
		return -1;
	p->local_port = bpf_ntohs(ports[egress ? 0 : 1]);
	p->remote_port = bpf_ntohs(ports[egress ? 1 : 0]);
	if (next == IPPROTO_UDP)
		p->header_bytes += 8;
	else if (bpf_skb_load_bytes(skb, offset + 13, &p->tcp_flags, 1) < 0)
		return -1;
	return 0;
}
