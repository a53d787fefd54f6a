/* A switch in user space that makes the ways between its ports long: every packet takes so many milliseconds, some are
 * late by a jitter, some are lost. It stands in for netem, which many kernels do not have.
 *
 * switch DELAY_MS JITTER_MS LOSS_PERCENT SEED DEVICE DEVICE ... -- in the network namespace of the devices; runs until it
 * is killed. It prints "ready", and after each SIGUSR1 one line: packets carried, lost by chance, lost for want of room.
 *
 * The devices are the switch's ends of veth pairs. It takes frames from them and puts frames on them with packet
 * sockets, so what it sends passes the device's own qdisc (tbf limits the rate there, as it would on a bridge's port).
 * Large TCP frames stay whole, with what the kernel knows about them (PACKET_VNET_HDR): that keeps the switch cheap. A
 * packet that is lost out of the middle of one is cut out, so that loss is counted in packets as on a wire.
 *
 * While frames are under way it looks twenty times per delay, every half millisecond at the most, and not at each frame,
 * as a network card gathers what comes before it interrupts: a look costs more than a frame.
 *
 * Frames that carry no IPv4 (ARP above all) are neither late nor lost: finding a neighbour is the lab's own affair.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <math.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

enum {
    MOST_PORTS = 1100,            /* a thousand peers, the origin, the supernode, the other zone */
    MOST_ADDRESSES = 4096,        /* a power of two; what is not learned is sent to all ports */
    FRAME = 70000,                /* a large TCP frame has 64 KiB and its headers */
    AT_ONCE = 64,                 /* frames taken from one port before the next has its turn */
    SOCKET_BYTES = 32 << 20,      /* more than tbf keeps back on any link of the lab */
};
static const size_t MOST_WAITING = 512u << 20;    /* bytes under way; beyond them frames are lost */
static const uint64_t LONGEST_TICK = 500 * 1000;  /* ns between two looks while frames are under way */
static const uint64_t SHORTEST_TICK = 20 * 1000;

typedef struct virtio_net_hdr Meta;

typedef struct Frame {
    struct Frame *next;
    uint64_t due;
    size_t length;                /* of the meta header and the bytes */
    unsigned char bytes[];
} Frame;

typedef struct {
    int socket;
    Frame *first, **end;          /* in the order in which they leave */
    uint64_t last_due;
} Port;

static Port ports[MOST_PORTS];
static struct pollfd polled[MOST_PORTS];
static int port_count;
static struct { unsigned char address[ETH_ALEN]; int port; } known[MOST_ADDRESSES];
static size_t waiting_bytes;
static uint64_t carried, lost, crowded;
static double delay_ns, jitter_ns, loss_share;
static uint64_t until_loss;       /* packets that pass before the next one that is lost */
static volatile sig_atomic_t asked;

static uint64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* Each packet is lost with the same chance, whatever became of the one before: so the gaps are geometric. */
static uint64_t draw_gap(void) {
    return loss_share > 0 ? (uint64_t)(log(1.0 - drand48()) / log(1.0 - loss_share)) : UINT64_MAX;
}

/* Where an address is in the table, or the free place for it; -1 when the table is full. */
static int place_of(const unsigned char *address) {
    uint32_t hash = 0;
    for (int i = 0; i < ETH_ALEN; i++) hash = hash * 31 + address[i];
    for (int i = 0; i < MOST_ADDRESSES; i++) {
        int at = (int)((hash + (uint32_t)i) & (MOST_ADDRESSES - 1));
        if (known[at].port < 0 || !memcmp(known[at].address, address, ETH_ALEN)) return at;
    }
    return -1;
}

static void put(Port *port, uint64_t due, const Meta *meta, const unsigned char *bytes, size_t length) {
    Frame *frame = waiting_bytes < MOST_WAITING ? malloc(sizeof *frame + sizeof *meta + length) : NULL;
    if (!frame) {
        crowded++;
        return;
    }
    frame->next = NULL;
    frame->due = due;
    frame->length = sizeof *meta + length;
    memcpy(frame->bytes, meta, sizeof *meta);
    memcpy(frame->bytes + sizeof *meta, bytes, length);
    *port->end = frame;
    port->end = &frame->next;
    waiting_bytes += frame->length;
}

