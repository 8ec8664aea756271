/*-------------------------------------------------------------------------
 *
 * list_peer.c
 *	  A remote list as an HTTP server: pages of records, after a time.
 *
 * Answers GET by the header "Range: items=FROM-TILL" with an object of records
 * keyed by number, and HEAD with their number alone, so many milliseconds after
 * the request is there.  The records are those of a file, one a line, again
 * and again, so a list of a million takes no more memory than one of a hundred.
 *
 *	 list_peer FILE RECORDS MILLISECONDS
 *
 * It listens on a free port of the loopback address, which it prints.  Each
 * connection has a process of its own, which ends with this one.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FIRST_KEY	1000000		/* all keys have seven digits */
#define KEY_BYTES	11			/* of a key with quotes, colon, and the comma or bracket behind its record */
#define MOST_LINES	100000
#define BUFFER		(1 << 18)

static char *lines[MOST_LINES];
static size_t lengths[MOST_LINES];
static long nlines;
static long total;
static long delay_ms;

static void
fail(const char *what)
{
	fprintf(stderr, "list_peer: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void
send_all(int fd, const char *bytes, size_t length)
{
	while (length > 0)
	{
		ssize_t		sent = write(fd, bytes, length);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			exit(0);
		bytes += sent;
		length -= sent;
	}
}

static void
send_page(int fd, long from, long till)
{
	static char buffer[BUFFER + 65536];
	size_t		have;
	size_t		length = till >= from ? 1 : 2;

	for (long i = from; i <= till; i++)
		length += KEY_BYTES + lengths[i % nlines];
	have = sprintf(buffer, "HTTP/1.1 206 Partial Content\r\nContent-Type: application/json\r\n"
				   "Content-Range: items=%ld-%ld/%ld\r\nContent-Length: %zu\r\n\r\n{", from, till, total, length);
	for (long i = from; i <= till; i++)
	{
		have += sprintf(buffer + have, "\"%ld\":", FIRST_KEY + i);
		memcpy(buffer + have, lines[i % nlines], lengths[i % nlines]);
		have += lengths[i % nlines];
		buffer[have++] = i < till ? ',' : '}';
		if (have > BUFFER)
		{
			send_all(fd, buffer, have);
			have = 0;
		}
	}
	if (till < from)
		buffer[have++] = '}';
	send_all(fd, buffer, have);
}

/* Answers what comes on a connection, as long as something comes. */
static void
serve(int fd)
{
	static char in[65536];
	size_t		have = 0;

	for (;;)
	{
		char	   *end;
		const char *range;
		long		from = 1;
		long		till = total;
		struct timespec pause = {delay_ms / 1000, delay_ms % 1000 * 1000000};

		while (in[have] = '\0', (end = strstr(in, "\r\n\r\n")) == NULL)
		{
			ssize_t		got = read(fd, in + have, sizeof(in) - 1 - have);

			if (got <= 0)
				return;
			have += got;
		}
		end[2] = '\0';
		nanosleep(&pause, NULL);
		range = strcasestr(in, "\r\nRange: items=");
		if (range)
			sscanf(range + 15, "%ld-%ld", &from, &till);
		if (strncmp(in, "HEAD ", 5) == 0)
		{
			char		head[200];

			send_all(fd, head, sprintf(head, "HTTP/1.1 200 OK\r\nContent-Range: items=0-0/%ld\r\nContent-Length: 0\r\n\r\n",
									   total));
		}
		else
			send_page(fd, from, till < total ? till : total);
		have -= end + 4 - in;
		memmove(in, end + 4, have);
	}
}

static void
read_records(const char *name)
{
	FILE	   *file = fopen(name, "r");
	char	   *line = NULL;
	size_t		size = 0;
	ssize_t		length;

	if (file == NULL)
		fail(name);
	while (nlines < MOST_LINES && (length = getline(&line, &size, file)) > 0)
	{
		if (line[length - 1] == '\n')
			length--;
		if (length > 32768)
			fail("a record is too long");
		lines[nlines] = strndup(line, length);
		lengths[nlines++] = length;
	}
	if (nlines == 0)
		fail(name);
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	length = sizeof(address);
	int			yes = 1;
	int			listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (argc != 4)
	{
		fprintf(stderr, "usage: list_peer FILE RECORDS MILLISECONDS\n");
		return 2;
	}
	read_records(argv[1]);
	total = atol(argv[2]);
	delay_ms = atol(argv[3]);
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (listener < 0 || bind(listener, (struct sockaddr *) &address, length) != 0 || listen(listener, 64) != 0 ||
		getsockname(listener, (struct sockaddr *) &address, &length) != 0)
		fail("listen");
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	for (;;)
	{
		int			fd = accept(listener, NULL, NULL);

		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
		if (fork() == 0)
		{
			prctl(PR_SET_PDEATHSIG, SIGTERM);
			serve(fd);
			return 0;
		}
		close(fd);
	}
}
