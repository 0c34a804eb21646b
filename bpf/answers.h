/* Names: DNS answers to the pods that asked, copied for the recorder, which reads them (names.py).
 * Only over UDP from port 53, in a conversation that the pod began and no policy denied: who was
 * not asked cannot fill the ring. Datagrams come in by softirq, one at a time on each CPU, so a
 * draft for each CPU is enough.
 */

#define PF_DNS_PORT 53
#define PF_DNS_HEADER 12	/* RFC 1035, 4.1.1 */

static __always_inline void copy_answer(struct __sk_buff *skb, u64 cgroup, u32 header_bytes, u64 now)
{
	int zero = 0;
	struct pf_answer *draft = answer_draft.lookup(&zero);
	u64 *dropped;
	u64 length;	/* of 64 bits: clang would check 32 in a copy, which the verifier does not see */

	if (!draft || !pods.lookup(&cgroup) || skb->len < header_bytes + PF_DNS_HEADER)
		return;
	length = skb->len - header_bytes;
	asm volatile("" : "+r"(length));
	if (length > PF_ANSWER_LENGTH)
		length = PF_ANSWER_LENGTH;
	if (length < PF_DNS_HEADER)
		return;
	if (bpf_skb_load_bytes(skb, header_bytes, draft->payload, length) < 0)
		return;
	/* An answer to a plain query, without error, that holds records: of the names that a pod's
	 * search list makes, most are not found.
	 */
	if ((draft->payload[2] & 0xf8) != 0x80 || draft->payload[3] & 0x0f ||
	    !(draft->payload[6] | draft->payload[7]))
		return;
	draft->time_ns = now;
	draft->cgroup = cgroup;
	draft->length = length;
	length += offsetof(struct pf_answer, payload);
	if (answers.ringbuf_output(draft, length, BPF_RB_NO_WAKEUP) == 0)
		return;
	dropped = answers_dropped.lookup(&zero);
	if (dropped)
		__sync_fetch_and_add(dropped, 1);
}