static uint32_t sum_of(const void *data, size_t length) {
    uint32_t sum = 0;
    const unsigned char *byte = data;
    for (size_t i = 0; i + 1 < length; i += 2) sum += (uint32_t)(byte[i] << 8 | byte[i + 1]);
    return sum;
}

static uint16_t folded(uint32_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* Puts packets `from` to `to` (not included) of a large frame on their way, as one frame of their own. */
static void put_part(Port *port, uint64_t due, const Meta *meta, const unsigned char *bytes, size_t length,
                     size_t headers, size_t from, size_t to) {
    static unsigned char part[FRAME];
    size_t start = headers + from * meta->gso_size, end = headers + to * meta->gso_size;
    if (end > length) end = length;
    if (start >= end) return;
    size_t payload = end - start;
    memcpy(part, bytes, headers);
    memcpy(part + headers, bytes + start, payload);
    struct iphdr *ip = (struct iphdr *)(part + ETH_HLEN);
    struct tcphdr *tcp = (struct tcphdr *)(part + meta->csum_start);
    uint16_t segment = (uint16_t)(headers - meta->csum_start + payload);
    ip->tot_len = htons((uint16_t)(headers - ETH_HLEN + payload));
    ip->id = htons((uint16_t)(ntohs(ip->id) + from));
    ip->check = 0;
    ip->check = htons((uint16_t)~folded(sum_of(ip, (size_t)ip->ihl * 4)));
    tcp->seq = htonl(ntohl(tcp->seq) + (uint32_t)(from * meta->gso_size));
    if (end < length) tcp->fin = tcp->psh = 0;
    /* The kernel adds the sum over the segment itself; what it wants here is that of the addresses and the length. */
    tcp->check = htons(folded(sum_of(&ip->saddr, 8) + IPPROTO_TCP + segment));
    Meta own = *meta;
    own.hdr_len = (uint16_t)headers;
    if (payload <= meta->gso_size) own.gso_type = VIRTIO_NET_HDR_GSO_NONE, own.gso_size = 0;
    put(port, due, &own, part, headers + payload);
}

/* The length of the headers of a large TCP frame over IPv4; 0 for every other frame. */
static size_t headers_of(const Meta *meta, const unsigned char *bytes) {
    if ((meta->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) != VIRTIO_NET_HDR_GSO_TCPV4 || !meta->gso_size) return 0;
    return meta->csum_start + 4u * ((const struct tcphdr *)(bytes + meta->csum_start))->doff;
}

/* Puts a frame on its way without those of its packets that are lost. */
static void put_rest(Port *port, uint64_t due, const Meta *meta, const unsigned char *bytes, size_t length) {
    size_t headers = headers_of(meta, bytes), from = 0;
    size_t packets = headers ? (length - headers + meta->gso_size - 1) / meta->gso_size : 1;
    carried += packets;
    if (until_loss >= packets) {
        until_loss -= packets;
        put(port, due, meta, bytes, length);
        return;
    }
    while (until_loss < packets - from) {
        size_t gone = from + until_loss;
        if (headers && gone > from) put_part(port, due, meta, bytes, length, headers, from, gone);
        lost++;
        from = gone + 1;
        until_loss = draw_gap();
    }
    until_loss -= packets - from;
    if (headers && from < packets) put_part(port, due, meta, bytes, length, headers, from, packets);
}

static void route(int from, const Meta *meta, const unsigned char *bytes, size_t length, uint64_t at) {
    const struct ether_header *head = (const struct ether_header *)bytes;
    int place = place_of(head->ether_shost);
    if (place >= 0) {
        memcpy(known[place].address, head->ether_shost, ETH_ALEN);
        known[place].port = from;
    }
    place = head->ether_dhost[0] & 1 ? -1 : place_of(head->ether_dhost);
    int to = place >= 0 ? known[place].port : -1;
    int far = ntohs(head->ether_type) == ETHERTYPE_IP;
    for (int i = to >= 0 ? to : 0; i < (to >= 0 ? to + 1 : port_count); i++) {
        Port *port = &ports[i];
        if (i == from) continue;
        if (!far) {
            /* Not behind what is under way to that port: it leaves at once. */
            struct iovec parts[2] = {{(void *)meta, sizeof *meta}, {(void *)bytes, length}};
            struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
            if (sendmsg(port->socket, &message, MSG_DONTWAIT) < 0) crowded++;
            continue;
        }
        double late = delay_ns + jitter_ns * (2.0 * drand48() - 1.0);
        uint64_t due = at + (uint64_t)(late > 0 ? late : 0);
        /* In order: nobody overtakes on the way to one port. */
        if (due < port->last_due) due = port->last_due;
        port->last_due = due;
        put_rest(port, due, meta, bytes, length);
    }
}

static void take(int from, uint64_t at) {
    static unsigned char buffer[sizeof(Meta) + FRAME];
    for (int i = 0; i < AT_ONCE; i++) {
        ssize_t count = recv(ports[from].socket, buffer, sizeof buffer, MSG_DONTWAIT);
        if (count < (ssize_t)(sizeof(Meta) + ETH_HLEN)) return;
        Meta meta;
        memcpy(&meta, buffer, sizeof meta);
        route(from, &meta, buffer + sizeof meta, (size_t)count - sizeof meta, at);
    }
}

/* Sends what is due. */
static void send_due(uint64_t until) {
    for (int i = 0; i < port_count; i++) {
        Port *port = &ports[i];
        while (port->first && port->first->due <= until) {
            Frame *frame = port->first;
            port->first = frame->next;
            if (!port->first) port->end = &port->first;
            /* ENOBUFS is tbf's queue that is full: a loss that the sender has to learn from, not the switch's. */
            if (send(port->socket, frame->bytes, frame->length, MSG_DONTWAIT) < 0 && errno != ENOBUFS) crowded++;
            waiting_bytes -= frame->length;
            free(frame);
        }
    }
}

static void open_port(const char *device) {
    Port *port = &ports[port_count];
    struct sockaddr_ll own = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    int on = 1, bytes = SOCKET_BYTES;
    own.sll_ifindex = (int)if_nametoindex(device);
    port->socket = socket(AF_PACKET, SOCK_RAW, 0);
    if (!own.sll_ifindex || port->socket < 0
        || setsockopt(port->socket, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on)
        || setsockopt(port->socket, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on)
        || setsockopt(port->socket, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes)
        || setsockopt(port->socket, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes)
        || bind(port->socket, (struct sockaddr *)&own, sizeof own)) {
        perror(device);
        exit(1);
    }
    port->end = &port->first;
    polled[port_count++] = (struct pollfd){.fd = port->socket, .events = POLLIN};
}

static void tell(void) {
    asked = 0;
    printf("%llu %llu %llu\n", (unsigned long long)carried, (unsigned long long)lost, (unsigned long long)crowded);
    fflush(stdout);
}

static void ask(int number) {
    (void)number;
    asked = 1;
}

int main(int count, char **words) {
    if (count < 7 || count - 5 > MOST_PORTS) {
        fprintf(stderr, "usage: switch DELAY_MS JITTER_MS LOSS_PERCENT SEED DEVICE DEVICE ...\n");
        return 2;
    }
    delay_ns = atof(words[1]) * 1e6;
    jitter_ns = atof(words[2]) * 1e6;
    loss_share = atof(words[3]) / 100;
    srand48(atol(words[4]));
    until_loss = draw_gap();
    for (int i = 0; i < MOST_ADDRESSES; i++) known[i].port = -1;
    for (int i = 5; i < count; i++) open_port(words[i]);
    /* A network does not wait for a processor: the switch goes before what is measured. */
    prctl(PR_SET_TIMERSLACK, 1);
    sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1});
    signal(SIGUSR1, ask);
    printf("ready\n");
    fflush(stdout);
    uint64_t tick = (uint64_t)delay_ns / 20;
    if (tick > LONGEST_TICK) tick = LONGEST_TICK;
    if (tick < SHORTEST_TICK) tick = SHORTEST_TICK;
    for (;;) {
        int ready = poll(polled, (nfds_t)port_count, waiting_bytes ? 0 : -1);
        if (ready < 0 && errno != EINTR) return 1;
        /* What has come since the last look came in the middle of that time, and what is due before the middle of the
         * next goes now: looking seldom makes no way longer on average. */
        uint64_t at = now();
        for (int i = 0; ready > 0 && i < port_count; i++)
            if (polled[i].revents) take(i, at - tick / 2);
        send_due(at + tick / 2);
        if (asked) tell();
        if (waiting_bytes) nanosleep(&(struct timespec){0, (long)tick}, NULL);
    }
}
