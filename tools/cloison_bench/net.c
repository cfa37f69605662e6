// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a network context costs its sockets, with a few addresses and with many, beside a network
 * namespace that is reached over a pair of virtual interfaces.
 *
 * A child makes the servers where the column says and hands them over, so that one process on the host
 * sends, receives, connects and accepts: who a socket belongs to is decided where it is made, and what
 * is counted is the way of the packet and not a change of processes.
 *
 * Kernel command line: bench.rows=net, bench.place=host, context or netns, bench.addresses=N.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define NID 100
#define PORT 7
#define PLACES 10000
#define FIRST 0x0a400001u /* 10.64.0.1, and those behind it */
#define PEER 0x0a3f0001u  /* 10.63.0.1, the host's end of the pair */

enum { STREAM, DATAGRAM, SERVERS };

static struct sockaddr_in server_address;
static int servers[SERVERS], client;
static char byte_buffer[1];

/* --- routing netlink: one request at a time, in one buffer */

static struct {
	struct nlmsghdr head;
	char body[1024];
} request;

static void *begin(int type, int flags, const void *header, size_t size)
{
	memset(&request, 0, sizeof(request));
	request.head.nlmsg_type = type;
	request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	request.head.nlmsg_len = NLMSG_LENGTH(size);
	return memcpy(NLMSG_DATA(&request.head), header, size);
}

static struct rtattr *put(int type, const void *data, size_t size)
{
	struct rtattr *attr = (void *)((char *)&request + NLMSG_ALIGN(request.head.nlmsg_len));

	attr->rta_type = type;
	attr->rta_len = RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(attr), data, size);
	request.head.nlmsg_len = NLMSG_ALIGN(request.head.nlmsg_len) + RTA_ALIGN(attr->rta_len);
	return attr;
}

static void close_nest(struct rtattr *attr)
{
	attr->rta_len = (char *)&request + request.head.nlmsg_len - (char *)attr;
}

static void ask(const char *what)
{
	struct { struct nlmsghdr head; struct nlmsgerr error; char more[1024]; } answer;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	must(fd >= 0 && send(fd, &request, request.head.nlmsg_len, 0) > 0, what);
	must(recv(fd, &answer, sizeof(answer), 0) > 0, what);
	errno = -answer.error.error;
	must(answer.head.nlmsg_type == NLMSG_ERROR && !answer.error.error, what);
	close(fd);
}

static void link_up(const char *name)
{
	struct ifinfomsg link = { .ifi_index = if_nametoindex(name), .ifi_flags = IFF_UP, .ifi_change = IFF_UP };

	begin(RTM_NEWLINK, 0, &link, sizeof(link));
	ask(name);
}

static void add_address(const char *name, uint32_t address, int prefix)
{
	struct ifaddrmsg head = { .ifa_family = AF_INET, .ifa_prefixlen = prefix, .ifa_index = if_nametoindex(name) };
	uint32_t wire = htonl(address);

	begin(RTM_NEWADDR, NLM_F_CREATE, &head, sizeof(head));
	put(IFA_LOCAL, &wire, 4);
	put(IFA_ADDRESS, &wire, 4);
	ask("address");
}

static void add_route(const char *name, uint32_t to, int prefix, int type)
{
	int local = type == RTN_LOCAL;
	struct rtmsg head = {
		.rtm_family = AF_INET, .rtm_dst_len = prefix, .rtm_protocol = RTPROT_STATIC, .rtm_type = type,
		.rtm_table = local ? RT_TABLE_LOCAL : RT_TABLE_MAIN, .rtm_scope = local ? RT_SCOPE_HOST : RT_SCOPE_LINK,
	};
	uint32_t target = htonl(to);
	int index = if_nametoindex(name);

	begin(RTM_NEWROUTE, NLM_F_CREATE, &head, sizeof(head));
	put(RTA_DST, &target, 4);
	put(RTA_OIF, &index, 4);
	ask("route");
}

static void make_pair(pid_t peer)
{
	struct ifinfomsg link = { 0 };
	struct rtattr *info, *data, *other;

	begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof(link));
	put(IFLA_IFNAME, "bench0", 7);
	info = put(IFLA_LINKINFO, NULL, 0);
	put(IFLA_INFO_KIND, "veth", 4);
	data = put(IFLA_INFO_DATA, NULL, 0);
	other = put(VETH_INFO_PEER, &link, sizeof(link));
	put(IFLA_IFNAME, "bench1", 7);
	put(IFLA_NET_NS_PID, &peer, sizeof(peer));
	close_nest(other);
	close_nest(data);
	close_nest(info);
	ask("veth");
	add_address("bench0", PEER, 32);
	link_up("bench0");
	add_route("bench0", FIRST, 32, RTN_UNICAST);
}

/* --- places */

struct net_address { /* of net_add_ipv4 */
	uint16_t type, flags;
	uint32_t ip, ip2, mask;
};

