/*-------------------------------------------------------------------------
 *
 * slow_peer.c
 *	  A remote system that takes its time, as an HTTP server.
 *
 * Answers every request with 201 and a small record, so many milliseconds
 * after it is there; a path that begins with /after/MS/ has its own time.
 * What it saw is in its log, a line for each request answered:
 *
 *	 ARRIVED ANSWERED STATUS BYTES STAMP PATH
 *
 * times in seconds since 1970, bytes of head and body, the value of the header
 * X-Concurrency-Stamp or -.  Lines may be some milliseconds late.
 *
 *	 slow_peer MILLISECONDS LOG
 *
 * It listens on a free port of the loopback address, which it prints; one
 * thread, one epoll set, so that it is never what a comparison is limited by.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_A_WAIT	128
#define MAX_REQUEST		65536
#define FLUSH_MS		20

/* A connection; a request on it that waits for its time is in the list. */
typedef struct Connection
{
	int			fd;
	size_t		have;
	size_t		length;			/* of the request that waits; 0: none does */
	double		arrived;
	double		due;
	struct Connection *before;
	struct Connection *after;
	char		in[MAX_REQUEST + 1];
} Connection;

/* Requests that wait, by the time they are due. */
static Connection *first;
static Connection *last;

static long usual_ms;
static long answered;
static FILE *log_file;
static int	epoll_fd;

static void
fail(const char *what)
{
	fprintf(stderr, "slow_peer: %s: %s\n", what, strerror(errno));
	exit(2);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void
unlink_waiting(Connection *c)
{
	*(c->before ? &c->before->after : &first) = c->after;
	*(c->after ? &c->after->before : &last) = c->before;
	c->before = c->after = NULL;
	c->length = 0;
}

/* Most have the same delay, so the place is found from the end at once. */
static void
link_waiting(Connection *c)
{
	Connection *before = last;

	while (before && before->due > c->due)
		before = before->before;
	c->before = before;
	c->after = before ? before->after : first;
	*(c->before ? &c->before->after : &first) = c;
	*(c->after ? &c->after->before : &last) = c;
}

static void
hang_up(Connection *c)
{
	if (c->length > 0)
		unlink_waiting(c);
	close(c->fd);
	free(c);
}

/* A header of the head, which ends with NUL: its value, without blanks before it. */
static const char *
header(const char *head, const char *name)
{
	size_t		length = strlen(name);

	for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n"))
	{
		line += 2;
		if (strncasecmp(line, name, length) == 0 && line[length] == ':')
			return line + length + 1 + strspn(line + length + 1, " ");
	}
	return NULL;
}

/* Looks whether a whole request is there, and sets its time. */
static void
take_request(Connection *c)
{
	char	   *end;
	const char *length;
	const char *path;
	long		ms = usual_ms;

	c->in[c->have] = '\0';
	end = strstr(c->in, "\r\n\r\n");
	if (end == NULL)
		return;
	end[2] = '\0';
	length = header(c->in, "Content-Length");
	end[2] = '\r';
	c->length = end + 4 - c->in + (length ? strtoul(length, NULL, 10) : 0);
	if (c->have < c->length)
	{
		c->length = 0;
		return;
	}
	path = strchr(c->in, ' ');
	if (path)
		sscanf(path, " /after/%ld/", &ms);
	c->arrived = now();
	c->due = c->arrived + ms / 1000.0;
	link_waiting(c);
}

static void
receive(Connection *c)
{
	ssize_t		got = read(c->fd, c->in + c->have, MAX_REQUEST - c->have);

	if (got <= 0)
	{
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		hang_up(c);
		return;
	}
	c->have += got;
	if (c->length == 0)
		take_request(c);
}

/* Answers the request of a connection. */
static void
answer(Connection *c)
{
	char		body[100];
	char		text[400];
	int			body_length;
	int			text_length;
	const char *stamp;
	char	   *path;
	size_t		length = c->length;

	answered++;
	body_length = sprintf(body, "{\"id\": %ld, \"number\": \"%ld\"}", answered, answered);
	text_length = sprintf(text, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
						  body_length, body);
	unlink_waiting(c);
	if (write(c->fd, text, text_length) != text_length)
	{
		hang_up(c);
		return;
	}

	/* the log shows the head in pieces, so it is cut up last */
	c->in[length - 1] = '\0';
	stamp = header(c->in, "X-Concurrency-Stamp");
	path = strchr(c->in, ' ');
	path = path ? path + 1 : c->in;
	fprintf(log_file, "%.6f %.6f 201 %zu %.*s %.*s\n", c->arrived, now(), length,
			stamp ? (int) strcspn(stamp, "\r") : 1, stamp ? stamp : "-", (int) strcspn(path, " \r\n"), path);

	memmove(c->in, c->in + length, c->have - length);
	c->have -= length;
	take_request(c);
}

static void
greet(int listener)
{
	int			yes = 1;
	int			fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	Connection *c;
	struct epoll_event event = {.events = EPOLLIN};

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	c = calloc(1, sizeof(Connection));
	if (c == NULL)
		fail("calloc");
	c->fd = fd;
	event.data.ptr = c;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		fail("epoll_ctl");
}

static int
listen_somewhere(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	length = sizeof(address);
	int			fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};

	if (fd < 0 || bind(fd, (struct sockaddr *) &address, length) != 0 || listen(fd, 1024) != 0 ||
		getsockname(fd, (struct sockaddr *) &address, &length) != 0)
		fail("listen");
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		fail("epoll_ctl");
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	return fd;
}

int
main(int argc, char **argv)
{
	int			listener;

	if (argc != 3 || (log_file = fopen(argv[2], "w")) == NULL)
		fail("usage: slow_peer MILLISECONDS LOG");
	usual_ms = atol(argv[1]);
	setvbuf(log_file, NULL, _IOFBF, 1 << 18);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	listener = listen_somewhere();

	for (;;)
	{
		struct epoll_event events[EVENTS_A_WAIT];
		int			wait_ms = FLUSH_MS;
		int			count;

		/* epoll's milliseconds are long enough; never answer too early */
		if (first)
		{
			double		left = (first->due - now()) * 1000;

			wait_ms = left < 0 ? 0 : left + 0.999;
			wait_ms = wait_ms < FLUSH_MS ? wait_ms : FLUSH_MS;
		}
		count = epoll_wait(epoll_fd, events, EVENTS_A_WAIT, wait_ms);
		if (count == 0 && wait_ms == FLUSH_MS)
			fflush(log_file);
		for (int i = 0; i < count; i++)
		{
			if (events[i].data.ptr == NULL)
				greet(listener);
			else
				receive(events[i].data.ptr);
		}
		while (first && first->due <= now())
			answer(first);
	}
}