static void enter_network(int addresses)
{
	uint64_t flags = FLAG_STATE_ADMIN;

	must(vserver(VCMD_NET_CREATE, NID, &flags) == NID, "net_create");
	for (int i = 0; i < addresses; i++) {
		struct net_address one = { .type = 0x10, .ip = htonl(FIRST + i), .mask = 0xffffffffu };

		must(vserver(VCMD_NET_ADD_IPV4, NID, &one) == 0, "net_add_ipv4");
	}
}

static int listen_any(int type)
{
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int fd = socket(AF_INET, type, 0);

	must(fd >= 0 && bind(fd, (void *)&any, sizeof(any)) == 0, "bind");
	must(type != SOCK_STREAM || listen(fd, 8) == 0, "listen");
	return fd;
}

static void op_bind(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	must(fd >= 0 && bind(fd, (void *)&any, sizeof(any)) == 0 && listen(fd, 8) == 0, "bind");
	close(fd);
}

static void op_bind_own(void)
{
	struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(FIRST) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	must(fd >= 0 && bind(fd, (void *)&own, sizeof(own)) == 0 && listen(fd, 8) == 0, "bind");
	close(fd);
}

static void op_connect(void)
{
	struct linger at_once = { .l_onoff = 1 };
	int from = socket(AF_INET, SOCK_STREAM, 0), to;

	must(connect(from, (void *)&server_address, sizeof(server_address)) == 0, "connect");
	to = accept(servers[STREAM], NULL, NULL);
	must(to >= 0, "accept");
	setsockopt(from, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)); /* a reset: no TIME_WAIT piles up */
	close(from);
	close(to);
}

static void op_receive(void)
{
	must(send(client, byte_buffer, 1, 0) == 1, "send");
	must(recv(servers[DATAGRAM], byte_buffer, 1, 0) == 1, "recv");
}

static void op_round_trip(void)
{
	struct sockaddr_in from;
	socklen_t size = sizeof(from);

	must(send(client, byte_buffer, 1, 0) == 1, "send");
	must(recvfrom(servers[DATAGRAM], byte_buffer, 1, 0, (void *)&from, &size) == 1, "recvfrom");
	must(sendto(servers[DATAGRAM], byte_buffer, 1, 0, (void *)&from, size) == 1, "sendto");
	must(recv(client, byte_buffer, 1, 0) == 1, "recv");
}

static void hand_over(int channel)
{
	char control[CMSG_SPACE(sizeof(servers))];
	struct iovec part = { byte_buffer, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(servers));
	memcpy(CMSG_DATA(head), servers, sizeof(servers));
	must(sendmsg(channel, &message, 0) == 1, "sendmsg");
}

static void take_over(int channel)
{
	char control[CMSG_SPACE(sizeof(servers))];
	struct iovec part = { byte_buffer, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };

	must(recvmsg(channel, &message, 0) == 1 && CMSG_FIRSTHDR(&message), "servers");
	memcpy(servers, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(servers));
}

/* In a child: go to the place, make the servers, measure what binding costs there. */
static void serve(int channel, const char *place, int addresses)
{
	if (!strcmp(place, "context"))
		enter_network(addresses);
	if (!strcmp(place, "netns")) {
		must(unshare(CLONE_NEWNET) == 0, "unshare");
		must(write(channel, "n", 1) == 1 && read(channel, byte_buffer, 1) == 1, "pair");
		link_up("lo");
		add_address("bench1", FIRST, 32); /* its only one: what a wildcard socket answers from */
		link_up("bench1");
		add_route("bench1", PEER, 32, RTN_UNICAST);
	}
	measure("socket+bind+listen", 20, op_bind);
	measure("socket+bind own+listen", 20, op_bind_own);
	servers[STREAM] = listen_any(SOCK_STREAM);
	servers[DATAGRAM] = listen_any(SOCK_DGRAM);
	hand_over(channel);
	must(read(channel, byte_buffer, 1) == 1, "end");
}

void net_rows(const char *place, int addresses)
{
	int channel[2];
	pid_t child;

	must(addresses <= PLACES, "addresses");
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0, "socketpair");
	if (strcmp(place, "netns")) /* 10.64.0.0/14 on lo: no number of addresses fills an interface */
		add_route("lo", FIRST & ~0x3ffffu, 14, RTN_LOCAL);
	child = fork();
	if (child == 0) {
		serve(channel[1], place, addresses);
		_exit(0);
	}
	if (!strcmp(place, "netns")) {
		must(read(channel[0], byte_buffer, 1) == 1, "netns");
		make_pair(child);
		must(write(channel[0], "n", 1) == 1, "netns");
	}
	take_over(channel[0]);
	/* The last of its addresses: nobody can have looked for it by beginning at the first. */
	server_address = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(FIRST + (addresses ? addresses - 1 : 0)),
	};
	client = socket(AF_INET, SOCK_DGRAM, 0);
	must(client >= 0 && connect(client, (void *)&server_address, sizeof(server_address)) == 0, "client");
	measure("connect+accept", 4, op_connect);
	measure("udp receive", 20, op_receive);
	measure("udp round trip", 20, op_round_trip);
	must(write(channel[0], "e", 1) == 1 && waitpid(child, NULL, 0) == child, "end");
}
